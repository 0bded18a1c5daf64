"""Each loss over all blocks: the headline of a study with several datasets or models."""

from __future__ import annotations

from collections.abc import Sequence

from prove.report.study import Block, Measure, Study
from prove.report.table import Cell, Column, Table
from prove.report.views.about import count_images, rests_on
from prove.report.views.footnotes import SAME_IMAGES, Footnotes, mixed_runs, not_comparable
from prove.report.views.numbers import (
    confidence_text,
    decimals,
    fixed,
    half_width,
    interval,
    plural,
    probability,
    signed,
)  # fmt: skip
from prove.stats.effects import PooledEffect, Verdict

COUNTED = (Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT, Verdict.INCONCLUSIVE)
"""Verdicts of the blocks, in the order of the column that counts them."""

_COLUMNS = (
    Column("loss", "left"), Column("blocks"), Column("Δ over blocks"), Column("p"), Column("verdict", "left"),
    Column("τ"), Column("+/-/=/?"), Column("mean rank"),
)  # fmt: skip


def across(study: Study) -> tuple[Table, ...]:
    """A table for each metric; none with fewer than two blocks that have the baseline."""
    names = study.options.metrics
    made = []
    for name in names:
        pooled = study.pooled(Measure(name))
        if pooled:
            made.append(_table(study, name, pooled, "across" + f"-{name}" * (len(names) > 1)))
    return tuple(made)


def _table(study: Study, metric: str, pooled: tuple[PooledEffect, ...], name: str) -> Table:
    places = decimals(half_width(effect.low, effect.high) for effect in pooled)
    alpha = 1 - study.options.confidence
    blocks = [block for block in study.blocks if block.baseline is not None]
    footnotes = Footnotes()
    rows = tuple(_row(effect, places, alpha, _marks(footnotes, effect, blocks)) for effect in pooled)
    if any(effect.verdicts.get(Verdict.NO_VERDICT) for effect in pooled):
        footnotes.whole("A block in which a loss has one seed has no verdict, and counts in Δ with its images' error.")
    footnotes.whole(not_comparable(mixed_runs(blocks)))
    return Table(
        name=name,
        title=f"{metric}: difference to {study.options.baseline} over all blocks",
        columns=_COLUMNS,
        rows=rows,
        caption=_caption(study, blocks, pooled),
        notes=footnotes.notes,
        records=tuple(_record(study, metric, effect, mixed_runs(blocks)) for effect in pooled),
    )


def _marks(footnotes: Footnotes, effect: PooledEffect, blocks: Sequence[Block]) -> tuple[str, ...]:
    said = []
    if effect.low is None:
        said.append("Nothing to pool: an interval needs two blocks in which the effect has a standard error.")
    if effect.shares_images and effect.low is not None:
        said.append(SAME_IMAGES)
    if mixed := not_comparable(mixed_runs(blocks, [effect.loss])):
        said.append(f"Of its runs: {mixed}")
    if mixed := not_comparable(sum(mixed_runs([block], [block.baseline or ""]) for block in blocks)):
        said.append(f"Of the baseline's runs: {mixed}")
    return tuple(footnotes.mark(each) for each in said)


def _row(effect: PooledEffect, places: int, alpha: float, marks: tuple[str, ...]) -> tuple[Cell, ...]:
    better = effect.verdict is Verdict.BETTER
    delta = f"{signed(effect.delta, places)} {interval(effect.low, effect.high, places)}".rstrip()
    counts = "/".join(str(effect.verdicts.get(verdict, 0)) for verdict in COUNTED)
    rank = fixed(effect.mean_rank, 1)
    if effect.rank_low is not None and effect.rank_high is not None:
        rank += f" [{effect.rank_low:.1f}, {effect.rank_high:.1f}]"
    return (
        Cell(effect.loss, marks=marks),
        Cell(str(effect.blocks), float(effect.blocks)),
        Cell(delta, effect.delta, bold=better),
        Cell(probability(effect.p_adjusted, alpha), effect.p_adjusted),
        Cell(str(effect.verdict), bold=better),
        Cell(fixed(effect.tau, places), effect.tau, muted=effect.tau is None),
        Cell(counts),
        Cell(rank, effect.mean_rank),
    )


def _caption(study: Study, blocks: Sequence[Block], pooled: tuple[PooledEffect, ...]) -> str:
    options = study.options
    tested = sum(effect.p_adjusted is not None for effect in pooled)
    rests = rests_on(study, blocks, count_images(study, blocks))
    level = f"{1 - options.confidence:g}"
    return (
        f"{plural(len(blocks), 'block')} (dataset, model, strategy). {rests} Δ: random effects over the blocks, in "
        f"percentage points, with its {confidence_text(options.confidence)} interval (Hartung-Knapp); p by Holm over "
        f"the {plural(tested, 'loss')} that have one. Better, worse: p < {level}; equivalent: the interval, at "
        f"Bonferroni's level, lies within ±{options.smallest_effect:g} points. τ: SD of the true effect between "
        "blocks. +/-/=/?: blocks in which the loss is better, worse, equivalent, inconclusive. Mean rank: 1 is best, "
        "with its interval. Bold: better."
    )


def _record(study: Study, metric: str, effect: PooledEffect, mixed: int) -> dict[str, object]:
    return {
        "experiment": study.experiment,
        "metric": metric,
        "checkpoint": study.options.checkpoint,
        "loss": effect.loss,
        "baseline": study.options.baseline,
        "blocks": effect.blocks,
        "delta": effect.delta,
        "delta_low": effect.low,
        "delta_high": effect.high,
        "p": effect.p,
        "p_adjusted": effect.p_adjusted,
        "tau": effect.tau,
        "shares_images": effect.shares_images,
        "verdict": str(effect.verdict),
        **{f"blocks_{verdict.name.lower()}": effect.verdicts.get(verdict, 0) for verdict in Verdict},
        "mean_rank": effect.mean_rank,
        "rank_low": effect.rank_low,
        "rank_high": effect.rank_high,
        "mixed": mixed,
        "confidence": study.options.confidence,
        "smallest_effect": study.options.smallest_effect,
    }
