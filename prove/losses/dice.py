"""Soft Dice loss."""

from __future__ import annotations

import torch
from torch import Tensor

from prove.losses.pixels import Classes, Pixels, ratio
from prove.losses.term import Term


class Dice(Term):
    """Mean over classes of ``1 - (2 I + s) / (P + G + s)``, summed over the whole batch, in [0, 1].

    ``I = sum(m p g)``, ``P = sum(m p)`` (``sum(m p^2)`` when squared: V-Net, Milletari 2016, arXiv:1606.04797),
    ``G = sum(m g)`` over pixels of mass m, with g the one-hot labels. The loss of a perfect prediction is 0.

    Args:
        smooth: s, in pixels, >= 0. A class with ``P + G + s = 0`` has loss 0.
        squared: square the probabilities in P.
        classes: over which the mean runs: ``present`` in the labels of the batch, ``all``, or a list.
    """

    name = "dice"

    def __init__(
        self, smooth: float = 1.0, squared: bool = False, classes: Classes = "present", ignore_index: int = 255
    ) -> None:
        super().__init__(ignore_index)
        self.smooth = smooth
        self.squared = squared
        self.classes = classes

    def value(self, pixels: Pixels) -> Tensor:
        """The unweighted value, a scalar."""
        mass, probs = pixels.mass[:, None], pixels.probs
        errors = torch.where(pixels.one_hot, 1.0 - probs, probs)
        if self.squared:
            probs, errors = probs.square(), errors.square()
        predicted = (mass * probs).sum(dim=(0, 2, 3))
        truth = torch.where(pixels.one_hot, mass, 0.0).sum(dim=(0, 2, 3))
        # P + G - 2I is the sum of the errors |g - p| (of their squares when P is squared), which can't cancel
        losses = ratio((mass * errors).sum(dim=(0, 2, 3)), predicted + truth + self.smooth)
        chosen = pixels.averaged(self.classes, truth > 0)
        return ratio(torch.where(chosen, losses, 0.0).sum(), chosen.sum().to(losses.dtype))

    def extra_repr(self) -> str:
        """The parameters, for printing a model."""
        return f"smooth={self.smooth}, squared={self.squared}, classes={self.classes!r}"
