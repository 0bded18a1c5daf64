"""Clear and adverse conditions of datasets that were joined."""

from __future__ import annotations

import pytest

from prove.catalog.conditions import Split, split
from prove.errors import ProveError


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("CamVid/day", "CamVid/dusk", "ACDC/foggy"), Split("CamVid/day", ("CamVid/dusk",))),
        (("S/Clear Day", "S/night", "Cityscapes"), Split("S/Clear Day", ("S/night",))),
        (("CamVid/day", "CamVid/dusk", "S/clear_day", "S/night"), None),  # which of the two is meant?
        (("CamVid/day", "ACDC/foggy"), None),  # other roads, other cameras: no gap of weather
        (("day", "clear_day", "night"), Split("clear_day", ("day", "night"))),
        (("foggy", "night"), None),
    ],
)
def test_only_conditions_of_one_dataset_are_held_against_each_other(
    names: tuple[str, ...], expected: Split | None
) -> None:
    assert split(names) == expected


def test_the_clear_condition_can_be_named() -> None:
    names = ("CamVid/day", "CamVid/dusk", "S/clear_day", "S/night")
    assert split(names, "S/clear_day") == Split("S/clear_day", ("S/night",))
    with pytest.raises(ProveError, match="clear_day"):
        split(names, "clear_day")
