"""Forest plot: every loss against the baseline, with simultaneous intervals, and pooled over the blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from prove.report.figures import FIGURES
from prove.report.figures.frame import Frame, header, inches_axes
from prove.report.figures.picture import Made, Picture, Undrawn
from prove.report.figures.style import (
    FAINT,
    INK,
    MUTED,
    PAPER,
    SMALL,
    TEXT,
    WIDE,
    Look,
    clean,
    fit,
    fit_all,
    listed,
    looks,
    named,
    widest,
)  # fmt: skip
from prove.report.figures.words import why_no_verdict
from prove.report.hypothesis_pairs import common_name
from prove.report.study import Block, Measure, Study
from prove.report.views.about import MODELLED
from prove.report.views.entries import entries
from prove.report.views.footnotes import mixed_runs, not_comparable
from prove.report.views.numbers import confidence_text, decimals, half_width, interval, signed
from prove.stats.effects import Effect, PooledEffect, Verdict

TITLE = FIGURES["forest"]

ROW, HEAD, GAP = 0.19, 0.24, 0.07
"""Heights in inches: of a row, of a heading, between groups."""

MOST_ROWS = 40
"""A page holds about as many."""

LABELS = 2.0
"""Widest a label may be, in inches."""

DECIDED = (Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT)


@dataclass(frozen=True)
class Row:
    """One line of the plot; a heading has no effect."""

    label: str
    loss: str = ""
    effect: Effect | PooledEffect | None = None

    @property
    def height(self) -> float:
        return HEAD if self.effect is None else ROW


def make(study: Study, measure: Measure) -> Made:
    """The forest plot of a study, or why there is none."""
    blocks = [block for block in study.blocks if block.baseline is not None and len(block.losses) > 1]
    if not blocks:
        return [Undrawn("forest", TITLE, _why_none(study))]
    compared = [(block, study.compare(block, measure).effects) for block in blocks]
    pooled = {each.loss: each for each in study.pooled(measure) if each.blocks > 1}
    data = _data(study, compared, pooled)
    rows, left_out = _rows(compared, pooled)
    if not any(_is_number(row.effect.delta) for row in rows if row.effect is not None):
        reason = f"No loss has a seed in common with the baseline at which both have a number for {named(measure)}."
        return [Undrawn("forest", TITLE, reason)]
    title = f"Effect on {named(measure)} against {clean(study.options.baseline)}"
    caption = _caption(study, measure, compared, pooled, left_out)
    return [Picture("forest", title, caption, _alt(measure, rows), partial(_figure, study, measure, rows), data)]


def _why_none(study: Study) -> str:
    if not study.blocks:
        return "No run is finished."
    if all(block.baseline is None for block in study.blocks):
        return f"No block has a finished run of the baseline, {clean(study.options.baseline)}, to compare with."
    return "No loss stands beside the baseline in any block."


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _rows(
    compared: Sequence[tuple[Block, tuple[Effect, ...]]], pooled: dict[str, PooledEffect]
) -> tuple[list[Row], int]:
    """The rows from top to bottom, and how many blocks are not among them."""
    if len(compared) == 1:
        return [Row(effect.loss, effect.loss, effect) for effect in compared[0][1]][:MOST_ROWS], 0
    losses = list(dict.fromkeys(common_name(effect.loss) for _, effects in compared for effect in effects))
    room = max(MOST_ROWS // len(losses) - 2, 0)
    kept = compared[: room if room >= 2 or not pooled else 0] if len(compared) > room else compared
    rows: list[Row] = []
    for loss in losses:
        own = [
            Row(str(block.key), each.loss, each)
            for block, effects in kept
            for each in effects
            if common_name(each.loss) == loss
        ]
        if loss in pooled:
            own.append(Row(f"pooled, {pooled[loss].blocks} blocks", loss, pooled[loss]))
        if own:
            rows += [Row(loss, loss), *own] if kept else [Row(loss, loss, own[0].effect)]
    return rows, len(compared) - len(kept)


def _figure(study: Study, measure: Measure, rows: Sequence[Row]) -> Figure:
    places = _places(rows)
    numbers = [_numbers(row.effect, places) for row in rows if row.effect is not None]
    verdicts = [_verdict(row.effect) for row in rows if row.effect is not None]
    left = min(max(widest([clean(row.label) for row in rows]) + 0.12, 0.8), LABELS + 0.12)
    first, second = widest(numbers, SMALL) + 0.14, max(widest(verdicts, SMALL), 0.4)
    heights = [row.height + (GAP if row.effect is None and at else 0) for at, row in enumerate(rows)]
    frame = Frame(WIDE, left=left + 0.08, right=first + second + 0.22, top=0.3, bottom=0.52, inner=sum(heights) + 0.08)
    figure = Figure(figsize=(frame.width, frame.height))
    axes = inches_axes(figure, frame)
    limit_low, limit_high = _limits([row.effect for row in rows], study.options.smallest_effect)
    axes.set_xlim(limit_low, limit_high)
    axes.set_ylim(sum(heights) + 0.08, 0)
    smallest = study.options.smallest_effect
    axes.axvspan(max(-smallest, limit_low), min(smallest, limit_high), color=FAINT, alpha=0.45, linewidth=0, zorder=0)
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    labels = fit_all([row.label for row in rows], left - 0.12)
    style, y = looks(study), 0.04
    for row, height, label in zip(rows, heights, labels, strict=True):
        middle = y + height - row.height / 2
        y += height
        heading = row.effect is None
        _text(frame, figure, 0.08, middle, label, "bold" if heading else "normal")
        if row.effect is None:
            continue
        _mark(axes, middle, row.effect, style[row.loss], (limit_low, limit_high))
        weight = "bold" if row.effect.verdict is Verdict.BETTER else "normal"
        right = frame.left + frame.inner_width + 0.14
        _text(frame, figure, right, middle, _numbers(row.effect, places), weight, SMALL)
        _text(frame, figure, right + first, middle, _verdict(row.effect), weight, SMALL, MUTED)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.set_xlabel(f"Difference in {fit(named(measure), 1.2)} from {fit(study.options.baseline, 1.0)} (points)")
    header(figure, frame, better=measure.higher_is_better, x=axes.transData.transform((0, 0))[0] / figure.dpi)
    _text(frame, figure, frame.left + frame.inner_width + 0.14, -0.14, "difference [interval]", "normal", SMALL, MUTED)
    return figure


def _text(
    frame: Frame, figure: Figure, x: float, y: float, text: str, weight: str, size: float = TEXT, color: str = INK
) -> None:
    figure.text(x / frame.width, frame.from_top(y), text, va="center_baseline", size=size, weight=weight, color=color)


def _mark(axes: Axes, y: float, effect: Effect | PooledEffect, look: Look, limits: tuple[float, float]) -> None:
    """A point with its interval; a diamond for what is pooled; an arrow where an interval leaves the picture."""
    if not _is_number(effect.delta):
        return
    low, high = effect.low, effect.high
    if isinstance(effect, PooledEffect):
        ends = (effect.delta if low is None else low, effect.delta if high is None else high)
        shown = (max(ends[0], limits[0]), min(ends[1], limits[1]))
        if shown[0] == shown[1]:
            axes.plot([effect.delta], [y], marker="d", color=look.color, markersize=6, linestyle="")
            return
        corners = [(shown[0], y), (effect.delta, y - 0.062), (shown[1], y), (effect.delta, y + 0.062)]
        axes.add_patch(Polygon(corners, closed=True, facecolor=look.color, edgecolor=INK, linewidth=0.5, zorder=3))
        return
    images_only = effect.basis == "images"
    if low is not None and high is not None and _is_number(low) and _is_number(high):
        shown = (max(low, limits[0]), min(high, limits[1]))
        axes.plot(shown, [y, y], color=look.color, linewidth=1.3, linestyle=(0, (2, 1.5)) if images_only else "-")
        for outside, end, marker in ((low < limits[0], limits[0], "<"), (high > limits[1], limits[1], ">")):
            if outside:
                axes.plot([end], [y], marker=marker, color=look.color, markersize=4, clip_on=False, linestyle="")
    filled = effect.verdict in DECIDED
    axes.plot(
        [effect.delta], [y], marker=look.marker, markersize=5, linestyle="", zorder=4,
        markerfacecolor=look.color if filled else PAPER, markeredgecolor=look.color, markeredgewidth=1.1,
    )  # fmt: skip


def _limits(effects: Sequence[Effect | PooledEffect | None], smallest: float) -> tuple[float, float]:
    """Ends of the axis: all differences and, unless they are far wider than those, all intervals."""
    deltas = [each.delta for each in effects if each is not None and _is_number(each.delta)]
    reach = max(*(abs(delta) for delta in deltas), smallest, 1e-3)
    ends = [end for each in effects if each is not None for end in (each.low, each.high) if _is_number(end)]
    shown = [max(-4 * reach, min(4 * reach, end)) for end in ends if end is not None]
    low = min(*deltas, *shown, -1.5 * smallest, 0.0)
    high = max(*deltas, *shown, 1.5 * smallest, 0.0)
    spare = 0.05 * (high - low) or 1.0
    return low - spare, high + spare


def _places(rows: Sequence[Row]) -> int:
    """Decimals of all numbers, by their intervals."""
    return decimals(half_width(row.effect.low, row.effect.high) for row in rows if row.effect is not None)


def _numbers(effect: Effect | PooledEffect, places: int) -> str:
    if not _is_number(effect.delta):
        return "no pair of seeds"
    bounds = interval(effect.low, effect.high, places) or "[no interval]"
    return f"{signed(effect.delta, places)} {bounds}".replace("-", "−")


def _verdict(effect: Effect | PooledEffect) -> str:
    if not _is_number(effect.delta):
        return ""
    if effect.verdict is Verdict.NO_VERDICT and isinstance(effect, Effect):
        return why_no_verdict(effect) or str(effect.verdict)
    return str(effect.verdict)


def _data(
    study: Study, compared: Sequence[tuple[Block, tuple[Effect, ...]]], pooled: dict[str, PooledEffect]
) -> tuple[dict[str, object], ...]:
    rows: list[dict[str, object]] = [
        {
            "dataset": block.key.dataset, "model": block.key.model, "strategy": block.key.strategy,
            "settings": block.key.settings, "baseline": block.baseline, "loss": each.loss, "kind": "block",
            "delta": each.delta, "low": each.low, "high": each.high, "p": each.p, "p_adjusted": each.p_adjusted,
            "count": each.seeds, "basis": each.basis, "verdict": str(each.verdict), "mixed": len(block.mixed),
        }
        for block, effects in compared
        for each in effects
    ]  # fmt: skip
    rows += [
        {
            "dataset": "", "model": "", "strategy": "", "settings": "", "baseline": study.options.baseline,
            "loss": each.loss, "kind": "pooled", "delta": each.delta, "low": each.low, "high": each.high, "p": each.p,
            "p_adjusted": each.p_adjusted, "count": each.blocks, "basis": "blocks", "verdict": str(each.verdict),
            "mixed": mixed_runs(block for block, _ in compared),
        }
        for each in pooled.values()
    ]  # fmt: skip
    return tuple(rows)


def _caption(
    study: Study,
    measure: Measure,
    compared: Sequence[tuple[Block, tuple[Effect, ...]]],
    pooled: dict[str, PooledEffect],
    left_out: int,
) -> str:
    percent = confidence_text(study.options.confidence)
    first, effects = compared[0][0], [effect for _, effects in compared for effect in effects]
    place = f" on {clean(str(first.key))}" if len(compared) == 1 else f" in {len(compared)} blocks"
    baseline = clean(study.options.baseline)
    modelled = any(entry.is_modelled for block, _ in compared for entry in entries(study, block, measure))
    paired = "" if modelled else ", paired by seed"
    parts = [f"Difference (Δ) in {named(measure)} between each loss and {baseline}{place}{paired}."]
    if modelled:
        parts.append(MODELLED)
    if any(effect.basis.startswith("seeds") for effect in effects):
        parts.append(f"Lines are {percent} intervals that hold for all comparisons of a block at once (Dunnett).")
    from_images = {why_no_verdict(effect) for effect in effects if effect.basis == "images"}
    if from_images:
        whence = " or ".join(text for name, text in _WHENCE.items() if name in from_images)
        parts.append(
            f"Dashed lines come from {whence}: they resample the images and are about these checkpoints only, so that "
            "no verdict is given."
        )
    if any(effect.low is None and _is_number(effect.delta) for effect in effects):
        parts.append("A point without a line has no interval.")
    if pooled:
        parts.append(
            f"Diamonds pool the blocks (random effects, Hartung–Knapp, {percent} each; verdicts after Holm over "
            "the losses)."
        )
    smallest = study.options.smallest_effect
    parts.append(f"Shaded: differences below {smallest:g} points, the smallest of interest.")
    parts.append("Filled symbols have a verdict, hollow ones are open.")
    if left_out:
        which = "The" if left_out == len(compared) else f"{left_out} of the"
        parts.append(f"{which} {len(compared)} blocks are not drawn one by one; the CSV beside the figure has them.")
    without = [str(block.key) for block in study.blocks if block.baseline is None]
    if without:
        parts.append(f"Without a baseline and so not compared: {listed(without)}.")
    return " ".join(filter(None, [*parts, not_comparable(mixed_runs(block for block, _ in compared))]))


_WHENCE = {"one seed": "one seed", "seeds alike": "seeds that gave the same numbers"}


def _alt(measure: Measure, rows: Sequence[Row]) -> str:
    said, places = [], _places(rows)
    for row in rows[:12]:
        if row.effect is not None and _is_number(row.effect.delta):
            name = row.loss if row.label == row.loss else f"{row.loss}, {row.label}"
            said.append(f"{clean(name)}: {_numbers(row.effect, places)} {_verdict(row.effect)}".strip())
    more = "; and others" if len(rows) > 12 else ""
    return f"Forest plot of differences in {named(measure)}. " + "; ".join(said) + more + "."
