"""Online hard example mining: which pixels a term is trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from prove.losses.pixels import Pixels


def hard_mass(pixels: Pixels, thresh: float, min_kept: int) -> Tensor:
    """The mass of each pixel where it is hard, and 0 where it is not.

    Hard is ``p_y < t``, where t is the larger of ``thresh`` and the (k+1)-th smallest p_y of the batch,
    ``k = min_kept * N`` (Shrivastava 2016, as in mmsegmentation's `OHEMPixelSampler`). With k or fewer valid pixels
    all are hard but the surest, unless it is below ``thresh`` too.

    Args:
        thresh: probability in (0, 1] below which a pixel is always hard.
        min_kept: pixels that are kept at least, times the images of the batch; >= 1.

    Returns:
        [N, H, W], without a graph.
    """
    with torch.no_grad():
        # not pixels.probs: computed in here, it would be kept without a graph for the terms that follow
        prob = pixels.of_label(pixels.logits.softmax(dim=1))
        candidates = prob[pixels.valid]
        if candidates.numel() == 0:
            return pixels.mass
        last = min(min_kept * pixels.labels.shape[0], candidates.numel() - 1)
        threshold = candidates.kthvalue(last + 1).values.clamp(min=thresh)
        return torch.where(prob < threshold, pixels.mass, 0.0)
