"""What the design can see: noise, smallest detectable effect, and how many more seeds would settle what is open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prove.report.study import Block, Measure, Study
from prove.report.table import Cell, Column, Table
from prove.report.views.footnotes import Footnotes, mixed_runs, not_comparable
from prove.report.views.numbers import DASH, confidence_text, decimals, fixed, half_width, interval, signed
from prove.stats.effects import BlockResult, Effect, Precision, Verdict

_NOISE = (
    Column("block", "left"), Column("seeds"), Column("losses"), Column("seed SD"), Column("image SE"), Column("ρ"),
    Column("detectable"), Column("one loss alone"),
)  # fmt: skip

_OPEN = (
    Column("block", "left"), Column("loss", "left"), Column("Δ"), Column("verdict", "left"), Column("seeds"),
    Column("seeds needed"),
)  # fmt: skip


def precision(study: Study, *, blocks: Sequence[Block] | None = None) -> tuple[Table, ...]:
    """Two tables for each metric: the noise of each block, and its open comparisons; the second only if there are any.

    Args:
        blocks: only these; those without a baseline are left out.
    """
    chosen = [block for block in (study.blocks if blocks is None else blocks) if block.baseline is not None]
    names = study.options.metrics
    made = []
    for name in names:
        measure = Measure(name)
        seen = [(block, study.compare(block, measure), study.precision(block, measure)) for block in chosen]
        suffix = f"-{name}" * (len(names) > 1)
        made.append(_noise(study, name, seen, f"precision{suffix}"))
        made += _open(study, name, seen, f"open{suffix}")
    return tuple(made)


Seen = tuple[Block, BlockResult, Precision]


def _noise(study: Study, metric: str, seen: Sequence[Seen], name: str) -> Table:
    power = next((each.power for _, _, each in seen), 0.8)
    footnotes = Footnotes()
    rows = tuple(_noise_row(block, result, each, _marks(footnotes, block)) for block, result, each in seen)
    if any(each.seeds < 2 for _, _, each in seen):
        footnotes.whole("One seed says nothing of the noise between seeds: nothing can be detected.")
    footnotes.whole(not_comparable(mixed_runs(block for block, _, _ in seen)))
    return Table(
        name=name,
        title=f"{metric}: what this design can see",
        columns=_NOISE,
        rows=rows,
        caption=(
            f"In percentage points of {metric}. Seed SD: of one run, what is left after pairing by seed (loss x seed "
            "analysis of variance). Image SE: largest standard error of Δ from the choice of validation images; more "
            "seeds don't lower it. ρ: correlation of two losses at the same seed; without it pairing gains nothing. "
            f"Detectable: smallest true effect that is found with {confidence_text(power)} power at the present number "
            f"of seeds, all losses compared at once ({confidence_text(study.options.confidence)}); beside it, were one "
            "loss compared alone."
        ),
        notes=footnotes.notes,
        records=tuple(_noise_record(study, metric, block, result, each) for block, result, each in seen),
    )


def _marks(footnotes: Footnotes, block: Block, losses: Sequence[str] | None = None) -> tuple[str, ...]:
    """Of runs of a block, or of some of its losses, that are not comparable."""
    mixed = not_comparable(mixed_runs([block], losses))
    return (footnotes.mark(f"Among them: {mixed}"),) if mixed else ()


def _noise_row(block: Block, result: BlockResult, seen: Precision, marks: tuple[str, ...]) -> tuple[Cell, ...]:
    numbers = (
        (result.residual_sd, 2),
        (seen.image_sd, 2),
        (result.seed_correlation, 2),
        (seen.detectable, 2),
        (seen.detectable_alone, 2),
    )
    return (
        Cell(str(block.key), marks=marks),
        Cell(str(seen.seeds), float(seen.seeds)),
        Cell(str(len(block.losses)), float(len(block.losses))),
        *(Cell(fixed(value, places), value, muted=value is None) for value, places in numbers),
    )


def _noise_record(study: Study, metric: str, block: Block, result: BlockResult, seen: Precision) -> dict[str, Any]:
    return {
        "experiment": study.experiment,
        "dataset": block.key.dataset,
        "model": block.key.model,
        "strategy": block.key.strategy,
        "settings": block.key.settings,
        "metric": metric,
        "losses": len(block.losses),
        "seeds": seen.seeds,
        "seed_sd": result.residual_sd,
        "seed_df": result.residual_df,
        "image_se": seen.image_sd,
        "seed_correlation": result.seed_correlation,
        "detectable": seen.detectable,
        "detectable_alone": seen.detectable_alone,
        "power": seen.power,
        "mixed": len(block.mixed),
        "confidence": result.confidence,
    }


def _open(study: Study, metric: str, seen: Sequence[Seen], name: str) -> list[Table]:
    found = [
        (block, seen_here, effect, seen_here.seeds_needed[effect.loss])
        for block, result, seen_here in seen
        for effect in result.effects
        if effect.loss in seen_here.seeds_needed
    ]
    if not found:
        return []
    places = decimals(half_width(effect.low, effect.high) for _, _, effect, _ in found)
    power = found[0][1].power
    footnotes = Footnotes()
    rows = tuple(
        _open_row(block, each, effect, needed, places, _marks(footnotes, block, [block.baseline or "", effect.loss]))
        for block, each, effect, needed in found
    )
    footnotes.whole(not_comparable(mixed_runs({block.key: block for block, _, _, _ in found}.values())))
    return [
        Table(
            name=name,
            title=f"{metric}: open comparisons",
            columns=_OPEN,
            rows=rows,
            caption=(
                f"Seeds needed per loss, the baseline's too, to settle each comparison with {confidence_text(power)} "
                "power if its present Δ were the truth: its interval would exclude 0, or lie within "
                f"±{study.options.smallest_effect:g} points. A Δ from few seeds is uncertain, and so is this number. "
                "Fix the number of seeds before looking: adding seeds until a difference is significant finds one "
                "where there is none."
            ),
            notes=footnotes.notes,
            records=tuple(
                {
                    "experiment": study.experiment,
                    "dataset": block.key.dataset,
                    "model": block.key.model,
                    "strategy": block.key.strategy,
                    "settings": block.key.settings,
                    "metric": metric,
                    "loss": effect.loss,
                    "delta": effect.delta,
                    "delta_low": effect.low,
                    "delta_high": effect.high,
                    "verdict": str(effect.verdict),
                    "seeds": effect.seeds,
                    "seeds_needed": needed,
                    "more_than": each.limit if needed is None else None,
                    "power": each.power,
                    "mixed": len(block.mixed),
                }
                for block, each, effect, needed in found
            ),
        )
    ]


def _open_row(
    block: Block, seen: Precision, effect: Effect, needed: int | None, places: int, marks: tuple[str, ...]
) -> tuple[Cell, ...]:
    delta = f"{signed(effect.delta, places)} {interval(effect.low, effect.high, places)}".rstrip()
    known = effect.verdict is not Verdict.NO_VERDICT or effect.seeds > 1
    text = str(needed) if needed is not None else f">{seen.limit}" if known else DASH
    return (
        Cell(str(block.key)),
        Cell(effect.loss, marks=marks),
        Cell(delta, effect.delta),
        Cell(str(effect.verdict)),
        Cell(str(effect.seeds), float(effect.seeds)),
        Cell(text, float(needed) if needed is not None else None),
    )
