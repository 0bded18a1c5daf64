"""Training strategies by name: what a model is trained on, and what happens to the images before it sees them.

A strategy is a sum of parts, ``gen_cycleGAN+std_cutmix``: at most one generative part, which adds images of that name
to the real ones, and standard parts, which change images on the way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from prove.catalog.registry import Registry
from prove.errors import ProveError

BASELINE = "baseline"
GENERATED = "gen_"


@dataclass(frozen=True)
class StrategyEntry:
    """One standard strategy.

    Attributes:
        name: the study's name.
        summary: one line for a list.
    """

    name: str
    summary: str


STRATEGIES = Registry(
    "strategy",
    (StrategyEntry(BASELINE, "random scale 0.5 to 2, random crop, random horizontal flip"),),
)


@dataclass(frozen=True)
class Strategy:
    """A strategy taken apart.

    Attributes:
        generated: name of the generated images that are mixed in, ``cycleGAN``; None without.
        standard: what happens to images, in the order of the catalogue; empty for the baseline.
    """

    generated: str | None = None
    standard: tuple[StrategyEntry, ...] = ()

    @property
    def name(self) -> str:
        """The canonical text; strategies of one name are one strategy."""
        parts = [f"{GENERATED}{self.generated}"] if self.generated is not None else []
        return "+".join([*parts, *(entry.name for entry in self.standard)]) or BASELINE


def resolve_strategy(text: str) -> Strategy:
    """A strategy from its text, in whatever order its parts are written.

    Raises:
        ProveError: an unknown part (names the nearest), a part that stands twice, or parts that exclude each other.
    """
    parts = [part.strip() for part in text.split("+")]
    repeated = sorted({part for part in parts if parts.count(part) > 1})
    if repeated:
        raise ProveError(f"Strategy {text!r} has {repeated[0] or 'an empty part'!r} twice.")
    if parts[0].startswith("multi_"):
        raise ProveError(
            f"Joint training is a dataset, not a strategy: {text!r}.", hint=f"Write --dataset {text.strip()!r}."
        )
    generated = [part.removeprefix(GENERATED) for part in parts if part.startswith(GENERATED)]
    if len(generated) > 1:
        raise ProveError(
            f"Strategy {text!r} mixes in two sets of generated images.", hint="Name one, beside any standard parts."
        )
    if generated and re.fullmatch(r"[A-Za-z0-9][\w.-]*", generated[0]) is None:
        raise ProveError(f"Strategy {text!r}: {generated[0]!r} can't be the name of generated images.")
    known = tuple(entry.name for entry in STRATEGIES)
    entries = [STRATEGIES.get(part) for part in parts if not part.startswith(GENERATED)]
    entries.sort(key=lambda entry: known.index(entry.name))
    return Strategy(generated[0] if generated else None, tuple(e for e in entries if e.name != BASELINE))
