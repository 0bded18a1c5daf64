"""Figures of a study: a picture as PDF, SVG and PNG with its data as CSV, or the reason why there is none.

matplotlib is imported when the first figure is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from prove.errors import ProveError, unknown
from prove.report.study import Measure, Study

if TYPE_CHECKING:
    from prove.report.figures.picture import Made, Picture, Undrawn

FIGURES = {
    "forest": "Effect of each loss, with its interval",
    "classes": "Effect by class",
    "conditions": "Effect by condition",
    "curves": "Learning curves",
    "ranks": "Ranks of the losses over the blocks",
    "cost": "Metric against the cost of training",
    "shares": "Shares of the loss and of the gradient",
    "predictions": "Predictions side by side",
}
"""Name -> title of every figure, in the order of a report."""

FORMATS = ("pdf", "svg", "png")


@dataclass(frozen=True)
class Drawn:
    """What became of one figure.

    Attributes:
        name: of the figure and its files: letters, digits and dashes.
        title: one line.
        caption: how to read it.
        alt: what it shows, for who can't see it.
        files: the picture in each format, then its data as CSV; empty where it can't be drawn.
        reason: why it can't be drawn, a sentence; empty where it is.
    """

    name: str
    title: str
    caption: str
    alt: str
    files: tuple[Path, ...]
    reason: str = ""


def pictures(
    study: Study, *, which: Iterable[str] | None = None, measure: Measure | None = None
) -> list[Picture | Undrawn]:
    """The figures of a study, not written anywhere; ``Picture.svg`` is one for a page.

    Args:
        which: names of `FIGURES`; all without.
        measure: what they show; the study's headline metric without.

    Raises:
        ProveError: an unknown name.
    """
    from prove.report.figures.style import house_style

    asked = list(FIGURES if which is None else dict.fromkeys(which))
    for name in asked:
        if name not in FIGURES:
            raise unknown("figure", name, FIGURES)
    measure = measure or Measure(study.options.metrics[0])
    made: list[Picture | Undrawn] = []
    with house_style():
        for name in asked:
            make: Callable[[Study, Measure], Made] = import_module(f"prove.report.figures.{name}").make
            made += make(study, measure)
    return made


def draw(
    study: Study,
    out: Path,
    *,
    formats: Sequence[str] = FORMATS,
    which: Iterable[str] | None = None,
    measure: Measure | None = None,
) -> list[Drawn]:
    """Write the figures of a study into a folder, which is made.

    Args:
        formats: of `FORMATS`.
        which, measure: as in `pictures`.

    Returns:
        one for each picture, and one for each figure that can't be drawn, with the reason.

    Raises:
        ProveError: an unknown name or format, or a folder that can't be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown("picture format", name, FORMATS)
    made = pictures(study, which=which, measure=measure)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [each.write(out, formats) for each in made]
    except OSError as error:
        raise ProveError(
            f"The figures can't be written to {out} ({error.strerror or error}).", hint="Name another folder."
        ) from error
