"""Sobel edges of probabilities against those of labels, a few rows at a time: values and slopes.

A tile of rows is computed with the rows around it that its 3x3 neighbourhoods reach; borders are replicated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from prove.losses.boundary import LARGEST, SQUARE_FLOOR, SURE
from prove.losses.cpu.jit import kernel
from prove.losses.cpu.labels import sobel_of
from prove.losses.cpu.maths import log
from prove.losses.cpu.tile import Source, restore
from prove.losses.cpu.values import Buffers

Array = Any

TILE_ROWS = 8
"""Rows of a tile: four more are computed around it."""
_LARGEST, _FLOOR, _SURE = np.float64(LARGEST), np.float64(SQUARE_FLOOR), np.float64(SURE)


class Edges(NamedTuple):
    """The boundary part.

    Attributes:
        whole: [H W] weight of each pixel in the mean, 0 where its 3x3 neighbourhood touches an ignored pixel.
        factors: [2] of the losses at edge pixels and at the rest, or [0] when there is no such part.
        maps: [C, (TILE_ROWS + 4) W] scratch for probabilities; inverse: [(TILE_ROWS + 4) W] scratch.
        lines: [8, W + 2] scratch.
        mixed: [W] scratch; found, column, owner, truth: [9 W] scratch and start [C + 1]: the edges of the labels in one
            row, class by class (`_edges_in`).
    """

    whole: Array
    factors: Array
    maps: Array
    inverse: Array
    lines: Array
    mixed: Array
    found: Array
    column: Array
    owner: Array
    truth: Array
    start: Array


def edges_of(whole: Array, factors: Array, classes: int, width: int) -> Edges:
    """The boundary part with its scratch, in the type of ``factors``."""
    dtype, pixels = factors.dtype, (TILE_ROWS + 4) * width if factors.size else 0
    return Edges(
        whole, factors, np.empty((classes, pixels), dtype), np.empty(pixels, dtype), np.empty((8, width + 2), dtype),
        np.empty(width, np.int32), np.empty(9 * width, np.int32), np.empty(9 * width, np.int32),
        np.empty(9 * width, np.int32), np.empty(9 * width, dtype), np.zeros(classes + 1, np.int64),
    )  # fmt: skip


@kernel
def _mark_mixed(upper: Array, middle: Array, lower: Array, mixed: Array) -> None:
    """Set ``mixed`` [W] where a pixel's 3x3 neighbourhood may hold more than one label."""
    last = mixed.size - 1
    mixed[0], mixed[last] = 1, 1
    for x in range(1, last):
        here = middle[x]
        differs = (upper[x - 1] ^ here) | (upper[x] ^ here) | (upper[x + 1] ^ here)
        differs |= (middle[x - 1] ^ here) | (middle[x + 1] ^ here)
        differs |= (lower[x - 1] ^ here) | (lower[x] ^ here) | (lower[x + 1] ^ here)
        mixed[x] = differs


@kernel
def _edges_in(source: Source, row: int, e: Edges) -> None:
    """Where labels have an edge, in a row: pixels and edges in (0, 1] of class c from ``e.start[c]`` on.

    They come into ``e.column`` and ``e.truth``, each pixel and class at most once. Pixels that are left out of the
    mean are skipped. Edges are rare, and for most classes a pixel has none.
    """
    width, height = source.width, source.labels.size // source.width
    upper = source.labels[max(row - 1, 0) * width : (max(row - 1, 0) + 1) * width]
    middle = source.labels[row * width : (row + 1) * width]
    lower = source.labels[min(row + 1, height - 1) * width : (min(row + 1, height - 1) + 1) * width]
    near, count = np.empty(9, np.int32), 0
    _mark_mixed(upper, middle, lower, e.mixed)
    e.start[:] = 0
    for x in range(width):
        if e.mixed[x] == 0 or e.whole[row * width + x] == 0:
            continue
        left, right = max(x - 1, 0), min(x + 1, width - 1)
        near[0], near[1], near[2] = upper[left], upper[x], upper[right]
        near[3], near[4], near[5] = middle[left], middle[x], middle[right]
        near[6], near[7], near[8] = lower[left], lower[x], lower[right]
        for k in range(9):
            first = True
            for j in range(k):
                first = first and near[j] != near[k]
            square = sobel_of(near, near[k]) if first else 0
            if square > 0:
                e.found[count] = x * 32 + square
                e.owner[count] = near[k]
                e.start[near[k] + 1] += 1
                count += 1
    for c in range(e.start.size - 1):
        e.start[c + 1] += e.start[c]
    for k in range(count):  # from here on start[c] is where class c ends
        at = e.start[e.owner[k]]
        e.column[at] = e.found[k] // 32
        e.truth[at] = np.sqrt((e.found[k] % 32) / _LARGEST)
        e.start[e.owner[k]] += 1
    for c in range(e.start.size - 1, 0, -1):
        e.start[c] = e.start[c - 1]
    e.start[0] = 0


