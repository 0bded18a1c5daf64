"""Focal loss, over a softmax or one class against all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from prove.errors import ProveError
from prove.losses.ohem import hard_mass
from prove.losses.pixels import Pixels, ratio
from prove.losses.term import Term


class Focal(Term):
    """Cross-entropy times ``(1 - p)^gamma``, in [0, inf): Lin 2017 (arXiv:1708.02002), eq. 5.

    ``softmax``: ``sum(m * alpha_y * (1 - p_y)^gamma * -log p_y) / sum(m)`` over pixels of mass m (1, or the weight per
    pixel). gamma = 0 and alpha = 1 is `CrossEntropy`. With ``ohem`` only hard pixels have mass (`hard_mass`), above
    and below the line.

    ``sigmoid``: one class against all: ``sum(m * sum_c a_c * (1 - q_c)^gamma * -log q_c) / sum(m)``, where q_c is
    ``sigmoid(z_c)`` and a_c alpha for the pixel's own class, ``sigmoid(-z_c)`` and ``1 - alpha`` for every other:
    `torchvision.ops.sigmoid_focal_loss`, summed over the classes and divided by the mass of the valid pixels.

    Args:
        gamma: how fast easy pixels fade, >= 0.
        alpha: a factor > 0, or one >= 0 per class; at most 1 in the sigmoid form. It does not enter the divisor.
        form: as above.
        ohem: train on hard pixels only; softmax form only.
        thresh: probability in (0, 1] below which a pixel is hard.
        min_kept: pixels kept at least, times the images of the batch.

    Raises:
        ProveError: an unknown form; ``ohem`` or an alpha above 1 in the sigmoid form.
    """

    name = "focal"

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | Sequence[float] = 0.5,
        form: Literal["softmax", "sigmoid"] = "softmax",
        ohem: bool = False,
        thresh: float = 0.7,
        min_kept: int = 100_000,
        ignore_index: int = 255,
    ) -> None:
        super().__init__(ignore_index)
        self.form = form
        self.gamma = gamma
        self.alpha = alpha if isinstance(alpha, int | float) else tuple(alpha)
        self.ohem = ohem
        self.thresh = thresh
        self.min_kept = min_kept
        if form not in ("softmax", "sigmoid"):
            raise ProveError(f"Unknown form {form!r} of the focal loss.", hint="Valid: softmax, sigmoid.")
        if form == "sigmoid":
            self._check_sigmoid()

    def value(self, pixels: Pixels) -> Tensor:
        """The unweighted value, a scalar."""
        if self.form == "sigmoid":
            return ratio((pixels.mass * self._one_against_all(pixels)).sum(), pixels.mass.sum())
        mass = hard_mass(pixels, self.thresh, self.min_kept) if self.ohem else pixels.mass
        return ratio((mass * focal_of_label(pixels, self.gamma, self.alpha)).sum(), mass.sum())

    def _one_against_all(self, pixels: Pixels) -> Tensor:
        """[N, H, W], summed over the classes."""
        # towards the truth: log q = logsigmoid(u) and log(1 - q) = logsigmoid(-u), as finite as in the softmax form
        towards = torch.where(pixels.one_hot, pixels.logits, -pixels.logits)
        loss = -F.logsigmoid(towards) * torch.exp(self.gamma * F.logsigmoid(-towards))
        alpha = _alpha_of(pixels, self.alpha).view(1, -1, 1, 1)
        return (torch.where(pixels.one_hot, alpha, 1.0 - alpha) * loss).sum(dim=1)

    def _check_sigmoid(self) -> None:
        if self.ohem:
            raise ProveError(
                "focal takes no ohem in its sigmoid form: mining ranks pixels by their softmax probability.",
                hint="Use form='softmax', or leave ohem out.",
            )
        highest = self.alpha if isinstance(self.alpha, int | float) else max(self.alpha)
        if highest > 1:
            raise ProveError(
                f"focal takes no alpha={highest:g} in its sigmoid form: the other classes would weigh 1 - alpha < 0.",
                hint="Use an alpha of at most 1.",
            )

    def extra_repr(self) -> str:
        """The parameters, for printing a model."""
        mining = f", ohem=True, thresh={self.thresh}, min_kept={self.min_kept}" if self.ohem else ""
        return f"gamma={self.gamma}, alpha={self.alpha}, form={self.form!r}{mining}"


def focal_of_label(pixels: Pixels, gamma: float, alpha: float | Sequence[float]) -> Tensor:
    """``alpha_y * (1 - p_y)^gamma * -log p_y`` of each pixel, [N, H, W].

    Raises:
        ProveError: a list of alphas that is not one per class.
    """
    # A softmax seen from one class is a sigmoid of its margin over all others: p = sigmoid(m), 1 - p = sigmoid(-m).
    # Neither cancels, and (1 - p)^gamma = exp(gamma * logsigmoid(-m)) has a finite derivative for every gamma.
    others = pixels.logits.masked_fill(pixels.one_hot, -torch.inf).logsumexp(dim=1)
    margin = pixels.of_label(pixels.logits) - others
    loss = -F.logsigmoid(margin) * torch.exp(gamma * F.logsigmoid(-margin))
    return loss * _alpha_of(pixels, alpha)[pixels.labels]


def _alpha_of(pixels: Pixels, alpha: float | Sequence[float]) -> Tensor:
    """[C]."""
    return pixels.per_class([alpha] * pixels.num_classes if isinstance(alpha, int | float) else alpha, "alpha")
