"""Hours as cells: by the kind of device that a run used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prove.report.table import Cell
from prove.report.views.numbers import DASH

Hours = tuple[float, float]
"""GPU hours and CPU hours; 0 where that kind was not used."""

DEVICES: Mapping[str, int] = {"GPU": 0, "CPU": 1}
"""Kind of device → its place in `Hours`."""


def devices(hours: Iterable[Hours]) -> tuple[str, ...]:
    """The kinds that any of them used; GPU where none did."""
    known = list(hours)
    return tuple(name for name, place in DEVICES.items() if any(each[place] for each in known)) or ("GPU",)


def total_cell(hours: Hours, device: str) -> Cell:
    """A sum of hours on one kind of device."""
    return _cell(hours[DEVICES[device]])


def mean_cell(hours: Sequence[Hours], device: str) -> Cell:
    """Mean over the runs that used this kind of device; a dash where none did."""
    used = [each[DEVICES[device]] for each in hours if each[DEVICES[device]]]
    return _cell(sum(used) / len(used)) if used else Cell(DASH, muted=True)


def _cell(hours: float) -> Cell:
    return Cell(_text(hours), hours)


def _text(hours: float) -> str:
    """Two or three significant digits."""
    if hours >= 10:
        return f"{hours:,.1f}"
    if hours >= 0.1 or hours == 0:
        return f"{hours:.2f}"
    return f"{hours:.3f}" if hours >= 0.01 else f"{hours:.2g}"
