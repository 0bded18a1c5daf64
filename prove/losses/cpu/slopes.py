"""The second pass over the logits: the gradient of any weighted sum of the terms, in one sweep.

With q the pixel's own probability and o = 1 - q, a term that is a function of probabilities has a slope
``A_k = dL/dp_k`` at every pixel, and all of them pass through the softmax together: ``dL/dz_k = p_k (A_k - q A_y - S)``
for other classes and ``dL/dz_y = q (o A_y - S)``, ``S = sum_{j != y} p_j A_j``. A term of log q has ``u = -dL/dm`` for
the margin ``m = log(q / o)``: ``dL/dz_y = -u`` and ``dL/dz_k = u e_k / sum_{j != y} e_j``. Nothing cancels anywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from prove.losses.cpu.bins import place
from prove.losses.cpu.boundary import Edges, add_edge_slopes
from prove.losses.cpu.jit import kernel
from prove.losses.cpu.maths import exp
from prove.losses.cpu.tile import Source, fading, masses, restore, surprise_again, take_own, weights_of
from prove.losses.cpu.upsample import Gather, Pending, add_row, flush
from prove.losses.cpu.values import Buffers, Logs

Array = Any


class Slopes(NamedTuple):
    """What the gradient is made of; everything is scaled by the gradient that arrives and by the term's divisor.

    Attributes:
        logs: [L] factor of each logarithmic part.
        regions: [5, C] or [0, C]: the slope of other pixels' probabilities ``b0 + b1 p`` and of own ones
            ``f0 + f1 q + f2 o``.
        bins: [C, 2, bins] or [0, 2, bins]: slopes of errors in a bin, of other pixels and of own ones.
        top: [K, C] slope of the one pixel ``top_at`` [K, C] of classes that are absent; 0 for the rest.
        errors: [C, H W] slopes of errors pixel by pixel, times ``error_factor``; [0, 0] when there are none.
    """

    logs: Array
    regions: Array
    bins: Array
    top: Array
    top_at: Array
    errors: Array
    error_factor: float


@kernel
def add_slopes(
    source: Source, first_row: int, stop_row: int, tile_rows: int, saved: Array, logs: Logs, edges: Array,
    slopes: Slopes, sobel: Edges, b: Buffers, dense: Array, gather: Gather, base: int, pending: Pending, out: Array,
) -> None:  # fmt: skip
    """Write the gradient of rows [first_row, stop_row) of an image.

    Args:
        saved: [2, H W], of the first pass.
        dense: [C, B] scratch.
        out: [C, H W]; with upsampling [C, rows, w], to which is added from low-resolution row ``base`` on.
    """
    upsampled = source.columns.size > 0
    zero = b.tile.dtype.type(0)
    classes = b.tile.shape[0]
    outlined = sobel.factors.shape[0] > 0
    dense_parts = outlined or slopes.regions.shape[0] > 0 or slopes.bins.shape[0] > 0 or slopes.errors.size > 0
    constant = slopes.regions.shape[0] > 0 and not (outlined or slopes.bins.shape[0] > 0 or slopes.errors.size > 0)
    for c in range(slopes.regions.shape[1] if constant else 0):
        constant = constant and slopes.regions[1, c] == zero
    for row in range(first_row, stop_row, tile_rows):
        stop = min(row + tile_rows, stop_row)
        first, count = row * source.width, (stop - row) * source.width
        labels = source.labels[first : first + count]
        own, gap, others, inverse = b.own[:count], b.gap[:count], b.others[:count], b.inverse[:count]
        mass, log_slope, scratch = b.mass[:count], b.log_slope[:count], b.first[:count]
        if outlined:
            add_edge_slopes(source, row, stop, saved, sobel, b, dense)
        direct = not (upsampled or dense_parts)
        if direct:
            _own_alone(source, labels, saved, first, own, others, inverse)
        else:
            restore(source, row, stop, saved, b.tile, b.wide)
            take_own(b.tile, labels, saved, first, own, others, inverse)
        masses(source, first, mass)
        _log_slopes(labels, logs, slopes.logs, edges, first, b, count)
        for i in range(count):
            scratch[i] = zero if others[i] == zero else log_slope[i] / others[i]
        if constant:
            _constant_slopes(labels, slopes.regions, count, b)
            _through_softmax(labels, count, b)
            for i in range(count):
                gap[i] *= mass[i]
            for c in range(classes):
                tile, slope = b.tile[c, :count], slopes.regions[0, c]
                target = tile if upsampled else out[c, 0, first : first + count]
                for i in range(count):
                    target[i] = tile[i] * (scratch[i] + slope * gap[i])
        elif dense_parts:
            _dense_slopes(labels, slopes, first, count, b, dense, outlined)
            _through_softmax(labels, count, b)
            for c in range(classes):
                tile, slope = b.tile[c, :count], dense[c, :count]
                target = tile if upsampled else out[c, 0, first : first + count]
                for i in range(count):
                    target[i] = tile[i] * (scratch[i] + gap[i] * slope[i])
        else:
            largest = saved[0, first : first + count]
            for c in range(classes):
                if direct:
                    given, target = source.logits[c, first : first + count], out[c, 0, first : first + count]
                    for i in range(count):
                        target[i] = exp((given[i] if labels[i] >= 0 else zero) - largest[i]) * scratch[i]
                else:
                    tile = b.tile[c, :count]
                    for i in range(count):
                        tile[i] *= scratch[i]
            for i in range(count):
                b.own_slope[i] = -log_slope[i]
        for i in range(count):
            if labels[i] >= 0:
                if upsampled:
                    b.tile[labels[i], i] = b.own_slope[i]
                else:
                    out[labels[i], 0, first + i] = b.own_slope[i]
        _smooth_slopes(labels, logs, slopes.logs, count, b, out, first, upsampled)
        if upsampled:
            for r in range(row, stop):
                add_row(source, r, b.tile, (r - row) * source.width, gather, base, pending, out)
    if upsampled:
        flush(gather, base, pending, out)
        pending.at[0] += 1
        flush(gather, base, pending, out)


@kernel
def _own_alone(
    source: Source, labels: Array, saved: Array, first: int, own: Array, others: Array, inverse: Array
) -> None:
    """As `restore` and `take_own`, without the other classes."""
    count = labels.size
    one = own.dtype.type(1)
    largest, kept = saved[0, first : first + count], saved[1, first : first + count]
    for i in range(count):
        own[i] = source.logits[labels[i], first + i] if labels[i] >= 0 else own.dtype.type(0)
    for i in range(count):
        own[i] = exp(own[i] - largest[i])
        others[i] = kept[i]
        inverse[i] = one / (own[i] + others[i])


@kernel
def _log_slopes(labels: Array, logs: Logs, factors: Array, edges: Array, first: int, b: Buffers, count: int) -> None:
    """``u`` of all logarithmic parts together, into ``b.log_slope``."""
    own, others, inverse = b.own[:count], b.others[:count], b.inverse[:count]
    mass, out = b.mass[:count], b.log_slope[:count]
    nll, focal = b.nll[:count], False
    for part in range(logs.gamma.size):
        focal = focal or logs.gamma[part] > 0.0
    if focal:
        surprise_again(own, others, nll)
    for i in range(count):
        out[i] = out.dtype.type(0)
    for part in range(logs.gamma.size):
        if factors[part] == 0.0:
            continue
        weight, threshold = logs.weight[part], logs.threshold[part]
        gamma = out.dtype.type(logs.gamma[part])
        factor = out.dtype.type(factors[part] * (1.0 - logs.smoothing[part]))
        smooth = out.dtype.type(0)
        if logs.smoothing[part] > 0.0:
            for c in range(logs.weight.shape[1]):
                smooth += logs.weight[part, c]
            smooth *= out.dtype.type(factors[part] * logs.smoothing[part] / logs.weight.shape[1])
        part_slope, own_weight = b.first[:count], b.own_slope[:count]
        if gamma == 0.0:
            for i in range(count):
                part_slope[i] = others[i] * inverse[i]
        else:
            fading(logs.gamma[part], others, inverse, part_slope)
            for i in range(count):
                part_slope[i] *= (others[i] + gamma * own[i] * nll[i]) * inverse[i]
        if logs.edge[part] >= 0:
            edge = edges[logs.edge[part], first : first + count]
            for i in range(count):
                part_slope[i] *= edge[i]
        weights_of(weight, labels, own_weight)
        for i in range(count):
            m = mass.dtype.type(0) if own[i] * inverse[i] >= threshold else mass[i]
            out[i] += m * (factor * own_weight[i] + smooth) * part_slope[i]


@kernel
def _constant_slopes(labels: Array, regions: Array, count: int, b: Buffers) -> None:
    """As `_dense_slopes`, where the slope of another class's probability is one number per class and mass."""
    own, others, inverse, mass = b.own[:count], b.others[:count], b.inverse[:count], b.mass[:count]
    own_slope, rest = b.own_slope[:count], b.nll[:count]
    for i in range(count):
        rest[i] = rest.dtype.type(0)
    for c in range(regions.shape[1]):
        tile, slope = b.tile[c, :count], regions[0, c]
        for i in range(count):
            rest[i] += tile[i] * slope
    for i in range(count):
        y = max(labels[i], 0)
        q, o = own[i] * inverse[i], others[i] * inverse[i]
        own_slope[i] = mass[i] * (regions[2, y] + regions[3, y] * q + regions[4, y] * o)
        rest[i] *= mass[i]


