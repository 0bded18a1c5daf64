"""Focal loss in its softmax form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from prove.losses.pixels import Pixels, ratio
from prove.losses.term import Term


class Focal(Term):
    """``sum(m * alpha_y * (1 - p_y)^gamma * -log p_y) / sum(m)`` over pixels of mass m, in [0, inf).

    Lin 2017 (arXiv:1708.02002), eq. 5, with softmax probabilities; gamma = 0 and alpha = 1 is `CrossEntropy`.

    Args:
        gamma: how fast easy pixels fade, >= 0.
        alpha: a factor, or one per class; it does not enter the divisor.
    """

    name = "focal"

    def __init__(self, gamma: float = 2.0, alpha: float | Sequence[float] = 0.5, ignore_index: int = 255) -> None:
        super().__init__(ignore_index)
        self.gamma = gamma
        self.alpha = alpha if isinstance(alpha, int | float) else tuple(alpha)

    def value(self, pixels: Pixels) -> Tensor:
        """The unweighted value, a scalar."""
        # A softmax seen from one class is a sigmoid of its margin over all others: p = sigmoid(m), 1 - p = sigmoid(-m).
        # Neither cancels, and (1 - p)^gamma = exp(gamma * logsigmoid(-m)) has a finite derivative for every gamma.
        others = pixels.logits.masked_fill(pixels.one_hot, -torch.inf).logsumexp(dim=1)
        margin = pixels.of_label(pixels.logits) - others
        loss = -F.logsigmoid(margin) * torch.exp(self.gamma * F.logsigmoid(-margin))
        if isinstance(self.alpha, tuple):
            loss = loss * pixels.per_class(self.alpha, "alpha")[pixels.labels]
        else:
            loss = loss * self.alpha
        return ratio((pixels.mass * loss).sum(), pixels.mass.sum())

    def extra_repr(self) -> str:
        """The parameters, for printing a model."""
        return f"gamma={self.gamma}, alpha={self.alpha}"
