"""The two passes of the fused objective over a batch: values and what they leave, then the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from prove.losses.cpu.batch import Batch, in_order
from prove.losses.cpu.boundary import TILE_ROWS as EDGE_ROWS
from prove.losses.cpu.boundary import add_edge_values, edges_of
from prove.losses.cpu.lovasz import lovasz_value, slopes_in, slopes_of
from prove.losses.cpu.slopes import Slopes, add_slopes
from prove.losses.cpu.sweep import State, Sweep, log_arrays, scratch
from prove.losses.cpu.tile import rows_per_tile
from prove.losses.cpu.upsample import Pending
from prove.losses.fused.plan import BoundaryPart, LogPart, LovaszPart, Plan, RegionPart
from prove.losses.fused.region import region_slopes, region_value

Array = Any

SAVED_ROWS = 2
"""Numbers of each pixel that the first pass leaves for the second."""


def first_pass(plan: Plan, batch: Batch) -> tuple[list[float], State]:
    """The value of every part in the plan's order, and the state."""
    logs = [(i, p) for i, p in enumerate(plan.parts) if isinstance(p, LogPart)]
    lovasz = [p for p in plan.parts if isinstance(p, LovaszPart)]
    regions = any(isinstance(p, RegionPart) for p in plan.parts)
    thresholds = _thresholds(plan, batch)
    state = State(np.zeros((len(logs), 2)), thresholds, np.zeros((7 if regions else 0, batch.classes)))
    lovasz_values = []
    state.saved = np.empty((batch.images, SAVED_ROWS, batch.size[0] * batch.size[1]), batch.dtype)
    squares = any(isinstance(p, RegionPart) and p.squared for p in plan.parts)
    sweep = Sweep(batch, log_arrays(plan, batch, thresholds), regions, squares, saves=True)
    for part in lovasz:
        value, slopes = lovasz_value(part, batch, sweep, state)
        lovasz_values.append(value)
        state.lovasz.append(slopes)
        sweep = Sweep.bare(batch)  # logarithms and regions are summed once
    if not lovasz:
        sweep.run(state)
    if any(isinstance(p, BoundaryPart) for p in plan.parts):
        state.edges = _edge_sums(batch, state.saved)
    return _values(plan, state, lovasz_values), state


def _values(plan: Plan, state: State, lovasz: list[float]) -> list[float]:
    values, log, tail = [], iter(state.logs), iter(lovasz)
    for part in plan.parts:
        if isinstance(part, LogPart):
            above, below = next(log)
            values.append(float(above / below) if below > 0 else 0.0)
        elif isinstance(part, RegionPart):
            values.append(float(region_value(part, torch.from_numpy(state.regions))))
        elif isinstance(part, LovaszPart):
            values.append(next(tail))
        else:
            factors = _edge_factors(part, state.edges)
            values.append(float(factors[0] * state.edges[0] + factors[1] * state.edges[2]))
    return values


def _edge_sums(batch: Batch, saved: Array) -> Array:
    total = np.zeros(4)

    def task(image: int, first: int, stop: int) -> Array:
        out = np.zeros(4)
        edges = edges_of(batch.whole[image], np.zeros(2, batch.dtype), batch.classes, batch.size[1])
        add_edge_values(batch.source(image), first, stop, saved[image], edges, scratch(batch, 1, 0), out)
        return out

    for out in in_order(task, batch.blocks):
        total += out
    return total


def _edge_factors(part: BoundaryPart, sums: Array) -> tuple[float, float]:
    """What a loss at an edge pixel and one elsewhere count in the mean."""
    _, at_edges, _, at_rest = (float(each) for each in sums)
    if part.pos_weight == "balanced":
        halves = (at_edges > 0) + (at_rest > 0)
        return (1.0 / (halves * at_edges) if at_edges else 0.0), (1.0 / (halves * at_rest) if at_rest else 0.0)
    whole = part.pos_weight * at_edges + at_rest
    return (part.pos_weight / whole, 1.0 / whole) if whole else (0.0, 0.0)


