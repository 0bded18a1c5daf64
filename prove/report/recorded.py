"""A study read from the database; see `prove.report.study.Study`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prove.errors import ProveError
from prove.report.blocks import form_blocks
from prove.report.facts import JobParts, run_facts
from prove.report.options import finder
from prove.report.replicates import Drawn, image_replicates
from prove.report.study import Block, BlockKey, Floats, Measure, Options, Trained
from prove.rundir import RunDir
from prove.spec.event import FailureKind, State
from prove.spec.job import METRICS
from prove.stats.block import compare
from prove.stats.effects import BlockData, BlockResult, PooledEffect, Precision
from prove.store.store import Store

_COLUMNS = (
    "id", "key", "dataset", "model", "strategy", "loss", "seed", "state", "failure", "message", "advice", "iteration",
    "max_iters", "train_seconds", "peak_memory_mib", "finished_at", "job", *METRICS,
)  # fmt: skip

_TOLD = ("run_id", *_COLUMNS[1:15])
"""The fields of a `Trained` that these columns hold."""

Progress = Callable[[int, int], None]
"""Called with how many runs have been resampled, and of how many."""


class RecordedStudy:
    """A `Study` over an open store, which must stay open as long as it is read.

    Args:
        store: refreshed.
        experiment: only its runs; None for all.
        settings: how to compare.
        on_progress: told while images are resampled, which is done once for every run.

    Raises:
        ProveError: there is no such experiment, nothing in it is finished, the baseline is not in it, or no run has a
            number for the headline metric.
    """

    def __init__(
        self,
        store: Store,
        experiment: str | None,
        settings: Options,
        *,
        description: str = "",
        on_progress: Progress | None = None,
    ) -> None:
        self.options, self.experiment, self.description = settings, experiment, description
        self._store, self._on_progress = store, on_progress
        self.runs, self._finished_at, self._overall = _read(store, experiment)
        self._compared: dict[tuple[BlockKey, Measure], BlockResult] = {}
        self._results: dict[tuple[str, str, str], dict[str, dict[int, float]]] = {}
        self._resampled: tuple[Any, tuple[Mapping[int, Drawn], set[str]]] = (None, ({}, set()))
        find = finder(settings.baseline)
        numbers = self._numbers(Measure(settings.metrics[0]))
        _require_something(self.runs, numbers, settings.metrics[0], experiment)
        self.blocks = form_blocks(self.runs, find, numbers, allow_mixed=settings.allow_mixed)
        self._require_baseline(find)
        self.notes = _notes(self.runs)

    def look(self) -> None:
        """Keep that verdicts are read now, and note it where they were read before with fewer runs, or more."""
        compared = sum(len(block.runs) for block in self.blocks if block.baseline is not None)
        metric = self.options.metrics[0]
        at = self._store.look(self.experiment or "", metric, compared)
        if len(at) > 1:
            listed = ", ".join(map(str, at[-6:]))
            self.notes += (
                f"Verdicts on {metric} have been read at {len(at)} sizes of this study ({listed} comparable runs): "
                "intervals and p are not corrected for looking again while runs are added.",
            )

    def _require_baseline(self, find: Callable[[Sequence[str]], str | None]) -> None:
        losses = list(dict.fromkeys(run.loss for run in self.runs))
        if find(losses) is None:
            raise ProveError(
                f"No run has the baseline {self.options.baseline!r}.",
                hint=f"Compare with another: --baseline TEXT. These have runs: {', '.join(losses[:12])}.",
            )
        if all(block.baseline is None for block in self.blocks):
            block = self.blocks[0]
            raise ProveError(
                f"Nothing can be compared: {block.why}.", hint="`prove status` says what is missing; `prove retry` or "
                "`prove sweep` trains it."
            )  # fmt: skip

    # Numbers

    def values(self, block: Block, measure: Measure) -> Floats:
        """``[L, S]`` in the order of ``block.losses`` and ``block.seeds``; NaN where there is no number."""
        numbers = self._numbers(measure)
        found = np.full((len(block.losses), len(block.seeds)), np.nan)
        loss_at = {loss: i for i, loss in enumerate(block.losses)}
        seed_at = {seed: i for i, seed in enumerate(block.seeds)}
        for (loss, seed), run in block.runs.items():
            number = numbers.get(run.run_id)
            if number is not None:
                found[loss_at[loss], seed_at[seed]] = number
        return found

    def _numbers(self, measure: Measure) -> Mapping[int, float | None]:
        """Run id → number, of finished runs."""
        if measure.scope == "overall" and self.options.checkpoint == "last":
            return self._overall[measure.metric]
        kept = (measure.scope, measure.metric, self.options.checkpoint)
        if kept not in self._results:
            self._results[kept] = self._query_results(*kept)
        return self._results[kept].get(measure.name, {})

    def _query_results(self, scope: str, metric: str, checkpoint: str) -> dict[str, dict[int, float]]:
        among, params = _of(self.experiment, "run_id")
        rows = self._store.connection.query(
            "SELECT name, run_id, value FROM results WHERE scope = :scope AND metric = :metric "
            f"AND checkpoint = :checkpoint AND value IS NOT NULL AND {among}",
            {"scope": scope, "metric": metric, "checkpoint": checkpoint, **params},
        )
        found: dict[str, dict[int, float]] = {}
        for name, run_id, value in rows:
            found.setdefault(name, {})[run_id] = value
        return found

    def compare(self, block: Block, measure: Measure) -> BlockResult:
        """The block's arms and effects in a measure.

        Raises:
            ProveError: the block has no baseline.
        """
        if block.baseline is None:
            raise ProveError(f"{block.key}: {block.why}.")
        key = (block.key, measure)
        if key not in self._compared:
            data = BlockData(
                losses=block.losses,
                baseline=block.baseline,
                seeds=block.seeds,
                values=self.values(block, measure),
                replicates=self.replicates(block, measure),
                higher_is_better=measure.higher_is_better,
                images=self.images(block, measure),
            )
            settings = self.options
            self._compared[key] = compare(
                data, smallest_effect=settings.smallest_effect, confidence=settings.confidence
            )
        return self._compared[key]

    def replicates(self, block: Block, measure: Measure) -> Floats | None:
        """``[L, S, B]``; None unless every run of the block has counts of the same images."""
        found = self._drawn(block, measure)
        if found is None:
            return None
        loss_at = {loss: i for i, loss in enumerate(block.losses)}
        seed_at = {seed: i for i, seed in enumerate(block.seeds)}
        stacked: NDArray[Any] | None = None
        for (loss, seed), run in block.runs.items():
            row = found[run.run_id].values[found[run.run_id].names.index(measure.name)]
            if stacked is None:
                stacked = np.full((len(loss_at), len(seed_at), len(row)), np.nan, dtype=np.float32)
            stacked[loss_at[loss], seed_at[seed]] = row
        return stacked

    def images(self, block: Block, measure: Measure) -> int | None:
        """How many images `replicates` resamples; None where it has none."""
        found = self._drawn(block, measure)
        if found is None:
            return None
        first = next(iter(found.values()))
        return first.images[first.names.index(measure.name)]

    def _drawn(self, block: Block, measure: Measure) -> Mapping[int, Drawn] | None:
        """Run id → its metric on resampled images; None unless every run of the block has it, of the same images."""
        kept = (block.key, measure.metric, measure.scope)
        if self._resampled[0] != kept:
            runs = [(run.run_id, run.key, self._finished_at[run.run_id]) for run in block.runs.values()]
            drawn = image_replicates(
                self._store, runs, self.options.checkpoint, measure.metric, measure.scope, self._on_progress
            )
            whole = bool(runs) and len(drawn) == len(runs)
            names = [set(each.names) for each in drawn.values()]
            self._resampled = kept, (drawn, set.intersection(*names)) if whole else ({}, set())
        found, common = self._resampled[1]
        return found if measure.name in common else None

    def pooled(self, measure: Measure) -> tuple[PooledEffect, ...]:
        """Every loss over all blocks; empty with fewer than two blocks."""
        from prove.stats.pool import pool

        blocks = [block for block in self.blocks if block.baseline is not None]
        return pool([self.compare(block, measure) for block in blocks]) if len(blocks) > 1 else ()

    def precision(self, block: Block, measure: Measure) -> Precision:
        """What the block's design can see."""
        from prove.stats.power import precision

        return precision(self.compare(block, measure))

    # What else is recorded

    def names(self, scope: str, block: Block) -> tuple[str, ...]:
        """The classes (dataset's order) or conditions (sorted) that the block's runs have results of."""
        metric = "IoU" if scope == "class" else "mIoU"
        self._numbers(Measure(metric, scope))
        ids = {run.run_id for run in block.runs.values()}
        found = {
            name
            for name, numbers in self._results[scope, metric, self.options.checkpoint].items()
            if not ids.isdisjoint(numbers)
        }
        if scope == "condition":
            return tuple(sorted(found))
        order = {name: place for place, name in enumerate(self._class_order(block))}
        return tuple(sorted(found, key=lambda name: (order.get(name, len(order)), name)))

    def _class_order(self, block: Block) -> tuple[str, ...]:
        for run in block.runs.values():
            file = self.folder(run).confusion
            if file.exists():
                with np.load(file) as arrays:
                    return tuple(str(name) for name in arrays["classes"])
            break
        return ()

    def support(self, block: Block) -> Mapping[str, int]:
        """Class → labelled pixels of the validation images."""
        found = {}
        for name in self.names("class", block):
            numbers = self._numbers(Measure("support", "class", name))
            known = [numbers[run.run_id] for run in block.runs.values() if numbers.get(run.run_id) is not None]
            if known:
                found[name] = int(known[0] or 0)
        return found

    def curve(self, run: Trained, split: str) -> tuple[tuple[int, Mapping[str, Any]], ...]:
        """(iteration, payload) of a run, in order."""
        rows = self._store.connection.query(
            "SELECT iteration, payload FROM curves WHERE run_id = :run_id AND split = :split ORDER BY iteration",
            {"run_id": run.run_id, "split": split},
        )
        return tuple((iteration, json.loads(payload)) for iteration, payload in rows)

    def evidence(self, run: Trained) -> Mapping[str, Any] | None:
        """What the wiring proof saw."""
        return self._store.evidence(run.key)

    def hours(self, run: Trained) -> tuple[float, float]:
        """GPU hours and CPU hours of all attempts."""
        return self._hours.get(run.run_id, (0.0, 0.0))

    @cached_property
    def _hours(self) -> dict[int, tuple[float, float]]:
        rows = self._store.connection.query(
            "SELECT run_id, CASE WHEN device = 'cpu' THEN 1 ELSE 0 END, "
            "SUM(COALESCE(ended_at, seen_at) - started_at) FROM attempts WHERE started_at IS NOT NULL "
            "GROUP BY run_id, CASE WHEN device = 'cpu' THEN 1 ELSE 0 END"
        )
        found: dict[int, tuple[float, float]] = {}
        for run_id, on_cpu, seconds in rows:
            hours = max(0.0, seconds) / 3600
            gpu, cpu = found.get(run_id, (0.0, 0.0))
            found[run_id] = (gpu, cpu + hours) if on_cpu else (gpu + hours, cpu)
        return found

    def folder(self, run: Trained) -> RunDir:
        """The run's folder; it need not exist."""
        return RunDir.of(self._store.results_folder, run.key)


