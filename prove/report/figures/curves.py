"""Learning curves: the metric at each validation, and the training loss, smoothed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.special import stdtrit

from prove.report.figures import FIGURES
from prove.report.figures.legend import grid, legend, legend_height
from prove.report.figures.picture import Made, Picture, Undrawn
from prove.report.figures.style import FAINT, NARROW, SMALL, TEXT, WIDE, Look, clean, fit, fit_all, looks, named
from prove.report.study import Block, Measure, Study
from prove.report.views.footnotes import mixed_runs, not_comparable
from prove.report.views.numbers import confidence_text

Floats = NDArray[np.float64]
Points = tuple[tuple[float, float], ...]
"""(iteration, value), finite, in order."""

TITLE = FIGURES["curves"]

MOST_BLOCKS = 3
MOST_RUNS = 60
"""Runs whose curves are read, where there are several blocks: a long run has thousands of points."""
MOST_TOGETHER = 6
"""Losses in one plot; more get a plot each."""
MOST_APART = 24
MOST_LINES = 5
"""Seeds that are drawn as lines of their own; more are drawn as a mean and its interval."""

MOST_POINTS = 200
"""Points of a training curve that are drawn, evenly spaced."""

SMOOTHED_OVER = 0.05
"""The training loss is averaged over this share of the training, centred."""


@dataclass(frozen=True)
class Curve:
    """What one run's curves are.

    Attributes:
        validation: as recorded.
        training: smoothed, at most `MOST_POINTS`.
    """

    block: Block
    loss: str
    seed: int
    validation: Points
    training: Points


def make(study: Study, measure: Measure) -> Made:
    """The learning curves of a study, or why there are none."""
    blocks = [block for block in study.blocks if block.runs]
    if not blocks:
        return [Undrawn("curves", TITLE, "No run is finished.")]
    by_block: dict[int, list[Curve]] = {}
    for at, block in enumerate(blocks[:MOST_BLOCKS]):
        read = sum(map(len, by_block.values()))
        if (not read or read + len(block.runs) <= MOST_RUNS) and (found := _curves(study, block, measure)):
            by_block[at] = found
    if not by_block:
        return [Undrawn("curves", TITLE, f"No run has recorded {named(measure)} or its training loss on the way.")]
    everything = [curve for found in by_block.values() for curve in found]
    losses = [loss for loss in looks(study) if any(curve.loss == loss for curve in everything)]
    data = _data(everything, measure)
    if len(losses) <= MOST_TOGETHER:
        return [_together(study, measure, by_block, losses, data, len(blocks))]
    return [
        _apart(study, measure, found, losses, data, "curves" if len(by_block) == 1 else f"curves-{number}")
        for number, found in enumerate(by_block.values(), 1)
    ]


def _curves(study: Study, block: Block, measure: Measure) -> list[Curve]:
    made = []
    together = len({loss for loss, _ in block.runs}) <= MOST_TOGETHER
    for (loss, seed), run in sorted(block.runs.items(), key=lambda each: (block.losses.index(each[0][0]), each[0][1])):
        validation = _points((at, _value(payload, measure)) for at, payload in study.curve(run, "val"))
        train = study.curve(run, "train") if together else ()
        training = thin(smooth(_points((at, payload.get("loss")) for at, payload in train)))
        if validation or training:
            made.append(Curve(block, loss, seed, validation, training))
    return made


def _points(found: Any) -> Points:
    return tuple((float(at), float(value)) for at, value in found if value is not None and math.isfinite(value))


def _value(payload: Mapping[str, Any], measure: Measure) -> float | None:
    if measure.scope == "overall":
        metrics = payload.get("metrics") or {}
    else:
        metrics = (payload.get("classes" if measure.scope == "class" else "conditions") or {}).get(measure.name) or {}
    value: float | None = metrics.get(measure.metric)
    return value


def smooth(points: Points) -> Points:
    """The mean around each point, over `SMOOTHED_OVER` of the way from the first to the last, centred."""
    if len(points) < 3:
        return points
    at, value = np.array(points).T
    half = (at[-1] - at[0]) * SMOOTHED_OVER / 2
    sums = np.concatenate([[0.0], np.cumsum(value)])
    low, high = np.searchsorted(at, at - half, "left"), np.searchsorted(at, at + half, "right")
    return tuple(zip(at.tolist(), ((sums[high] - sums[low]) / (high - low)).tolist(), strict=True))


def thin(points: Points) -> Points:
    """At most `MOST_POINTS` of the points, evenly spaced, the first and the last among them."""
    if len(points) <= MOST_POINTS:
        return points
    return tuple(points[at] for at in np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int))


def mean_of(curves: Sequence[Points]) -> tuple[Floats, Floats]:
    """Iterations, and the mean over the seeds that have a point there."""
    by_iteration = _by_iteration(curves)
    return np.array(list(by_iteration)), np.array([np.mean(values) for values in by_iteration.values()])


def aligned(curves: Sequence[Points]) -> Sequence[Points]:
    """Curves that have their points at the same iterations; interpolated where they differ, as training losses do."""
    curves = [points for points in curves if points]
    if len(curves) < 2:
        return curves
    common = set.intersection(*({at for at, _ in points} for points in curves))
    if 2 * len(common) >= max(map(len, curves)):
        return curves
    first, last = max(points[0][0] for points in curves), min(points[-1][0] for points in curves)
    at = np.linspace(first, last, min(MOST_POINTS, max(map(len, curves))))
    values = [np.interp(at, *np.array(points).T) for points in curves]
    return [tuple(zip(at.tolist(), each.tolist(), strict=True)) for each in values]


def band(curves: Sequence[Points], confidence: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean over the seeds and its t interval, where at least two have a point.

    Returns:
        iterations, mean, low, high.
    """
    rows = []
    for at, values in _by_iteration(aligned(curves)).items():
        if len(values) >= 2:
            half = stdtrit(len(values) - 1, 0.5 + confidence / 2) * np.std(values, ddof=1) / math.sqrt(len(values))
            rows.append((at, np.mean(values), np.mean(values) - half, np.mean(values) + half))
    table = np.array(rows, float).reshape(-1, 4)
    return table[:, 0], table[:, 1], table[:, 2], table[:, 3]


