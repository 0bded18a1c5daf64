"""Hausdorff loss in its distance transform form."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prove.losses.distance_maps import border_distances
from prove.losses.pixels import Classes, Pixels, ratio
from prove.losses.term import Term


class Hausdorff(Term):
    """Mean over classes of ``sum(m * (p_c - g_c)^2 * (d_p^alpha + d_g^alpha)) / sum(m)``, >= 0.

    Karimi & Salcudean 2019 (arXiv:1904.10030), in the form with distance transforms, over pixels of mass m (1, or the
    weight per pixel) with g the one-hot labels: d_g is the Euclidean distance to the border of class c in the labels
    of the image, d_p to that of the prediction ``p_c > 0.5``, which carries no gradient; both in pixels and on either
    side of the border (`border_distances`). Ignored pixels are neither predicted nor labelled as any class. A mask
    that is empty, or the whole image, has no border: its distance is 0 everywhere. A perfect prediction is worth 0.

    Cost: in every step up to four distance transforms per class and image, in scipy on the CPU.

    Args:
        alpha: how much far errors count more, >= 0; 1 to 3 in the paper.
        classes: over which the mean runs: ``all``, ``present`` in the labels of the batch, or a list.
    """

    name = "hausdorff"

    def __init__(self, alpha: float = 2.0, classes: Classes = "all", ignore_index: int = 255) -> None:
        super().__init__(ignore_index)
        self.alpha = alpha
        self.classes = classes

    def value(self, pixels: Pixels) -> Tensor:
        """The unweighted value, a scalar."""
        probs, own = pixels.probs, pixels.one_hot
        chosen = pixels.averaged(self.classes, own.flatten(2).any(dim=2).any(dim=0))
        with torch.no_grad():
            predicted = (probs > 0.5) & pixels.valid[:, None]
            far = _powers(predicted, chosen, self.alpha, probs) + _powers(own, chosen, self.alpha, probs)
        # far is 0 at the classes that are not chosen
        losses = torch.where(own, 1.0 - probs, probs).square() * far
        count = chosen.sum().to(losses.dtype)
        return ratio((pixels.mass[:, None] * losses).sum(), pixels.mass.sum() * count)

    def extra_repr(self) -> str:
        """The parameters, for printing a model."""
        return f"alpha={self.alpha}, classes={self.classes!r}"


def _powers(masks: Tensor, chosen: Tensor, alpha: float, like: Tensor) -> Tensor:
    """``d ** alpha`` for masks [N, C, H, W]; 0 for the classes that are not chosen, and where there is no border."""
    powers = np.zeros(masks.shape)
    images, wanted = masks.cpu().numpy(), chosen.nonzero().squeeze(1).tolist()
    for image, power in zip(images, powers, strict=True):
        for index in wanted:
            distances = border_distances(image[index])
            np.power(distances, alpha, out=power[index], where=distances > 0)
    return torch.from_numpy(powers).to(like)
