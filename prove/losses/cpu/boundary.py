"""Sobel edges of probabilities against those of labels, a few rows at a time: values and slopes.

A tile of rows is computed with the rows around it that its 3x3 neighbourhoods reach; borders are replicated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from prove.losses.boundary import LARGEST, SQUARE_FLOOR, SURE
from prove.losses.cpu.jit import kernel
from prove.losses.cpu.maths import log
from prove.losses.cpu.tile import Source, restore
from prove.losses.cpu.values import Buffers

Array = Any

TILE_ROWS = 16
"""Rows of a tile: four more are computed around it."""
_LARGEST, _FLOOR, _SURE = np.float64(LARGEST), np.float64(SQUARE_FLOOR), np.float64(SURE)


class Edges(NamedTuple):
    """The boundary part.

    Attributes:
        whole: [H W] weight of each pixel in the mean, 0 where its 3x3 neighbourhood touches an ignored pixel.
        factors: [2] of the losses at edge pixels and at the rest, or [0] when there is no such part.
        maps: [C, (TILE_ROWS + 4) W] scratch for probabilities.
        truth: [(TILE_ROWS + 4) W] scratch for one-hot labels.
        lines: [8, W + 2] scratch.
    """

    whole: Array
    factors: Array
    maps: Array
    truth: Array
    lines: Array


def edges_of(whole: Array, factors: Array, classes: int, width: int) -> Edges:
    """The boundary part with its scratch, in the type of ``factors``."""
    dtype, pixels = factors.dtype, (TILE_ROWS + 4) * width if factors.size else 0
    return Edges(
        whole, factors, np.empty((classes, pixels), dtype), np.empty(pixels, dtype), np.empty((8, width + 2), dtype),
    )  # fmt: skip


@kernel
def _probabilities(source: Source, first_row: int, stop_row: int, saved: Array, e: Edges, b: Buffers) -> None:
    """Softmax of rows [first_row, stop_row) into ``e.maps``; that of an ignored pixel is read by nobody who counts."""
    width = source.width
    first, count = first_row * width, (stop_row - first_row) * width
    labels, kept = source.labels[first : first + count], saved[1, first : first + count]
    one, inverse = e.maps.dtype.type(1), e.truth[:count]
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
def _edge_of_labels(labels: Array, c: int, truth: Array) -> bool:
    """One-hot labels of class c into ``truth``; whether there is any."""
    any_there = False
    for i in range(labels.size):
        there = labels[i] == c
        truth[i] = 1.0 if there else 0.0
        any_there = any_there or there
    return any_there


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
def _true_line(across: Array, down: Array, truth: Array, width: int) -> None:
    """The edge of one-hot labels, in [0, 1]."""
    scale = truth.dtype.type(1) / truth.dtype.type(_LARGEST)
    for i in range(width):
        truth[i] = np.sqrt((across[i] * across[i] + down[i] * down[i]) * scale)


@kernel
def _rest_line(edge: Array, whole: Array, width: int) -> float:
    """Sum of the losses of a line without edges in the labels."""
    total, one = 0.0, edge.dtype.type(1)
    for i in range(width):
        total -= np.float64(log(one - edge[i]) * whole[i])
    return total


@kernel
def _mixed_line(edge: Array, truth: Array, whole: Array, width: int, out: Array) -> None:
    """Losses and weights of a line with edges in the labels, into ``out`` [4]."""
    one, zero = edge.dtype.type(1), edge.dtype.type(0)
    at_edges, edge_mass, both, mass = 0.0, 0.0, 0.0, 0.0
    for i in range(width):
        t = truth[i]
        loss = -(t * log(edge[i]) + (one - t) * log(one - edge[i])) * whole[i]
        edge[i] = loss
        both += np.float64(loss)
    for i in range(width):
        on_edge = truth[i] > zero
        edge_mass += np.float64(whole[i] if on_edge else zero)
        at_edges += np.float64(edge[i] if on_edge else zero)
        mass += np.float64(whole[i])
    out[0] += at_edges
    out[1] += edge_mass
    out[2] += both - at_edges
    out[3] += mass - edge_mass


@kernel
def add_edge_values(
    source: Source, first_row: int, stop_row: int, saved: Array, e: Edges, b: Buffers, out: Array
) -> None:
    """Add to ``out`` [4]: losses at edge pixels, their weights, losses at the rest, their weights; over all classes."""
    width, height = source.width, source.labels.size // source.width
    across, down, v, d = e.lines[0], e.lines[1], e.lines[2], e.lines[3]
    edge, truth = e.lines[4], e.lines[5]
    for row in range(first_row, stop_row, TILE_ROWS):
        stop = min(row + TILE_ROWS, stop_row)
        start, end = max(row - 1, 0), min(stop + 1, height)
        _probabilities(source, start, end, saved, e, b)
        labels = source.labels[start * width : end * width]
        for c in range(e.maps.shape[0]):
            maps = e.maps[c]
            occurs = _edge_of_labels(labels, c, e.truth)
            for r in range(row, stop):
                above, here = (max(r - 1, 0) - start) * width, (r - start) * width
                below = (min(r + 1, height - 1) - start) * width
                whole = e.whole[r * width : (r + 1) * width]
                _gradient_lines(maps, above, here, below, width, across, down, v, d)
                _edge_line(across, down, edge, width)
                if occurs:
                    _gradient_lines(e.truth, above, here, below, width, across, down, v, d)
                    _true_line(across, down, truth, width)
                    _mixed_line(edge, truth, whole, width, out)
                else:
                    out[2] += _rest_line(edge, whole, width)
                    mass = 0.0
                    for i in range(width):
                        mass += np.float64(whole[i])
                    out[3] += mass


@kernel
def _rest_slopes(across: Array, down: Array, edge: Array, whole: Array, factor: float, width: int) -> None:
    """Multiply the derivatives of a line without edges in the labels by the slope of the loss."""
    one, zero, sure = edge.dtype.type(1), edge.dtype.type(0), edge.dtype.type(_SURE)
    scale = edge.dtype.type(factor) / edge.dtype.type(_LARGEST + _FLOOR)
    for i in range(width):
        b = edge[i]
        slope = scale * whole[i] / ((one - b) * b)
        slope = slope if b < sure else zero
        across[i + 1] *= slope
        down[i + 1] *= slope


@kernel
def _mixed_slopes(
    across: Array, down: Array, edge: Array, truth: Array, whole: Array, factors: Array, width: int
) -> None:
    one, zero, sure = edge.dtype.type(1), edge.dtype.type(0), edge.dtype.type(_SURE)
    at_edges = factors[0] / edge.dtype.type(_LARGEST + _FLOOR)
    at_rest = factors[1] / edge.dtype.type(_LARGEST + _FLOOR)
    for i in range(width):
        b, t = edge[i], truth[i]
        factor = (at_edges if t > zero else at_rest) * whole[i]
        slope = factor * (b - t) / ((one - b) * b * b)
        slope = slope if b < sure else zero
        across[i + 1] *= slope
        down[i + 1] *= slope


@kernel
def add_edge_slopes(
    source: Source, first_row: int, stop_row: int, saved: Array, e: Edges, b: Buffers, out: Array
) -> None:
    """Set ``out`` [C, B] to the slopes of the probabilities in rows [first_row, stop_row)."""
    width, height = source.width, source.labels.size // source.width
    across, down, v, d = e.lines[0], e.lines[1], e.lines[2], e.lines[3]
    edge, truth, true_across, true_down = e.lines[4], e.lines[5], e.lines[6], e.lines[7]
    zero = e.maps.dtype.type(0)
    # edges one row beyond the tile reach into it, and their neighbourhoods one row further
    start, end = max(first_row - 2, 0), min(stop_row + 2, height)
    _probabilities(source, start, end, saved, e, b)
    labels = source.labels[start * width : end * width]
    count = (stop_row - first_row) * width
    for c in range(e.maps.shape[0]):
        maps, target = e.maps[c], out[c, :count]
        for i in range(count):
            target[i] = zero
        occurs = _edge_of_labels(labels, c, e.truth)
        for r in range(max(first_row - 1, 0), min(stop_row + 1, height)):
            above, below = max(r - 1, 0), min(r + 1, height - 1)
            at_above, at_here, at_below = (above - start) * width, (r - start) * width, (below - start) * width
            whole = e.whole[r * width : (r + 1) * width]
            _gradient_lines(maps, at_above, at_here, at_below, width, across[1:], down[1:], v, d)
            _edge_line(across[1:], down[1:], edge, width)
            if occurs:
                _gradient_lines(e.truth, at_above, at_here, at_below, width, true_across, true_down, v, d)
                _true_line(true_across, true_down, truth, width)
                _mixed_slopes(across, down, edge, truth, whole, e.factors, width)
            else:
                _rest_slopes(across, down, edge, whole, e.factors[1], width)
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