def _notes(runs: Sequence[Trained]) -> tuple[str, ...]:
    blind = sum("code" not in run.facts for run in runs if run.state is State.FINISHED)
    said = (
        f"Of {blind} finished runs neither code, data nor libraries are recorded: it can't be checked that they agree."
    )
    return (said,) if blind else ()


def _of(experiment: str | None, column: str) -> tuple[str, dict[str, Any]]:
    """A condition that keeps an experiment's runs."""
    if experiment is None:
        return "1 = 1", {}
    return f"{column} IN (SELECT run_id FROM experiments WHERE name = :experiment)", {"experiment": experiment}


def _read(
    store: Store, experiment: str | None
) -> tuple[tuple[Trained, ...], dict[int, float], dict[str, dict[int, float | None]]]:
    """The runs, when they were finished, and their overall metrics by name."""
    store.counts(experiment)  # refuses an unknown experiment
    among, params = _of(experiment, "id")
    selected = ", ".join(f'"{name}"' for name in _COLUMNS)
    rows = store.connection.query(f"SELECT {selected} FROM runs WHERE {among} ORDER BY id", params)
    environments = store.environments(experiment)
    overall: dict[str, dict[int, float | None]] = {metric: {} for metric in METRICS}
    finished_at, runs, parts = {}, [], []
    for row in rows:
        run_id, state = row[0], State(row[7])
        found = JobParts(row[16])
        parts.append(found)
        if state is State.FINISHED:
            finished_at[run_id] = row[15] or 0.0
            for metric, value in zip(METRICS, row[17:], strict=True):
                overall[metric][run_id] = value
        told: dict[str, Any] = dict(zip(_TOLD, row, strict=False))
        told |= {"state": state, "failure": FailureKind(row[8]) if row[8] else None}
        runs.append(Trained(**told, facts=run_facts(found.facts, environments.get(run_id), row[11])))
    return _told_apart(runs, [each.loss for each in parts]), finished_at, overall