def _by_iteration(curves: Sequence[Points]) -> dict[float, list[float]]:
    found: dict[float, list[float]] = {}
    for points in curves:
        for at, value in points:
            found.setdefault(at, []).append(value)
    return dict(sorted(found.items()))


def _together(
    study: Study,
    measure: Measure,
    by_block: Mapping[int, list[Curve]],
    losses: Sequence[str],
    data: tuple[dict[str, object], ...],
    blocks: int,
) -> Picture:
    everything = [curve for found in by_block.values() for curve in found]
    caption = _caption(study, measure, everything)
    if blocks > len(by_block):
        caption += f" {len(by_block)} of {blocks} blocks are drawn."
    caption = f"{caption} {_mixed(everything)}".rstrip()
    draw = partial(_columns, study, measure, list(by_block.values()), losses)
    return Picture("curves", f"Learning curves: {named(measure)}", caption, _alt(measure, everything), draw, data)


def _columns(study: Study, measure: Measure, blocks: Sequence[Sequence[Curve]], losses: Sequence[str]) -> Figure:
    """A column per block: validation above, training loss below."""
    styles = looks(study)
    page = NARROW if len(blocks) == 1 else WIDE
    figure, axes = grid(page, 3.6 + legend_height(losses, page), 2, len(blocks))
    for column, found in enumerate(blocks):
        above, below = axes[0][column], axes[1][column]
        for loss in losses:
            own = [curve for curve in found if curve.loss == loss]
            _draw(above, [curve.validation for curve in own], styles[loss], study.options.confidence, dots=True)
            _draw(below, [curve.training for curve in own], styles[loss], study.options.confidence, dots=False)
        _finish(above, below)
        if len(blocks) > 1:
            above.set_title(fit(str(found[0].block.key), page / len(blocks) - 0.6))
    axes[0][0].set_ylabel(f"{fit(named(measure), 1.2)} (%)")
    axes[1][0].set_ylabel("Training loss")
    legend(figure, losses, styles, markers=True, lines=True)
    return figure


def _apart(
    study: Study,
    measure: Measure,
    found: Sequence[Curve],
    losses: Sequence[str],
    data: tuple[dict[str, object], ...],
    name: str,
) -> Picture:
    there = [loss for loss in losses if any(curve.loss == loss and curve.validation for curve in found)][:MOST_APART]
    caption = f"{named(measure)} on the validation images; {_how(study, found)}. Grey: the means of all other losses."
    if len(losses) > len(there):
        caption += f" {len(there)} of {len(losses)} losses are drawn."
    caption = f"{caption} {_mixed(found)}".rstrip()
    title = f"Learning curves: {named(measure)}, {clean(str(found[0].block.key))}"
    return Picture(name, title, caption, _alt(measure, found), partial(_plots, study, measure, found, there), data)


