"""Rounding that a reader can't turn against the verdict."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prove.report.views.footnotes import Footnotes
from prove.report.views.numbers import (
    confidence_text,
    decimals,
    fixed,
    interval,
    listed,
    plural,
    probability,
    signed,
)

POINTS = st.floats(-100, 100)


@pytest.mark.parametrize(
    ("half_width", "places"),
    [(0.91, 2), (1.5, 1), (0.05, 3), (0.0123, 3), (12.0, 1), (0.099, 3), (0.0001, 3), (None, 2)],
)
def test_the_half_width_has_two_significant_digits(half_width: float | None, places: int) -> None:
    assert decimals([half_width]) == places


def test_decimals_follow_the_median_and_skip_what_is_no_number() -> None:
    assert decimals([0.5, 0.5, 50.0]) == 2
    assert decimals([float("nan"), None, 0.05, 0.0]) == 3
    assert decimals([]) == 2


@given(POINTS, POINTS, st.integers(1, 3))
def test_an_interval_excludes_0_in_text_exactly_where_it_does(a: float, b: float, places: int) -> None:
    low, high = sorted((a, b))
    first, second = interval(low, high, places).strip("[]").split(", ")
    if low > 0:
        assert first.startswith("+")
    if high < 0:
        assert second.startswith("-")
    for value, text in ((low, first), (high, second)):
        assert abs(Decimal(text) - Decimal(value)) <= Decimal(5) / 10 ** (places + 1) + Decimal("1e-12")
        assert (value >= 1e-4) <= (Decimal(text) > 0)
        assert (value <= -1e-4) <= (Decimal(text) < 0)


@given(st.floats(0, 1), st.sampled_from([0.05, 0.01, 0.1]))
def test_p_is_never_rounded_across_the_level(p: float, alpha: float) -> None:
    text = probability(p, alpha)
    assert len(text) <= 7
    number = float(text.strip("<>"))
    if text.startswith("<"):
        assert p < 0.001
    elif text.startswith(">"):
        assert p > 0.99
    elif abs(p - alpha) > 1e-6:
        assert (number < alpha) == (p < alpha)
        assert abs(number - p) <= 0.00501


def test_how_p_looks() -> None:
    assert [probability(p, 0.05) for p in (0.0004, 0.0123, 0.049999, 0.08, 0.3, 0.999, None, float("nan"))] == [
        "<.001", ".012", ".049999", ".080", ".30", ">.99", "", "",
    ]  # fmt: skip


def test_0_has_no_sign() -> None:
    assert (fixed(-0.001, 2), signed(-0.001, 2), signed(0.001, 2)) == ("0.00", "0.00", "0.00")
    assert (fixed(float("nan"), 2), signed(None, 2), fixed(None, 1)) == ("–", "–", "–")
    assert (signed(0.81, 2), signed(-0.81, 1), fixed(34.215, 1)) == ("+0.81", "-0.8", "34.2")


def test_a_confidence_has_all_its_digits() -> None:
    assert [confidence_text(share) for share in (0.95, 0.9, 0.975, 0.999, 0.9995, 0.8)] == [
        "95%", "90%", "97.5%", "99.9%", "99.95%", "80%",
    ]  # fmt: skip


def test_words() -> None:
    assert [plural(1, "seed"), plural(1200, "run"), plural(2, "loss")] == ["1 seed", "1,200 runs", "2 losses"]
    assert listed("abc") == "a, b, c"
    assert listed("abcdefgh", 3) == "a, b and 6 more"


def test_marks_go_on_after_z() -> None:
    footnotes = Footnotes()
    marks = [footnotes.mark(str(i)) for i in range(30)]
    assert marks[:3] + marks[25:28] == ["a", "b", "c", "z", "aa", "ab"]
    assert footnotes.mark("2") == "c"
    assert len(set(marks)) == 30
