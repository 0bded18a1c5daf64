"""Losses that are functions of per-class sums of probabilities: their values, and their slopes by hand.

The sums of a batch are rows of [7, C] float64: over pixels of mass m, with q the probability of a pixel's own class
and p that of another one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prove.losses.fused.plan import RegionPart, chosen_classes
from prove.losses.tversky import STRAIGHT_BELOW

OWN, OWN_MISS, OWN_MASS, OTHERS, OTHERS_SQUARED, OWN_SQUARED, OWN_MISS_SQUARED = range(7)
"""Rows: sums over the class's own pixels of m q, m (1 - q) and m; over all others of m p and m p^2; over its own again
of m q^2 and m (1 - q)^2."""


def region_value(part: RegionPart, sums: Tensor) -> Tensor:
    """The mean over classes, a float64 scalar, from sums [7, C]."""
    factor = _factor(part, sums)
    errors, whole = _errors(part, sums)
    share = errors / torch.where(whole == 0, 1.0, whole)  # NaN stays
    return (factor * torch.where(whole == 0, 0.0, _power(part, share))).sum()


def region_slopes(part: RegionPart, sums: Tensor) -> Tensor:
    """The slopes of `region_value`, [5, C].

    The derivative with respect to a pixel's p is ``m (b0 + b1 p)`` for another class, and for its own
    ``m (f0 + f1 q + f2 (1 - q))``: rows b0, b1, f0, f1, f2.
    """
    factor = _factor(part, sums)
    errors, whole = _errors(part, sums)
    empty = whole == 0
    whole = torch.where(empty, 1.0, whole)
    share = errors / whole
    outer = torch.where(empty, 0.0, factor * _power_slope(part, share))
    by_errors, by_whole = outer / whole, -outer * share / whole
    zero = torch.zeros_like(outer)
    if part.squared:
        # errors hold p^2 and (1 - q)^2, the whole p^2 and q^2
        return torch.stack((zero, 2.0 * (by_errors + by_whole), zero, 2.0 * by_whole, -2.0 * by_errors))
    # errors hold alpha p and beta (1 - q), the whole q and the errors
    both = by_errors + by_whole
    return torch.stack((part.alpha * both, zero, by_whole - part.beta * both, zero, zero))


def _errors(part: RegionPart, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Numerator and denominator of each class's loss."""
    if part.squared:
        errors = sums[OTHERS_SQUARED] + sums[OWN_MISS_SQUARED]
        return errors, sums[OTHERS_SQUARED] + sums[OWN_SQUARED] + sums[OWN_MASS] + part.smooth
    errors = part.alpha * sums[OTHERS] + part.beta * sums[OWN_MISS]
    return errors, sums[OWN] + errors + part.smooth


def _power(part: RegionPart, share: Tensor) -> Tensor:
    if part.power >= 1.0:
        return share**part.power
    chord = share * STRAIGHT_BELOW ** (part.power - 1.0)
    return torch.where(share < STRAIGHT_BELOW, chord, share.clamp(min=STRAIGHT_BELOW) ** part.power)


def _power_slope(part: RegionPart, share: Tensor) -> Tensor:
    if part.power == 1.0:
        return torch.ones_like(share)
    if part.power > 1.0:
        return part.power * share ** (part.power - 1.0)
    chord = torch.full_like(share, STRAIGHT_BELOW ** (part.power - 1.0))
    return torch.where(
        share < STRAIGHT_BELOW, chord, part.power * share.clamp(min=STRAIGHT_BELOW) ** (part.power - 1.0)
    )


def _factor(part: RegionPart, sums: Tensor) -> Tensor:
    """What each class counts in the mean."""
    if part.classes == "present":
        there = (sums[OWN_MASS] > 0).to(sums.dtype)
        return there / there.sum().clamp(min=1.0)
    chosen = chosen_classes(part.classes, [True] * sums.shape[1])
    factor = torch.zeros_like(sums[0])
    factor[chosen] = 1.0 / len(chosen)
    return factor
