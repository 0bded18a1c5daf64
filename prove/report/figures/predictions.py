"""Side by side: an image, its labels, what each loss predicts, where that is wrong and how it differs from the
baseline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from prove.report.figures import FIGURES
from prove.report.figures.picture import Made, Picture, Undrawn
from prove.report.figures.prediction_maps import IGNORED, Labels, Pixels, Scene, scene
from prove.report.figures.style import MUTED, SMALL, TALLEST, WASH, WIDE, clean, fit, listed
from prove.report.study import Measure, Study
from prove.report.views.footnotes import mixed_runs, not_comparable

TITLE = FIGURES["predictions"]

MOST_BLOCKS = 3
MOST_LOSSES = 8

MENDED, BROKEN, OTHERWISE = "#0072b2", "#e69f00", "#7a7a7a"
"""A pixel on which a loss differs from the baseline: it is right, it is wrong, both are wrong."""
WRONG = "#d55e00"

GAP, LINE = 0.06, 0.17
"""Inches between pictures, and of a line of text."""


def make(study: Study, measure: Measure) -> Made:
    """One picture per block, of an image chosen by rule, or why there is none."""
    blocks = [block for block in study.blocks if block.runs]
    if not blocks:
        return [Undrawn("predictions", TITLE, "No run is finished.")]
    scenes: list[Scene] = []
    for block in blocks:
        if len(scenes) < MOST_BLOCKS and (found := scene(study, block)) is not None:
            scenes.append(found)
    if not scenes:
        reason = (
            "No run has kept predictions (predictions.npz in its folder): they are written at the last validation, or "
            "the folders are not on this machine."
        )
        return [Undrawn("predictions", TITLE, reason)]
    return [
        Picture(
            name="predictions" if len(scenes) == 1 else f"predictions-{number}",
            title=f"Predictions on one validation image: {clean(str(each.block.key))}",
            caption=_caption(each),
            alt=_alt(each),
            draw=partial(_figure, each),
            data=_data(each),
        )
        for number, each in enumerate(scenes, 1)
    ]


def _figure(shown: Scene) -> Figure:
    """The image and its labels above; a row for each loss below, in three columns."""
    losses = list(shown.predicted)[:MOST_LOSSES]
    high, wide = shown.truth.shape
    rows = 1 + len(losses)
    width = (WIDE - 0.16 - 2 * GAP) / 3
    legend = LINE * (1 + _class_lines(shown))
    height = min(width * high / wide, (TALLEST - 0.2 - legend) / rows - LINE - GAP)
    width = height * wide / high
    left = (WIDE - 3 * width - 2 * GAP) / 2
    tall = 0.06 + rows * (LINE + height + GAP) + legend + 0.1
    figure = Figure(figsize=(WIDE, tall))

    def place(row: int, column: int, picture: NDArray[np.uint8] | None, text: str) -> Axes:
        x, y = left + column * (width + GAP), 0.06 + row * (LINE + height + GAP)
        axes = figure.add_axes(
            (x / WIDE, 1 - (y + LINE + height) / tall, width / WIDE, height / tall), xticks=[], yticks=[]
        )  # fmt: skip
        for spine in axes.spines.values():
            spine.set_visible(False)
        if picture is not None:
            axes.imshow(picture, interpolation="none", aspect="auto")
        figure.text(
            x / WIDE, 1 - (y + LINE * 0.55) / tall, fit(text, width, SMALL), size=SMALL, va="center_baseline"
        )  # fmt: skip
        return axes

    axes = place(0, 0, shown.image, f"image {shown.name}" + (f" ({shown.condition})" if shown.condition else ""))
    if shown.image is None:
        axes.set_facecolor(WASH)
        axes.text(
            0.5, 0.5, "the image file is\nnot on this machine", transform=axes.transAxes, size=SMALL, color=MUTED,
            ha="center", va="center",
        )  # fmt: skip
    place(0, 1, colored(shown.truth, shown.palette), "labels (black: not labelled)")
    _legend(figure, left + 2 * (width + GAP), 0.06 + LINE, width, tall, shown)
    ground = _ground(shown)
    for row, loss in enumerate(losses, 1):
        predicted = shown.predicted[loss]
        place(row, 0, colored(predicted, shown.palette), loss)
        wrong = _wrong(shown, predicted)
        place(row, 1, _painted(ground, [(wrong, WRONG)]), f"wrong: {_share(shown, wrong)}")
        if shown.baseline is None or loss == shown.block.baseline:
            continue
        mended, broken, otherwise = against(shown.truth, shown.baseline, predicted)
        picture = _painted(ground, [(otherwise, OTHERWISE), (mended, MENDED), (broken, BROKEN)])
        place(row, 2, picture, f"mended {_share(shown, mended)}, broken {_share(shown, broken)}")
    _classes(figure, left, tall - legend - 0.04, 3 * width + 2 * GAP, tall, shown)
    return figure


def colored(labels: Labels, palette: Pixels) -> Pixels:
    """``[h, w, 3]``: each pixel in its class's colour, black where it has none."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return np.asarray(table[labels])


def against(truth: Labels, baseline: Labels, predicted: Labels) -> tuple[NDArray[np.bool_], ...]:
    """Labelled pixels that a loss mends, breaks, or gets wrong otherwise than the baseline."""
    differs = (truth != IGNORED) & (predicted != baseline)
    mended, broken = differs & (predicted == truth), differs & (baseline == truth)
    return mended, broken, differs & ~mended & ~broken


def _wrong(shown: Scene, predicted: Labels) -> NDArray[np.bool_]:
    return np.asarray(shown.labelled & (predicted != shown.truth))


