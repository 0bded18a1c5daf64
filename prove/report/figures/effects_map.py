"""Heat map of a loss's effect on each part of a measure: classes or conditions by losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.transforms import Bbox, BboxTransformTo
from numpy.typing import NDArray

from prove.report.figures import FIGURES
from prove.report.figures.frame import Frame, inches_axes
from prove.report.figures.picture import Made, Picture, Undrawn
from prove.report.figures.style import (
    BETTER,
    FAINT,
    INK,
    MUTED,
    NARROW,
    SMALL,
    TEXT,
    WASH,
    WIDE,
    WORSE,
    clean,
    fit,
    fit_all,
    listed,
    signed,
    widest,
    width,
)  # fmt: skip
from prove.report.study import Block, Measure, Study
from prove.report.views.classes import q_values
from prove.report.views.domains import FEWEST_IMAGES
from prove.report.views.entries import Entry
from prove.report.views.footnotes import mixed_runs, not_comparable

Floats = NDArray[np.float64]

MOST_BLOCKS, SOME_BLOCKS = 6, 3
"""Maps that are drawn, one per block: of all blocks up to the most, else of some."""

MOST_PARTS = 56
"""Rows of a map that a page holds."""

ROW = 0.168
"""Height of a row in inches."""


@dataclass(frozen=True)
class Kind:
    """What a map goes by.

    Attributes:
        figure: name of the figure.
        scope: of the measure.
        parts: what they are called, in the plural.
        amount: heading of the column that says how much there is of each.
    """

    figure: str
    scope: str
    one: str
    parts: str
    amount: str


@dataclass(frozen=True, eq=False)
class Map:
    """The numbers of one block's map; parts from the most to the least.

    Attributes:
        parts: P of them, losses: L.
        delta, p, q: ``[P, L]``, NaN where there is none.
        alpha: share of false findings among those that are coloured, at most.
        amount: share of the labelled pixels in percent, or images, by part; empty where unknown.
        unseen: parts without a number for any loss.
    """

    block: Block
    parts: tuple[str, ...]
    losses: tuple[str, ...]
    delta: Floats
    p: Floats
    q: Floats
    alpha: float
    amount: Mapping[str, float]
    unseen: tuple[str, ...]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which effects stand out."""
        return np.isfinite(self.q) & (self.q < self.alpha)


Entries = Mapping[str, Sequence[Entry]]
"""Part → every loss of a block."""


def maps(
    study: Study,
    measure: Measure,
    kind: Kind,
    amount: Callable[[Block], Mapping[str, float]],
    entries: Callable[[Block], Entries],
) -> Made:
    """The maps of a study, one per block, or why there is none.

    Args:
        measure: of any scope; its metric is taken.
        amount: how much there is of each part of a block; empty where unknown.
        entries: the parts of a block.
    """
    title = FIGURES[kind.figure]
    with_baseline = [block for block in study.blocks if block.baseline is not None and len(block.losses) > 1]
    if not with_baseline:
        return [Undrawn(kind.figure, title, "No block has a loss beside a finished run of the baseline.")]
    chosen = with_baseline if len(with_baseline) <= MOST_BLOCKS else with_baseline[:SOME_BLOCKS]
    compared = [_compared(block, entries(block), amount(block), 1 - study.options.confidence) for block in chosen]
    drawn = [each for each in compared if each.parts]
    if not drawn:
        return [Undrawn(kind.figure, title, f"No loss has {measure.metric} by {kind.one} at a seed of the baseline's.")]
    several = len(drawn) > 1
    return [
        Picture(
            name=f"{kind.figure}-{number}" if several else kind.figure,
            title=f"Effect on {measure.metric} by {kind.one}: {clean(str(each.block.key))}",
            caption=_caption(measure, kind, each, len(with_baseline) - len(compared)),
            alt=_alt(measure, kind, each),
            draw=partial(_figure, measure, kind, each),
            data=_data(measure, kind, each),
        )
        for number, each in enumerate(drawn, 1)
    ]


