"""The second pass: the gradient of a weighted sum of terms (`prove.losses.cpu.slopes` derives it)."""

from __future__ import annotations

import triton.language as tl

from prove.losses.cuda import bins
from prove.losses.cuda.bins import locate
from prove.losses.cuda.jit import Array, kernel
from prove.losses.cuda.tile import fading, load_labels, load_logits, load_mass, softmax, surprise

_BINS = tl.constexpr(bins.BINS)


@kernel
def gradient_of(
    z: Array, y: Array, mass: Array, pixel: Array, log_weight: Array, thresholds: Array, edges: Array,
    edge_stride: Array, factors: Array, regions: Array, table: Array, top: Array, top_at: Array, top_stride: Array,
    errors: Array, error_factor: Array, sobel: Array, sobel_stride: Array, sobel_first: Array, classes: Array,
    pixels: Array,
    LOGS: tl.constexpr, REGIONS: tl.constexpr, BINNED: tl.constexpr, ERRORS: tl.constexpr, SOBEL: tl.constexpr,
    DT: tl.constexpr, K: tl.constexpr,
) -> Array:  # fmt: skip
    """The gradient [K, B] on a tile of logits; 0 where ignored. All pointers but the first four are to the image's own.

    Args:
        edges: [E, ...] maps, ``edge_stride`` apart.
        factors: [L] of each logarithmic part, its divisor included.
        regions: [5, C], the slope of other pixels' probabilities ``b0 + b1 p`` and of own ones
            ``f0 + f1 q + f2 (1 - q)``.
        table: [C, 2, BINS] slopes of errors in a bin; top, top_at: [BINNED, ...] the slope of one pixel of each class.
        errors: [C, H W] slopes of errors, times ``error_factor`` [1].
        sobel: [C, ``sobel_stride``] slopes of the boundary part from pixel ``sobel_first`` on.
        BINNED: how many Lovász parts have bins.
    """
    c = tl.arange(0, K)
    known = (c < classes)[:, None]
    mine = c[:, None] == y[None, :]
    label = tl.maximum(y, 0)
    e, own, gap, others, inverse, _peak = softmax(z, y, K)
    q, miss = own * inverse, others * inverse

    log_slope = tl.zeros_like(own)
    if len(LOGS) > 0:
        nll = surprise(own, gap, others, DT)
        for k in tl.static_range(len(LOGS)):
            log_slope += _log_slope(
                k, LOGS[k], label, mass, q, miss, nll, log_weight, thresholds,
                edges + LOGS[k][4] * edge_stride + pixel, y >= 0, factors, classes, DT, K,
            )  # fmt: skip
    share = tl.where(others == 0.0, 0.0, log_slope / tl.where(others == 0.0, 1.0, others))

    if REGIONS or BINNED > 0 or ERRORS or SOBEL:
        p = e * inverse[None, :]
        slope = tl.zeros_like(e)
        own_slope = tl.zeros_like(own)
        mask = known & (y >= 0)[None, :]
        if SOBEL:
            at = c[:, None] * sobel_stride + (pixel - sobel_first)[None, :]
            slope += tl.load(sobel + at, mask=mask, other=0.0)
            own_slope += tl.sum(tl.where(mine, slope, 0.0), axis=0)
        if REGIONS:
            constant = tl.load(regions + c, mask=c < classes, other=0.0)
            linear = tl.load(regions + classes + c, mask=c < classes, other=0.0)
            slope += mass[None, :] * (constant[:, None] + linear[:, None] * p)
            own_regions = regions + label
            by_own = tl.load(own_regions + 2 * classes) + tl.load(own_regions + 3 * classes) * q
            own_slope += mass * (by_own + tl.load(own_regions + 4 * classes) * miss)
        if BINNED > 0:
            place, _cell = locate(p)
            slope += tl.load(table + (c * 2 * _BINS)[:, None] + place, mask=mask, other=0.0)
            place, _cell = locate(miss)
            own_slope -= tl.load(table + (label * 2 + 1) * _BINS + place, mask=y >= 0, other=0.0)
            for k in tl.static_range(BINNED):
                steep = tl.load(top + k * top_stride + c, mask=c < classes, other=0.0)
                at = tl.load(top_at + k * top_stride + c, mask=c < classes, other=-1)
                slope += tl.where(at[:, None] == pixel[None, :], steep[:, None], 0.0)
        if ERRORS:
            factor = tl.load(error_factor)
            given = tl.load(errors + c.to(tl.int64)[:, None] * pixels + pixel[None, :], mask=mask, other=0.0) * factor
            slope += given
            own_slope -= tl.sum(tl.where(mine, given, 0.0), axis=0)
        rest = tl.sum(p * slope, axis=0)
        gradient = e * ((share - inverse * (q * own_slope + rest))[None, :] + inverse[None, :] * slope)
        own_gradient = q * (miss * own_slope - rest) - log_slope
    else:
        gradient = e * share[None, :]
        own_gradient = -log_slope
    gradient = tl.where(mine, own_gradient[None, :], gradient)

    for k in tl.static_range(len(LOGS)):
        if LOGS[k][1] > 0.0:
            # what smoothing adds beside its W (-log p_y): the slope of -sum_c w_c (z_c - z_y)
            spread = tl.load(factors + k) * LOGS[k][1] / classes * mass
            if LOGS[k][3]:
                spread = tl.where(q >= tl.load(thresholds + k).to(DT), 0.0, spread)
            w = tl.load(log_weight + k * classes + c, mask=c < classes, other=0.0)
            gradient += spread[None, :] * (tl.where(mine, tl.sum(w), 0.0) - w[:, None])
    return tl.where((y >= 0)[None, :], gradient, 0.0)


