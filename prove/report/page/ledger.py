"""Every run in one line, and the failures by what went wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prove.report.study import Measure, Study, Trained
from prove.spec.event import State

RUNS_SHOWN = 2000
"""Beyond it, only runs with something to say are listed."""

FAILURES_SHOWN = 100
"""Kinds of failure that are told one by one."""


@dataclass(frozen=True)
class Entry:
    """One run.

    Attributes:
        values: of the report's metrics, in percent; None where there is no number that is compared.
        gpu_hours, cpu_hours: of all attempts.
        says: why it takes no part, or is marked; empty for a run that is compared.
    """

    run: Trained
    values: tuple[float | None, ...]
    gpu_hours: float
    cpu_hours: float
    says: str


@dataclass(frozen=True)
class Ledger:
    """The runs that a page lists; `unlisted` more are compared and have nothing to say."""

    entries: tuple[Entry, ...]
    unlisted: int = 0

    @property
    def keys(self) -> frozenset[str]:
        """Keys of the listed runs: what a link may point at."""
        return frozenset(entry.run.key for entry in self.entries)


@dataclass(frozen=True)
class Failure:
    """Runs that ended in the same way."""

    kind: str
    message: str
    advice: str
    runs: tuple[Trained, ...]


def ledger(study: Study) -> Ledger:
    """The runs of a study: all, or beyond `RUNS_SHOWN` those that are left out, marked or have no number."""
    says = _says(study)
    runs: Sequence[Trained] = study.runs
    if len(runs) > RUNS_SHOWN:
        runs = [run for run in runs if run.key in says][:RUNS_SHOWN]
    values = _values(study)
    nothing = (None,) * len(study.options.metrics)
    entries = [Entry(run, values.get(run.key, nothing), *study.hours(run), says=says.get(run.key, "")) for run in runs]
    return Ledger(tuple(entries), len(study.runs) - len(runs))


def _says(study: Study) -> dict[str, str]:
    """Key → why a run takes no part, or is marked."""
    found: dict[str, str] = {}
    compared: set[str] = set()
    for block in study.blocks:
        compared.update(run.key for run in block.runs.values())
        found.update((each.run.key, f"{each.kind}: {each.reason}") for each in block.left_out)
        found.update((key, f"mixed in: {reason}") for key, reason in block.mixed.items())
        if block.baseline is None:
            found.update((run.key, f"not compared: {block.why}") for run in block.runs.values())
    for run in study.runs:
        if run.key not in compared and run.key not in found:
            # The message of a run that finished says how it did, which is no reason.
            why = run.message if run.state is not State.FINISHED else ""
            found[run.key] = why or "takes no part in a comparison"
    return found


def _values(study: Study) -> dict[str, tuple[float | None, ...]]:
    """Key → the report's metrics of the runs that are compared."""
    found: dict[str, tuple[float | None, ...]] = {}
    for block in study.blocks:
        arrays = [study.values(block, Measure(metric)) for metric in study.options.metrics]
        rows = {loss: row for row, loss in enumerate(block.losses)}
        columns = {seed: column for column, seed in enumerate(block.seeds)}
        for (loss, seed), run in block.runs.items():
            numbers = [float(array[rows[loss], columns[seed]]) for array in arrays]
            found[run.key] = tuple(number if math.isfinite(number) else None for number in numbers)
    return found


def failures(study: Study) -> tuple[Failure, ...]:
    """The runs that failed or were interrupted, by kind, message and advice; the most frequent first."""
    groups: dict[tuple[str, str, str], list[Trained]] = {}
    for run in study.runs:
        if run.state in (State.FAILED, State.INTERRUPTED) or (run.state is State.CANCELLED and run.message):
            kind = str(run.failure or run.state).replace("_", " ")
            groups.setdefault((kind, run.message, run.advice), []).append(run)
    found = [Failure(*what, tuple(runs)) for what, runs in groups.items()]
    return tuple(sorted(found, key=lambda failure: -len(failure.runs)))
