"""The first pass over the logits: the sums that the values of all terms are made of."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from prove.losses.cpu.bins import locate, tally
from prove.losses.cpu.jit import kernel
from prove.losses.cpu.tile import Source, Wide, fading, keep, load, masses, softmax, surprise, weights_of
from prove.losses.fused.region import OTHERS, OTHERS_SQUARED, OWN, OWN_MASS, OWN_MISS, OWN_MISS_SQUARED, OWN_SQUARED

Array = Any


class Logs(NamedTuple):
    """The parts that are sums of logarithms, L of them.

    Attributes:
        weight: [L, C] factor of each class above the line.
        divides: [L] bool, whether it is in the divisor as well.
        gamma, smoothing: [L].
        threshold: [L], a pixel counts unless its own probability reaches it (NaN does not); infinity for every pixel.
        edge: [L] index of its row in the edge maps, or -1.
    """

    weight: Array
    divides: Array
    gamma: Array
    smoothing: Array
    threshold: Array
    edge: Array


class Buffers(NamedTuple):
    """Scratch for one tile of B pixels."""

    tile: Array
    wide: Wide
    largest: Array
    own: Array
    gap: Array
    others: Array
    inverse: Array
    nll: Array
    mass: Array
    first: Array
    log_slope: Array
    own_slope: Array
    smooth: Array
    bins: Array
    cells: Array


def buffers(classes: int, pixels: int, width: int, logs: int, dtype: Any) -> Buffers:
    """Scratch for tiles of up to ``pixels`` pixels of one image; ``width`` is W with upsampling, otherwise 0."""
    largest, own, gap, others, inverse, nll, mass, first, log_slope, own_slope = np.empty((10, pixels), dtype)
    tile, smooth = np.empty((classes, pixels), dtype), np.empty((max(logs, 1), pixels), dtype)
    wide = Wide(np.empty((2, classes, width), dtype), np.full(2, -1, np.int64))
    bins, cells = np.empty(pixels, np.int32), np.empty(pixels, np.int64)
    return Buffers(
        tile, wide, largest, own, gap, others, inverse, nll, mass, first, log_slope, own_slope, smooth, bins, cells
    )  # fmt: skip


class Sums(NamedTuple):
    """What the first pass adds to.

    Attributes:
        logs: [L, 2], above and below the line.
        regions: [7, C], rows as in `prove.losses.fused.region`, or [0, C].
        squares: whether a part reads the rows of squares; that of other classes is 0 otherwise.
        histograms: [1, C, 2, bins] int64, errors of other pixels and of own ones, or [0, C, 2, bins].
        absent: [C] bool, classes that no pixel of the group has: not counted in histograms.
        top: [C] their largest probability, and ``top_at`` [C] the pixel.
        errors: [C, H W], filled with Lovász errors, -1 where ignored; [0, 0] when not asked for.
        probability: [H W], filled with each pixel's own probability; empty when not asked for.
        saved: [2, H W], filled with what the second pass needs of each pixel (`keep`); empty when not asked for.
        poison: [1], NaN once a valid pixel has no probabilities, because of a logit that is not finite.
    """

    logs: Array
    regions: Array
    squares: bool
    histograms: Array
    absent: Array
    top: Array
    top_at: Array
    errors: Array
    probability: Array
    saved: Array
    poison: Array


@kernel
def add_values(
    source: Source, first_row: int, stop_row: int, tile_rows: int, logs: Logs, edges: Array, sums: Sums, b: Buffers
) -> None:
    """Add rows [first_row, stop_row) of an image to ``sums``, ``tile_rows`` at a time."""
    for row in range(first_row, stop_row, tile_rows):
        stop = min(row + tile_rows, stop_row)
        first, count = row * source.width, (stop - row) * source.width
        labels = source.labels[first : first + count]
        own, gap, others, inverse = b.own[:count], b.gap[:count], b.others[:count], b.inverse[:count]
        nll, mass, largest = b.nll[:count], b.mass[:count], b.largest[:count]
        load(source, row, stop, b.tile, b.wide, largest)
        distances(b.tile, labels, logs, b.smooth)
        softmax(b.tile, labels, largest, own, gap, others, inverse)
        masses(source, first, mass)
        if sums.probability.size:
            out = sums.probability[first : first + count]
            for i in range(count):
                out[i] = own[i] * inverse[i] if labels[i] >= 0 else np.inf
        if logs.gamma.size:
            surprise(own, gap, others, nll)
            for part in range(logs.gamma.size):
                _log_values(part, labels, logs, edges, first, b, mass, sums.logs[part])
        if sums.saved.size:
            keep(largest, others, first, sums.saved)
        if sums.regions.shape[0]:
            _region_values(labels, b, mass, sums.squares, sums.regions)
        if sums.histograms.shape[0] or sums.errors.size:
            total = 0.0
            for i in range(count):
                total += np.float64(inverse[i])  # 1 where ignored
            if total != total:
                sums.poison[0] = total
        if sums.histograms.shape[0]:
            _count_errors(b, labels, count, first, sums)
        if sums.errors.size:
            _keep_errors(b.tile, labels, others, inverse, first, sums.errors)


@kernel
def _log_values(
    part: int, labels: Array, logs: Logs, edges: Array, first: int, b: Buffers, mass: Array, out: Array
) -> None:
    count = labels.size
    own, others, inverse, nll = b.own[:count], b.others[:count], b.inverse[:count], b.nll[:count]
    faded, factor = b.first[:count], b.log_slope[:count]
    smoothing, whole = logs.smoothing[part], 0.0
    if smoothing > 0.0:
        for c in range(logs.weight.shape[1]):
            whole += logs.weight[part, c]
    weight, divides, threshold = logs.weight[part], logs.divides[part], logs.threshold[part]
    fading(logs.gamma[part], others, inverse, faded)
    keep = nll.dtype.type(1.0 - logs.smoothing[part])
    above, below = 0.0, 0.0
    weights_of(weight, labels, factor)
    for i in range(count):
        w = factor[i]
        m = mass.dtype.type(0) if own[i] * inverse[i] >= threshold else mass[i]
        below += np.float64(m * w if divides else m)
        faded[i] *= m * w * nll[i] * keep
    if logs.edge[part] >= 0:
        edge = edges[logs.edge[part], first : first + count]
        for i in range(count):
            faded[i] *= edge[i]
    for i in range(count):
        above += np.float64(faded[i])
    if smoothing > 0.0:
        share, distance = smoothing / logs.weight.shape[1], b.smooth[part, :count]
        for i in range(count):
            m = mass.dtype.type(0) if own[i] * inverse[i] >= threshold else mass[i]
            above += share * (whole * np.float64(m * nll[i]) - np.float64(m * distance[i]))
    out[0] += above
    out[1] += below


@kernel
def distances(tile: Array, labels: Array, logs: Logs, out: Array) -> None:
    """``sum_c w_c (z_c - z_y)`` from a tile's logits into ``out`` [L, B], for the parts that smooth their labels."""
    count = labels.size
    for part in range(logs.gamma.size):
        if logs.smoothing[part] == 0.0:
            continue
        row = out[part, :count]
        for i in range(count):
            row[i] = row.dtype.type(0)
        for c in range(tile.shape[0]):
            logits, w = tile[c, :count], logs.weight[part, c]
            for i in range(count):
                row[i] += w * (logits[i] - tile[max(labels[i], 0), i])


