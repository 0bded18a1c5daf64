"""What was found, in a sentence per loss, with a small drawing of its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prove.report.figures.words import why_no_verdict
from prove.report.hypothesis_pairs import common_name
from prove.report.study import Block, Measure, Study
from prove.report.views.footnotes import failures, mixed_runs, not_comparable
from prove.report.views.numbers import confidence_text, decimals, half_width, interval, plural, probability, signed
from prove.stats.effects import Effect, PooledEffect, Verdict

BLOCKS_SHOWN = 12
"""Blocks that get sentences of their own; beyond it, the tables have the rest."""

ORDER = (Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT, Verdict.INCONCLUSIVE, Verdict.NO_VERDICT)

_HALF_WIDTH = 100.0


@dataclass(frozen=True)
class Strip:
    """An interval drawn from -100 to 100, with 0 in the middle; all strips of a group have one scale.

    Attributes:
        low, high, point: where the interval ends, and its estimate.
        band: half the width of the smallest effect of interest.
    """

    low: float
    high: float
    point: float
    band: float


@dataclass(frozen=True)
class Headline:
    """One loss against the baseline.

    Attributes:
        says: what follows the loss's name, such as ``is better than ce``.
        numbers: the effect, its interval, and what it rests on.
        strip: None where there is no interval.
    """

    verdict: Verdict
    loss: str
    says: str
    numbers: str
    strip: Strip | None


@dataclass(frozen=True)
class Group:
    """The headlines of one block, or of all blocks together; `why` says why there are none.

    Attributes:
        extent: what the strips' ends stand for, such as ``±2.1``; empty without strips.
        mixed: a sentence on the runs that are not comparable and take part; empty where all are.
    """

    title: str
    headlines: tuple[Headline, ...]
    extent: str = ""
    why: str = ""
    mixed: str = ""


def headlines(study: Study) -> tuple[Group, ...]:
    """The findings in the study's headline metric: over all blocks where there are several, then block by block."""
    measure = Measure(study.options.metrics[0])
    groups = []
    pooled = [effect for effect in study.pooled(measure) if effect.blocks > 1]
    if pooled:
        groups.append(_over_all(study, measure, pooled))
    groups += [_of_block(study, measure, block) for block in study.blocks[:BLOCKS_SHOWN]]
    return tuple(groups)


def _of_block(study: Study, measure: Measure, block: Block) -> Group:
    title = str(block.key)
    if block.baseline is None:
        return Group(title, (), why=block.why or "No run of the baseline is there to compare with.")
    result = study.compare(block, measure)
    effects = sorted(result.effects, key=lambda effect: ORDER.index(effect.verdict))
    scale = _scale(((effect.low, effect.high, effect.delta) for effect in effects), result.smallest_effect)
    found = [
        Headline(
            effect.verdict,
            effect.loss,
            _says(effect, result.baseline, result.smallest_effect),
            _numbers(effect, measure, result.confidence, _seeds(block, effect)),
            _strip(effect.low, effect.high, effect.delta, result.smallest_effect, scale),
        )
        for effect in effects
    ]
    compared = any(effect.seeds and not math.isnan(effect.delta) for effect in effects)
    why = "" if compared else f"No other loss has a comparable run at a seed of {result.baseline}."
    return Group(title, tuple(found), _extent(found, scale), why, not_comparable(mixed_runs([block])))


def _over_all(study: Study, measure: Measure, pooled: Sequence[PooledEffect]) -> Group:
    options = study.options
    effects = sorted(pooled, key=lambda effect: ORDER.index(effect.verdict))
    scale = _scale(((effect.low, effect.high, effect.delta) for effect in effects), options.smallest_effect)
    found = [
        Headline(
            effect.verdict,
            effect.loss,
            _says(effect, options.baseline, options.smallest_effect),
            _pooled_numbers(effect, measure, options.confidence, _failed(study.blocks, effect.loss)),
            _strip(effect.low, effect.high, effect.delta, options.smallest_effect, scale),
        )
        for effect in effects
    ]
    mixed = not_comparable(mixed_runs(block for block in study.blocks if block.baseline is not None))
    return Group(f"Over all {len(study.blocks)} blocks", tuple(found), _extent(found, scale), mixed=mixed)


