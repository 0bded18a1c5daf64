"""Class weights against the papers' formulas in exact arithmetic."""

from decimal import Decimal, getcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.errors import ProveError
from prove.losses import class_weights

COUNTS = st.lists(st.integers(0, 10**9), min_size=2, max_size=20).filter(any)


def normalised(raw):
    mean = sum(raw) / len([weight for weight in raw if weight])
    return [float(weight / mean) for weight in raw]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(COUNTS)
def test_inverse(counts):
    expected = normalised([Fraction(1, n) if n else Fraction(0) for n in counts])
    assert class_weights(counts, "inverse") == pytest.approx(expected, rel=1e-12)
    assert class_weights(counts) == pytest.approx(expected, rel=1e-12)


def test_median_frequency_counts_the_images_that_hold_a_class():
    # frequencies 1/2, 1/4 and 1/5 of the pixels around; the median is 1/4
    weights = class_weights([500, 100, 40, 0], "auto", pixels_around=[1000, 400, 200, 0])
    assert weights == pytest.approx(normalised([Fraction(1, 2), Fraction(1), Fraction(5, 4), Fraction(0)]))
    assert weights == class_weights([500, 100, 40, 0], "median_frequency", pixels_around=[1000, 400, 200, 0])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.integers(0, 10**7), min_size=2, max_size=20).filter(any))
def test_effective_number(counts):
    getcontext().prec = 60
    beta = Decimal("0.9999999")
    raw = [(1 - beta) / (1 - beta**n) if n else Decimal(0) for n in counts]
    assert class_weights(counts, "effective_number", 0.9999999) == pytest.approx(normalised(raw), rel=1e-9)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(COUNTS, st.sampled_from(["median_frequency", "inverse"]))
def test_mean_is_one_over_the_classes_that_occur(counts, scheme):
    weights = class_weights(counts, scheme)
    assert all((weight > 0) == (count > 0) for weight, count in zip(weights, counts, strict=True))
    present = [weight for weight in weights if weight > 0]
    assert sum(present) / len(present) == pytest.approx(1)


def test_saturated_effective_number_is_refused():
    with pytest.raises(ProveError, match="same weight") as error:
        class_weights([10**6, 10**8], "effective_number", 0.999)
    beta = float(error.value.hint.split("such as ")[1].split(",")[0])
    rare, frequent = class_weights([10**6, 10**8], "effective_number", beta)
    assert rare > 10 * frequent


@pytest.mark.parametrize(
    ("counts", "scheme", "beta", "around", "says"),
    [
        ([0, 0], "inverse", None, None, "not all 0"),
        ([1, -1], "inverse", None, None, ">= 0"),
        ([1, 2], "invers", None, None, "Unknown scheme of class weights 'invers'"),
        ([1, 2], "effective_number", None, None, "beta in"),
        ([1, 2], "effective_number", 1.0, None, "beta in"),
        ([1, 2], "auto", None, [3], "does not fit"),
        ([1, 2], "auto", None, [3, 1], "does not fit"),
    ],
)
def test_refused(counts, scheme, beta, around, says):
    with pytest.raises(ProveError, match=says):
        class_weights(counts, scheme, beta, around)
