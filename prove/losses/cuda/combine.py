"""From sums to values, and from the gradients that arrive to factors: one program each, on the device.

The formulas are those of `prove.losses.fused.region` and `prove.losses.cpu.engine`, in float64.
"""

from __future__ import annotations

import triton.language as tl

from prove.losses.cuda.jit import Array, kernel
from prove.losses.fused import region
from prove.losses.fused.plan import BoundaryPart, LogPart, Plan, RegionPart
from prove.losses.tversky import STRAIGHT_BELOW

LOG, REGION, BOUNDARY, LOVASZ = range(4)
PRESENT, ALL, LISTED = range(3)

_LOG, _REGION, _BOUNDARY = tl.constexpr(LOG), tl.constexpr(REGION), tl.constexpr(BOUNDARY)
_PRESENT, _ALL, _LISTED = tl.constexpr(PRESENT), tl.constexpr(ALL), tl.constexpr(LISTED)
_OWN, _OWN_MISS, _OWN_MASS = tl.constexpr(region.OWN), tl.constexpr(region.OWN_MISS), tl.constexpr(region.OWN_MASS)
_OTHERS, _OTHERS_SQUARED = tl.constexpr(region.OTHERS), tl.constexpr(region.OTHERS_SQUARED)
_OWN_SQUARED, _OWN_MISS_SQUARED = tl.constexpr(region.OWN_SQUARED), tl.constexpr(region.OWN_MISS_SQUARED)
_STRAIGHT = tl.constexpr(STRAIGHT_BELOW)


def described(plan: Plan) -> tuple[tuple[int | float, ...], ...]:
    """The parts of a plan as numbers that kernels are compiled for.

    Returns:
        For each part its kind, its index among those of its kind, and: of a region alpha, beta, smooth, power, whether
        it is squared and which classes it averages over; of a boundary whether it is balanced and its weight of edges.
    """
    found: list[tuple[int | float, ...]] = []
    seen = [0, 0, 0, 0]
    for part in plan.parts:
        if isinstance(part, LogPart):
            row: tuple[int | float, ...] = (LOG, seen[LOG])
        elif isinstance(part, RegionPart):
            mode = {"present": PRESENT, "all": ALL}.get(part.classes if isinstance(part.classes, str) else "", LISTED)
            numbers = (float(part.alpha), float(part.beta), float(part.smooth), float(part.power))
            row = (REGION, seen[REGION], *numbers, int(part.squared), mode)
        elif isinstance(part, BoundaryPart):
            balanced = part.pos_weight == "balanced"
            row = (BOUNDARY, seen[BOUNDARY], int(balanced), 1.0 if balanced else float(part.pos_weight))
        else:
            row = (LOVASZ, seen[LOVASZ])
        seen[int(row[0])] += 1
        found.append(row)
    return tuple(found)


@kernel
def _row(sums: Array, row: tl.constexpr, classes: Array, K: tl.constexpr) -> Array:
    c = tl.arange(0, K)
    return tl.load(sums + row * classes + c, mask=c < classes, other=0.0)


@kernel
def _region(part: tl.constexpr, sums: Array, listed: Array, classes: Array, K: tl.constexpr) -> Array:
    """What each class counts in the mean, its errors, and the whole that they are a share of (0: there is none)."""
    c = tl.arange(0, K)
    if part[7] == _PRESENT:
        chosen = _row(sums, _OWN_MASS, classes, K) > 0.0
    elif part[7] == _ALL:
        chosen = c < classes
    else:
        chosen = tl.load(listed + part[1] * classes + c, mask=c < classes, other=0) > 0
    count = tl.maximum(tl.sum(chosen.to(tl.float64)), 1.0)
    factor = tl.where(chosen, 1.0 / count, 0.0)
    if part[6]:
        errors = _row(sums, _OTHERS_SQUARED, classes, K) + _row(sums, _OWN_MISS_SQUARED, classes, K)
        whole = _row(sums, _OTHERS_SQUARED, classes, K) + _row(sums, _OWN_SQUARED, classes, K)
        return factor, errors, whole + _row(sums, _OWN_MASS, classes, K) + part[4]
    errors = part[2] * _row(sums, _OTHERS, classes, K) + part[3] * _row(sums, _OWN_MISS, classes, K)
    return factor, errors, _row(sums, _OWN, classes, K) + errors + part[4]


@kernel
def _raised(share: Array, power: tl.constexpr) -> Array:
    """``share^power`` for a power above 0; share is float64."""
    return tl.where(share == 0.0, 0.0, tl.exp(power * tl.log(tl.where(share == 0.0, 1.0, share))))


@kernel
def _power(share: Array, power: tl.constexpr) -> Array:
    """``share^power``, with a chord near 0 for powers below 1."""
    if power == 1.0:
        return share
    if power > 1.0:
        return _raised(share, power)
    chord = share * (_STRAIGHT ** (power - 1.0))
    return tl.where(share < _STRAIGHT, chord, _raised(share, power))


