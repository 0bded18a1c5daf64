"""A run of pixels in buffers that fit the cache: logits loaded (and upsampled on the way), then their softmax.

Buffers are [C, B] or [B], B pixels of one image side by side. Loops run over pixels innermost, so that they vectorise.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from prove.losses.cpu.jit import kernel
from prove.losses.cpu.maths import exp, log, log1p

Array = Any  # numpy arrays as numba sees them

TILE_PIXELS = 512
"""Pixels of a tile, or one row of the image when that is longer: 19 classes in float32 then take 39 kB."""


class Source(NamedTuple):
    """One image: its logits, labels and weights, and how logits are upsampled to the labels.

    Attributes:
        logits: [C, h w].
        labels: [H W] int32, -1 where ignored.
        mass: [H W] weights per pixel; empty for 1.
        columns: [2, W] the two logit columns that a label column lies between; empty when sizes are equal.
        column_share: [W] share of the second one.
        rows, row_share: the same for rows, [2, H] and [H].
        width: W; low_width: w.
    """

    logits: Array
    labels: Array
    mass: Array
    columns: Array
    column_share: Array
    rows: Array
    row_share: Array
    width: int
    low_width: int


class Wide(NamedTuple):
    """Two neighbouring rows of logits, upsampled along the row: [2, C, W], and which ones they are [2], -1 for none."""

    rows: Array
    at: Array


@kernel
def load(source: Source, first_row: int, stop_row: int, tile: Array, wide: Wide, largest: Array) -> None:
    """Logits of rows [first_row, stop_row) into ``tile`` [C, B], 0 where ignored whatever they are, and their maximum.

    Args:
        wide: of the same image, kept between calls.
        largest: [B], set to each pixel's largest logit.
    """
    width = source.width
    first, count = first_row * width, (stop_row - first_row) * width
    zero = tile.dtype.type(0)
    if source.columns.size == 0:
        labels = source.labels[first : first + count]
        for c in range(tile.shape[0]):
            given, out = source.logits[c, first : first + count], tile[c, :count]
            if c == 0:
                for i in range(count):
                    value = given[i] if labels[i] >= 0 else zero
                    out[i] = value
                    largest[i] = value
            else:
                for i in range(count):
                    value = given[i] if labels[i] >= 0 else zero
                    out[i] = value
                    largest[i] = value if value > largest[i] else largest[i]
        return
    for row in range(first_row, stop_row):
        above, below, share = source.rows[0, row], source.rows[1, row], source.row_share[row]
        _widen(source, above, wide)
        _widen(source, below, wide)
        labels = source.labels[row * width : (row + 1) * width]
        at = (row - first_row) * width
        top = largest[at : at + width]
        for c in range(tile.shape[0]):
            upper, lower, out = wide.rows[above & 1, c], wide.rows[below & 1, c], tile[c, at : at + width]
            if c == 0:
                for i in range(width):
                    value = upper[i] + share * (lower[i] - upper[i])
                    value = value if labels[i] >= 0 else zero
                    out[i] = value
                    top[i] = value
            else:
                for i in range(width):
                    value = upper[i] + share * (lower[i] - upper[i])
                    value = value if labels[i] >= 0 else zero
                    out[i] = value
                    top[i] = value if value > top[i] else top[i]


@kernel
def _widen(source: Source, row: int, wide: Wide) -> None:
    """Upsample one row of logits along the row, unless it is there; neighbours take different places."""
    place = row & 1
    if wide.at[place] == row:
        return
    wide.at[place] = row
    left, right = source.columns[0], source.columns[1]
    for c in range(wide.rows.shape[1]):
        given = source.logits[c, row * source.low_width : (row + 1) * source.low_width]
        out = wide.rows[place, c]
        for i in range(source.width):
            value = given[left[i]]
            out[i] = value + source.column_share[i] * (given[right[i]] - value)


@kernel
def softmax(tile: Array, labels: Array, largest: Array, own: Array, gap: Array, others: Array, inverse: Array) -> None:
    """Turn logits into softmax numerators, in place, with the pixel's own class taken out.

    Nothing is lost to cancellation: ``1 - p_y`` is ``others * inverse``.

    Args:
        tile: [C, B]: logits; after it ``exp(z - max)``, and 0 in the own class.
        labels: [B], negative where ignored (class 0 stands in).
        largest: [B] each pixel's largest logit; may be ``inverse``.
        own: [B], set to the own class's ``exp(z - max)``; gap: [B], its exponent.
        others: [B], set to the sum over all other classes.
        inverse: [B], set to 1 / (own + others).
    """
    count = labels.size
    one, zero, nothing = tile.dtype.type(1), tile.dtype.type(0), tile.dtype.type(-np.inf)
    for i in range(count):
        y = max(labels[i], 0)
        gap[i] = tile[y, i] - largest[i]
        tile[y, i] = nothing
    for i in range(count):
        own[i] = exp(gap[i])
        others[i] = zero
    for c in range(tile.shape[0]):
        row = tile[c, :count]
        for i in range(count):
            value = exp(row[i] - largest[i])
            row[i] = value
            others[i] += value
    for i in range(count):
        inverse[i] = one / (own[i] + others[i])


@kernel
def keep(largest: Array, others: Array, first: int, saved: Array) -> None:
    """Write what `restore` and `take_own` need of a tile into ``saved`` [2, H W]."""
    count = largest.size
    first_row, second = saved[0, first : first + count], saved[1, first : first + count]
    for i in range(count):
        first_row[i] = largest[i]
        second[i] = others[i]


@kernel
def restore(source: Source, first_row: int, stop_row: int, saved: Array, tile: Array, wide: Wide) -> None:
    """``exp(z - max)`` of rows [first_row, stop_row) into ``tile`` [C, B], all classes, in one sweep.

    Args:
        saved: as `keep` left it.
    """
    width = source.width
    zero = tile.dtype.type(0)
    first, count = first_row * width, (stop_row - first_row) * width
    if source.columns.size == 0:
        labels, largest = source.labels[first : first + count], saved[0, first : first + count]
        for c in range(tile.shape[0]):
            given, out = source.logits[c, first : first + count], tile[c, :count]
            for i in range(count):
                out[i] = exp((given[i] if labels[i] >= 0 else zero) - largest[i])
        return
    for row in range(first_row, stop_row):
        above, below, share = source.rows[0, row], source.rows[1, row], source.row_share[row]
        _widen(source, above, wide)
        _widen(source, below, wide)
        labels, largest = source.labels[row * width : (row + 1) * width], saved[0, row * width : (row + 1) * width]
        at = (row - first_row) * width
        for c in range(tile.shape[0]):
            upper, lower, out = wide.rows[above & 1, c], wide.rows[below & 1, c], tile[c, at : at + width]
            for i in range(width):
                value = upper[i] + share * (lower[i] - upper[i])
                out[i] = exp((value if labels[i] >= 0 else zero) - largest[i])


@kernel
def take_own(tile: Array, labels: Array, saved: Array, first: int, own: Array, others: Array, inverse: Array) -> None:
    """After `restore`: take the own class out of the tile, as `softmax` leaves it."""
    one, zero = tile.dtype.type(1), tile.dtype.type(0)
    kept = saved[1, first : first + labels.size]
    for i in range(labels.size):
        y = max(labels[i], 0)
        own[i] = tile[y, i]
        tile[y, i] = zero
    for i in range(labels.size):
        others[i] = kept[i]
        inverse[i] = one / (own[i] + others[i])


@kernel
def surprise(own: Array, gap: Array, others: Array, nll: Array) -> None:
    """``-log p_y`` into ``nll`` [B], accurate where the pixel is confidently right and where it is wrong."""
    zero, one = nll.dtype.type(0), nll.dtype.type(1)
    for i in range(nll.size):
        right = own[i] >= others[i]
        ratio = others[i] / own[i] if right else zero
        near = log1p(ratio)
        far = log(own[i] + others[i] if not right else one) - gap[i]
        nll[i] = near if right else far


@kernel
def surprise_again(own: Array, others: Array, nll: Array) -> None:
    """`surprise` from numerators alone, into ``nll`` [B]; 0 where the own one is 0, for it is multiplied with that."""
    zero, one = nll.dtype.type(0), nll.dtype.type(1)
    for i in range(nll.size):
        right, there = own[i] >= others[i], own[i] > zero
        near = log1p(others[i] / own[i] if right else zero)
        far = log(one if right else own[i] + others[i]) - log(own[i] if there else one)
        nll[i] = near if right else (far if own[i] != zero else zero)


@kernel
def masses(source: Source, first: int, mass: Array) -> None:
    """The weight of each pixel from pixel ``first`` on into ``mass`` [B]: 0 where ignored."""
    zero, one = mass.dtype.type(0), mass.dtype.type(1)
    labels = source.labels[first : first + mass.size]
    if source.mass.size:
        given = source.mass[first : first + mass.size]
        for i in range(mass.size):
            mass[i] = given[i] if labels[i] >= 0 else zero
    else:
        for i in range(mass.size):
            mass[i] = one if labels[i] >= 0 else zero


@kernel
def weights_of(weight: Array, labels: Array, out: Array) -> None:
    """The weight of each pixel's class [C] into ``out`` [B]; that of class 0 where ignored."""
    uniform = True
    for c in range(1, weight.size):
        uniform = uniform and weight[c] == weight[0]
    if uniform:
        for i in range(labels.size):
            out[i] = weight[0]
    else:
        for i in range(labels.size):
            out[i] = weight[max(labels[i], 0)]


