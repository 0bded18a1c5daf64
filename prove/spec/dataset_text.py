"""How a dataset is written: ``CamVid``, ``own.yaml@union42``, ``multi_2*ACDC+CamVid``.

Text alone; nothing is looked up.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

JOINT = "multi_"
"""Begins the name of several datasets that are trained on together."""

FILES = (".yaml", ".yml")
"""What the path of a dataset's file ends in."""


@dataclass(frozen=True)
class Part:
    """One dataset.

    Attributes:
        name: a name with its parameters, or the path of a YAML file.
        weight: what stands before its ``*``; empty without one.
    """

    name: str
    weight: str = ""


@dataclass(frozen=True)
class DatasetText:
    """A dataset argument taken apart.

    Attributes:
        parts: the datasets that a joint one names; of any other, itself.
        space: the label space behind the ``@``; empty without one.
        joint: whether it begins with ``multi_``.
    """

    parts: tuple[Part, ...]
    space: str = ""
    joint: bool = False

    @classmethod
    def read(cls, text: str) -> DatasetText:
        """Take a text apart; an ``@`` inside a path is part of it."""
        body, joint = text.strip().removeprefix(JOINT), text.strip().startswith(JOINT)
        name, at, space = body.rpartition("@")
        if not at or not space.strip() or re.search(r"[/.()+*]", space):
            name, space = body, ""
        if not joint:
            return cls((Part(name.strip()),), space.strip())
        return cls(tuple(map(_part, name.split("+"))), space.strip(), joint=True)

    def __str__(self) -> str:
        parts = "+".join(f"{part.weight}*{part.name}" if part.weight else part.name for part in self.parts)
        return f"{JOINT if self.joint else ''}{parts}{f'@{self.space}' if self.space else ''}"

    def with_files(self, change: Callable[[str], str]) -> DatasetText:
        """The same with each path of a YAML file changed."""
        parts = (replace(p, name=change(p.name)) if p.name.endswith(FILES) else p for p in self.parts)
        return replace(self, parts=tuple(parts))


def _part(text: str) -> Part:
    weight, _, name = text.rpartition("*")
    return Part(name.strip(), weight.strip()) if weight.strip() else Part(text.strip())
