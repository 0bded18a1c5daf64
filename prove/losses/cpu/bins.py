"""Counting Lovász errors in bins: 64 to the octave, from 0 up to 1/2 and from 1 down to it.

A bin is an exponent and the first 6 bits of a mantissa, of the error below 1/2 and of its complement above. What is
counted is how many errors a bin holds and, in the same 64-bit integer, the sum of the mantissas' remaining bits, so
that the sum of the errors in a bin is exact and does not depend on any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from prove.losses.cpu.jit import kernel

Array = Any

SUB_BITS = 6
"""Bins per octave are 2 to this power."""
REST_BITS = 23 - SUB_BITS
LOW_OCTAVES, HIGH_OCTAVES = 23, 11
"""Octaves below 1/2 that have bins of their own, of the error and of its complement; the rest shares one bin."""
LOW_BINS = 1 + (LOW_OCTAVES << SUB_BITS)
HIGH_BINS = 1 + (HIGH_OCTAVES << SUB_BITS)
BINS = LOW_BINS + HIGH_BINS
COUNT_SHIFT = 40
"""A cell is ``count << 40 | sum of rests``: up to 2^23 errors."""
ONE = 1 << COUNT_SHIFT
REST_MASK = (1 << REST_BITS) - 1

_LOW_START = ((126 - LOW_OCTAVES) << SUB_BITS) - 1
_HIGH_START = ((126 - HIGH_OCTAVES) << SUB_BITS) - 1
_LOW_SCALE = np.float32(2.0 ** (LOW_OCTAVES + 1 + REST_BITS))
_HIGH_SCALE = np.float32(2.0 ** (HIGH_OCTAVES + 1 + REST_BITS))


@kernel
def locate(errors: Array, scale: Array, bins: Array, cells: Array) -> None:
    """The bin of each ``errors * scale`` [B] in [0, 1], and what it adds to its cell."""
    half, one = np.float32(0.5), np.float32(1.0)
    for i in range(bins.size):
        error = np.float32(errors[i] * scale[i])
        low = error < half
        value = error if low else max(one - error, np.float32(0.0))
        bits = np.int32(np.float32(value).view(np.int32))
        place = np.int32((bits >> np.int32(REST_BITS)) - np.int32(_LOW_START if low else _HIGH_START))
        first = place <= 0
        spread = (
            np.int32(value * (_LOW_SCALE if low else _HIGH_SCALE)) if first else np.int32(bits & np.int32(REST_MASK))
        )
        place = np.int32(0) if first else place
        top = np.int32(LOW_BINS - 1 if low else HIGH_BINS - 1)
        beyond = place > top
        place = top if beyond else place
        bins[i] = place if low else np.int32(BINS - 1) - place
        cells[i] = np.int64(ONE) + np.int64(np.int32(REST_MASK) if beyond else spread)


@kernel
def place(errors: Array, scale: Array, bins: Array) -> None:
    """The bin of each ``errors * scale`` [B] in [0, 1], as `locate`."""
    half, one = np.float32(0.5), np.float32(1.0)
    for i in range(bins.size):
        error = np.float32(errors[i] * scale[i])
        low = error < half
        value = error if low else max(one - error, np.float32(0.0))
        bits = np.int32(np.float32(value).view(np.int32))
        at = np.int32((bits >> np.int32(REST_BITS)) - np.int32(_LOW_START if low else _HIGH_START))
        at = min(max(at, np.int32(0)), np.int32(LOW_BINS - 1 if low else HIGH_BINS - 1))
        bins[i] = at if low else np.int32(BINS - 1) - at


@kernel
def tally(bins: Array, cells: Array, histogram: Array) -> None:
    """Add every cell [B] to its bin of ``histogram`` [BINS] int64."""
    for i in range(bins.size):
        histogram[bins[i]] += cells[i]


def edges() -> tuple[Array, Array]:
    """Lower edge and width of every bin, [BINS] float64."""

    def side(octaves: int) -> Array:
        steps = np.arange(octaves << SUB_BITS)
        octave, sub = steps >> SUB_BITS, steps & ((1 << SUB_BITS) - 1)
        lower = 2.0 ** (octave - octaves - 1.0) * (1.0 + sub / (1 << SUB_BITS))
        return np.concatenate(([0.0], lower, [0.5]))

    low, high = side(LOW_OCTAVES), side(HIGH_OCTAVES)
    lower = np.concatenate((low[:-1], (1.0 - high[1:])[::-1]))
    upper = np.concatenate((low[1:], (1.0 - high[:-1])[::-1]))
    return lower, upper - lower


@kernel
def weigh_bins(histogram: Array, factor: Array, lower: Array, width: Array, weights: Array, out: Array) -> None:
    """From counts to what an error in each bin weighs.

    Inside a bin the order is unknown: a pixel's weight is the mean of its weights with the class's own pixels first and
    with them last. Any order that sorts by bin gives at most the true value L, and swapping pixels inside a bin changes
    it by at most their change of weight times half the bin's width: ``0 <= L - value <= certificate``.

    Args:
        histogram: [C, 2, BINS] int64, other and own errors.
        factor: [C] of each class in the mean; 0 where it is left out or absent.
        weights: [C, 2, BINS], set, the factor included.
        out: [4], to which are added the value, the certificate, and two sums of squares over all errors e: of the
            largest change that another order could make to a weight, and of the weight, both times ``e (1 - e)``,
            with which a slope reaches the logits: the first at its largest in the bin, the second at its least.
    """
    rest_unit = 1.0 / (1 << REST_BITS)
    mask = np.int64(ONE - 1)
    for c in range(histogram.shape[0]):
        total = 0.0
        for b in range(BINS):
            total += np.float64(histogram[c, 1, b] >> COUNT_SHIFT)
            weights[c, 0, b] = 0.0
            weights[c, 1, b] = 0.0
        if factor[c] == 0.0 or total == 0.0:
            continue
        value, slack, own_above, union = 0.0, 0.0, 0.0, total
        change, mass = 0.0, 0.0
        for k in range(BINS):
            b = BINS - 1 - k
            own = np.float64(histogram[c, 1, b] >> COUNT_SHIFT)
            other = np.float64(histogram[c, 0, b] >> COUNT_SHIFT)
            wider, left = union + other, total - own_above
            own_weight = 0.5 * (1.0 / union + 1.0 / wider)
            other_weight = (left - 0.5 * own) / (union * wider)
            weights[c, 0, b] = other_weight * factor[c]
            weights[c, 1, b] = own_weight * factor[c]
            if own + other > 0.0:
                one_end, other_end = lower[b] * (1.0 - lower[b]), (lower[b] + width[b]) * (1.0 - lower[b] - width[b])
                most, least = max(one_end, other_end) ** 2, max(min(one_end, other_end), 0.0) ** 2
                own_rest = np.float64(histogram[c, 1, b] & mask) * rest_unit
                other_rest = np.float64(histogram[c, 0, b] & mask) * rest_unit
                start, step = (lower[b], width[b]) if b < LOW_BINS else (lower[b] + width[b], -width[b])
                value += own_weight * (own * start + own_rest * step) + other_weight * (
                    other * start + other_rest * step
                )
                if own + other > 1.0:
                    steepest = left / (union * (union + 1.0))
                    shallowest = (left - own) / max(wider * (wider - 1.0), 1.0)
                    spread = max(steepest - other_weight, other_weight - shallowest)
                    own_spread = 0.5 * (1.0 / union - 1.0 / wider)
                    slack += 0.5 * width[b] * (own * own_spread + other * spread)
                    change += most * (own * own_spread * own_spread + other * spread * spread)
                mass += least * (own * own_weight * own_weight + other * other_weight * other_weight)
            own_above += own
            union = wider
        out[0] += value * factor[c]
        out[1] += slack * factor[c]
        out[2] += change * factor[c] * factor[c]
        out[3] += mass * factor[c] * factor[c]
