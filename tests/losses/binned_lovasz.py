"""The formula of binned Lovász-Softmax, written plainly in torch: what the kernels are held against."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from prove.losses.cpu.bins import BINS, COUNT_SHIFT, LOW_BINS, ONE, REST_BITS, edges

Array = Any


def from_counts(
    counts: Tensor, sums: Tensor, width: Tensor, chosen: Tensor, top: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean over groups and classes, from how the errors of each class fall into bins.

    Inside a bin the order is unknown: a pixel's weight is the mean of its weights with the class's own pixels first and
    with them last. Any order that sorts by bin gives at most the true value L, and swapping pixels inside a bin changes
    it by at most their change of weight times half the bin's width: ``0 <= L - value <= certificate``.

    Args:
        counts: [groups, C, 2, bins] float64, errors of other pixels and of the class's own ones, bins ascending.
        sums: the same for the sums of errors.
        width: [bins].
        chosen: [groups, C] the factor of each class of each group in the mean, 0 where left out.
        top: [groups, C] largest error, used where a class has no own pixel: there the value is exact.

    Returns:
        The value, the weight of an error [groups, C, 2, bins] with ``chosen`` in it (0 for absent classes), and the
        certificate.
    """
    other, own = counts.flip(-1).unbind(2)  # from the worst errors down
    total = own.sum(-1, keepdim=True)
    own_above, other_above = own.cumsum(-1) - own, other.cumsum(-1) - other
    union = (total + other_above).clamp(min=1.0)
    wider = (union + other).clamp(min=1.0)
    left = total - own_above
    # own pixels first, then last; sums of 1 / (G + r) - 1 / (G + r - 1) over a bin telescope
    own_first, own_last = 1.0 / union, 1.0 / wider
    product = union * wider
    other_last, other_first = (left - own) / product, left / product
    own_weight, other_weight = 0.5 * (own_first + own_last), 0.5 * (other_last + other_first)
    # the extremes inside the bin: the first other pixel before any own one, the last one after all of them
    steepest = left / (union * (union + 1.0))
    shallowest = (left - own) / (wider * (wider - 1.0)).clamp(min=1.0)
    own_spread = 0.5 * (own_first - own_last)
    other_spread = torch.maximum(steepest - other_weight, other_weight - shallowest)
    loose = own * own_spread + other * other_spread
    loose = torch.where(own + other > 1.0, loose, 0.0)
    there = (total > 0).squeeze(-1)
    weights = torch.stack((other_weight, own_weight), dim=2).flip(-1)
    weights = torch.where(there[:, :, None, None], weights, 0.0) * chosen[:, :, None, None]
    absent = torch.where(there, 0.0, top * chosen).sum()
    value = (weights * sums).sum() + absent
    slack = 0.5 * (loose * width.flip(-1)).sum(-1)
    certificate = (torch.where(there, slack, 0.0) * chosen).sum()
    return value, weights, certificate


def unpack(histogram: Array) -> tuple[Array, Array]:
    """Counts and sums of errors, float64, in the shape of ``histogram`` [..., BINS] int64."""
    lower, width = edges()
    counts = (histogram >> COUNT_SHIFT).astype(np.float64)
    rests = (histogram & (ONE - 1)).astype(np.float64) / (1 << REST_BITS)
    sums = np.where(
        np.arange(BINS) < LOW_BINS, counts * lower + rests * width, counts * (lower + width) - rests * width
    )
    return counts, sums
