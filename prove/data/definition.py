"""What a dataset's name or YAML file stands for, apart from any machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prove.catalog.datasets import DATASETS, Layout
from prove.catalog.label_spaces import LabelSpace
from prove.errors import ProveError, nearest

SYNTHSTREET_VERSION = 1
"""Part of the dataset's identity: raised whenever a generated pixel changes."""


@dataclass(frozen=True)
class SynthStreetSize:
    """What `SynthStreet` is drawn with; equal values give equal pixels on any machine."""

    height: int = 192
    width: int = 384
    train: int = 98
    val: int = 28
    seed: int = 0

    def __post_init__(self) -> None:
        smallest = {"height": 64, "width": 64, "train": 1, "val": 1, "seed": 0}
        largest = {"height": 2048, "width": 4096, "train": 100_000, "val": 100_000, "seed": 2**31 - 1}
        for name, low in smallest.items():
            value = getattr(self, name)
            if not low <= value <= largest[name]:
                raise ProveError(f"SynthStreet: {name} is {value}, but must be {low} to {largest[name]}.")

    def changed(self) -> dict[str, int]:
        """The values that differ from the defaults."""
        return {k: v for k, v in vars(self).items() if v != getattr(SynthStreetSize(), k)}


@dataclass(frozen=True)
class DatasetDefinition:
    """A dataset as a user names it, resolved.

    Args:
        name: shown in tables; for SynthStreet with the values that differ from the defaults.
        layouts: how it may lie on disk; tried in order.
        size: what SynthStreet is drawn with, None for others.
        file: the YAML file it was read from.
        root: the folder that YAML file names, absolute; not part of the identity.
    """

    name: str
    label_space: LabelSpace
    layouts: tuple[Layout, ...]
    default_crop: tuple[int, int]
    size: SynthStreetSize | None = None
    file: Path | None = None
    root: Path | None = None

    def canonical(self) -> dict[str, Any]:
        """The identity as plain JSON types: no path of this machine, nothing that is only for display."""
        if self.size is not None:
            return {"dataset": "SynthStreet", "version": SYNTHSTREET_VERSION, **vars(self.size)}
        if self.file is None:
            return {"dataset": self.name}
        (layout,) = self.layouts
        split = {
            name: {"images": folders.images, "labels": folders.labels, "glob": folders.glob}
            for name, folders in (("train", layout.train), ("val", layout.val))
        }
        return {
            "dataset": self.name,
            "classes": list(self.label_space.classes),
            "encoding": layout.labels[0].encoding.canonical(),
            "image_suffixes": list(layout.image_suffixes),
            "label_suffix": layout.labels[0].suffix,
            "condition": layout.condition.pattern,
            **split,
        }


def resolve_dataset(name_or_yaml: str) -> DatasetDefinition:
    """What a dataset argument stands for: a name, ``SynthStreet(height=128, seed=1)``, or the path of a YAML file.

    Raises:
        ProveError: unknown name (with the nearest), malformed parameters, or a faulty file (with its line).
    """
    text = name_or_yaml.strip()
    if text.endswith((".yaml", ".yml")):
        from prove.data.user_dataset import read_definition

        return read_definition(Path(text))
    name, size = _call(text)
    entry = DATASETS.get(name)
    if not entry.generated:
        if size is not None:
            raise ProveError(f"{name} takes no parameters, in {text!r}.", hint="Only SynthStreet does.")
        return DatasetDefinition(name, entry.label_space, entry.layouts, entry.default_crop)
    size = size or SynthStreetSize()
    inside = ", ".join(f"{key}={value}" for key, value in size.changed().items())
    crop = (min(entry.default_crop[0], size.height), min(entry.default_crop[1], size.width))
    return DatasetDefinition(f"{name}({inside})" if inside else name, entry.label_space, entry.layouts, crop, size)


def _call(text: str) -> tuple[str, SynthStreetSize | None]:
    """Split ``name(key=1, key=2)``; no parentheses give None."""
    match = re.fullmatch(r"([^()]*)(?:\(([^()]*)\))?", text)
    if match is None:
        raise ProveError(f"Malformed dataset {text!r}.", hint='Write "CamVid" or "SynthStreet(height=128, seed=1)".')
    name, inside = match.group(1).strip(), match.group(2)
    if inside is None:
        return name, None
    valid = tuple(vars(SynthStreetSize()))
    values: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in inside.split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in valid:
            close = nearest(key, valid)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise ProveError(f"Unknown parameter {key!r} in {text!r}.", hint=f"{hint}Valid: {', '.join(valid)}.")
        if key in values:
            raise ProveError(f"{key} stands twice in {text!r}.")
        if not re.fullmatch(r"-?\d+", value):
            raise ProveError(f"{key} must be a whole number, not {value!r}, in {text!r}.")
        values[key] = int(value)
    return name, SynthStreetSize(**values)
