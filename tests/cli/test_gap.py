"""The gap between clear and adverse conditions, in a sentence under a run's table."""

from __future__ import annotations

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
