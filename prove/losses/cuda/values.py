"""The first pass over the logits: the sums that the values of all terms are made of."""

from __future__ import annotations

import triton.language as tl

from prove.losses.cuda import bins
from prove.losses.cuda.bins import locate
from prove.losses.cuda.jit import Array, kernel
from prove.losses.cuda.tile import fading, load_labels, load_logits, load_mass, softmax, surprise
from prove.losses.fused import region

_BINS = tl.constexpr(bins.BINS)
_OWN, _OWN_MISS, _OWN_MASS = tl.constexpr(region.OWN), tl.constexpr(region.OWN_MISS), tl.constexpr(region.OWN_MASS)
_OTHERS, _OTHERS_SQUARED = tl.constexpr(region.OTHERS), tl.constexpr(region.OTHERS_SQUARED)
_OWN_SQUARED, _OWN_MISS_SQUARED = tl.constexpr(region.OWN_SQUARED), tl.constexpr(region.OWN_MISS_SQUARED)

NO_TOP = -1
"""The key of a class that no pixel was seen for; otherwise the bits of a float32 error, and 2^31 - 1 - the pixel."""


@kernel
def add_values(
    logits: Array, labels: Array, weight: Array, rows_at: Array, rows_share: Array, columns_at: Array,
    columns_share: Array, log_weight: Array, thresholds: Array, edges: Array, partial: Array, histogram: Array,
    top: Array, counts: Array, factor: Array, errors: Array, probability: Array, peaks: Array, inverses: Array,
    classes: Array, pixels: Array,
    width: Array, low_pixels: Array, low_width: Array, images: Array, blocks: Array, ignore_index: Array,
    per_image: Array, LOGS: tl.constexpr, REGIONS: tl.constexpr, SQUARED: tl.constexpr, BINNED: tl.constexpr,
    ERRORS: tl.constexpr, MINING: tl.constexpr, PEAKS: tl.constexpr, WEIGHTED: tl.constexpr, UP: tl.constexpr,
    DT: tl.constexpr, SLOTS: tl.constexpr, K: tl.constexpr, B: tl.constexpr,
) -> None:  # fmt: skip
    """Each program sums every so-many-th block of B pixels, of ``blocks`` in each image.

    Args:
        log_weight: [L, C]; thresholds: [L] float64; edges: [E, N, H W].
        partial: [programs, 2 L + 7 C + 1] float64, set: above and below the line of each logarithm, rows of regions if
            any part asks, and 0, or NaN once a Lovász error of a valid pixel is.
        histogram: [N, C, 2, BINS] int64 and top [N, C] int64, added to where BINNED. Classes that no pixel of the
            group is of have a ``top`` only. Other errors in the lowest bin are not counted.
        counts, factor: [groups, C], pixels of each class in int32, and what it counts in the mean in float64.
        errors: [N, C, H W], set where ERRORS, -1 where ignored.
        probability: [N, H W], set where MINING, infinite where ignored.
        peaks, inverses: [N, H W], set where PEAKS: a probability is ``exp(z - peak) * inverse``.
        LOGS: for each logarithmic part its gamma, smoothing, whether it divides by class weights, whether it mines,
            and the index of its edge map or -1.
        SLOTS: 2 L, rounded up to a power of two.
    """
    c, slots = tl.arange(0, K), tl.arange(0, SLOTS)
    known = c < classes
    sums = tl.zeros((SLOTS,), tl.float64)
    own_sum, miss_sum, mass_sum = tl.zeros((K,), tl.float64), tl.zeros((K,), tl.float64), tl.zeros((K,), tl.float64)
    others_sum, others_squared = tl.zeros((K,), tl.float64), tl.zeros((K,), tl.float64)
    own_squared, miss_squared = tl.zeros((K,), tl.float64), tl.zeros((K,), tl.float64)
    poison = tl.zeros((B,), DT)
    for block in range(tl.program_id(0), images * blocks, tl.num_programs(0)):
        image = (block // blocks).to(tl.int64)
        pixel = (block % blocks) * B + tl.arange(0, B)
        y = load_labels(labels + image * pixels, pixel, pixel < pixels, ignore_index, classes)
        z = load_logits(
            logits + image * classes * low_pixels, pixel, y >= 0, classes, width, low_pixels, low_width, rows_at,
            rows_share, columns_at, columns_share, K, UP, DT,
        )  # fmt: skip
        e, own, gap, others, inverse, peak = softmax(z, y, K)
        mass = load_mass(weight + image * pixels, pixel, y, DT, WEIGHTED)
        q, miss = own * inverse, others * inverse
        mine = c[:, None] == y[None, :]
        if MINING:
            tl.store(probability + image * pixels + pixel, tl.where(y >= 0, q, float("inf")), mask=pixel < pixels)
        if PEAKS:
            tl.store(peaks + image * pixels + pixel, peak, mask=pixel < pixels)
            tl.store(inverses + image * pixels + pixel, inverse, mask=pixel < pixels)
        if len(LOGS) > 0:
            nll = surprise(own, gap, others, DT)
            for k in tl.static_range(len(LOGS)):
                above, below = _log_values(
                    k, LOGS[k], y, z, mine, mass, q, miss, nll, log_weight, thresholds,
                    edges + (LOGS[k][4] * images + image) * pixels + pixel, pixel < pixels, classes, DT, K,
                )  # fmt: skip
                sums += tl.where(slots == 2 * k, above, 0.0) + tl.where(slots == 2 * k + 1, below, 0.0)
        if REGIONS or BINNED or ERRORS:
            p = e * inverse[None, :]
            if REGIONS:
                weighted = p * mass[None, :]
                others_sum += tl.sum(weighted, axis=1).to(tl.float64)
                own_sum += tl.sum(tl.where(mine, (mass * q)[None, :], 0.0), axis=1).to(tl.float64)
                miss_sum += tl.sum(tl.where(mine, (mass * miss)[None, :], 0.0), axis=1).to(tl.float64)
                mass_sum += tl.sum(tl.where(mine, mass[None, :], 0.0), axis=1).to(tl.float64)
                if SQUARED:
                    others_squared += tl.sum(weighted * p, axis=1).to(tl.float64)
                    own_squared += tl.sum(tl.where(mine, (mass * q * q)[None, :], 0.0), axis=1).to(tl.float64)
                    miss_squared += tl.sum(tl.where(mine, (mass * miss * miss)[None, :], 0.0), axis=1).to(tl.float64)
            if BINNED or ERRORS:
                # neither a histogram nor a ranking shows it
                poison += tl.where(y >= 0, inverse * 0.0, 0.0)
            if BINNED:
                _count(
                    p, miss, y, pixel, histogram + image * classes * 2 * _BINS, top + image * classes,
                    counts + image * per_image * classes, factor + image * per_image * classes, classes, K,
                )  # fmt: skip
            if ERRORS:
                error = tl.where((y >= 0)[None, :], tl.where(mine, miss[None, :], p), -1.0)
                out = errors + (image * classes + c)[:, None] * pixels + pixel[None, :]
                tl.store(out, error, mask=known[:, None] & (pixel < pixels)[None, :])
    summed = 2 * len(LOGS) + 7 * classes * REGIONS
    out = partial + tl.program_id(0) * (summed + 1)
    tl.store(out + summed, tl.sum(poison).to(tl.float64))
    tl.store(out + slots, sums, mask=slots < 2 * len(LOGS))
    if REGIONS:
        out += 2 * len(LOGS) + c
        tl.store(out + _OWN * classes, own_sum, mask=known)
        tl.store(out + _OWN_MISS * classes, miss_sum, mask=known)
        tl.store(out + _OWN_MASS * classes, mass_sum, mask=known)
        tl.store(out + _OTHERS * classes, others_sum, mask=known)
        tl.store(out + _OTHERS_SQUARED * classes, others_squared, mask=known)
        tl.store(out + _OWN_SQUARED * classes, own_squared, mask=known)
        tl.store(out + _OWN_MISS_SQUARED * classes, miss_squared, mask=known)


@kernel
def _log_values(
    k: tl.constexpr, part: tl.constexpr, y: Array, z: Array, mine: Array, mass: Array, q: Array, miss: Array,
    nll: Array, log_weight: Array, thresholds: Array, edges: Array, inside: Array, classes: Array, DT: tl.constexpr,
    K: tl.constexpr,
) -> Array:  # fmt: skip
    """What the tile adds above and below the line of a logarithmic part, float64."""
    w = tl.load(log_weight + k * classes + tl.maximum(y, 0))
    if part[3]:
        mass = tl.where(q >= tl.load(thresholds + k).to(DT), 0.0, mass)
    loss = mass * w * nll * fading(part[0], miss)
    if part[4] >= 0:
        loss *= tl.load(edges, mask=inside, other=0.0)
    above = tl.sum(loss.to(tl.float64))
    if part[1] > 0.0:
        # sum_c w_c (z_c - z_y); differences first, for logits may be far from 0
        c = tl.arange(0, K)
        w_all = tl.load(log_weight + k * classes + c, mask=c < classes, other=0.0)
        from_own = z - tl.sum(tl.where(mine, z, 0.0), axis=0)[None, :]
        distance = tl.sum(tl.where((c < classes)[:, None], w_all[:, None] * from_own, 0.0), axis=0)
        smooth = tl.where(mass > 0.0, mass * (tl.sum(w_all) * nll - distance), 0.0)
        above = above * (1.0 - part[1]) + tl.sum(smooth.to(tl.float64)) * part[1] / classes
    if part[2]:
        return above, tl.sum((mass * w).to(tl.float64))
    return above, tl.sum(mass.to(tl.float64))


@kernel
def _count(
    p: Array, miss: Array, y: Array, pixel: Array, histogram: Array, top: Array, counts: Array, factor: Array,
    classes: Array, K: tl.constexpr,
) -> None:  # fmt: skip
    """Add a tile's errors to the bins of an image, and the largest ones of absent classes to ``top``."""
    c = tl.arange(0, K)
    chosen = tl.load(factor + c, mask=c < classes, other=0.0) > 0.0
    there = tl.load(counts + c, mask=c < classes, other=0) > 0
    counted, absent = chosen & there, chosen & (there == 0)
    place, cell = locate(p)
    others = counted[:, None] & ((y >= 0)[None, :] & (c[:, None] != y[None, :])) & (place > 0)
    tl.atomic_add(histogram + (c * 2 * _BINS)[:, None] + place, cell, mask=others, sem="relaxed")
    place, cell = locate(miss)
    of_own = tl.load(factor + tl.maximum(y, 0)) > 0.0
    tl.atomic_add(histogram + (2 * tl.maximum(y, 0) + 1) * _BINS + place, cell, mask=(y >= 0) & of_own, sem="relaxed")
    if tl.sum(absent.to(tl.int32)) > 0:
        single = tl.where((y >= 0)[None, :], p, -1.0).to(tl.float32)
        largest = tl.max(single, axis=1)
        first = tl.min(tl.where(single == largest[:, None], pixel[None, :], 0x7FFFFFFF), axis=1)
        key = (largest.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (0x7FFFFFFF - first).to(tl.int64)
        tl.atomic_max(top + c, key, mask=absent & (largest >= 0.0), sem="relaxed")
