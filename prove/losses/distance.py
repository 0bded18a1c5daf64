"""Kervadec's boundary loss: how far the predicted probability lies from its class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prove.errors import ProveError
from prove.losses.distance_maps import distance_maps
from prove.losses.pixels import Classes, Pixels, ratio
from prove.losses.term import Term


class Distance(Term):
    """``sum_c sum(m * p_c * phi_c) / sum(m)`` over pixels of mass m (1, or the weight per pixel).

    Kervadec 2019 (arXiv:1812.07032), with the signed distance map phi_c of the class in the labels of an image
    (`distance_maps`): positive outside, negative inside, zero for a class that the image lacks or that fills it.
    Linear in the probabilities, and bounded by the size of the image: it may be negative, and it is smallest, not 0,
    at a perfect prediction. The usual schedule starts it at weight 0.01 beside a region loss and raises it:
    ``linear(0.01->1)*distance``.

    The maps come with the batch where the data workers computed them; otherwise they are computed here, in scipy on
    the CPU: two transforms for each class present in each image.

    Args:
        classes: over which the sum runs: ``all``, ``present`` (which is the same), or a list.

    Raises:
        ProveError: maps that don't fit the logits.
    """

    name = "distance"

    def __init__(self, classes: Classes = "all", ignore_index: int = 255) -> None:
        super().__init__(ignore_index)
        self.classes = classes

    def value(self, pixels: Pixels) -> Tensor:
        """The unweighted value, a scalar."""
        chosen = pixels.averaged(self.classes, pixels.one_hot.flatten(2).any(dim=2).any(dim=0))
        per_class = torch.where(chosen.view(1, -1, 1, 1), pixels.probs * _maps_of(pixels), 0.0)
        return ratio((pixels.mass * per_class.sum(dim=1)).sum(), pixels.mass.sum())

    def extra_repr(self) -> str:
        """The parameters, for printing a model."""
        return f"classes={self.classes!r}"


def _maps_of(pixels: Pixels) -> Tensor:
    """[N, C, H, W], of the logits' type."""
    logits = pixels.logits
    given: Tensor | None = getattr(pixels, "distance_maps", None)
    if given is None:
        labels = torch.where(pixels.valid, pixels.labels, -1).cpu().numpy()
        dtype = np.float64 if logits.dtype == torch.float64 else np.float32
        maps = np.stack([distance_maps(image, pixels.num_classes, ignore_index=-1, dtype=dtype) for image in labels])
        return torch.from_numpy(maps).to(logits.device)
    if given.shape != logits.shape:
        raise ProveError(
            f"The distance maps are {list(given.shape)}; the logits ask for {list(logits.shape)}.",
            hint="Compute them with prove.losses.distance_maps.distance_maps from the labels of this very batch.",
        )
    return given.to(logits)
