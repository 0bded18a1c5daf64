"""Lovász-Softmax; exact in plain torch, whatever the method."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from prove.losses.pixels import Classes, Pixels
from prove.losses.term import Term


class Lovasz(Term):
    """The Lovász extension of the Jaccard loss ``1 - IoU``, mean over classes and images, in [0, 1].

    Berman 2018 (arXiv:1705.08790), Alg. 1: the errors ``|[y = c] - p_c|`` of a class, sorted descending, times the
    growth of the Jaccard loss as each pixel becomes wrong. For 0/1 predictions it is ``1 - IoU`` exactly. An image
    without a valid pixel is left out of the mean.

    Args:
        classes: over which the mean runs: ``all``, ``present`` in the labels (of the image, or of the batch when not
            ``per_image``), or a list. The loss of an absent class is its largest probability.
        per_image: one IoU per image, then the mean; otherwise one over the batch.
        method: how the fused kernels compute it: ``exact`` sorts the errors, ``binned`` counts them in bins, ``auto``
            is exact on small inputs and binned with a certified relative error of at most 1e-3 on large ones. In plain
            torch, as `value` computes it, all three sort and are exact.
    """

    name = "lovasz"
    refuses_weight = "it ranks pixels, and the ranking has no place for one"

    def __init__(
        self,
        classes: Classes = "all",
        per_image: bool = True,
        method: Literal["auto", "exact", "binned"] = "auto",
        ignore_index: int = 255,
    ) -> None:
        super().__init__(ignore_index)
        self.classes = classes
        self.per_image = per_image
        self.method = method

    def value(self, pixels: Pixels) -> Tensor:
        """The unweighted value, a scalar."""
        errors, own, valid = self._grouped(pixels)
        with torch.no_grad():
            weights = self._pixel_weights(pixels, errors.detach(), own, valid)
        # for a given ranking the extension is linear in the errors, so this has its value and its subgradient
        return (errors * weights).sum()

    def _grouped(self, pixels: Pixels) -> tuple[Tensor, Tensor, Tensor]:
        """Errors and one-hot labels as [groups, C, P], valid as [groups, P]: a group is an image, or the batch."""
        own, valid = pixels.one_hot, pixels.valid
        errors = torch.where(own, 1.0 - pixels.probs, pixels.probs)
        if self.per_image:
            return errors.flatten(2), own.flatten(2), valid.flatten(1)
        return (
            errors.transpose(0, 1).flatten(1)[None],
            own.transpose(0, 1).flatten(1)[None],
            valid.flatten()[None],
        )

    def _pixel_weights(self, pixels: Pixels, errors: Tensor, own: Tensor, valid: Tensor) -> Tensor:
        """The factor of each error in the loss, the means over classes and groups included; 0 at ignored pixels."""
        weights = torch.zeros_like(errors)
        chosen = pixels.averaged(self.classes, own.any(dim=2))
        groups = int(valid.any(dim=1).sum())
        for group in range(len(errors)):
            kept = valid[group].nonzero().squeeze(1)
            indices = chosen[group].nonzero().squeeze(1).tolist()
            if kept.numel() == 0:
                continue
            for index in indices:
                factor = 1.0 / (groups * len(indices))
                weights[group, index, kept] = factor * jaccard_growth(
                    errors[group, index, kept], own[group, index, kept]
                )
        return weights


def jaccard_growth(errors: Tensor, own: Tensor) -> Tensor:
    """The Lovász gradient of the Jaccard loss of one class, in the order of its arguments.

    The Jaccard loss after the k worst pixels are wrong is ``1 - (G - F) / (G + B)``, with G pixels of the class, F of
    them and B others among the k. Its growth at a pixel needs no difference of two such numbers: ``1 / (G + B)`` at a
    pixel of the class, ``(G - F) / ((G + r) (G + r - 1))`` at the r-th other pixel.

    Args:
        errors: [P], >= 0.
        own: [P] bool, whether the pixel is of the class.

    Returns:
        [P], >= 0, of the errors' type; the counts behind it are integers.
    """
    growth = torch.zeros_like(errors)
    total = own.sum()
    if total == 0:
        growth[errors.argmax()] = 1.0  # the first wrong pixel takes the loss from 0 to 1
        return growth
    # others below every pixel of the class come when the loss is 1 already: growth 0, no need to rank them
    ranked = (errors >= errors[own].min()).nonzero().squeeze(1)
    ranked = ranked[errors[ranked].argsort(descending=True, stable=True)]
    own = own[ranked]
    own_so_far = own.cumsum(0)
    others_so_far = (~own).cumsum(0)
    union = (total + others_so_far).to(errors.dtype)
    missing = (total - own_so_far).to(errors.dtype)
    growth[ranked] = torch.where(own, 1.0 / union, missing / (union * (union - 1.0)))
    return growth
