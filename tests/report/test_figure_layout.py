"""Nothing in a figure is cut off or written over something else, however many and long the names are."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from prove.report.figures import pictures
from prove.report.figures.picture import Picture
from prove.report.figures.style import NARROW, TALLEST, WIDE, house_style
from prove.report.study import Measure
from tests.report.studies import SimulatedStudy, simulate

THREE = (("A", "m1"), ("B", "m2"), ("CamVid", "segformer_mit-b0"))
MANY = {"ce": 0.0} | {f"ce + cosine(0.5->0.1)*lovasz(classes=present, i={i}, per_image=true)": i / 9 for i in range(23)}
CITY = ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")  # fmt: skip

STUDIES = {
    "one block": lambda: simulate(),
    "one seed": lambda: simulate(seeds=1),
    "three blocks": lambda: simulate(blocks=THREE),
    "twelve blocks": lambda: simulate(blocks=[("D", f"model_{i}") for i in range(12)], tau=0.3),
    "23 long names": lambda: simulate(MANY),
    "23 long names in three blocks": lambda: simulate(MANY, blocks=THREE),
    "long places": lambda: simulate(blocks=[("W" * 80, "m" * 80, "s" * 40, "max_iters 400 " * 9), ("B", "m")]),
    "19 classes": lambda: simulate(classes=CITY, conditions=[f"condition number {i}" for i in range(12)]),
    "150 classes": lambda: simulate(classes=[f"class {i} of a data set with many" for i in range(150)], seeds=2),
    "large effects": lambda: simulate({"ce": 0.0, "a": 40.0, "b": -40.0}, run_sd=9.0, seeds=2),
    "tiny effects": lambda: simulate({"ce": 0.0, "a": 1e-4, "b": -1e-4}, run_sd=1e-5, seed_sd=0.0, image_sd=1e-5),
    "missing": lambda: simulate(outcomes={(0, "ce + 0.3*focal", seed): "failed diverged" for seed in range(3)}),
    "twelve seeds": lambda: simulate(seeds=12),
}
NAMES = ("forest", "classes", "conditions", "curves", "ranks", "cost", "shares")


def drawn_texts(figure: Figure) -> list[tuple[str, Any]]:
    """The texts that a reader sees, with their boxes in pixels at 200 per inch."""
    with house_style():
        figure.set_dpi(200)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        hidden: set[int] = set()
        for axes in figure.axes:
            inside = axes.findobj(Text) if not axes.get_visible() else []
            for axis in (axes.xaxis, axes.yaxis):
                inside += axis.findobj(Text) if not axes.axison else []
                low, high = sorted(axis.get_view_interval())
                for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                    if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                        inside += [tick.label1, tick.label2]
            hidden |= {id(each) for each in inside}
        found = [each for each in figure.findobj(Text) if each.get_visible() and id(each) not in hidden]
        return [(each.get_text(), each.get_window_extent()) for each in found if each.get_text().strip()]


def problems(figure: Figure) -> list[str]:
    found = drawn_texts(figure)
    whole = figure.bbox
    cut = [
        f"{text!r} is cut off"
        for text, box in found
        if box.x0 < -1 or box.y0 < -1 or box.x1 > whole.x1 + 1 or box.y1 > whole.y1 + 1
    ]
    over = [
        f"{one!r} is written over {other!r}"
        for (one, a), (other, b) in combinations(found, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 2 and min(a.y1, b.y1) - max(a.y0, b.y0) > 4
    ]
    return cut + over


@pytest.mark.parametrize("case", STUDIES)
def test_all_texts_can_be_read(case: str) -> None:
    study: SimulatedStudy = STUDIES[case]()
    for measure in (None, Measure("ECE")) if case == "one block" else (None,):
        for each in pictures(study, which=NAMES, measure=measure):
            if isinstance(each, Picture):
                figure = each.figure
                assert not problems(figure), each.name
                assert figure.get_figwidth() in (NARROW, WIDE), each.name
                assert 0.5 < figure.get_figheight() <= TALLEST + 2.0, each.name


def test_the_check_sees_what_is_wrong() -> None:
    figure = Figure(figsize=(2, 1))
    figure.text(0.5, 0.5, "far too long for a figure of two inches")
    figure.text(0.6, 0.5, "over it")
    assert len(problems(figure)) == 2