def _compared(block: Block, found: Entries, amount: Mapping[str, float], alpha: float) -> Map:
    names = list(found)
    losses = tuple(loss for loss in block.losses if loss != block.baseline)
    adjusted = q_values(found)
    delta, p, q = np.full((3, len(names), len(losses)), np.nan)
    for row, name in enumerate(names):
        for entry in found[name]:
            if entry.effect is not None:
                at = row, losses.index(entry.loss)
                delta[at] = entry.effect.delta
                if (name, entry.loss) in adjusted:
                    p[at], q[at] = entry.effect.p, adjusted[name, entry.loss]
    rows = [row for row in range(len(names)) if np.isfinite(delta[row]).any()]
    if amount:
        rows.sort(key=lambda row: -amount.get(names[row], 0.0))
    there = np.isfinite(delta).any(axis=0)
    return Map(
        block=block,
        parts=tuple(names[row] for row in rows),
        losses=tuple(loss for loss, any_there in zip(losses, there, strict=True) if any_there),
        delta=delta[rows][:, there],
        p=p[rows][:, there],
        q=q[rows][:, there],
        alpha=alpha,
        amount=amount,
        unseen=tuple(name for row, name in enumerate(names) if row not in rows),
    )


def _figure(measure: Measure, kind: Kind, shown: Map) -> Figure:
    parts = shown.parts[:MOST_PARTS]
    labels = fit_all(parts, 1.6)
    amounts = [_amount(kind, shown, part) for part in parts]
    left = 0.08 + max(widest(labels), width(kind.parts, SMALL)) + 0.1
    right = 0.08 + (max(widest(amounts, SMALL), width(kind.amount, SMALL)) + 0.1 if shown.amount else 0)
    page = NARROW if left + right + 0.66 * len(shown.losses) <= NARROW else WIDE
    cell = (page - left - right) / len(shown.losses)
    bar = max(min(page - left - right - 1.1 * len(shown.losses), 1.6), 0.0) if shown.amount else 0.0
    if bar >= 0.3:
        right, cell = right + bar, cell - bar / len(shown.losses)
    heads, turned = _heads(shown.losses, cell)
    top = 0.1 + (max(widest(heads, SMALL), 0.2) if turned else 0.125 * max(head.count("\n") + 1 for head in heads))
    frame = Frame(width=page, left=left, right=right, top=top + 0.04, bottom=0.5, inner=ROW * len(parts))
    figure = Figure(figsize=(frame.width, frame.height))
    axes = inches_axes(figure, frame)
    axes.set_xlim(0, len(shown.losses))
    axes.set_ylim(len(parts), 0)
    axes.axis("off")
    scale = _scale(shown)
    colors = _colors(measure.higher_is_better)
    _cells(axes, shown, len(parts), cell, scale, colors)
    for column, head in enumerate(heads):
        axes.text(
            column + 0.5, -0.35, head, size=SMALL, ha="left" if turned else "center",
            va="center" if turned else "bottom", rotation=90 if turned else 0, rotation_mode="anchor",
        )  # fmt: skip
    for row, (label, amount) in enumerate(zip(labels, amounts, strict=True)):
        y = frame.from_top(ROW * (row + 0.5))
        figure.text((left - 0.1) / frame.width, y, label, size=TEXT, ha="right", va="center_baseline")
        if shown.amount:
            x = (left + cell * len(shown.losses) + right - 0.08) / frame.width
            figure.text(x, y, amount, size=SMALL, color=MUTED, ha="right", va="center_baseline")
        if bar >= 0.3:
            _bar(figure, frame, bar, y, shown.amount.get(parts[row], 0.0) / max(shown.amount.values()))
    if shown.amount:
        x = (left + cell * len(shown.losses) + right - 0.08) / frame.width
        figure.text(x, frame.from_top(-0.1), kind.amount, size=SMALL, color=MUTED, ha="right", va="center_baseline")
    _legend(figure, frame, shown, scale, colors, measure)
    return figure