def _told_apart(runs: Sequence[Trained], objectives: Sequence[str]) -> tuple[Trained, ...]:
    """The runs, where one text of two objectives says what differs between them, as does own code that was changed."""
    from dataclasses import replace

    by_text: dict[str, dict[str, None]] = {}
    for run, objective in zip(runs, objectives, strict=True):
        by_text.setdefault(run.loss, {})[objective] = None
    labels: dict[str, str] = {}
    for text, several in by_text.items():
        if len(several) > 1:
            labels |= {each: f"{text} [{said}]" for each, said in _parameters(list(several)).items()}
    if not labels:
        return tuple(runs)
    return tuple(
        replace(run, loss=labels[objective]) if objective in labels else run
        for run, objective in zip(runs, objectives, strict=True)
    )


def _parameters(objectives: Sequence[str]) -> dict[str, str]:
    """What each of these canonical objectives has that others have not."""
    found = {
        objective: {
            f"{term['name']}.{name}": str(value).removeprefix("sha256_")[:12]
            for term in json.loads(objective)
            for name, value in term["params"].items()
        }
        for objective in objectives
    }
    names = dict.fromkeys(name for each in found.values() for name in each)
    varying = [name for name in names if len({each.get(name) for each in found.values()}) > 1]
    return {
        objective: ", ".join(f"{name} {each.get(name, '-')}" for name in varying) for objective, each in found.items()
    }