def _says(effect: Effect | PooledEffect, baseline: str, smallest: float) -> str:
    verdict = effect.verdict
    if math.isnan(effect.delta):
        return f"has no run to compare with {baseline}"
    if verdict is Verdict.EQUIVALENT:
        return f"makes no difference of {smallest:g} points or more to {baseline}"
    if verdict is Verdict.INCONCLUSIVE:
        return f"can't be told from {baseline} yet"
    if verdict is Verdict.NO_VERDICT:
        return f"against {baseline}: no verdict"
    return f"is {verdict} than {baseline}"


def _numbers(effect: Effect, measure: Measure, confidence: float, seeds: str) -> str:
    if math.isnan(effect.delta):
        return seeds
    why = why_no_verdict(effect)
    about = "these checkpoints only, resampled images" if why and effect.basis == "images" else ""
    basis = ", ".join(filter(None, [about, why if why != "one seed" else "", seeds]))
    return _line(effect.delta, effect.low, effect.high, effect.p_adjusted, measure, confidence, basis)


def _seeds(block: Block, effect: Effect) -> str:
    """``3 seeds``, or ``2 of 5 seeds, 3 failed (diverged)``."""
    baseline = str(block.baseline)
    counts = {loss: failures(block, loss) for loss in (effect.loss, baseline)}
    if not any(failed for failed, _ in counts.values()):
        return plural(effect.seeds, "seed")
    said = f"{effect.seeds} of {plural(max(ended for _, ended in counts.values()), 'seed')}"
    own, others = _failed([block], effect.loss), _failed([block], baseline, f" of {baseline}")
    return ", ".join(filter(None, [said, own, others]))


def _failed(blocks: Iterable[Block], loss: str, of: str = "") -> str:
    """``3 failed (diverged)``, or ``3 of ce failed (diverged)``; empty for none."""
    runs = [
        out.run
        for block in blocks
        for out in block.left_out
        if out.kind == "failed" and loss in (out.run.loss, common_name(out.run.loss))
    ]
    kinds = ", ".join(dict.fromkeys(str(run.failure or "error").replace("_", " ") for run in runs))
    return f"{len(runs)}{of} failed ({kinds})" if runs else ""


def _pooled_numbers(effect: PooledEffect, measure: Measure, confidence: float, failed: str) -> str:
    basis = ", ".join(filter(None, [plural(effect.blocks, "block"), failed]))
    return _line(effect.delta, effect.low, effect.high, effect.p_adjusted, measure, confidence, basis)


def _line(
    delta: float,
    low: float | None,
    high: float | None,
    p: float | None,
    measure: Measure,
    confidence: float,
    basis: str,
) -> str:
    places = decimals([half_width(low, high)])
    parts = []
    if low is not None and high is not None:
        parts.append(f"{confidence_text(confidence)} interval {interval(low, high, places)}")
    if p is not None:
        said = probability(p, 1 - confidence)
        parts.append(f"adjusted p {said[0]} {said[1:]}" if said[0] in "<>" else f"adjusted p = {said}")
    numbers = f"{signed(delta, places)} points of {measure.metric} ({', '.join([*parts, basis])})"
    return numbers.replace("-", "−")


def _scale(intervals: Iterable[tuple[float | None, float | None, float]], smallest: float) -> float:
    """What the right end of a group's strips stands for, in percentage points."""
    ends = [abs(end) for interval in intervals for end in interval if end is not None and math.isfinite(end)]
    return 1.08 * max([*ends, smallest, 1e-9])


def _strip(low: float | None, high: float | None, point: float, smallest: float, scale: float) -> Strip | None:
    if low is None or high is None or not math.isfinite(point):
        return None

    def at(value: float) -> float:
        return round(_HALF_WIDTH * max(-1.0, min(1.0, value / scale)), 1)

    return Strip(at(low), at(high), at(point), at(smallest))


def _extent(found: Sequence[Headline], scale: float) -> str:
    return f"±{scale:.2g}" if any(each.strip for each in found) else ""
