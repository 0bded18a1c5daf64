"""What the flags and an experiment's report section come to, and how a baseline is found."""

import pytest

from prove.errors import ProveError
from prove.report.options import finder, options
from prove.report.study import Options


def test_without_a_word_the_defaults_hold() -> None:
    assert options({}) == Options()


def test_the_section_counts_and_flags_win() -> None:
    section = {"baseline": "ce + dice", "metric": ["bF1", "mIoU"], "checkpoint": "best", "smallest_effect": 1}
    assert options(section) == Options("ce + dice", ("bF1", "mIoU"), "best", 1.0)
    flags = {"baseline": "ce", "metrics": ("ECE",), "checkpoint": "last", "smallest_effect": 0.5, "confidence": 0.9}
    assert options(section, **flags) == Options("ce", ("ECE",), "last", 0.5, 0.9)


def test_one_metric_may_stand_without_a_list() -> None:
    assert options({"metric": "bIoU"}).metrics == ("bIoU",)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"metrics": ("mIuO",)}, "mIoU"),
        ({"checkpoint": "lst"}, "last"),
        ({"smallest_effect": 0.0}, "> 0"),
        ({"smallest_effect": float("nan")}, "> 0"),
        ({"confidence": 95.0}, "0.95"),
        ({"confidence": 1.0}, "0.95"),
    ],
)
def test_nonsense_is_refused_with_a_word_that_helps(flags, named) -> None:
    with pytest.raises(ProveError) as refused:
        options({}, **flags)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("asked", "there", "found"),
    [
        ("ce", ["ce", "ce + 0.3*focal"], "ce"),
        ("0.3*focal+ce", ["ce", "ce + 0.3*focal"], "ce + 0.3*focal"),
        ("ce + 0.3*focal(gamma=2)", ["ce + 0.3*focal"], "ce + 0.3*focal"),
        ("ce", ["m2f", "m2f + 0.3*dice"], "m2f"),
        ("ce + 0.3*dice", ["m2f", "m2f + 0.3*dice"], "m2f + 0.3*dice"),
        ("ce", ["m2f(cls=focal)", "m2f"], "m2f"),
        ("ce", ["m2f(cls=focal)"], None),
        ("m2f(cls=focal)", ["m2f", "m2f(cls=focal)"], "m2f(cls=focal)"),
        ("ce + m2f(cls=focal)", ["m2f", "m2f(cls=focal)", "m2f(cls=focal) + ce"], "m2f(cls=focal) + ce"),
        ("m2f(cls=ce)", ["m2f(cls=focal)", "m2f"], "m2f"),
        ("ce + 0.3*own_term", ["ce", "ce + 0.3*own_term"], "ce + 0.3*own_term"),
        ("ce + 0.3*own_term", ["ce"], None),
        ("focal", ["ce", "m2f"], None),
    ],
)
def test_the_baseline_is_found_however_it_is_written(asked, there, found) -> None:
    assert finder(asked)(there) == found


def test_a_baseline_that_is_no_objective_is_refused() -> None:
    with pytest.raises(ProveError):
        finder("ce + ")
