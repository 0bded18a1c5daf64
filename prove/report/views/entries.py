"""One loss in one block and one measure, with everything that a cell shows of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any

import numpy as np

from prove.report.study import Block, Floats, Measure, Study
from prove.report.table import Cell
from prove.report.views.footnotes import Footnotes, failures, incomplete
from prove.report.views.numbers import (
    DASH,
    decimals,
    half_width,
    interval,
    mean_and_sd,
    probability,
    signed,
)
from prove.stats.block import compare
from prove.stats.effects import Arm, BlockData, BlockResult, Effect, Verdict

ONE_SEED = "One seed: the interval is from resampled images and about these checkpoints only; no verdict."
NO_COUNTS = "One seed and no per-image counts: no interval."
ONE_PAIR = "One seed in common with the baseline: the interval rests on the noise of the other losses; no verdict."
SAME_NUMBERS = "Its seeds gave the same numbers, so nothing is known of the noise between seeds; no verdict."
NOISIER = "Scatters more over seeds than the other losses (F test, 5%): judged by its own scatter."
NOISY_BASELINE = (
    "The baseline scatters more over seeds than the losses (F test, 5%): each Δ is judged by its own scatter."
)
SEEDS_ALONE = "Without per-image counts: intervals from seeds alone."


@dataclass(frozen=True, eq=False)
class Entry:
    """A loss in a block and a measure.

    Attributes:
        values: ``[S]`` by ``block.seeds``; NaN where there is none.
        effect: None for the baseline, and where the block has none.
        is_best: it has the best mean of several, adjusted for missing runs.
        is_modelled: a run of the block is missing, so that the effect, or without effects the adjusted mean, is the
            estimate of a model of all losses.
        is_noisier: it scatters more over the seeds than the other losses, and is judged by its own scatter.
        failed: how many of its runs failed.
        ended: seeds at which a run of it ended, well or not.
        mixed: runs of the block that take part though they are not comparable.
        runs: keys, by seed.
        places: decimals.
        alpha: 1 - confidence.
    """

    loss: str
    values: Floats
    arm: Arm
    effect: Effect | None
    is_baseline: bool
    is_best: bool
    is_modelled: bool
    is_noisier: bool
    failed: int
    ended: int
    mixed: int
    runs: tuple[str, ...]
    places: int
    alpha: float

    @property
    def mean_text(self) -> str:
        """``34.21 ± 0.52``."""
        return mean_and_sd(self.arm.mean, self.arm.seed_sd, self.places)

    @property
    def seeds_text(self) -> str:
        """``5``; ``2 of 5`` where runs failed."""
        return f"{self.arm.seeds} of {self.ended}" if self.failed else str(self.arm.seeds)

    @property
    def delta_text(self) -> str:
        """``+0.81 [-0.10, +1.72]``."""
        if self.effect is None:
            return ""
        bounds = interval(self.effect.low, self.effect.high, self.places)
        return f"{signed(self.effect.delta, self.places)} {bounds}".rstrip()

    @property
    def p_text(self) -> str:
        """The adjusted p: ``.08``; none where one pair of seeds lets no verdict stand."""
        if self.effect is None or self.effect.seeds < 2:
            return ""
        return probability(self.effect.p_adjusted, self.alpha)

    @property
    def is_better(self) -> bool:
        """By verdict."""
        return self.effect is not None and self.effect.verdict is Verdict.BETTER

    @property
    def is_empty(self) -> bool:
        """There is no number at all."""
        return isnan(self.arm.mean)

    def mean_cell(self, footnotes: Footnotes, text: str = "") -> Cell:
        """The mean with its marks: bold where better, underlined where best.

        Args:
            text: instead of `mean_text`.
        """
        may_be_best = bool(self.arm.may_be_best) and not self.is_best
        return Cell(
            text or self.mean_text,
            None if self.is_empty else float(self.arm.mean),
            bold=self.is_better,
            underline=self.is_best,
            muted=self.is_empty,
            marks=(footnotes.may_be_best(1 - self.alpha),) if may_be_best else (),
            runs=self.runs,
        )

    def stacked_cell(self, footnotes: Footnotes, said: Iterable[str] = ()) -> Cell:
        """Everything in one cell: mean ± SD (seeds), below it Δ, its interval and p.

        Args:
            said: its footnotes.
        """
        text = f"{DASH} ({self.seeds_text})" if self.failed else DASH
        if not self.is_empty:
            second = self.delta_text + (f" p {self.p_text}" if self.p_text else "")
            text = f"{self.mean_text} ({self.seeds_text})" + (f"\n{second}" if second else "")
        cell = self.mean_cell(footnotes, text)
        marks = tuple(footnotes.mark(each) for each in dict.fromkeys(said))
        return replace(cell, marks=(*cell.marks, *marks)) if marks else cell

    def delta_cell(self) -> Cell:
        """Δ with its interval."""
        if self.effect is None or isnan(self.effect.delta):
            return Cell(DASH if self.effect is not None else "", muted=True)
        return Cell(self.delta_text, float(self.effect.delta), bold=self.is_better, runs=self.runs)


def entries(study: Study, block: Block, measure: Measure) -> tuple[Entry, ...]:
    """An entry for each of ``block.losses``."""
    values = study.values(block, measure)
    result = None if block.baseline is None else study.compare(block, measure)
    return _entries(block, values, result, measure.higher_is_better, 1 - study.options.confidence)


def from_result(block: Block, values: Floats, result: BlockResult) -> tuple[Entry, ...]:
    """The same for numbers that are no measure of the study, such as a gap between conditions."""
    return _entries(block, values, result, result.higher_is_better, 1 - result.confidence)


def _entries(
    block: Block, values: Floats, result: BlockResult | None, higher_is_better: bool, alpha: float
) -> tuple[Entry, ...]:
    arms = {arm.loss: arm for arm in (result.arms if result else _described(block, values))}
    effects = {effect.loss: effect for effect in result.effects} if result else {}
    keys = _runs(block)
    shown = [arms[loss] for loss in block.losses]
    places = decimals([half_width(effect.low, effect.high) for effect in effects.values()])
    best = _best(shown, higher_is_better)
    there = np.isfinite(values)
    gaps = not bool(there[there.any(axis=1)][:, there.any(axis=0)].all())
    ended = {loss: failures(block, loss) for loss in block.losses}
    return tuple(
        Entry(
            loss=loss,
            values=row,
            arm=arm,
            effect=effects.get(loss),
            is_baseline=loss == block.baseline,
            is_best=loss in best,
            is_modelled=gaps and (result is None or (loss in effects and effects[loss].basis.startswith("seeds"))),
            is_noisier=result is not None and loss in result.noisier,
            failed=ended[loss][0],
            ended=ended[loss][1],
            mixed=len(block.mixed),
            runs=keys.get(loss, ()),
            places=places,
            alpha=alpha,
        )
        for loss, row, arm in zip(block.losses, values, shown, strict=True)
    )


def _runs(block: Block) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, list[tuple[int, str]]] = {}
    for (loss, seed), run in block.runs.items():
        found.setdefault(loss, []).append((seed, run.key))
    return {loss: tuple(key for _, key in sorted(runs)) for loss, runs in found.items()}


def _described(block: Block, values: Floats) -> tuple[Arm, ...]:
    """The arms of a block that has no baseline: what they are, and nothing of how they compare."""
    data = BlockData(block.losses, block.losses[0], block.seeds, values)
    arms = compare(data, smallest_effect=0.0).arms
    return tuple(replace(arm, low=None, high=None, may_be_best=None) for arm in arms)


def _best(arms: Sequence[Arm], higher_is_better: bool) -> frozenset[str]:
    """The losses with the best adjusted mean; none unless there are two to choose from."""
    known = {arm.loss: arm.adjusted_mean for arm in arms if not isnan(arm.adjusted_mean)}
    if len(known) < 2:
        return frozenset()
    best = (max if higher_is_better else min)(known.values())
    return frozenset(loss for loss, mean in known.items() if mean == best)


def remarks(block: Block, entry: Entry, measure: Measure) -> list[str]:
    """The footnotes of an entry."""
    said = [*incomplete(block, entry.loss, entry.values, measure), *of_seeds(entry)]
    if entry.is_noisier:
        said.append(NOISY_BASELINE if entry.is_baseline else NOISIER)
    return said


def of_seeds(entry: Entry) -> list[str]:
    """What an entry's effect lacks in seeds; at most one sentence."""
    effect = entry.effect
    if effect is None:
        return []
    if effect.seeds == 0 and entry.arm.seeds:
        return ["No seed in common with the baseline."]
    if effect.seeds == 1:
        return [{"images": ONE_SEED, "nothing": NO_COUNTS}.get(effect.basis, ONE_PAIR)]
    if effect.seeds > 1 and effect.basis in ("images", "nothing"):
        return [SAME_NUMBERS]
    if 1 < effect.seeds < entry.arm.seeds:
        return [f"Shares {effect.seeds} of its {entry.arm.seeds} seeds with the baseline."]
    return []