@kernel
def _dense_slopes(
    labels: Array, slopes: Slopes, first: int, count: int, b: Buffers, dense: Array, outlined: bool
) -> None:
    """The slopes ``A`` [C, B] of all parts that are functions of probabilities, and ``sum_j e_j A_j`` into ``b.nll``.

    Args:
        dense: set, or added to when ``outlined``.
    """
    own, others, inverse, mass = b.own[:count], b.others[:count], b.inverse[:count], b.mass[:count]
    bins, own_slope, rest = b.bins[:count], b.own_slope[:count], b.nll[:count]
    zero, error_factor = dense.dtype.type(0), dense.dtype.type(slopes.error_factor)
    regional, binned, kept = slopes.regions.shape[0] > 0, slopes.bins.shape[0] > 0, slopes.errors.size > 0
    for i in range(count):
        own_slope[i] = dense[max(labels[i], 0), i] if outlined else zero
        rest[i] = zero
    for c in range(dense.shape[0]):
        tile, out = b.tile[c, :count], dense[c, :count]
        if not outlined:
            for i in range(count):
                out[i] = zero
        if regional:
            constant, linear = slopes.regions[0, c], slopes.regions[1, c]
            if linear == zero:
                for i in range(count):
                    out[i] += mass[i] * constant
            else:
                for i in range(count):
                    out[i] += mass[i] * (constant + linear * tile[i] * inverse[i])
        if binned:
            place(tile, inverse, bins)
            table = slopes.bins[c, 0]
            for i in range(count):
                out[i] += table[bins[i]]
            for k in range(slopes.top.shape[0]):
                if slopes.top[k, c] != 0.0 and first <= slopes.top_at[k, c] < first + count:
                    out[slopes.top_at[k, c] - first] += slopes.top[k, c]
        if kept:
            given = slopes.errors[c, first : first + count]
            for i in range(count):
                out[i] += error_factor * given[i]
        for i in range(count):
            rest[i] += tile[i] * out[i]
    if regional:
        for i in range(count):
            y = max(labels[i], 0)
            q, o = own[i] * inverse[i], others[i] * inverse[i]
            own_slope[i] += mass[i] * (slopes.regions[2, y] + slopes.regions[3, y] * q + slopes.regions[4, y] * o)
    if binned:
        place(others, inverse, bins)
        for i in range(count):
            own_slope[i] -= slopes.bins[max(labels[i], 0), 1, bins[i]]
    if kept:
        for i in range(count):
            own_slope[i] -= error_factor * slopes.errors[max(labels[i], 0), first + i]