def _bar(figure: Figure, frame: Frame, longest: float, y: float, share: float) -> None:
    """How much there is of a part, as a bar beside its row."""
    left, high = (frame.width - frame.right + 0.12) / frame.width, 0.07 / frame.height
    long = (longest - 0.12) * share / frame.width
    bar = Rectangle((left, y - high / 2), long, high, transform=figure.transFigure, facecolor=FAINT, linewidth=0)
    figure.add_artist(bar)


def _heads(losses: Sequence[str], cell: float) -> tuple[list[str], bool]:
    """What stands above the columns, and whether it is turned."""
    if cell >= 0.5:
        heads = [fit(loss, cell - 0.04, SMALL, lines=3) for loss in losses]
        if not any("…" in head for head in heads):
            return heads, False
    return fit_all(losses, 1.7, SMALL), True


def _cells(axes: Axes, shown: Map, rows: int, cell: float, scale: float, colors: Colormap) -> None:
    size = SMALL if cell > 0.34 else 5.5 if cell > 0.24 else 0.0
    found, norm = shown.found, Normalize(-scale, scale)
    grey = []
    for row in range(rows):
        for column in range(len(shown.losses)):
            value, out = shown.delta[row, column], found[row, column]
            if not math.isfinite(value):
                axes.text(column + 0.5, row + 0.5, "–", size=SMALL, color=MUTED, ha="center", va="center_baseline")
                continue
            box = Bbox.from_bounds(column + 0.02 / cell, row + 0.06, 1 - 0.04 / cell, 0.88)
            if out:
                color = colors(norm(value))
                axes.add_artist(Rectangle(box.min, box.width, box.height, facecolor=color, linewidth=0, clip_on=False))
            else:
                grey.append(Path.unit_rectangle().transformed(BboxTransformTo(box)))
            text = signed(value, 1) if size else ("+" if value > 0 else "−") if out else ""
            ink = (_on(to_rgb(colors(norm(value))[:3]))) if out else MUTED
            axes.text(column + 0.5, row + 0.5, text, size=size or SMALL, color=ink, ha="center", va="center_baseline")
    if grey:  # one shape: there are hundreds
        axes.add_artist(
            PathPatch(Path.make_compound_path(*grey), facecolor=WASH, linewidth=0, zorder=0.9, clip_on=False)
        )


