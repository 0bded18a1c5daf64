"""Region losses of Tversky's kind: Jaccard, Tversky and focal Tversky."""

from __future__ import annotations

import torch
from torch import Tensor

from prove.losses.pixels import Classes, Pixels, ratio
from prove.losses.term import Term

STRAIGHT_BELOW = 1e-6
"""A power below 1 has an infinite slope at 0: below this it is replaced by its chord."""


class Jaccard(Term):
    """Mean over classes of ``1 - (I + s) / (P + G - I + s)``, summed over the whole batch, in [0, 1].

    The soft IoU (Rahman & Wang 2016, doi:10.1007/978-3-319-50835-1_22), with ``I = sum(m p g)``, ``P = sum(m p)`` and
    ``G = sum(m g)`` over pixels of mass m (1, or the weight per pixel), g the one-hot labels; 1 - IoU for 0/1
    predictions and s = 0, 0 for a perfect prediction. Cost: one softmax and four passes over it.

    Args:
        smooth: s, in pixels, >= 0. A class whose divisor is 0 has loss 0.
        classes: over which the mean runs: ``present`` in the labels of the batch, ``all``, or a list.
    """

    name = "jaccard"

    def __init__(self, smooth: float = 1.0, classes: Classes = "present", ignore_index: int = 255) -> None:
        super().__init__(ignore_index)
        self.smooth = smooth
        self.classes = classes

    def value(self, pixels: Pixels) -> Tensor:
        """The unweighted value, a scalar."""
        losses, present = tversky_per_class(pixels, 1.0, 1.0, self.smooth)
        return _mean(pixels, losses, self.classes, present)

    def extra_repr(self) -> str:
        """The parameters, for printing a model."""
        return f"smooth={self.smooth}, classes={self.classes!r}"


class Tversky(Term):
    """Mean over classes of ``1 - (I + s) / (I + alpha (P - I) + beta (G - I) + s)`` over the whole batch, in [0, 1].

    Salehi 2017 (arXiv:1706.05721), with I, P, G as in `Jaccard`, which is alpha = beta = 1; alpha = beta = 1/2 with
    half the smoothing is `Dice`. Cost as there.

    Args:
        alpha: weight of false positives, >= 0.
        beta: weight of false negatives, > 0; above alpha it favours recall.
        smooth, classes: as in `Jaccard`.
    """

    name = "tversky"

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1.0,
        classes: Classes = "present",
        ignore_index: int = 255,
    ) -> None:
        super().__init__(ignore_index)
        self.alpha = alpha
        self.beta = beta
        self.smooth = smooth
        self.classes = classes

    def value(self, pixels: Pixels) -> Tensor:
        """The unweighted value, a scalar."""
        losses, present = tversky_per_class(pixels, self.alpha, self.beta, self.smooth)
        return _mean(pixels, losses, self.classes, present)

    def extra_repr(self) -> str:
        """The parameters, for printing a model."""
        return f"alpha={self.alpha}, beta={self.beta}, smooth={self.smooth}, classes={self.classes!r}"


class FocalTversky(Term):
    """Mean over classes of ``T_c^(1 / gamma)``, where T_c is the `Tversky` loss of the class, in [0, 1].

    Abraham & Khan 2018 (arXiv:1810.07842). For gamma > 1 the slope of the power at 0 is infinite; below
    ``T_c = 1e-6`` it is replaced by its chord ``T_c * 1e-6^(1 / gamma - 1)`` (`power_of`), so that a perfect class has
    the value 0 and a finite gradient. Cost as `Jaccard`.

    Args:
        gamma: > 0; above 1 classes that are nearly right keep a large gradient; 1 is `Tversky`.
        alpha, beta, smooth, classes: as in `Tversky`.
    """

    name = "focal_tversky"

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 4.0 / 3.0,
        smooth: float = 1.0,
        classes: Classes = "present",
        ignore_index: int = 255,
    ) -> None:
        super().__init__(ignore_index)
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.smooth = smooth
        self.classes = classes

    def value(self, pixels: Pixels) -> Tensor:
        """The unweighted value, a scalar."""
        losses, present = tversky_per_class(pixels, self.alpha, self.beta, self.smooth)
        return _mean(pixels, power_of(losses, 1.0 / self.gamma), self.classes, present)

    def extra_repr(self) -> str:
        """The parameters, for printing a model."""
        power = f"alpha={self.alpha}, beta={self.beta}, gamma={self.gamma:g}"
        return f"{power}, smooth={self.smooth}, classes={self.classes!r}"


def tversky_per_class(pixels: Pixels, alpha: float, beta: float, smooth: float) -> tuple[Tensor, Tensor]:
    """The Tversky loss of each class over the batch, and whether the labels hold the class: [C] and bool [C]."""
    mass, probs, own = pixels.mass[:, None], pixels.probs, pixels.one_hot
    # 1 - p_y as the sum of the others: neither it nor its gradient cancels where the prediction is sure
    missed = probs.masked_fill(own, 0.0).sum(dim=1, keepdim=True)
    false_positives = torch.where(own, 0.0, mass * probs).sum(dim=(0, 2, 3))
    false_negatives = torch.where(own, mass * missed, 0.0).sum(dim=(0, 2, 3))
    hits = torch.where(own, mass * probs, 0.0).sum(dim=(0, 2, 3))
    # 1 - (I + s) / (I + E + s) is E / (I + E + s)
    errors = alpha * false_positives + beta * false_negatives
    return ratio(errors, hits + errors + smooth), torch.where(own, mass, 0.0).sum(dim=(0, 2, 3)) > 0


def power_of(values: Tensor, power: float) -> Tensor:
    """``values ** power`` for values >= 0; for a power below 1 a straight line from 0 to `STRAIGHT_BELOW`."""
    if power >= 1.0:
        return values if power == 1.0 else values.pow(power)
    curved = values.clamp(min=STRAIGHT_BELOW).pow(power)
    return torch.where(values > STRAIGHT_BELOW, curved, values * STRAIGHT_BELOW ** (power - 1.0))


def _mean(pixels: Pixels, losses: Tensor, classes: Classes, present: Tensor) -> Tensor:
    chosen = pixels.averaged(classes, present)
    return ratio(torch.where(chosen, losses, 0.0).sum(), chosen.sum().to(losses.dtype))
