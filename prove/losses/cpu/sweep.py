"""One run of the first pass over all blocks of a batch, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prove.losses.cpu.batch import Batch, in_order
from prove.losses.cpu.bins import BINS
from prove.losses.cpu.tile import rows_per_tile
from prove.losses.cpu.values import Buffers, Logs, Sums, add_values, buffers
from prove.losses.fused.plan import LogPart, Plan

Array = Any


@dataclass
class Lovasz:
    """What one Lovász part leaves: slopes by bin, or pixel by pixel.

    Attributes:
        bins: [groups, C, 2, BINS], the factors of the mean included; None when it was sorted.
        top, top_at: [groups, C] slope of the one pixel of each absent class, and its index in the group.
        errors: [N, C, H W] slopes of errors; None when it was binned.
        certificate: bound of the value's error, 0 when it was sorted.
        again: sort in the second pass, where the bins could not certify enough.
    """

    bins: Array | None
    top: Array
    top_at: Array
    errors: Array | None
    certificate: float = 0.0
    again: bool = False


@dataclass
class State:
    """What the first pass leaves for the second.

    Attributes:
        logs: [L, 2] sums above and below the line; thresholds: [L] of mining.
        regions: [7, C], or [0, C] when no part asks.
        edges: [4] (`add_edge_values`).
        lovasz: one for each Lovász part.
        saved: [N, 2, H W], of every pixel (`prove.losses.cpu.tile.keep`).
    """

    logs: Array
    thresholds: Array
    regions: Array
    edges: Array = field(default_factory=lambda: np.zeros(4))
    lovasz: list[Lovasz] = field(default_factory=list)
    saved: Array = field(default_factory=lambda: np.empty((0, 0, 0)))

    @classmethod
    def empty(cls, batch: Batch) -> State:
        """Of no part."""
        return cls(np.zeros((0, 2)), np.empty(0), np.empty((0, batch.classes)))


class Sweep:
    """One run of the first pass over all blocks, for logarithmic parts, regions and at most one Lovász part.

    Attributes:
        poison: NaN when errors were asked for and a valid pixel has none, otherwise 0.
    """

    def __init__(self, batch: Batch, logs: Logs, regions: bool, squares: bool = False, saves: bool = False) -> None:
        self.batch, self.logs, self.regions, self.squares, self.saves = batch, logs, regions, squares, saves
        self.poison = 0.0

    @classmethod
    def bare(cls, batch: Batch) -> Sweep:
        """Without any part."""
        return cls(batch, log_arrays(Plan(()), batch, np.empty(0)), False)

    def run(
        self, state: State, *, binned: bool = False, per_image: bool = True, errors: Array | None = None,
        probability: Array | None = None,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """Add to the state; returns histograms [groups, C, 2, BINS], top errors and their pixels [groups, C]."""
        batch = self.batch
        groups = (batch.images if per_image else 1) if binned else 0
        histograms = np.zeros((groups, batch.classes, 2, BINS), np.int64)
        top, top_at = np.full((groups, batch.classes), -1.0), np.zeros((groups, batch.classes), np.int64)
        pixels = batch.size[0] * batch.size[1]

        def task(image: int, first: int, stop: int) -> Sums:
            sums = Sums(
                np.zeros_like(state.logs[: len(self.logs.gamma)]),
                np.zeros((7 if self.regions else 0, batch.classes)),
                self.squares,
                np.zeros((1 if binned else 0, batch.classes, 2, BINS), np.int64),
                batch.counts[image] == 0 if per_image else batch.counts.sum(0) == 0,
                np.full(batch.classes, -1.0, batch.dtype),
                np.zeros(batch.classes, np.int64),
                errors[image] if errors is not None else np.empty((0, 0), batch.dtype),
                probability[image] if probability is not None else np.empty(0, batch.dtype),
                state.saved[image] if self.saves else np.empty((0, 0), batch.dtype),
                np.zeros(1),
            )
            rows = rows_per_tile(batch.size[1])
            add_values(
                batch.source(image), first, stop, rows, self.logs, batch.edge_maps[image], sums,
                scratch(batch, rows, len(self.logs.gamma)),
            )  # fmt: skip
            return sums

        for (image, _, _), sums in zip(batch.blocks, in_order(task, batch.blocks), strict=True):
            state.logs[: len(sums.logs)] += sums.logs
            self.poison += float(sums.poison[0])
            if self.regions:
                state.regions += sums.regions
            if binned:
                group = image if per_image else 0
                histograms[group] += sums.histograms[0]
                larger = sums.top > top[group]
                top[group] = np.where(larger, sums.top, top[group])
                top_at[group] = np.where(larger, sums.top_at + (0 if per_image else image * pixels), top_at[group])
        return histograms, top, top_at


def log_arrays(plan: Plan, batch: Batch, thresholds: Array) -> Logs:
    """The logarithmic parts of a plan as the kernels read them."""
    logs = [(i, p) for i, p in enumerate(plan.parts) if isinstance(p, LogPart)]
    weight = np.ones((len(logs), batch.classes), batch.dtype)
    for k, (_, part) in enumerate(logs):
        weight[k] = np.asarray(part.class_weight or np.ones(batch.classes)) * part.scale
    return Logs(
        weight,
        np.array([p.weighted_mean for _, p in logs], np.bool_),
        np.array([p.gamma for _, p in logs], np.float64),
        np.array([p.smoothing for _, p in logs], np.float64),
        thresholds,
        np.array([batch.edge_of.get(i, -1) for i, _ in logs], np.int64),
    )


def scratch(batch: Batch, rows: int, logs: int) -> Buffers:
    """Buffers for tiles of some rows."""
    width = batch.size[1] if batch.upsampled else 0
    return buffers(batch.classes, rows * batch.size[1], width, logs, batch.dtype)