@kernel
def _power_slope(share: Array, power: tl.constexpr) -> Array:
    if power == 1.0:
        return tl.zeros_like(share) + 1.0
    if power > 1.0:
        return power * _raised(share, power - 1.0)
    curved = power * tl.exp((power - 1.0) * tl.log(tl.where(share < _STRAIGHT, _STRAIGHT, share)))
    return tl.where(share < _STRAIGHT, _STRAIGHT ** (power - 1.0), curved)


@kernel
def _edge_factors(part: tl.constexpr, sums: Array) -> Array:
    """What a loss at an edge pixel and one elsewhere count in the mean, float64."""
    at_edges, at_rest = tl.load(sums + 1), tl.load(sums + 3)
    some_edges, some_rest = at_edges > 0.0, at_rest > 0.0
    if part[2]:
        halves = some_edges.to(tl.float64) + some_rest.to(tl.float64)
        of_edges = tl.where(some_edges, 1.0 / tl.where(some_edges, halves * at_edges, 1.0), 0.0)
        return of_edges, tl.where(some_rest, 1.0 / tl.where(some_rest, halves * at_rest, 1.0), 0.0)
    whole = part[3] * at_edges + at_rest
    inverse = tl.where(whole > 0.0, 1.0 / tl.where(whole > 0.0, whole, 1.0), 0.0)
    return part[3] * inverse, inverse


@kernel
def set_values(
    logs: Array, regions: Array, edges: Array, listed: Array, values: Array, classes: Array, PARTS: tl.constexpr,
    K: tl.constexpr,
) -> None:  # fmt: skip
    """Set ``values`` [T], but for Lovász parts.

    Args:
        logs: [L, 2], regions: [7, C], edges: [4], float64 sums; listed: [regions, C] uint8, the classes of a list.
        PARTS: `described`.
    """
    for t in tl.static_range(len(PARTS)):
        if PARTS[t][0] == _LOG:
            above, below = tl.load(logs + 2 * PARTS[t][1]), tl.load(logs + 2 * PARTS[t][1] + 1)
            tl.store(values + t, tl.where(below > 0.0, above / tl.where(below > 0.0, below, 1.0), 0.0))
        if PARTS[t][0] == _REGION:
            factor, errors, whole = _region(PARTS[t], regions, listed, classes, K)
            share = tl.where(whole == 0.0, 0.0, errors) / tl.where(whole == 0.0, 1.0, whole)  # NaN stays
            tl.store(values + t, tl.sum(factor * _power(share, PARTS[t][5])))
        if PARTS[t][0] == _BOUNDARY:
            of_edges, of_rest = _edge_factors(PARTS[t], edges)
            tl.store(values + t, of_edges * tl.load(edges) + of_rest * tl.load(edges + 2))


@kernel
def set_factors(
    slopes: Array, logs: Array, regions: Array, edges: Array, listed: Array, log_factors: Array, region_slopes: Array,
    edge_factors: Array, classes: Array, PARTS: tl.constexpr, K: tl.constexpr,
) -> None:  # fmt: skip
    """From ``slopes`` [T], the gradients that arrive, to what the second pass multiplies with.

    Args:
        log_factors: [L], set; region_slopes: [5, C], set to the sum of `prove.losses.fused.region.region_slopes`;
            edge_factors: [2], set to those of edge pixels and of the rest.
    """
    c = tl.arange(0, K)
    zero = tl.zeros((K,), tl.float64)
    b0, b1, f0, f1, f2 = zero, zero, zero, zero, zero
    of_edges, of_rest = tl.sum(zero), tl.sum(zero)
    for t in tl.static_range(len(PARTS)):
        slope = tl.load(slopes + t).to(tl.float64)
        if PARTS[t][0] == _LOG:
            below = tl.load(logs + 2 * PARTS[t][1] + 1)
            tl.store(log_factors + PARTS[t][1], tl.where(below > 0.0, slope / tl.where(below > 0.0, below, 1.0), 0.0))
        if PARTS[t][0] == _REGION:
            factor, errors, whole = _region(PARTS[t], regions, listed, classes, K)
            empty = whole == 0.0
            whole = tl.where(empty, 1.0, whole)
            share = tl.where(empty, 0.0, errors) / whole
            outer = tl.where(empty, 0.0, slope * factor * _power_slope(share, PARTS[t][5]))
            by_errors, by_whole = outer / whole, -outer * share / whole
            if PARTS[t][6]:
                b1 += 2.0 * (by_errors + by_whole)
                f1 += 2.0 * by_whole
                f2 -= 2.0 * by_errors
            else:
                b0 += PARTS[t][2] * (by_errors + by_whole)
                f0 += by_whole - PARTS[t][3] * (by_errors + by_whole)
        if PARTS[t][0] == _BOUNDARY:
            at_edges, at_rest = _edge_factors(PARTS[t], edges)
            of_edges += slope * at_edges
            of_rest += slope * at_rest
    known = c < classes
    tl.store(region_slopes + c, b0, mask=known)
    tl.store(region_slopes + classes + c, b1, mask=known)
    tl.store(region_slopes + 2 * classes + c, f0, mask=known)
    tl.store(region_slopes + 3 * classes + c, f1, mask=known)
    tl.store(region_slopes + 4 * classes + c, f2, mask=known)
    tl.store(edge_factors, of_edges)
    tl.store(edge_factors + 1, of_rest)
