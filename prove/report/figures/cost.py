"""The metric against the hours of training, with the frontier of what no cheaper run reaches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from prove.report.figures import FIGURES
from prove.report.figures.legend import grid, legend, legend_height
from prove.report.figures.picture import Made, Picture, Undrawn
from prove.report.figures.style import INK, MUTED, NARROW, WIDE, Look, clean, fit, looks, named
from prove.report.study import Block, BlockKey, Measure, Study
from prove.report.views.footnotes import mixed_runs, not_comparable
from prove.report.views.numbers import confidence_text

TITLE = FIGURES["cost"]

MOST_PANELS = 6
MOST_IN_PANEL = 12
"""Blocks whose losses are drawn in one plot."""
MOST_WITH_INTERVALS = 40
"""Spots of a plot; with more, their intervals are left to the CSV."""


@dataclass(frozen=True)
class Spot:
    """One loss in one block.

    Attributes:
        hours: mean over the seeds, of all attempts of a run.
        value: mean of the metric over the seeds.
        low, high: its interval; None where there is none.
        best: no other spot of its panel is at least as cheap and better.
        mixed: how many of its runs are not comparable.
    """

    key: BlockKey
    loss: str
    hours: float
    value: float
    low: float | None
    high: float | None
    seeds: int
    best: bool = False
    mixed: int = 0


def make(study: Study, measure: Measure) -> Made:
    """The metric of each loss against its hours, a plot per dataset, or why there is none."""
    hours = {run.run_id: study.hours(run) for block in study.blocks for run in block.runs.values()}
    if not hours:
        return [Undrawn("cost", TITLE, "No run is finished.")]
    device = "GPU" if any(gpu > 0 for gpu, _ in hours.values()) else "CPU"
    spots: dict[tuple[str, str], list[Spot]] = {}
    without = 0
    for block in study.blocks:
        own, unknown = _spots(study, block, measure, {run: each[device == "CPU"] for run, each in hours.items()})
        without += unknown
        if own:
            spots.setdefault((block.key.dataset, block.key.settings), []).extend(own)
    if not spots:
        reason = f"No run has both {named(measure)} and a recorded time of training."
        return [Undrawn("cost", TITLE, reason)]
    panels = {place: frontier(found, measure.higher_is_better) for place, found in spots.items()}
    shown = {place: drawn(found) for place, found in list(panels.items())[:MOST_PANELS]}
    title = f"{named(measure)} against {device} hours"
    caption = _caption(study, measure, device, len(panels) - len(shown), without, panels)
    data = tuple(_row(spot, measure, device) for found in panels.values() for spot in found)
    draw = partial(_figure, study, measure, device, shown)
    return [Picture("cost", title, caption, _alt(measure, device, shown), draw, data)]


def _figure(study: Study, measure: Measure, device: str, shown: Mapping[tuple[str, str], Sequence[Spot]]) -> Figure:
    losses = [loss for loss in looks(study) if any(spot.loss == loss for found in shown.values() for spot in found)]
    columns = min(len(shown), 3)
    rows = math.ceil(len(shown) / columns)
    page = NARROW if columns == 1 and len(losses) <= 8 else WIDE
    figure, axes = grid(page, 2.3 * rows + legend_height(losses, page), rows, columns)
    flat = [each for row in axes for each in row]
    styles = looks(study)
    slowest = max(spot.hours for found in shown.values() for spot in found)
    unit, per_hour = ("hours", 1) if slowest >= 0.5 else ("minutes", 60)
    for plot, ((dataset, settings), found) in zip(flat, shown.items(), strict=False):
        _panel(plot, found, styles, per_hour)
        if len(shown) > 1:
            title = dataset + (f" [{settings}]" if settings else "")
            plot.set_title(fit(title, page / columns - 0.6))
    for plot in flat[len(shown) :]:
        plot.set_visible(False)
    for plot in flat[max(len(shown) - columns, 0) : len(shown)]:
        plot.set_xlabel(f"{device} {unit} per run")
    for row in axes:
        row[0].set_ylabel(f"{fit(named(measure), 1.4)} (%)")
    legend(figure, losses, styles, markers=True, lines=False)
    return figure


def _spots(study: Study, block: Block, measure: Measure, hours: Mapping[int, float]) -> tuple[list[Spot], int]:
    """The spots of a block, and how many runs have no time."""
    values = study.values(block, measure)
    arms = {arm.loss: arm for arm in study.compare(block, measure).arms} if block.baseline is not None else {}
    made, unknown = [], 0
    for row, loss in enumerate(block.losses):
        runs = [block.runs.get((loss, seed)) for seed in block.seeds]
        times = [math.nan if run is None else hours[run.run_id] or math.nan for run in runs]
        unknown += sum(run is not None and math.isnan(time) for run, time in zip(runs, times, strict=True))
        there = [at for at, time in enumerate(times) if math.isfinite(time) and math.isfinite(values[row, at])]
        if there:
            arm = arms.get(loss)
            low, high = (arm.low, arm.high) if arm is not None and arm.seeds == len(there) else (None, None)
            mean = (float(np.mean([times[at] for at in there])), float(np.mean(values[row, there])))
            made.append(Spot(block.key, loss, *mean, low, high, len(there), mixed=mixed_runs([block], [loss])))
    return made, unknown


def frontier(spots: Sequence[Spot], higher_is_better: bool) -> list[Spot]:
    """The same spots, by hours, marked where no other is at least as cheap and better."""
    sign = 1 if higher_is_better else -1
    reached, made = -math.inf, []
    for spot in sorted(spots, key=lambda each: (each.hours, -sign * each.value)):
        best = sign * spot.value > reached
        reached = max(reached, sign * spot.value)
        made.append(replace(spot, best=best))
    return made


def drawn(spots: Sequence[Spot]) -> list[Spot]:
    """Those of the `MOST_IN_PANEL` cheapest blocks, and the frontier; of spots in the order of their hours."""
    first = list(dict.fromkeys(spot.key for spot in spots))[:MOST_IN_PANEL]
    return [spot for spot in spots if spot.best or spot.key in first]


def _panel(axes: Axes, spots: Sequence[Spot], styles: Mapping[str, Look], per_hour: int) -> None:
    spots = [replace(spot, hours=spot.hours * per_hour) for spot in spots]
    best = [spot for spot in spots if spot.best]
    axes.plot(
        [spot.hours for spot in best], [spot.value for spot in best], color=MUTED, linewidth=0.8,
        drawstyle="steps-post", zorder=1,
    )  # fmt: skip
    crowded = len(spots) > MOST_WITH_INTERVALS
    for loss in dict.fromkeys(spot.loss for spot in spots):
        look, own = styles[loss], [spot for spot in spots if spot.loss == loss]
        for spot in own:
            if spot.low is not None and spot.high is not None and not crowded:
                ends = [spot.low, spot.high]
                axes.plot([spot.hours] * 2, ends, color=look.color, linewidth=0.9, alpha=0.75, zorder=2)
        axes.plot(
            [spot.hours for spot in own], [spot.value for spot in own], marker=look.marker, color=look.color,
            markersize=3.5 if crowded else 5, linestyle="", zorder=3,
        )  # fmt: skip
    hours = [spot.hours for spot in spots]
    if max(hours) > 8 * min(hours):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=6))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.12, y=0.08)
    axes.grid(axis="y")
    _name_models(axes, spots)


def _name_models(axes: Axes, spots: Sequence[Spot]) -> None:
    """The model's name below its spots, where a plot has several."""
    keys = list(dict.fromkeys((spot.key.model, spot.key.strategy) for spot in spots))
    if not 1 < len(keys) <= 6:
        return
    axes.margins(x=0.2, y=0.14)
    for model, strategy in keys:
        own = [spot for spot in spots if (spot.key.model, spot.key.strategy) == (model, strategy)]
        lowest = min(spot.value if spot.low is None else min(spot.low, spot.value) for spot in own)
        name = model if strategy == "baseline" else f"{model}, {strategy}"
        x = float(np.exp(np.mean(np.log([spot.hours for spot in own]))))
        axes.annotate(
            fit(name, 1.2, 6), (x, lowest), xytext=(0, -3), textcoords="offset points", size=6, color=INK, ha="center",
            va="top",
        )  # fmt: skip