def second_pass(plan: Plan, batch: Batch, state: State, coefficients: list[float]) -> Array:
    """The gradient of ``sum(coefficient * value)`` on the logits, [N, C, h w]."""
    factors, regions, edge_factors = _scaled(plan, batch, state, coefficients)
    logs = log_arrays(plan, batch, state.thresholds)
    lovasz = slopes_of(plan, batch, state, coefficients)
    outlined = edge_factors.size > 0
    rows = EDGE_ROWS if outlined else rows_per_tile(batch.size[1])
    gradient = np.zeros if batch.upsampled else np.empty
    out = gradient((batch.images, batch.classes, batch.low_size[0] * batch.low_size[1]), batch.dtype)

    def task(image: int, first: int, stop: int) -> tuple[Array, int]:
        base, end = batch.low_rows(first, stop) if batch.upsampled else (0, 1)
        width = batch.size[1] if batch.upsampled else 0
        part = out[image][:, None] if not batch.upsampled else np.zeros(
            (batch.classes, end - base, batch.low_size[1]), batch.dtype
        )  # fmt: skip
        b = scratch(batch, rows, len(logs.gamma))
        pending = Pending(
            np.zeros((batch.classes, width), batch.dtype), np.zeros((batch.classes, width), batch.dtype),
            np.full(1, -1, np.int64),
        )  # fmt: skip
        dense = np.empty_like(b.tile)
        add_slopes(
            batch.source(image), first, stop, rows, state.saved[image], logs, batch.edge_maps[image],
            Slopes(factors, regions, *slopes_in(lovasz, batch, image)),
            edges_of(batch.whole[image], edge_factors, batch.classes, batch.size[1]), b, dense, batch.gather, base,
            pending, part,
        )  # fmt: skip
        return part, base

    for (image, _, _), (part, base) in zip(batch.blocks, in_order(task, batch.blocks), strict=True):
        if batch.upsampled:
            low = out[image].reshape(batch.classes, *batch.low_size)
            low[:, base : base + part.shape[1]] += part
    return out


def _scaled(plan: Plan, batch: Batch, state: State, coefficients: list[float]) -> tuple[Array, Array, Array]:
    """Factors of logarithmic parts [L], slopes of regions [5, C], factors at edges [2] (or empty)."""
    factors, log = np.zeros(len(state.logs)), 0
    regions = torch.zeros((5, batch.classes), dtype=torch.float64)
    edges = np.zeros(2)
    for coefficient, part in zip(coefficients, plan.parts, strict=True):
        if isinstance(part, LogPart):
            below = state.logs[log, 1]
            factors[log] = coefficient / below if below > 0 else 0.0
            log += 1
        elif isinstance(part, RegionPart):
            regions += coefficient * region_slopes(part, torch.from_numpy(state.regions))
        elif isinstance(part, BoundaryPart):
            edges += coefficient * np.array(_edge_factors(part, state.edges))
    region_rows = regions.numpy().astype(batch.dtype)
    return factors, region_rows if region_rows.any() else region_rows[:0], edges.astype(batch.dtype)[: 2 * edges.any()]


def _thresholds(plan: Plan, batch: Batch) -> Array:
    """Below which own probability a pixel counts, for each logarithmic part; infinity without mining."""
    logs = [p for p in plan.parts if isinstance(p, LogPart)]
    thresholds = np.full(len(logs), np.inf)
    if not any(part.mining for part in logs):
        return thresholds
    probability = np.empty(batch.labels.shape, batch.dtype)
    Sweep.bare(batch).run(State.empty(batch), probability=probability)
    ranked = probability[batch.labels >= 0]
    for k, part in enumerate(logs):
        if part.mining and ranked.size:
            thresh, min_kept = part.mining
            last = min(min_kept * batch.images, ranked.size - 1)
            thresholds[k] = thresh
            if np.count_nonzero(ranked < thresh) <= last:
                thresholds[k] = max(thresh, float(np.partition(ranked, last)[last]))
    return thresholds