def _plots(study: Study, measure: Measure, found: Sequence[Curve], there: Sequence[str]) -> Figure:
    """A plot per loss, all others behind it in grey; validation alone."""
    styles, columns = looks(study), 4
    rows = max(1, math.ceil(len(there) / columns))
    figure, axes = grid(WIDE, 0.3 + 1.25 * rows, rows, columns)
    flat = [each for row in axes for each in row]
    titles = fit_all(there, WIDE / columns - 0.4, SMALL)
    for plot, loss, title in zip(flat, there, titles, strict=False):
        for other in there:
            if other != loss:
                at, mean = mean_of([curve.validation for curve in found if curve.loss == other])
                plot.plot(at, mean, color=FAINT, linewidth=0.6, zorder=1)
        own = [curve.validation for curve in found if curve.loss == loss]
        _draw(plot, own, styles[loss], study.options.confidence, dots=True)
        plot.set_title(title, size=SMALL)
        plot.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        plot.sharey(flat[0]) if plot is not flat[0] else None
    for plot in flat[len(there) :]:
        plot.set_visible(False)
    figure.supylabel(f"{fit(named(measure), 3)} (%)", size=TEXT)
    figure.supxlabel("Iteration", size=TEXT)
    return figure


def _draw(axes: Axes, curves: Sequence[Points], look: Look, confidence: float, *, dots: bool) -> None:
    """The curves of one loss; a symbol at each validation, or at the last where they are many."""
    curves = [points for points in curves if points]
    if len(curves) <= MOST_LINES:
        for points in curves:
            x, y = zip(*points, strict=True)
            _line(axes, np.array(x), np.array(y), look, 0.9, dots)
        return
    at, mean, low, high = band(curves, confidence)
    axes.fill_between(at, low, high, color=look.color, alpha=0.16, linewidth=0)
    _line(axes, at, mean, look, 1.3, dots)


def _line(axes: Axes, x: Floats, y: Floats, look: Look, width: float, dots: bool) -> None:
    last = [len(x) - 1] if len(x) > 8 else list(range(len(x)))
    axes.plot(
        x, y, color=look.color, linestyle=look.line, linewidth=width, marker=look.marker if dots else "",
        markevery=last, markersize=3.2,
    )  # fmt: skip


def _finish(above: Axes, below: Axes) -> None:
    for axes in (above, below):
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y")
    ends = [plot.dataLim.intervalx for plot in (above, below) if plot.has_data()]
    last = max((float(each[1]) for each in ends), default=1.0)
    for axes in (above, below):
        axes.set_xlim(0, last * 1.03)
    below.set_xlabel("Iteration")


def _how(study: Study, curves: Sequence[Curve]) -> str:
    seeds = max(sum(c.loss == curve.loss and c.block is curve.block for c in curves) for curve in curves)
    percent = confidence_text(study.options.confidence)
    if seeds <= MOST_LINES:
        return "one line per seed"
    return f"mean over up to {seeds} seeds with its {percent} t interval"


def _caption(study: Study, measure: Measure, curves: Sequence[Curve]) -> str:
    return (
        f"{named(measure)} on the validation images, and training loss (mean over {100 * SMOOTHED_OVER:g}% of the "
        f"training around each point); {_how(study, curves)}. Training losses of different objectives have different "
        "scales: only their shapes can be compared."
    )


def _mixed(curves: Sequence[Curve]) -> str:
    return not_comparable(mixed_runs({curve.block.key: curve.block for curve in curves}.values()))


def _alt(measure: Measure, curves: Sequence[Curve]) -> str:
    ends: dict[str, list[float]] = {}
    for curve in curves:
        if curve.validation:
            ends.setdefault(curve.loss, []).append(curve.validation[-1][1])
    said = [f"{clean(loss)} {min(each):.1f} to {max(each):.1f}" for loss, each in list(ends.items())[:12]]
    return f"Lines of {named(measure)} and training loss by iteration. Last {named(measure)}: " + "; ".join(said) + "."


def _data(curves: Sequence[Curve], measure: Measure) -> tuple[dict[str, object], ...]:
    return tuple(
        {
            "dataset": curve.block.key.dataset, "model": curve.block.key.model, "strategy": curve.block.key.strategy,
            "settings": curve.block.key.settings, "loss": curve.loss, "seed": curve.seed, "curve": name,
            "iteration": int(at), "value": value,
            "mixed": int(curve.block.runs[curve.loss, curve.seed].key in curve.block.mixed),
        }
        for curve in curves
        for name, points in ((named(measure), curve.validation), ("training loss, smoothed", curve.training))
        for at, value in points
    )  # fmt: skip
