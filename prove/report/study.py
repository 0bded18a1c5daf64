"""What is compared with what: the runs of an experiment in comparable blocks, and everything that was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from prove.spec.event import FailureKind, State
from prove.stats.effects import BlockResult, PooledEffect, Precision

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """How a report compares; `prove.report.options` makes it from the experiment file and the flags.

    Attributes:
        baseline: objective that the others are compared with, in its short canonical text.
        metrics: names of `METRICS`, the first is the headline.
        checkpoint: ``last`` or ``best``, for all runs alike.
        smallest_effect: of interest, in percentage points.
        confidence: of the intervals.
        allow_mixed: runs that are not comparable take part, marked.
    """

    baseline: str = "ce"
    metrics: tuple[str, ...] = ("mIoU",)
    checkpoint: str = "last"
    smallest_effect: float = 0.3
    confidence: float = 0.95
    allow_mixed: bool = False


@dataclass(frozen=True)
class Measure:
    """One number per run: overall, or of one class or one condition.

    Attributes:
        metric: a name of `METRICS`; for a class ``IoU, Acc, bIoU, bF1``.
        scope: ``overall``, ``class`` or ``condition``.
        name: the class or the condition; empty for overall.
    """

    metric: str = "mIoU"
    scope: str = "overall"
    name: str = ""

    @property
    def higher_is_better(self) -> bool:
        """False for ECE alone."""
        return self.metric != "ECE"


@dataclass(frozen=True)
class Trained:
    """One run, as reports see it.

    Attributes:
        loss: the objective's short text, with what tells it apart where two jobs share a text.
        facts: what must or should be equal to compare (`prove.report.comparability`), by name.
        train_seconds, seconds_per_iteration, peak_memory_mib: None where unknown.
    """

    run_id: int
    key: str
    dataset: str
    model: str
    strategy: str
    loss: str
    seed: int
    state: State
    failure: FailureKind | None
    message: str
    advice: str
    iteration: int
    max_iters: int
    train_seconds: float | None
    peak_memory_mib: float | None
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class BlockKey:
    """What all runs of a block share.

    Attributes:
        settings: what tells it apart from another block of the same dataset, model and strategy, such as
            ``max_iters 400``; empty where nothing has to.
    """

    dataset: str
    model: str
    strategy: str
    settings: str = ""

    def __str__(self) -> str:
        parts = [self.dataset, self.model, *([] if self.strategy == "baseline" else [self.strategy])]
        return ", ".join(parts) + (f" [{self.settings}]" if self.settings else "")


@dataclass(frozen=True)
class LeftOut:
    """A run that takes no part in a block's comparison, and why: ``trained for 200 iterations, not 400``.

    Attributes:
        kind: ``not comparable``, ``failed``, ``unfinished`` or ``no number`` (its metric is undefined or NaN).
    """

    run: Trained
    kind: str
    reason: str


@dataclass(frozen=True)
class Block:
    """Runs that may be compared.

    Attributes:
        losses: the baseline first, then as registered; also those without a comparable run.
        seeds: of any run, ascending.
        runs: finished and comparable, by loss and seed; with ``allow_mixed`` also those of `mixed`.
        mixed: keys of runs that are not comparable and take part all the same, with the reason.
        left_out: runs of this block that take no part.
        warnings: differences that don't forbid a comparison, one sentence each.
        baseline: None where no comparable run of the baseline is there: then no effect is reported, `why` says why.
    """

    key: BlockKey
    losses: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: Mapping[tuple[str, int], Trained]
    baseline: str | None
    mixed: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()
    why: str = ""


class Study(Protocol):
    """Everything a report is made from. `prove.report.open_study` makes it; the views and figures only read it."""

    options: Options
    experiment: str | None
    """Name of the experiment; None for all runs of the results folder."""
    description: str
    blocks: tuple[Block, ...]
    runs: tuple[Trained, ...]
    """All runs, whatever their state."""
    notes: tuple[str, ...]
    """What holds for the whole study and a reader must know, one sentence each."""

    def compare(self, block: Block, measure: Measure) -> BlockResult:
        """The block's arms and effects in a measure (cached)."""

    def pooled(self, measure: Measure) -> tuple[PooledEffect, ...]:
        """Every loss over all blocks; empty with fewer than two blocks."""

    def precision(self, block: Block, measure: Measure) -> Precision:
        """What the block's design can see."""

    def values(self, block: Block, measure: Measure) -> Floats:
        """``[L, S]`` in the order of ``block.losses`` and ``block.seeds``; NaN where there is no number."""

    def replicates(self, block: Block, measure: Measure) -> Floats | None:
        """``[L, S, B]`` as `values`, on B resamples of the images; None where a run has no per-image counts."""

    def images(self, block: Block, measure: Measure) -> int | None:
        """How many images `replicates` resamples; None where it has none."""

    def images_digest(self, block: Block, measure: Measure) -> str | None:
        """Which images `replicates` resamples; None where it has none, or where that is unknown."""

    def names(self, scope: str, block: Block) -> tuple[str, ...]:
        """The classes (dataset's order) or conditions (sorted) that the block's runs have results of."""

    def support(self, block: Block) -> Mapping[str, int]:
        """Class -> labelled pixels of the validation images."""

    def curve(self, run: Trained, split: str) -> tuple[tuple[int, Mapping[str, Any]], ...]:
        """(iteration, payload) of a run, in order: ``train`` (loss, terms, weights, lr, ...), ``val`` (metrics,
        conditions, classes) or ``grads`` (gradient shares)."""

    def evidence(self, run: Trained) -> Mapping[str, Any] | None:
        """What the wiring proof saw (``evidence.json``)."""

    def hours(self, run: Trained) -> tuple[float, float]:
        """GPU hours and CPU hours of all attempts."""

    def folder(self, run: Trained) -> Any:
        """The run's `prove.rundir.RunDir`; it need not exist."""
