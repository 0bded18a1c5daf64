"""A study read from the database; see `prove.report.study.Study`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prove.errors import ProveError
from prove.report.blocks import form_blocks
from prove.report.options import finder
from prove.report.reading import of_experiment, read_runs, require_baseline, require_numbers
from prove.report.replicates import UNREADABLE, Drawn, image_replicates
from prove.report.study import Block, BlockKey, Floats, Measure, Options, Trained
from prove.rundir import RunDir
from prove.spec.event import State
from prove.stats.block import compare
from prove.stats.effects import BlockData, BlockResult, PooledEffect, Precision
from prove.store.store import Store

SAME = 1e-4
"""Percentage points within which a metric is the one that was recorded."""

TRIED = 5
"""Runs whose counts are looked at for the order of the classes."""

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
        ProveError: there is no such experiment, or it has no runs.
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
        self.runs, self._finished_at, self._overall = read_runs(store, experiment)
        self._compared: dict[tuple[BlockKey, Measure], BlockResult] = {}
        self._results: dict[tuple[str, str, str], dict[str, dict[int, float]]] = {}
        self._resampled: tuple[Any, tuple[Mapping[int, Drawn], set[str]]] = (None, ({}, set()))
        numbers = self._numbers(Measure(settings.metrics[0]))
        self.blocks = form_blocks(self.runs, finder(settings.baseline), numbers, allow_mixed=settings.allow_mixed)
        self.notes = _notes(self.runs)

    def look(self) -> None:
        """Keep that verdicts are read now; note it where they were read before, with other runs finished."""
        finished = [
            f"{run.key} {self._finished_at[run.run_id]}" for run in self.runs if run.run_id in self._finished_at
        ]
        digest = hashlib.sha256("\n".join(sorted(finished)).encode()).hexdigest()[:16]
        metric = self.options.metrics[0]
        at = self._store.look(self.experiment or "", metric, digest, len(finished))
        if len(at) > 1:
            self._note(
                f"Verdicts on {metric} have been read {len(at)} times with other runs finished "
                f"({', '.join(map(str, at[-6:]))} of them): intervals and p are not corrected for looking again."
            )

    def require_comparison(self) -> None:
        """Refuse to go on where no loss can be compared with the baseline.

        Raises:
            ProveError: nothing is finished, no run has a number for the headline metric, the baseline is not among the
                runs, or none of its runs can be compared; says what to do.
        """
        metric = self.options.metrics[0]
        require_numbers(self.runs, self._numbers(Measure(metric)), metric, self.experiment)
        require_baseline(self.runs, self.blocks, self.options.baseline)

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
        among, params = of_experiment(self.experiment, "run_id")
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
                dataset=block.key.dataset,
                images_digest=self.images_digest(block, measure),
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

    def images_digest(self, block: Block, measure: Measure) -> str | None:
        """Which images `replicates` resamples."""
        found = self._drawn(block, measure)
        return None if found is None else next(iter(found.values())).digest

    def _drawn(self, block: Block, measure: Measure) -> Mapping[int, Drawn] | None:
        """Run id → its metric on resampled images; None unless every run of the block has it, of the same images."""
        kept = (block.key, measure.metric, measure.scope)
        if self._resampled[0] != kept:
            runs = [(run.run_id, run.key, self._finished_at[run.run_id]) for run in block.runs.values()]
            problems: dict[str, str] = {}
            drawn = image_replicates(
                self._store, runs, self.options.checkpoint, measure.metric, measure.scope, self._on_progress,
                left_out=problems,
            )  # fmt: skip
            drawn = self._as_recorded(block, measure, drawn, problems)
            self._note(*_of_counts(block, problems))
            whole = bool(runs) and len(drawn) == len(runs)
            names = [set(each.names) for each in drawn.values()]
            self._resampled = kept, (drawn, set.intersection(*names)) if whole else ({}, set())
        found, common = self._resampled[1]
        return found if measure.name in common else None

    def _as_recorded(
        self, block: Block, measure: Measure, drawn: Mapping[int, Drawn], problems: dict[str, str]
    ) -> dict[int, Drawn]:
        """Those whose counts give the very number that the run has recorded."""
        sound = {}
        for run in block.runs.values():
            if run.run_id not in drawn:
                continue
            one = drawn[run.run_id]
            recorded = [self._numbers(replace(measure, name=name)).get(run.run_id) for name in one.names]
            if all(b is None or abs(a - b) < SAME for a, b in zip(one.point, recorded, strict=True)):
                sound[run.run_id] = one
            else:
                problems[run.key] = f"its counts per image do not give the {measure.metric} that it has recorded"
        return sound

    def _note(self, *said: str) -> None:
        self.notes += tuple(each for each in said if each not in self.notes)

    def pooled(self, measure: Measure) -> tuple[PooledEffect, ...]:
        """Every loss over all blocks; empty with fewer than two blocks."""
        from prove.stats.pool import pool

        blocks = [block for block in self.blocks if block.baseline is not None]
        if len(blocks) < 2:
            return ()
        return pool([_in_common_names(self.compare(block, measure)) for block in blocks])

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
            if any(run_id in numbers for run_id in ids)
        }
        if scope == "condition":
            return tuple(sorted(found))
        order = {name: place for place, name in enumerate(self._class_order(block, found))}
        return tuple(sorted(found, key=lambda name: (order.get(name, len(order)), name)))

    def _class_order(self, block: Block, names: Collection[str]) -> tuple[str, ...]:
        """The classes as the dataset lists them, from the counts of a run that can be read."""
        for run in list(block.runs.values())[:TRIED]:
            try:
                with np.load(self.folder(run).confusion, allow_pickle=False) as arrays:
                    order = tuple(str(name) for name in arrays["classes"])
            except UNREADABLE:
                continue
            if set(names) <= set(order):
                return order
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


def _of_counts(block: Block, problems: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the counts of runs, a sentence for each reason."""
    by_reason: dict[str, list[str]] = {}
    for key, why in problems.items():
        by_reason.setdefault(why, []).append(key)
    for why, keys in by_reason.items():
        named = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        yield f"{named}: {why}; so images count in no interval of {block.key}."


def _in_common_names(result: BlockResult) -> BlockResult:
    """The result with ``m2f``, which stands in for ``ce`` on a mask-classification model, called by that name."""
    if not any("m2f" in arm.loss for arm in result.arms):
        return result
    from prove.report.hypothesis_pairs import common_name

    names = {arm.loss: common_name(arm.loss) for arm in result.arms}
    return replace(
        result,
        baseline=names[result.baseline],
        arms=tuple(replace(arm, loss=names[arm.loss]) for arm in result.arms),
        effects=tuple(replace(effect, loss=names[effect.loss]) for effect in result.effects),
    )


def _notes(runs: Sequence[Trained]) -> tuple[str, ...]:
    blind = sum("code" not in run.facts for run in runs if run.state is State.FINISHED)
    said = (
        f"Of {blind} finished runs neither code, data nor libraries are recorded: it can't be checked that they agree."
    )
    return (said,) if blind else ()
