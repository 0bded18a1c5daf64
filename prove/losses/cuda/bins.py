"""The bin of a Lovász error: the layout of `prove.losses.cpu.bins`, on tensors in registers."""

from __future__ import annotations

import triton.language as tl

from prove.losses.cpu import bins
from prove.losses.cuda.jit import Array, kernel

BINS = bins.BINS
LARGEST_IMAGE = 1 << 23
"""Pixels of an image from which on a cell could overflow."""

_BINS = tl.constexpr(bins.BINS)
_LOW_TOP = tl.constexpr(bins.LOW_BINS - 1)
_HIGH_TOP = tl.constexpr(bins.HIGH_BINS - 1)
_LOW_START = tl.constexpr(((126 - bins.LOW_OCTAVES) << bins.SUB_BITS) - 1)
_HIGH_START = tl.constexpr(((126 - bins.HIGH_OCTAVES) << bins.SUB_BITS) - 1)
_LOW_SCALE = tl.constexpr(2.0 ** (bins.LOW_OCTAVES + 1 + bins.REST_BITS))
_HIGH_SCALE = tl.constexpr(2.0 ** (bins.HIGH_OCTAVES + 1 + bins.REST_BITS))
_REST_BITS = tl.constexpr(bins.REST_BITS)
_REST_MASK = tl.constexpr(bins.REST_MASK)
_ONE = tl.constexpr(bins.ONE)


@kernel
def locate(error: Array) -> Array:
    """The bin of each error in [0, 1], int32, and what it adds to its cell, int64."""
    e = error.to(tl.float32)
    low = e < 0.5
    value = tl.where(low, e, tl.maximum(1.0 - e, 0.0))
    bits = value.to(tl.int32, bitcast=True)
    place = (bits >> _REST_BITS) - tl.where(low, _LOW_START, _HIGH_START)
    first = place <= 0
    # what lies beyond the first bin is never converted: its product with the scale may not fit
    small = tl.where(first, value, 0.0) * tl.where(low, _LOW_SCALE, _HIGH_SCALE)
    spread = tl.where(first, small.to(tl.int32), bits & _REST_MASK)
    place = tl.where(first, 0, place)
    top = tl.where(low, _LOW_TOP, _HIGH_TOP)
    spread = tl.where(place > top, _REST_MASK, spread)
    place = tl.minimum(place, top)
    return tl.where(low, place, _BINS - 1 - place), spread.to(tl.int64) + _ONE