@kernel
def _log_slope(
    k: tl.constexpr, part: tl.constexpr, label: Array, mass: Array, q: Array, miss: Array, nll: Array,
    log_weight: Array, thresholds: Array, edges: Array, valid: Array, factors: Array, classes: Array, DT: tl.constexpr,
    K: tl.constexpr,
) -> Array:  # fmt: skip
    """``u`` [B] of one logarithmic part."""
    factor = tl.load(factors + k)
    w = tl.load(log_weight + k * classes + label) * (1.0 - part[1])
    if part[1] > 0.0:
        c = tl.arange(0, K)
        w += tl.sum(tl.load(log_weight + k * classes + c, mask=c < classes, other=0.0)) * part[1] / classes
    slope = miss
    if part[0] != 0.0:
        slope = fading(part[0], miss) * (miss + part[0] * q * nll)
    if part[4] >= 0:
        slope *= tl.load(edges, mask=valid, other=0.0)
    if part[3]:
        mass = tl.where(q >= tl.load(thresholds + k).to(DT), 0.0, mass)
    return mass * factor * w * slope


@kernel
def add_slopes(
    logits: Array, labels: Array, weight: Array, log_weight: Array, thresholds: Array, edges: Array, factors: Array,
    regions: Array, table: Array, top: Array, top_at: Array, errors: Array, error_factor: Array, sobel: Array,
    out: Array, classes: Array, pixels: Array, images: Array, ignore_index: Array, table_stride: Array,
    first_image: Array, first: Array, stop: Array, LOGS: tl.constexpr, REGIONS: tl.constexpr, BINNED: tl.constexpr,
    ERRORS: tl.constexpr, SOBEL: tl.constexpr, WEIGHTED: tl.constexpr, DT: tl.constexpr, K: tl.constexpr,
    B: tl.constexpr,
) -> None:  # fmt: skip
    """The gradient of pixels [first, stop) of images from ``first_image`` on, where logits and labels have one size.

    A program writes one block of B pixels of image ``program_id(1)``. Pointers are to the first image of the batch, but
    for ``sobel`` [C, stop - first], of one image.
    """
    image = (first_image + tl.program_id(1)).to(tl.int64)
    stride = (tl.zeros((), tl.int64) + images) * pixels
    pixel = first + tl.program_id(0) * B + tl.arange(0, B)
    inside = pixel < stop
    y = load_labels(labels + image * pixels, pixel, inside, ignore_index, classes)
    z = load_logits(
        logits + image * classes * pixels,
        pixel,
        y >= 0,
        classes,
        1,
        pixels,
        1,
        labels,
        labels,
        labels,
        labels,
        K,
        False,
        DT,
    )
    mass = load_mass(weight + image * pixels, pixel, y, DT, WEIGHTED)
    gradient = gradient_of(
        z, y, mass, pixel, log_weight, thresholds, edges + image * pixels, stride, factors,
        regions, table + image * table_stride, top + image * classes, top_at + image * classes, images * classes,
        errors + image * classes * pixels, error_factor, sobel, stop - first, first, classes, pixels, LOGS, REGIONS,
        BINNED, ERRORS, SOBEL, DT, K,
    )  # fmt: skip
    c = tl.arange(0, K)
    at = (image * classes + c)[:, None] * pixels + pixel[None, :]
    tl.store(out + at, gradient, mask=(c < classes)[:, None] & inside[None, :])