@kernel
def _probabilities(source: Source, first_row: int, stop_row: int, saved: Array, e: Edges, b: Buffers) -> None:
    """Softmax of rows [first_row, stop_row) into ``e.maps``; that of an ignored pixel is read by nobody who counts."""
    width = source.width
    first, count = first_row * width, (stop_row - first_row) * width
    labels, kept = source.labels[first : first + count], saved[1, first : first + count]
    one, inverse = e.maps.dtype.type(1), e.inverse[:count]
    restore(source, first_row, stop_row, saved, e.maps, b.wide)
    for i in range(count):
        inverse[i] = one / (e.maps[max(labels[i], 0), i] + kept[i])
    for c in range(e.maps.shape[0]):
        row = e.maps[c, :count]
        for i in range(count):
            row[i] *= inverse[i]


@kernel
def _gradient_lines(
    maps: Array, above: int, here: int, below: int, width: int, across: Array, down: Array, v: Array, d: Array
) -> None:
    """The two Sobel derivatives [W] of one row of a map that is kept as rows side by side."""
    upper, middle, lower = maps[above : above + width], maps[here : here + width], maps[below : below + width]
    two = maps.dtype.type(2)
    for i in range(width):
        v[i + 1] = upper[i] + two * middle[i] + lower[i]
        d[i + 1] = lower[i] - upper[i]
    v[0], v[width + 1] = v[1], v[width]
    d[0], d[width + 1] = d[1], d[width]
    for i in range(width):
        across[i] = v[i + 2] - v[i]
        down[i] = d[i] + two * d[i + 1] + d[i + 2]


@kernel
def _edge_line(across: Array, down: Array, edge: Array, width: int) -> None:
    """The edge of a prediction from its two derivatives, in [0.002, SURE]; NaN stays."""
    one = edge.dtype.type(1)
    scale = one / edge.dtype.type(_LARGEST + _FLOOR)
    floor, sure = edge.dtype.type(_FLOOR), edge.dtype.type(_SURE)
    for i in range(width):
        value = np.sqrt((across[i] * across[i] + down[i] * down[i] + floor) * scale)
        edge[i] = sure if value > sure else value


@kernel
def _without_edges(source: Source, row: int, c: int, e: Edges, out: Array) -> float:
    """The weights of a row into ``out`` [W], 0 where class c has an edge in the labels; their sum."""
    total, whole = 0.0, e.whole[row * source.width : (row + 1) * source.width]
    for i in range(whole.size):
        out[i] = whole[i]
    for k in range(e.start[c], e.start[c + 1]):
        out[e.column[k]] = out.dtype.type(0)
    for i in range(whole.size):
        total += np.float64(out[i])
    return total


@kernel
def add_edge_values(
    source: Source, first_row: int, stop_row: int, saved: Array, e: Edges, b: Buffers, out: Array
) -> None:
    """Add to ``out`` [4]: losses at edge pixels, their weights, losses at the rest, their weights; over all classes."""
    width, height = source.width, source.labels.size // source.width
    across, down, v, d, edge, rest = e.lines[0], e.lines[1], e.lines[2], e.lines[3], e.lines[4], e.lines[5]
    one = e.maps.dtype.type(1)
    for row in range(first_row, stop_row, TILE_ROWS):
        stop = min(row + TILE_ROWS, stop_row)
        start, end = max(row - 1, 0), min(stop + 1, height)
        _probabilities(source, start, end, saved, e, b)
        for r in range(row, stop):
            above, here = (max(r - 1, 0) - start) * width, (r - start) * width
            below = (min(r + 1, height - 1) - start) * width
            _edges_in(source, r, e)
            for c in range(e.maps.shape[0]):
                _gradient_lines(e.maps[c], above, here, below, width, across, down, v, d)
                _edge_line(across, down, edge, width)
                out[3] += _without_edges(source, r, c, e, rest)
                total = 0.0
                for i in range(width):
                    total -= np.float64(log(one - edge[i]) * rest[i])
                out[2] += total
                for k in range(e.start[c], e.start[c + 1]):
                    x, t = e.column[k], e.truth[k]
                    weight = e.whole[r * width + x]
                    out[0] -= np.float64((t * log(edge[x]) + (one - t) * log(one - edge[x])) * weight)
                    out[1] += np.float64(weight)