@kernel
def _region_values(labels: Array, b: Buffers, mass: Array, squares: bool, out: Array) -> None:
    count, tile = labels.size, b.tile
    own, others, inverse, scaled = b.own[:count], b.others[:count], b.inverse[:count], b.first[:count]
    for i in range(count):
        scaled[i] = mass[i] * inverse[i]
    for c in range(tile.shape[0]):
        row = tile[c, :count]
        total, squared = 0.0, 0.0
        for i in range(count):
            total += np.float64(row[i] * scaled[i])
        if squares:
            for i in range(count):
                squared += np.float64(row[i] * scaled[i] * row[i] * inverse[i])
        out[OTHERS, c] += total
        out[OTHERS_SQUARED, c] += squared
    for i in range(count):
        y = labels[i]
        if y >= 0:
            hit, miss, m = np.float64(own[i] * inverse[i]), np.float64(others[i] * inverse[i]), np.float64(mass[i])
            out[OWN, y] += m * hit
            out[OWN_MISS, y] += m * miss
            out[OWN_MASS, y] += m
            out[OWN_SQUARED, y] += m * hit * hit
            out[OWN_MISS_SQUARED, y] += m * miss * miss


@kernel
def _count_errors(b: Buffers, labels: Array, count: int, first: int, sums: Sums) -> None:
    zero = b.tile.dtype.type(0)
    inverse, bins, cells = b.inverse[:count], b.bins[:count], b.cells[:count]
    masked = b.first[:count]
    for i in range(count):
        masked[i] = inverse[i] if labels[i] >= 0 else zero
    for c in range(b.tile.shape[0]):
        row = b.tile[c, :count]
        if sums.absent[c]:
            _find_top(c, row, masked, first, sums)
            continue
        locate(row, masked, bins, cells)
        tally(bins, cells, sums.histograms[0, c, 0])
    locate(b.others[:count], masked, bins, cells)
    for i in range(count):
        if labels[i] >= 0:
            sums.histograms[0, labels[i], 1, bins[i]] += cells[i]


@kernel
def _find_top(c: int, row: Array, masked: Array, first: int, sums: Sums) -> None:
    largest = masked.dtype.type(0)
    for i in range(masked.size):
        p = row[i] * masked[i]
        largest = p if p > largest else largest
    if largest > sums.top[c]:
        sums.top[c] = largest
        for i in range(masked.size):
            if row[i] * masked[i] == largest:
                sums.top_at[c] = first + i
                break


@kernel
def _keep_errors(tile: Array, labels: Array, others: Array, inverse: Array, first: int, out: Array) -> None:
    count = labels.size
    for c in range(tile.shape[0]):
        row, kept = tile[c, :count], out[c, first : first + count]
        for i in range(count):
            kept[i] = row[i] * inverse[i] if labels[i] >= 0 else kept.dtype.type(-1)
    for i in range(count):
        if labels[i] >= 0:
            out[labels[i], first + i] = others[i] * inverse[i]