def _on(color: tuple[float, float, float]) -> str:
    """Dark or light letters, whichever stands out more from a colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.0576 else "#101216"


def _colors(higher_is_better: bool) -> Colormap:
    ends = (WORSE, BETTER) if higher_is_better else (BETTER, WORSE)
    return LinearSegmentedColormap.from_list("effect", [ends[0], "#f4f3f0", ends[1]])


def _scale(shown: Map) -> float:
    """Largest difference of the colour scale: a round number that no coloured cell exceeds."""
    values = np.abs(shown.delta[shown.found] if shown.found.any() else shown.delta[np.isfinite(shown.delta)])
    largest = float(values.max(initial=0.0)) or 1.0
    unit = 10.0 ** math.floor(math.log10(largest))
    return next(step * unit for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * unit >= largest * 0.9999)


def _legend(figure: Figure, frame: Frame, shown: Map, scale: float, colors: Colormap, measure: Measure) -> None:
    """The colour scale, and what grey means."""
    wide, high = 1.1, 0.09
    left, bottom = 0.08, 0.23
    axes = figure.add_axes((left / frame.width, bottom / frame.height, wide / frame.width, high / frame.height))
    steps = 41
    for step in range(steps):
        long = 1.6 if step < steps - 1 else 1  # under the next one: no seams
        axes.add_artist(Rectangle((step, 0), long, 1, facecolor=colors(step / (steps - 1)), linewidth=0))
    axes.set_xlim(0, steps)
    axes.set_ylim(0, 1)
    axes.axis("off")
    low = 0.1 / frame.height
    sides = ("worse", "better") if measure.higher_is_better else ("better", "worse")
    for x, text, anchor in (
        (left, f"{signed(-scale, 1)} {sides[0]}", "left"),
        (left + wide, f"{sides[1]} {signed(scale, 1)}", "right"),
    ):
        figure.text(x / frame.width, low, text, size=6, color=MUTED, ha=anchor, va="center_baseline")
    x = left + wide + 0.22
    middle = (bottom + high / 2) / frame.height
    swatch = Rectangle(
        (x / frame.width, bottom / frame.height), 0.16 / frame.width, high / frame.height,
        transform=figure.transFigure, facecolor=WASH, linewidth=0,
    )  # fmt: skip
    figure.add_artist(swatch)
    figure.text((x + 0.22) / frame.width, middle, f"q ≥ {_alpha(shown)}", size=SMALL, color=INK, va="center_baseline")


def _amount(kind: Kind, shown: Map, part: str) -> str:
    value = shown.amount.get(part)
    if value is None:
        return ""
    if kind.scope != "class":
        return f"{value:g}"
    return f"{value:.1f}%" if value >= 0.1 else f"{value:.2f}%" if value >= 0.01 else "<0.01%"


def _caption(measure: Measure, kind: Kind, shown: Map, other_blocks: int) -> str:
    baseline = clean(str(shown.block.baseline))
    parts = [
        f"Difference in {measure.metric} by {kind.one} from {baseline}, in points, on {clean(str(shown.block.key))}.",
        f"Coloured: q < {_alpha(shown)} (Benjamini–Hochberg over the {np.isfinite(shown.p).sum()} comparisons of this "
        "map); grey: can't be told from 0. Exploratory.",
    ]
    if not np.isfinite(shown.p).any():
        parts[1] = "All grey: no comparison of this map has a p; it takes two seeds or more that differ."
    elif not shown.found.any():
        parts.append("None can be told from 0.")
    if shown.amount:
        what = "labelled pixels of the validation images" if kind.scope == "class" else "validation images"
        parts.append(f"{kind.parts.capitalize()} are sorted by their {what}.")
    images = shown.amount if kind.scope == "condition" else {}
    few = [part for part in shown.parts if images.get(part, math.inf) < FEWEST_IMAGES]
    if few:
        parts.append(f"Fewer than {FEWEST_IMAGES} images, and so grey: {listed(few, 20)}.")
    if shown.unseen:
        parts.append(f"Without a number: {listed(shown.unseen, 20)}.")
    if len(shown.parts) > MOST_PARTS:
        parts.append(
            f"The {MOST_PARTS} largest of {len(shown.parts)} {kind.parts} are drawn; the CSV beside the figure has all."
        )
    if other_blocks > 0:
        parts.append(f"{other_blocks} other blocks are not drawn.")
    return " ".join(filter(None, [*parts, not_comparable(mixed_runs([shown.block]))]))


def _alpha(shown: Map) -> str:
    return f"{shown.alpha:.2g}".removeprefix("0")


def _alt(measure: Measure, kind: Kind, shown: Map) -> str:
    found = sorted(
        ((float(shown.delta[at]), shown.parts[at[0]], shown.losses[at[1]]) for at in zip(*np.nonzero(shown.found),
         strict=True)), key=lambda each: -abs(each[0]),
    )  # fmt: skip
    said = [f"{clean(loss)} on {clean(part)}: {signed(delta)}" for delta, part, loss in found[:8]]
    summary = "; ".join(said) if said else "no difference can be told from 0"
    size = f"{len(shown.parts)} {kind.parts} by {len(shown.losses)} losses"
    return f"Heat map of differences in {measure.metric}, {size}. Largest that stand out: {summary}."


def _data(measure: Measure, kind: Kind, shown: Map) -> tuple[dict[str, object], ...]:
    key = shown.block.key
    amount = "pixels_percent" if kind.scope == "class" else "images"
    return tuple(
        {
            "dataset": key.dataset, "model": key.model, "strategy": key.strategy, "settings": key.settings,
            "baseline": shown.block.baseline, "metric": measure.metric, kind.one: part, amount: shown.amount.get(part),
            "loss": loss, "delta": float(shown.delta[row, column]), "p": float(shown.p[row, column]),
            "q": float(shown.q[row, column]), "mixed": len(shown.block.mixed),
        }
        for row, part in enumerate(shown.parts)
        for column, loss in enumerate(shown.losses)
    )  # fmt: skip