@kernel
def fading(gamma: float, others: Array, inverse: Array, out: Array) -> None:
    """``(1 - p_y)^gamma`` into ``out`` [B]; 0^0 is 1."""
    if gamma == 0.0:
        for i in range(out.size):
            out[i] = 1.0
    elif gamma == 2.0:
        for i in range(out.size):
            share = others[i] * inverse[i]
            out[i] = share * share
    else:
        power, one, zero = out.dtype.type(gamma), out.dtype.type(1), out.dtype.type(0)
        for i in range(out.size):
            share = others[i] * inverse[i]
            there = share > zero
            faded = exp(power * log(share if there else one))
            out[i] = faded if there else zero


def rows_per_tile(width: int, pixels: int = TILE_PIXELS) -> int:
    """Rows of an image that make a tile."""
    return max(1, pixels // width)


def along(low: int, high: int, align_corners: bool, dtype: Any) -> tuple[Array, Array]:
    """Where ``high`` samples lie between ``low`` ones, as `torch.nn.functional.interpolate` (bilinear) places them.

    Returns:
        The two neighbours [2, high] int32 and the share of the second [high].
    """
    steps = np.arange(high, dtype=np.float64)
    if align_corners:
        at = steps * ((low - 1) / (high - 1)) if high > 1 else steps * 0.0
    else:
        at = np.maximum((steps + 0.5) * (low / high) - 0.5, 0.0)
    first = np.minimum(at.astype(np.int32), low - 1)
    return np.stack((first, np.minimum(first + 1, low - 1))).astype(np.int32), (at - first).astype(dtype)