@kernel
def _rest_slopes(across: Array, down: Array, edge: Array, rest: Array, factor: float, width: int) -> None:
    """Multiply the derivatives of a line by the slope of the loss where the labels have no edge."""
    one, zero, sure = edge.dtype.type(1), edge.dtype.type(0), edge.dtype.type(_SURE)
    scale = edge.dtype.type(factor) / edge.dtype.type(_LARGEST + _FLOOR)
    for i in range(width):
        b = edge[i]
        slope = scale * rest[i] / ((one - b) * b)
        slope = zero if b >= sure else slope
        across[i + 1] *= slope
        down[i + 1] *= slope


@kernel
def _edge_slopes(across: Array, down: Array, edge: Array, r: int, c: int, width: int, e: Edges) -> None:
    """The derivatives at edges of class c times the slope of the loss there, into ``e.lines[6]`` and ``e.lines[7]``."""
    one, sure = edge.dtype.type(1), edge.dtype.type(_SURE)
    scale = e.factors[0] / edge.dtype.type(_LARGEST + _FLOOR)
    for k in range(e.start[c], e.start[c + 1]):
        x = e.column[k]
        b, t = edge[x], e.truth[k]
        slope = scale * e.whole[r * width + x] * (b - t) / ((one - b) * b * b)
        slope = edge.dtype.type(0) if b >= sure else slope
        e.lines[6, x], e.lines[7, x] = across[x + 1] * slope, down[x + 1] * slope


@kernel
def add_edge_slopes(
    source: Source, first_row: int, stop_row: int, saved: Array, e: Edges, b: Buffers, out: Array
) -> None:
    """Set ``out`` [C, B] to the slopes of the probabilities in rows [first_row, stop_row)."""
    width, height = source.width, source.labels.size // source.width
    across, down, v, d, edge, rest = e.lines[0], e.lines[1], e.lines[2], e.lines[3], e.lines[4], e.lines[5]
    # edges one row beyond the tile reach into it, and their neighbourhoods one row further
    start, end = max(first_row - 2, 0), min(stop_row + 2, height)
    _probabilities(source, start, end, saved, e, b)
    out[:, : (stop_row - first_row) * width] = out.dtype.type(0)
    for r in range(max(first_row - 1, 0), min(stop_row + 1, height)):
        above, below = max(r - 1, 0), min(r + 1, height - 1)
        _edges_in(source, r, e)
        for c in range(e.maps.shape[0]):
            target = out[c]
            _gradient_lines(
                e.maps[c], (above - start) * width, (r - start) * width, (below - start) * width, width,
                across[1:], down[1:], v, d,
            )  # fmt: skip
            _edge_line(across[1:], down[1:], edge, width)
            _edge_slopes(across, down, edge, r, c, width, e)
            _without_edges(source, r, c, e, rest)
            _rest_slopes(across, down, edge, rest, e.factors[1], width)
            for k in range(e.start[c], e.start[c + 1]):
                x = e.column[k]
                across[x + 1], down[x + 1] = e.lines[6, x], e.lines[7, x]
            _spread(across, down, width, v, d)
            if first_row <= above < stop_row:
                _add_line(target[(above - first_row) * width : (above - first_row + 1) * width], v, d, 1, -1)
            if first_row <= r < stop_row:
                _add_line(target[(r - first_row) * width : (r - first_row + 1) * width], v, d, 2, 0)
            if first_row <= below < stop_row:
                _add_line(target[(below - first_row) * width : (below - first_row + 1) * width], v, d, 1, 1)


@kernel
def _add_line(out: Array, v: Array, d: Array, times_v: int, times_d: int) -> None:
    a, b = out.dtype.type(times_v), out.dtype.type(times_d)
    for i in range(out.size):
        out[i] += a * v[i] + b * d[i]


@kernel
def _spread(across: Array, down: Array, width: int, v: Array, d: Array) -> None:
    """The adjoint of `_gradient_lines` along a row: slopes of the column sums into ``v`` and ``d`` [W].

    Args:
        across, down: [W + 2], the row's slopes from index 1 on; the ends are set to what replicated borders mean.
    """
    two = v.dtype.type(2)
    across[0], across[width + 1] = -across[1], -across[width]
    down[0], down[width + 1] = down[1], down[width]
    for i in range(width):
        v[i] = across[i] - across[i + 2]
        d[i] = down[i] + two * down[i + 1] + down[i + 2]