@kernel
def _through_softmax(labels: Array, count: int, b: Buffers) -> None:
    """What every numerator of a pixel is multiplied with, logarithmic parts and slopes together.

    The gradient of another class is ``e_k (b.first + b.gap A_k)``, of the own one ``b.own_slope``; 0 where ignored.
    """
    own, others, inverse = b.own[:count], b.others[:count], b.inverse[:count]
    own_slope, log_slope, log_share = b.own_slope[:count], b.log_slope[:count], b.first[:count]
    rest, masked = b.nll[:count], b.gap[:count]
    zero = rest.dtype.type(0)
    for i in range(count):
        q, o, s = own[i] * inverse[i], others[i] * inverse[i], rest[i] * inverse[i]
        valid = labels[i] >= 0
        masked[i] = inverse[i] if valid else zero
        log_share[i] = log_share[i] - inverse[i] * (q * own_slope[i] + s) if valid else zero
        own_slope[i] = q * (o * own_slope[i] - s) - log_slope[i]


@kernel
def _smooth_slopes(
    labels: Array, logs: Logs, factors: Array, count: int, b: Buffers, out: Array, first: int, in_tile: bool
) -> None:
    """What label smoothing adds beside its ``W (-log p_y)``: the slope of ``-sum_c w_c (z_c - z_y)``."""
    for part in range(logs.gamma.size):
        if logs.smoothing[part] == 0.0 or factors[part] == 0.0:
            continue
        share, whole = b.first[:count], b.tile.dtype.type(0)
        scale = share.dtype.type(factors[part] * logs.smoothing[part] / logs.weight.shape[1])
        for i in range(count):
            easy = b.own[i] * b.inverse[i] >= logs.threshold[part]
            share[i] = share.dtype.type(0) if easy else scale * b.mass[i]
        for c in range(logs.weight.shape[1]):
            w = logs.weight[part, c]
            target = b.tile[c, :count] if in_tile else out[c, 0, first : first + count]
            whole += w
            for i in range(count):
                target[i] -= share[i] * w
        for i in range(count):
            if in_tile:
                b.tile[max(labels[i], 0), i] += share[i] * whole
            else:
                out[max(labels[i], 0), 0, first + i] += share[i] * whole