def _share(shown: Scene, where: NDArray[np.bool_]) -> str:
    return f"{100 * where.sum() / max(shown.labelled.sum(), 1):.1f}%"


def _ground(shown: Scene) -> Pixels:
    """What the differences are painted on: the photograph, or else the labels, pale and in few greys."""
    picture = colored(shown.truth, shown.palette) if shown.image is None else shown.image
    grey = picture.astype(float) @ np.array([0.299, 0.587, 0.114])
    pale = 190 + 4 * np.round(grey / 16)  # few greys make small files
    return np.repeat(pale[..., None], 3, axis=2).astype(np.uint8)


def _painted(ground: Pixels, layers: Sequence[tuple[NDArray[np.bool_], str]]) -> Pixels:
    painted = ground.copy()
    for where, color in layers:
        painted[where] = np.round(np.array(to_rgb(color)) * 255).astype(np.uint8)
    return painted


def _legend(figure: Figure, x: float, y: float, width: float, tall: float, shown: Scene) -> None:
    """What the colours of the differences mean, where the third picture of the first row would be."""
    lines = [(WRONG, "wrong")]
    if shown.baseline is not None and len(shown.predicted) > 1:
        lines += [
            (MENDED, "mended: the baseline is wrong here"),
            (BROKEN, "broken: the baseline is right here"),
            (OTHERWISE, "both are wrong, in different ways"),
        ]
    for number, (color, text) in enumerate(lines):
        _swatch(figure, x, y + LINE * (number + 0.6), tall, color)
        figure.text(
            (x + 0.18) / WIDE, 1 - (y + LINE * (number + 0.6)) / tall, fit(text, width - 0.18, SMALL), size=SMALL,
            va="center_baseline",
        )  # fmt: skip


def _swatch(figure: Figure, x: float, y: float, tall: float, color: str | tuple[float, ...]) -> None:
    side = 0.1
    figure.add_artist(Rectangle(
        (x / WIDE, 1 - (y + side / 2) / tall), side / WIDE, side / tall, transform=figure.transFigure, facecolor=color,
        edgecolor=MUTED, linewidth=0.3,
    ))  # fmt: skip


def _present(shown: Scene) -> list[int]:
    """Classes that are in the picture, by their number."""
    losses = list(shown.predicted)[:MOST_LOSSES]
    found = np.unique(np.concatenate([shown.truth.ravel(), *(shown.predicted[loss].ravel() for loss in losses)]))
    return [int(each) for each in found if each < len(shown.classes)]


_PER_LINE = 6


def _class_lines(shown: Scene) -> int:
    return -(-len(_present(shown)) // _PER_LINE)


def _classes(figure: Figure, x: float, y: float, width: float, tall: float, shown: Scene) -> None:
    """Names and colours of the classes that are in the picture."""
    step = width / _PER_LINE
    for number, label in enumerate(_present(shown)):
        line, column = divmod(number, _PER_LINE)
        at, middle = x + column * step, y + LINE * (line + 0.6)
        _swatch(figure, at, middle, tall, tuple(shown.palette[label] / 255))
        figure.text(
            (at + 0.16) / WIDE, 1 - middle / tall, fit(shown.classes[label], step - 0.22, SMALL), size=SMALL,
            va="center_baseline",
        )  # fmt: skip


def _caption(shown: Scene) -> str:
    images = len(shown.disagreement)
    chosen = 100 * shown.disagreement[shown.name]
    parts = [
        f"Predictions of the runs with seed {shown.seed} on image {clean(shown.name)} of "
        f"{clean(str(shown.block.key))}.",
        f"The image is chosen by rule: of the {images} for which all losses kept predictions, the one with the median "
        f"share of pixels on which the losses do not agree ({chosen:.1f}%)."
        if images > 1
        else "It is the only image for which all losses kept predictions.",
        "Shares are of its labelled pixels. One image shows what differences look like, not how large they are.",
    ]
    without = [loss for loss in shown.block.losses if loss not in shown.predicted]
    if without:
        parts.append(f"Without predictions at this seed: {listed(without)}.")
    if len(shown.predicted) > MOST_LOSSES:
        parts.append(f"{MOST_LOSSES} of {len(shown.predicted)} losses are drawn; the CSV beside the figure has all.")
    return " ".join(filter(None, [*parts, not_comparable(mixed_runs([shown.block]))]))


def _alt(shown: Scene) -> str:
    said = [
        f"{clean(loss)} wrong on {_share(shown, _wrong(shown, predicted))}"
        for loss, predicted in list(shown.predicted.items())[:MOST_LOSSES]
    ]
    return f"Image {clean(shown.name)}, its labels and predictions. Of its labelled pixels: " + "; ".join(said) + "."


def _data(shown: Scene) -> tuple[dict[str, object], ...]:
    key, rows = shown.block.key, []
    for loss, predicted in shown.predicted.items():
        counts: tuple[int | None, ...] = (None, None, None)
        if shown.baseline is not None and loss != shown.block.baseline:
            counts = tuple(int(each.sum()) for each in against(shown.truth, shown.baseline, predicted))
        rows.append({
            "dataset": key.dataset, "model": key.model, "strategy": key.strategy, "settings": key.settings,
            "image": shown.name, "condition": shown.condition, "seed": shown.seed, "loss": loss,
            "labelled_pixels": int(shown.labelled.sum()), "wrong_pixels": int(_wrong(shown, predicted).sum()),
            "mended_pixels": counts[0], "broken_pixels": counts[1], "both_wrong_pixels": counts[2],
            "mixed": int(shown.block.runs[loss, shown.seed].key in shown.block.mixed),
        })  # fmt: skip
    return tuple(rows)
