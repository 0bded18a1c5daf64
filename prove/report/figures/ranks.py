"""Ranks of the losses over the blocks: a critical-difference diagram from ten blocks, rank intervals below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from prove.report.figures import FIGURES
from prove.report.figures.frame import Frame, inches_axes
from prove.report.figures.picture import Made, Picture, Undrawn
from prove.report.figures.style import (
    INK,
    MUTED,
    NARROW,
    SMALL,
    TEXT,
    WIDE,
    Look,
    clean,
    fit_all,
    listed,
    looks,
    named,
    widest,
)
from prove.report.hypothesis_pairs import common_name
from prove.report.study import Block, Measure, Study
from prove.report.views.footnotes import mixed_runs, not_comparable
from prove.report.views.numbers import confidence_text
from prove.stats.effects import BlockResult
from prove.stats.ranks import FEWEST_BLOCKS, CriticalDifference, block_ranks, critical_difference, rank

TITLE = FIGURES["ranks"]

ROW = 0.19


@dataclass(frozen=True)
class Ranked:
    """One loss.

    Attributes:
        mean: of its ranks over the blocks; 1 is best, ties share.
        low, high: interval of the mean rank; None where there is none.
    """

    loss: str
    mean: float
    low: float | None
    high: float | None


def make(study: Study, measure: Measure) -> Made:
    """The ranks of a study's losses, or why there are none."""
    results = [study.compare(block, measure) for block in _ranked(study)]
    if len(results) < 2:
        reason = "Ranks compare losses over several blocks (datasets, models); "
        reason += "there is one." if results else "none has a finished run of the baseline."
        return [Undrawn("ranks", TITLE, reason)]
    losses, ranks = block_ranks(results)
    critical = critical_difference(ranks, study.options.confidence)
    if critical is not None:
        return [_diagram(study, measure, losses, critical)]
    rows = [Ranked(each.loss, each.mean_rank, each.rank_low, each.rank_high) for each in study.pooled(measure)]
    rows = [row for row in (*rows, *_baseline(results)) if np.isfinite(row.mean)]
    if len(rows) < 2:
        return [Undrawn("ranks", TITLE, f"No two losses have {named(measure)} in the same blocks.")]
    return [_intervals(study, measure, sorted(rows, key=lambda row: row.mean), len(results))]


def _ranked(study: Study) -> list[Block]:
    return [block for block in study.blocks if block.baseline is not None]


def _baseline(results: Sequence[BlockResult]) -> list[Ranked]:
    """The baseline's mean rank: it is what the others are pooled against and has no interval of its own."""
    ranks = []
    for result in results:
        means = np.array([arm.mean for arm in result.arms])
        found = rank(means, higher_is_better=result.higher_is_better)
        ranks += [each for each, arm in zip(found, result.arms, strict=True) if arm.loss == result.baseline]
    known = [each for each in ranks if np.isfinite(each)]
    return [Ranked(common_name(results[0].baseline), float(np.mean(known)), None, None)] if known else []


def _intervals(study: Study, measure: Measure, rows: Sequence[Ranked], blocks: int) -> Picture:
    """A row per loss: its mean rank and the interval of it."""
    percent = confidence_text(study.options.confidence)
    caption = (
        f"Mean rank of each loss by {named(measure)} over up to {blocks} blocks (1 is best, ties share) with its "
        f"{percent} interval. A critical difference needs {FEWEST_BLOCKS} blocks that have all losses."
    )
    caption = f"{caption} {not_comparable(mixed_runs(_ranked(study)))}".rstrip()
    data = _data(study, measure, rows, None, blocks)
    return Picture("ranks", _title(measure), caption, _alt(rows), partial(_rows, study, rows), data)


def _rows(study: Study, rows: Sequence[Ranked]) -> Figure:
    left = min(0.14 + widest([clean(row.loss) for row in rows]), 2.2)
    page = NARROW if left < 1.5 else WIDE
    frame = Frame(page, left=left + 0.06, right=0.15, top=0.08, bottom=0.42, inner=ROW * len(rows) + 0.05)
    figure = Figure(figsize=(page, frame.height))
    axes = inches_axes(figure, frame)
    styles = looks(study)
    labels = fit_all([row.loss for row in rows], left - 0.14)
    for at, (row, label) in enumerate(zip(rows, labels, strict=True)):
        look = styles[row.loss]
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [at + 0.5] * 2, color=look.color, linewidth=1.3)
        axes.plot([row.mean], [at + 0.5], marker=look.marker, color=look.color, markersize=5, linestyle="")
        y = frame.from_top(ROW * (at + 0.5))
        figure.text(0.08 / page, y, label, size=TEXT, va="center_baseline")
    axes.set_ylim(len(rows) + 0.05 / ROW, 0)
    axes.margins(x=0.06)
    _whole_ranks(axes)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("Mean rank (1 is best)")
    return figure


def _whole_ranks(axes: Axes) -> None:
    low, high = axes.get_xlim()
    span = high - low
    axes.xaxis.set_major_locator(MultipleLocator(next((s for s in (0.1, 0.2, 0.5, 1, 2, 5) if span / s <= 7), 10)))