def _require_something(
    runs: Sequence[Trained], numbers: Mapping[int, float | None], metric: str, experiment: str | None
) -> None:
    whose = f"experiment {experiment!r}" if experiment else "this results folder"
    if not runs:
        raise ProveError(f"There are no runs in {whose}.", hint="Train some with `prove sweep`.")
    finished = [run for run in runs if run.state is State.FINISHED]
    if not finished:
        counts = Counter(run.state.value for run in runs)
        kinds = Counter(str(run.failure) for run in runs if run.state is State.FAILED)
        said = ", ".join(f"{count} {state}" for state, count in counts.items())
        why = f" ({', '.join(f'{count} {kind}' for kind, count in kinds.most_common())})" if kinds else ""
        hint = "`prove status` says why they failed; `prove retry` launches them again." if kinds else (
            "`prove watch` follows them; the same `prove sweep` trains what is missing."
        )  # fmt: skip
        raise ProveError(f"No run of {whose} has finished: {said}{why}.", hint=hint)
    if all(numbers.get(run.run_id) is None for run in finished):
        raise ProveError(
            f"No run of {whose} has a number for {metric}: it is undefined (NaN) in all {len(finished)} that finished.",
            hint="Look at one with `prove show KEY`; --metric takes another, --checkpoint best another checkpoint.",
        )
    if len(finished) == 1:
        raise ProveError(
            f"One run has finished in {whose} ({finished[0].key}): there is nothing to compare it with.",
            hint=f"`prove show {finished[0].key}` shows it. A comparison needs the baseline and another objective, "
            "with the same seeds, better three than one: `prove sweep --aux-loss none,focal --seed 0..2`.",
        )
    if len({run.loss for run in finished}) == 1:
        raise ProveError(
            f"All {len(finished)} finished runs of {whose} have the same objective, {finished[0].loss}: there is "
            "nothing to compare it with.",
            hint="Train the others with the same seeds: `prove sweep`.",
        )
