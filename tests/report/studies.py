"""Simulated studies whose truth is known: effects, noise, pairing, failed and missing runs. They satisfy `Study`."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from prove.report.study import Block, BlockKey, Floats, LeftOut, Measure, Options, Trained
from prove.rundir import RunDir
from prove.spec.event import FailureKind, State
from prove.spec.job import METRICS
from prove.stats.block import compare
from prove.stats.effects import BlockData, BlockResult, PooledEffect, Precision
from prove.stats.pool import pool
from prove.stats.power import precision

EFFECTS = {"ce": 0.0, "ce + 0.3*focal": 1.5, "ce + 0.3*lovasz": -1.5, "ce + 0.3*boundary": 0.0}
"""Objective -> true effect on mIoU in points; the first is the baseline."""

CLASSES = ("road", "car", "pole", "rider")
CONDITIONS = ("clear_day", "foggy", "night")

Place = tuple[int, str, int]
"""Index of the block, objective, seed."""


@dataclass(frozen=True)
class Law:
    """What the numbers follow, in percentage points.

    Attributes:
        effects: of mIoU, by objective.
        metric_effects: metric -> objective -> effect, where it is not that of mIoU (ECE: minus half of it).
        class_effects, condition_effects: name -> objective -> effect, where it is not that of mIoU.
        run_sd: noise of one run, the loss x seed residual.
        seed_sd: noise that all objectives share at a seed.
        image_sd: spread of a run's replicates; None for a study without per-image counts.
        image_correlation: of two runs' replicates.
        tau: SD of the true effect between blocks.
    """

    effects: Mapping[str, float]
    metric_effects: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    class_effects: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    condition_effects: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    run_sd: float = 0.3
    seed_sd: float = 0.4
    image_sd: float | None = 0.5
    image_correlation: float = 0.9
    tau: float = 0.0
    resamples: int = 200
    rng: int = 0

    def draw(self, block: int, seeds: Sequence[int], measure: Measure) -> tuple[Floats, Floats | None]:
        """``[L, S]`` values and ``[L, S, B]`` replicates of a whole block."""
        name = f"{measure.metric}/{measure.scope}/{measure.name}"
        rng = np.random.default_rng([self.rng, block, zlib.crc32(name.encode())])
        effects = np.array([self.effect(loss, measure) for loss in self.effects])
        tau = np.where(np.arange(len(effects)) > 0, rng.normal(0, 1, len(effects)) * self.tau, 0.0)
        level = 55 + 3 * rng.random() if measure.metric != "ECE" else 8 + rng.random()
        shape = (len(effects), len(seeds))
        values = level + (effects + tau)[:, None] + rng.normal(0, 1, shape) * self.run_sd
        values = values + rng.normal(0, 1, (1, len(seeds))) * self.seed_sd
        if self.image_sd is None:
            return values, None
        common = rng.normal(0, 1, (1, 1, self.resamples)) * np.sqrt(self.image_correlation)
        own = rng.normal(0, 1, (*shape, self.resamples)) * np.sqrt(1 - self.image_correlation)
        return values, values[..., None] + self.image_sd * (common + own)

    def effect(self, loss: str, measure: Measure) -> float:
        """The true effect of an objective in a measure."""
        if measure.scope == "class" and measure.name in self.class_effects:
            return self.class_effects[measure.name].get(loss, 0.0)
        if measure.scope == "condition" and measure.name in self.condition_effects:
            return self.condition_effects[measure.name].get(loss, 0.0)
        if measure.metric in self.metric_effects:
            return self.metric_effects[measure.metric].get(loss, 0.0)
        return -0.5 * self.effects[loss] if measure.metric == "ECE" else self.effects[loss]


@dataclass
class SimulatedStudy:
    """A study in memory."""

    options: Options
    experiment: str | None
    description: str
    blocks: tuple[Block, ...]
    runs: tuple[Trained, ...]
    notes: tuple[str, ...]
    law: Law
    classes: tuple[str, ...]
    conditions: tuple[str, ...]
    results: Path
    undefined: frozenset[tuple[str, Place]] = frozenset()
    condition_images: Mapping[str, int] = field(default_factory=dict)
    compared: list[tuple[str, Measure]] = field(default_factory=list)
    """What was asked for, for tests of that."""
    _drawn: dict[tuple[BlockKey, Measure], tuple[Floats, Floats | None]] = field(default_factory=dict)
    _results: dict[tuple[BlockKey, Measure], BlockResult] = field(default_factory=dict)

    def compare(self, block: Block, measure: Measure) -> BlockResult:
        key = (block.key, measure)
        if key not in self._results:
            assert block.baseline is not None, "a block without a baseline is not compared"
            self.compared.append((str(block.key), measure))
            values, replicates = self._numbers(block, measure)
            images = self.images(block, measure)
            better = measure.higher_is_better
            data = BlockData(block.losses, block.baseline, block.seeds, values, replicates, better, images)
            self._results[key] = compare(
                data, smallest_effect=self.options.smallest_effect, confidence=self.options.confidence
            )
        return self._results[key]

    def pooled(self, measure: Measure) -> tuple[PooledEffect, ...]:
        compared = [self.compare(block, measure) for block in self.blocks if block.baseline is not None]
        return tuple(pool(compared)) if len(compared) > 1 else ()

    def precision(self, block: Block, measure: Measure) -> Precision:
        return precision(self.compare(block, measure))

    def values(self, block: Block, measure: Measure) -> Floats:
        return self._numbers(block, measure)[0]

    def replicates(self, block: Block, measure: Measure) -> Floats | None:
        return self._numbers(block, measure)[1]

    def images(self, block: Block, measure: Measure) -> int | None:
        return self.condition_images.get(measure.name)  # None: as many as you like

    def images_digest(self, block: Block, measure: Measure) -> str | None:
        return None

    def _numbers(self, block: Block, measure: Measure) -> tuple[Floats, Floats | None]:
        key = (block.key, measure)
        if key not in self._drawn:
            index = next(i for i, each in enumerate(self.blocks) if each.key == block.key)
            law_seeds = tuple(range(max(block.seeds, default=-1) + 1))
            values, replicates = self.law.draw(index, law_seeds, measure)
            rows = [list(self.law.effects).index(loss) for loss in block.losses]
            values = values[rows][:, list(block.seeds)]
            there = np.array([[(loss, seed) in block.runs for seed in block.seeds] for loss in block.losses], bool)
            there = there.reshape(values.shape)
            for metric, (at, loss, seed) in self.undefined:
                if metric in (measure.metric, f"{measure.metric} of {measure.name}") and at == index:
                    there[block.losses.index(loss), block.seeds.index(seed)] = False
            values = np.where(there, values, np.nan)
            if replicates is not None:
                replicates = replicates[rows][:, list(block.seeds)]
                replicates = np.where(there[..., None], replicates, np.nan)
            self._drawn[key] = (values, replicates)
        return self._drawn[key]

    def names(self, scope: str, block: Block) -> tuple[str, ...]:
        return self.classes if scope == "class" else self.conditions

    def support(self, block: Block) -> Mapping[str, int]:
        return {name: 100_000 // (10**index) for index, name in enumerate(self.classes)}

    def curve(self, run: Trained, split: str) -> tuple[tuple[int, Mapping[str, Any]], ...]:
        steps = range(run.max_iters // 4, run.max_iters + 1, run.max_iters // 4)
        rng = np.random.default_rng([run.run_id, zlib.crc32(split.encode())])
        if split == "train":
            return tuple((step, self._train_point(run, step, rng)) for step in steps)
        if split == "val":
            return tuple((step, self._val_point(run, step, rng)) for step in steps)
        terms = [term.split("*")[-1] for term in run.loss.split(" + ")]
        share = {
            term: {"loss_share": 1 / len(terms), "gradient_share": 1 / len(terms), "cosine": None} for term in terms
        }
        return tuple((step, {"heads": {"decode_head": share}}) for step in (0, *steps))

    def _train_point(self, run: Trained, step: int, rng: np.random.Generator) -> Mapping[str, Any]:
        terms = [term.split("*")[-1] for term in run.loss.split(" + ")]
        loss = 3 * np.exp(-step / run.max_iters) + 0.05 * rng.normal()
        return {
            "lr": 0.01 * (1 - 0.9 * step / run.max_iters),
            "loss": loss,
            "terms": {f"decode.loss_{term}": loss / len(terms) for term in terms},
            "weights": {term: 1.0 if index == 0 else 0.3 for index, term in enumerate(terms)},
            "seconds_per_iteration": 0.25 + 0.1 * (len(terms) - 1) + 0.01 * rng.random(),
            "peak_memory_mib": run.peak_memory_mib,
        }

    def _val_point(self, run: Trained, step: int, rng: np.random.Generator) -> Mapping[str, Any]:
        rise = 1 - np.exp(-3 * step / run.max_iters)
        level = float(55 * rise + rng.normal() * 0.3)
        return {
            "images": 20,
            "metrics": {metric: 10 - 5 * rise if metric == "ECE" else level for metric in METRICS},
            "conditions": {name: dict.fromkeys(METRICS, level) for name in self.conditions},
            "classes": {name: {"IoU": level, "Acc": level, "bIoU": level, "bF1": level} for name in self.classes},
        }

    def evidence(self, run: Trained) -> Mapping[str, Any] | None:
        terms = [
            {
                "term": text.split("*")[-1],
                "text": text,
                "weight": 1.0,
                "value": 1.2,
                "reference_value": 1.2,
                "loss_share": 0.5,
                "gradient_share": 0.5,
                "cosine_to_primary": None,
                "doubling": 2.0,
                "ignored_gradient": 0.0,
            }
            for text in run.loss.split(" + ")
        ]
        return {
            "ok": True,
            "objective": run.loss,
            "total": 1.2 * len(terms),
            "formula": 1.2 * len(terms),
            "heads": [{"head": "decode_head", "terms": terms}],
            "batch": {"images": 2, "pixels": 32768, "ignored_pixels": 2355, "planted": False},
            "problems": [],
        }

    def hours(self, run: Trained) -> tuple[float, float]:
        seconds = run.train_seconds or 0.0
        return seconds / 3600, 0.0

    def folder(self, run: Trained) -> RunDir:
        return RunDir.of(self.results, run.key)


def simulate(
    effects: Mapping[str, float] | None = None,
    *,
    blocks: Sequence[tuple[str, ...]] = (("SynthStreet", "segformer_mit-b0"),),
    seeds: int = 3,
    outcomes: Mapping[Place, str] | None = None,
    options: Options | None = None,
    classes: Sequence[str] = CLASSES,
    conditions: Sequence[str] = CONDITIONS,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    experiment: str | None = "simulated",
    results: Path = Path("results"),
    undefined: Sequence[tuple[str, Place]] = (),
    condition_images: Mapping[str, int] | None = None,
    **law: Any,
) -> SimulatedStudy:
    """A study in memory.

    Args:
        effects: objective -> true effect on mIoU in points; the first is the baseline unless the options name another.
        blocks: (dataset, model[, strategy[, settings]]).
        outcomes: what became of runs that did not simply finish: ``failed diverged``, ``planned``, ``absent`` (never
            registered), ``nan``, ``not comparable: WHY``, ``mixed: WHY``.
        undefined: (metric, place) of runs that take part and have no number for this metric; ``IoU of car`` for one
            class alone.
        condition_images: how many images a condition has; as many as you like without it.
        law: see `Law`.
    """
    effects = dict(EFFECTS if effects is None else effects)
    options = options or Options(baseline=next(iter(effects)))
    made: list[Block] = []
    everything: list[Trained] = []
    for index, names in enumerate(blocks):
        key = BlockKey(*names, *("baseline", "")[len(names) - 2 :])
        block, runs = _block(key, index, list(effects), seeds, outcomes or {}, options, len(everything))
        made.append(replace(block, warnings=tuple(warnings)))
        everything += runs
    return SimulatedStudy(
        options=options,
        experiment=experiment,
        description="A simulated study.",
        blocks=tuple(made),
        runs=tuple(everything),
        notes=tuple(notes),
        law=Law(effects, **law),
        classes=tuple(classes),
        conditions=tuple(conditions),
        results=results,
        undefined=frozenset(undefined),
        condition_images=dict(condition_images or {}),
    )


def _block(
    key: BlockKey,
    index: int,
    losses: list[str],
    seeds: int,
    outcomes: Mapping[Place, str],
    options: Options,
    first: int,
) -> tuple[Block, list[Trained]]:
    losses = [*(loss for loss in losses if loss == options.baseline), *(x for x in losses if x != options.baseline)]
    taking_part: dict[tuple[str, int], Trained] = {}
    left_out: list[LeftOut] = []
    mixed: dict[str, str] = {}
    runs: list[Trained] = []
    for loss in losses:
        for seed in range(seeds):
            outcome, _, why = outcomes.get((index, loss, seed), "").partition(": ")
            if outcome == "absent":
                continue
            run = _run(first + len(runs) + 1, key, loss, seed, outcome)
            runs.append(run)
            if outcome.startswith("failed"):
                left_out.append(LeftOut(run, "failed", f"{run.failure}: {run.message}"))
            elif outcome == "planned":
                left_out.append(LeftOut(run, "unfinished", "planned"))
            elif outcome == "nan":
                left_out.append(LeftOut(run, "no number", "its mIoU is not a number"))
            elif outcome == "not comparable":
                left_out.append(LeftOut(run, "not comparable", why))
            else:
                taking_part[loss, seed] = run
                if outcome == "mixed":
                    mixed[run.key] = why
    has_baseline = any(loss == options.baseline for loss, _ in taking_part)
    block = Block(
        key=key,
        losses=tuple(losses),
        seeds=tuple(sorted({run.seed for run in runs})),
        runs=taking_part,
        baseline=options.baseline if has_baseline else None,
        mixed=mixed,
        left_out=tuple(left_out),
        why="" if has_baseline else f"No run of the baseline {options.baseline} is finished.",
    )
    return block, runs


def _run(number: int, key: BlockKey, loss: str, seed: int, outcome: str) -> Trained:
    failed = outcome.startswith("failed")
    kind = FailureKind(outcome.split()[1]) if failed else None
    state = State.FAILED if failed else State.PLANNED if outcome == "planned" else State.FINISHED
    done = state is State.FINISHED
    terms = loss.count("+")
    return Trained(
        run_id=number,
        key=f"{zlib.crc32(f'{key}/{loss}/{seed}'.encode()):012x}",
        dataset=key.dataset,
        model=key.model,
        strategy=key.strategy,
        loss=loss,
        seed=seed,
        state=state,
        failure=kind,
        message="the loss is not finite" if failed else "",
        advice=kind.advice if kind else "",
        iteration=400 if done else 0,
        max_iters=400,
        train_seconds=100.0 * (1 + 0.25 * terms) + seed if done else None,
        peak_memory_mib=1000.0 + 50 * terms if done else None,
        facts={"code": "c0de" * 16, "images": 20, "device_kind": "cuda", "packages": {"torch": "2.11.0"}},
    )