def record(study: Study, block: Block, entry: Entry, measure: Measure) -> dict[str, Any]:
    """An entry, tidy and unrounded."""
    arm, effect = entry.arm, entry.effect
    options = study.options
    return {
        "experiment": study.experiment,
        "dataset": block.key.dataset,
        "model": block.key.model,
        "strategy": block.key.strategy,
        "settings": block.key.settings,
        "metric": measure.metric,
        "checkpoint": options.checkpoint,
        "scope": measure.scope,
        "name": measure.name,
        "loss": entry.loss,
        "baseline": block.baseline,
        "seeds": arm.seeds,
        "mean": arm.mean,
        "seed_sd": arm.seed_sd,
        "mean_low": arm.low,
        "mean_high": arm.high,
        "may_be_best": arm.may_be_best,
        "delta": effect and effect.delta,
        "delta_low": effect and effect.low,
        "delta_high": effect and effect.high,
        "p": effect and effect.p,
        "p_adjusted": effect and effect.p_adjusted,
        "se": effect and effect.se,
        "seed_se": effect and effect.seed_se,
        "image_se": effect and effect.image_se,
        "df": effect and effect.df,
        "paired_seeds": effect and effect.seeds,
        "p_sign_flip": effect and effect.p_sign_flip,
        "crossed_low": effect.crossed[0] if effect and effect.crossed else None,
        "crossed_high": effect.crossed[1] if effect and effect.crossed else None,
        "basis": effect and effect.basis,
        "verdict": str(effect.verdict) if effect else None,
        "confidence": options.confidence,
        "smallest_effect": options.smallest_effect,
        "noisier": entry.is_noisier,
        "failed": entry.failed,
        "mixed": entry.mixed,
        "left_out": sum(out.run.loss == entry.loss for out in block.left_out),
        "runs": " ".join(entry.runs),
    }