def _diagram(study: Study, measure: Measure, losses: Sequence[str], critical: CriticalDifference) -> Picture:
    """Demšar's diagram: losses hang from an axis of ranks, bars join those that can't be told apart."""
    order = sorted(range(len(losses)), key=lambda at: critical.mean_ranks[at])
    rows = [Ranked(losses[at], critical.mean_ranks[at], None, None) for at in order]
    groups = [(order.index(group[0]), order.index(group[-1])) for group in critical.groups]
    caption = (
        f"Mean rank of each loss by {named(measure)} over {critical.blocks} blocks (1 is best, ties share). Losses "
        f"joined by a bar differ by less than the critical difference of {critical.critical:.2f} (Nemenyi, "
        f"{confidence_text(study.options.confidence)} for all pairs at once). That all rank alike: "
        f"p = {critical.p:.2g} (Friedman)."
    )
    missing = [loss for loss in dict.fromkeys(loss for block in study.blocks for loss in block.losses)
               if loss not in losses]  # fmt: skip
    if missing:
        caption += f" Not in every block and so not ranked: {listed(missing)}."
    caption = f"{caption} {not_comparable(mixed_runs(_ranked(study)))}".rstrip()
    data = _data(study, measure, rows, critical.critical, critical.blocks)
    draw = partial(_hanging, looks(study), rows, groups, critical.critical)
    return Picture("ranks", _title(measure), caption, _alt(rows), draw, data)


def _hanging(
    styles: Mapping[str, Look], rows: Sequence[Ranked], groups: Sequence[tuple[int, int]], distance: float
) -> Figure:
    """The diagram; the better half of the losses on the left, the others on the right."""
    half = (len(rows) + 1) // 2
    side = min(2.1, widest([clean(row.loss) for row in rows]) + 0.12)
    bars = 0.1 * len(groups) + 0.14
    frame = Frame(WIDE, left=side + 0.5, right=side + 0.5, top=0.58, bottom=0.1, inner=bars + ROW * half)
    figure = Figure(figsize=(frame.width, frame.height))
    axes = inches_axes(figure, frame)
    axes.set_xlim(1, len(rows))
    axes.set_ylim(frame.inner, 0)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    for name in ("left", "bottom"):
        axes.spines[name].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.set_yticks([])
    _whole_ranks(axes)
    labels = fit_all([row.loss for row in rows], side - 0.12)
    for at, (row, label) in enumerate(zip(rows, labels, strict=True)):
        left = at < half
        depth = bars + ROW * ((at if left else len(rows) - 1 - at) + 0.5)
        look = styles[row.loss]
        end = -0.38 if left else frame.inner_width + 0.38
        beyond = 1 + end / frame.inner_width * (len(rows) - 1)
        axes.plot([row.mean, row.mean, beyond], [0, depth, depth], color=MUTED, linewidth=0.7, clip_on=False, zorder=1)
        axes.plot([row.mean], [0], marker=look.marker, color=look.color, markersize=5, clip_on=False, zorder=3)
        x = (frame.left - 0.43 if left else frame.left + frame.inner_width + 0.43) / frame.width
        figure.text(
            x, frame.from_top(depth), label, size=TEXT, ha="right" if left else "left",
            va="center_baseline",
        )  # fmt: skip
        figure.text(
            (frame.left + (-0.22 if left else frame.inner_width + 0.22)) / frame.width, frame.from_top(depth - 0.055),
            f"{row.mean:.2f}", size=6, color=MUTED, ha="left" if left else "right", va="center_baseline",
        )  # fmt: skip
    for at, (first, last) in enumerate(groups):
        y = 0.12 + 0.1 * at
        axes.plot([rows[first].mean - 0.03, rows[last].mean + 0.03], [y, y], color=INK, linewidth=2.4, zorder=4)
    _ruler(figure, frame, distance, len(rows))
    return figure


def _ruler(figure: Figure, frame: Frame, distance: float, ranks: int) -> None:
    """The critical difference as a length, above the axis."""
    long = min(distance / (ranks - 1), 1.0) * frame.inner_width
    y, start = frame.from_top(-0.42), frame.left
    figure.add_artist(Line2D([start / frame.width, (start + long) / frame.width], [y, y], color=INK, linewidth=1.2))
    figure.text(
        (start + long + 0.08) / frame.width, y, f"critical difference {distance:.2f}", size=SMALL, va="center_baseline"
    )  # fmt: skip


def _title(measure: Measure) -> str:
    return f"Ranks by {named(measure)}"


def _alt(rows: Sequence[Ranked]) -> str:
    said = [f"{clean(row.loss)} {row.mean:.2f}" for row in rows[:16]]
    return "Mean ranks, best first: " + "; ".join(said) + "."


def _data(
    study: Study, measure: Measure, rows: Sequence[Ranked], distance: float | None, blocks: int
) -> tuple[dict[str, object], ...]:
    return tuple(
        {
            "metric": named(measure), "loss": row.loss, "mean_rank": row.mean, "low": row.low, "high": row.high,
            "critical_difference": distance, "blocks": blocks, "mixed": mixed_runs(_ranked(study)),
        }
        for row in rows
    )  # fmt: skip
