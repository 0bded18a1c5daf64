"""Training strategies by name: what happens to the images before the model sees them."""

from __future__ import annotations

from dataclasses import dataclass

from prove.catalog.registry import Registry


@dataclass(frozen=True)
class StrategyEntry:
    """One strategy.

    Attributes:
        name: the study's name.
        summary: one line for a list.
    """

    name: str
    summary: str


STRATEGIES = Registry(
    "strategy",
    (StrategyEntry("baseline", "random scale 0.5 to 2, random crop, random horizontal flip"),),
)
