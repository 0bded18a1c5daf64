"""Which weather and time of day is clear, and which is adverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prove.errors import unknown

CLEAR = ("clear_day", "clear", "day", "daytime", "normal", "sunny", "good")
"""Names of the condition that the others are held against, the first that a dataset has."""


@dataclass(frozen=True)
class Split:
    """The clear condition and the adverse ones."""

    clear: str
    adverse: tuple[str, ...]


def split(names: Sequence[str], clear: str | None = None) -> Split | None:
    """Which condition is clear and which are adverse; None where none is recognised, or there is no other.

    Of several datasets that were joined, ``ACDC/foggy``, only conditions of the same one are held against each other;
    None where more than one has a clear condition.

    Args:
        clear: take this one.

    Raises:
        ProveError: `clear` is not among them.
    """
    if clear is not None:
        if clear not in names:
            raise unknown("condition", clear, names)
        found: str | None = clear
    else:
        known = [name for name in names if _folded(name) in CLEAR]
        several = len({_member(name) for name in known}) > 1
        found = None if several else min(known, key=lambda name: CLEAR.index(_folded(name)), default=None)
    adverse = tuple(name for name in names if name != found and _member(name) == _member(found or ""))
    return Split(found, adverse) if found is not None and adverse else None


def _folded(name: str) -> str:
    return name.rpartition("/")[2].casefold().replace(" ", "_").replace("-", "_")


def _member(name: str) -> str:
    return name.rpartition("/")[0]
