"""What tells losses apart in a figure: colours to other eyes and in grey, symbols, lines; and texts that fit."""

from __future__ import annotations

from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from prove.report.figures.predictions import BROKEN, MENDED
from prove.report.figures.style import (
    BASELINE,
    INK,
    OKABE_ITO,
    clean,
    fit,
    fit_all,
    house_style,
    listed,
    look,
    looks,
    named,
    signed,
    width,
)
from prove.report.study import Measure
from tests.report.studies import simulate

# Viénot, Brettel & Mollon (1999): linear RGB as a protanope and as a deuteranope sees it.
DICHROMATS = {
    "protan": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
    "deutan": [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
}


def linear(color: str) -> np.ndarray:
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear sRGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    f = np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 0.0))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """As WCAG defines it."""
    light, dark = sorted((float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("eye", DICHROMATS)
def test_colours_differ_to_colour_blind_eyes(eye: str) -> None:
    seen = [lab(np.clip(np.array(DICHROMATS[eye]) @ linear(color), 0, 1)) for color in (INK, *OKABE_ITO)]
    closest = min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2))
    assert closest > 10  # 2.3 is just noticeable (Mahy et al. 1994)
    confused = [lab(np.clip(np.array(DICHROMATS[eye]) @ linear(c), 0, 1)) for c in ("#d62728", "#2ca02c")]
    assert np.linalg.norm(confused[0] - confused[1]) < closest + 20  # the check sees red and green come closer


def test_no_two_of_the_first_78_losses_look_alike_in_grey() -> None:
    looks_of_all = [BASELINE, *(look(index) for index in range(78))]
    assert len({(each.color, each.marker) for each in looks_of_all}) == 79
    first = looks_of_all[:7]
    assert len({each.marker for each in first}) == 7
    assert len({each.dashes for each in first}) == 7
    assert all(each.marker != BASELINE.marker for each in looks_of_all[1:])


def test_what_has_colour_alone_differs_in_grey() -> None:
    lightness = [float(lab(linear(color))[0]) for color in (MENDED, BROKEN)]
    assert abs(lightness[0] - lightness[1]) > 20


@pytest.mark.parametrize("background", ["#ffffff", "#14161a"])
def test_colours_stand_out_from_light_and_dark_pages(background: str) -> None:
    least = 2.0  # symbols are 5 points large and have a shape, a row or a legend beside their colour
    assert min(contrast(color, background) for color in OKABE_ITO) > least


def test_looks_are_the_same_in_every_part_of_a_study() -> None:
    study = simulate(blocks=[("A", "m"), ("B", "m")])
    everywhere = looks(study)
    assert list(everywhere) == list(study.blocks[0].losses)
    assert everywhere["ce"] is BASELINE
    assert everywhere["ce + 0.3*focal"] == look(0)


def test_the_users_settings_do_not_matter() -> None:
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "pdf.fonttype": 3}):
        with house_style():
            assert not matplotlib.rcParams["text.usetex"]
            assert matplotlib.rcParams["font.size"] == 8
            assert matplotlib.rcParams["pdf.fonttype"] == 42
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize("text", ["ce + 0.3*focal", "WWWWWWWW iiiii", "Ünïcödé −0.5"])
def test_width_is_what_is_drawn(text: str) -> None:
    with house_style():
        figure = Figure(figsize=(6, 2), dpi=300)
        drawn = figure.text(0, 0.5, text, size=8)
        FigureCanvasAgg(figure).draw()
        actual = drawn.get_window_extent().width / 300
    assert actual <= width(text) <= 1.06 * actual


@pytest.mark.parametrize("inches", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("text", ["short", "ce + cosine(0.5->0.1)*lovasz(classes=present, per_image=true)", "W" * 200])
def test_fit_fits(text: str, inches: float) -> None:
    made = fit(text, inches, lines=2)
    assert made.count("\n") <= 1
    assert width(made) <= inches + 1e-5
    if "…" not in made:
        assert made.replace("\n", " ") == text


def test_fit_keeps_both_ends() -> None:
    assert fit("a" * 60 + "z" * 60, 1.0).startswith("aaa")
    assert fit("a" * 60 + "z" * 60, 1.0).endswith("zzz")


def test_clean_leaves_nothing_that_breaks_a_file() -> None:
    assert clean("a\x00b\n c\td\x1b[31m\u202ee\ud800") == "a\ufffdb c d\ufffd[31me\ufffd"
    assert clean("路面 $x_1$ \\alpha <&>") == "路面 $x_1$ \\alpha <&>"


def test_numbers_and_names_in_words() -> None:
    assert [signed(x) for x in (0.814, -0.1, 0.001, -0.004)] == ["+0.81", "−0.10", "0.00", "0.00"]
    assert named(Measure()) == "mIoU"
    assert named(Measure("IoU", "class", "traffic light")) == "IoU of traffic light"
    assert named(Measure("mIoU", "condition", "night")) == "mIoU in night"
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefgh"), 3) == "a, b and 6 others"


def test_shortened_names_still_differ() -> None:
    many = [f"ce + cosine(0.5->0.1)*lovasz(classes=present, number={i}, per_image=true)" for i in range(24)]
    made = fit_all([*many, "ce", many[3]], 1.6)
    assert len(set(made)) == 25
    assert made[3] == made[25]
    assert made[24] == "ce"
    assert all(width(each) <= 1.6 + 1e-5 for each in made)
    assert [f"={i}," in each for i, each in enumerate(made[:24])] == [True] * 24


def test_names_that_differ_everywhere_are_numbered() -> None:
    texts = ["x" + "a" * 90 + "y", "x" + "b" * 90 + "y"]
    made = fit_all(["x" + "M" * 60 + text + "M" * 60 + "y" for text in texts], 1.0)
    assert [each[-2:] for each in made] == [" 1", " 2"]
    assert all(width(each) <= 1.0 + 1e-5 for each in made)