def _caption(
    study: Study,
    measure: Measure,
    device: str,
    undrawn: int,
    without: int,
    panels: Mapping[tuple[str, str], Sequence[Spot]],
) -> str:
    parts = [
        f"Mean {named(measure)} over the seeds against the mean {device} hours of a run, all its attempts and "
        "validations included."
    ]
    if device == "CPU":
        parts.append("No run had a GPU: it is the time of training on a CPU.")
    few = [found for found in panels.values() if len(found) <= MOST_WITH_INTERVALS]
    if any(spot.low is not None for found in few for spot in found):
        parts.append(f"Lines: {confidence_text(study.options.confidence)} intervals of the mean.")
    parts.append("The step line is the frontier: what is below it costs as much or more and is no better.")
    if not measure.higher_is_better:
        parts[-1] = "The step line is the frontier: what is above it costs as much or more and is no better."
    if without:
        parts.append(f"{without} runs without recorded {device} hours are left out.")
    if any(len(drawn(found)) < len(found) for found in panels.values()):
        parts.append(
            f"A plot has its {MOST_IN_PANEL} cheapest blocks and the frontier of all; the CSV has every block."
        )
    if undrawn:
        parts.append(f"{undrawn} more datasets or settings are not drawn; the CSV beside the figure has all.")
    return " ".join(filter(None, [*parts, not_comparable(mixed_runs(study.blocks))]))


def _alt(measure: Measure, device: str, panels: Mapping[tuple[str, str], Sequence[Spot]]) -> str:
    said = [
        f"{clean(spot.loss)} ({clean(str(spot.key))}) {spot.value:.2f}% at {spot.hours:.3g} hours"
        for found in panels.values()
        for spot in found
        if spot.best
    ]
    more = f"; and {len(said) - 10} others" if len(said) > 10 else ""
    return f"{named(measure)} against {device} hours. On the frontier: " + "; ".join(said[:10]) + more + "."


def _row(spot: Spot, measure: Measure, device: str) -> dict[str, object]:
    key = spot.key
    return {
        "dataset": key.dataset, "model": key.model, "strategy": key.strategy, "settings": key.settings,
        "loss": spot.loss, "metric": named(measure), "value": spot.value, "low": spot.low, "high": spot.high,
        "device": device, "hours": spot.hours, "seeds": spot.seeds, "frontier": spot.best,
        "mixed": spot.mixed,
    }  # fmt: skip
