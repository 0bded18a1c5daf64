"""The gap between clear and adverse conditions, in a sentence under a run's table."""

from __future__ import annotations

from prove.cli.evaluation_tables import gap_line
from prove.cli.gap import gap_of
from prove.store import ResultRow


def rows(**values: float | None) -> list[ResultRow]:
    own = [ResultRow("last", "condition", name, "mIoU", value) for name, value in values.items()]
    others = [ResultRow("best", "condition", name, "mIoU", 99.0) for name in values]
    return [*others, *own, *(ResultRow("last", "condition", name, "aAcc", 1.0) for name in values)]


def test_points_lost_from_clear_to_the_mean_of_the_others() -> None:
    said = gap_of(rows(foggy=20.0, clear_day=50.0, night=10.0))
    assert said == "Gap: 35.00 points of mIoU from clear_day to the mean of foggy, night."


def test_none_without_a_clear_condition_and_nothing_without_several() -> None:
    assert gap_of(rows(foggy=20.0, night=10.0)).startswith("No gap:")
    assert gap_of(rows(day=20.0)) == gap_of([]) == ""


def test_an_evaluation_without_a_gap_says_why() -> None:
    one = {"mIoU": 50.0, "images": 1}
    alone = gap_line({"day": one})
    assert alone.startswith("No gap: it takes one clear condition and adverse ones")
    assert alone.endswith("these images are day.")
    assert (
        gap_line({"day": one, "night": {"mIoU": None, "images": 1}})
        == "No gap: not every one of day, night has an mIoU."
    )
    assert gap_line({"day": one, "night": {"mIoU": 30.0, "images": 1}}).startswith("Gap: 20.00 points")
