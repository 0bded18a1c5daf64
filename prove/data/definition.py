"""What a dataset's name or YAML file stands for, apart from any machine."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prove.catalog.datasets import DATASETS, Layout
from prove.catalog.label_maps import LabelMap, label_map, unified
from prove.catalog.label_spaces import LABEL_SPACES, LabelSpace
from prove.errors import ProveError, nearest
from prove.spec.dataset_text import FILES, JOINT, DatasetText

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
        layouts: how it may lie on disk; tried in order. None for a joint dataset.
        size: what SynthStreet is drawn with, None for others.
        file: the YAML file it was read from.
        root: the folder that YAML file names, absolute; not part of the identity.
        label_map: how its own labels are read as those of `label_space`, None where they are these.
        home: the name that its folder is looked up by, where it differs from `name`.
        members: what a joint dataset consists of, in the order of their names.
    """

    name: str
    label_space: LabelSpace
    layouts: tuple[Layout, ...]
    default_crop: tuple[int, int]
    size: SynthStreetSize | None = None
    file: Path | None = None
    root: Path | None = None
    label_map: LabelMap | None = None
    home: str = ""
    members: tuple[Member, ...] = ()

    def canonical(self) -> dict[str, Any]:
        """The identity as plain JSON types: no path of this machine, nothing that is only for display."""
        if self.members:
            return {
                "dataset": "joint",
                "members": [member.canonical() for member in self.members],
                "classes": list(self.label_space.classes),
            }
        if self.label_map is not None:
            return {**self._own(), "labels": {"space": self.label_space.name, "map": self.label_map.digest}}
        return self._own()

    def _own(self) -> dict[str, Any]:
        if self.size is not None:
            return {"dataset": "SynthStreet", "version": SYNTHSTREET_VERSION, **vars(self.size)}
        if self.file is None:
            return {"dataset": self.home or self.name}
        (layout,) = self.layouts
        split = {
            name: {"images": folders.images, "labels": folders.labels, "glob": folders.glob}
            for name, folders in (("train", layout.train), ("val", layout.val))
        }
        return {
            "dataset": self.home or self.name,
            "classes": list(self.label_space.classes),
            "encoding": layout.labels[0].encoding.canonical(),
            "image_suffixes": list(layout.image_suffixes),
            "label_suffix": layout.labels[0].suffix,
            "condition": layout.condition.pattern,
            **split,
        }


def spelling(definition: DatasetDefinition) -> str:
    """A dataset argument that stands for this definition: its name, where files are with their paths."""
    if definition.members:
        parts = (f"{'' if m.weight is None else f'{m.weight}*'}{_spelt(m.definition)}" for m in definition.members)
        space = f"@{definition.label_space.name}"
        return f"{JOINT}{'+'.join(parts)}{space if definition.name.endswith(space) else ''}"
    return _spelt(definition) + (f"@{definition.label_space.name}" if definition.label_map is not None else "")


def _spelt(definition: DatasetDefinition) -> str:
    return str(definition.file) if definition.file is not None else definition.home or definition.name


@dataclass(frozen=True)
class Member:
    """One dataset of a joint one.

    Args:
        name: begins the ids and the conditions of its samples.
        definition: its labels are read as those of the joint dataset.
        weight: its share of an epoch is this over the sum of all weights; None where every sample is seen once.
    """

    name: str
    definition: DatasetDefinition
    weight: int | None = None

    def canonical(self) -> dict[str, Any]:
        """The identity as plain JSON types."""
        weight = {} if self.weight is None else {"weight": self.weight}
        return {"name": self.name, **self.definition.canonical(), **weight}


def resolve_dataset(text: str) -> DatasetDefinition:
    """What a dataset argument stands for.

    A name, ``SynthStreet(height=128, seed=1)``, or the path of a YAML file; any of them with ``@union42`` for its
    labels read as those of another label space; or several as ``multi_2*ACDC+MapillaryVistas@union42``.

    Raises:
        ProveError: unknown name (with the nearest), malformed parameters, labels that can't be read that way, or a
            faulty file (with its line).
    """
    asked = DatasetText.read(text)
    if asked.joint:
        from prove.data.joint import resolve_joint

        return resolve_joint(text.strip())
    definition = _resolve(asked.parts[0].name)
    return in_space(definition, LABEL_SPACES.get(asked.space, where=f"in {text!r}")) if asked.space else definition


def in_space(definition: DatasetDefinition, space: LabelSpace) -> DatasetDefinition:
    """A dataset with its labels read as those of another label space; itself where they are these already.

    Raises:
        ProveError: no map leads there.
    """
    if definition.label_space.classes == space.classes:
        return definition
    if definition.members:
        raise ProveError(f"The labels of {definition.name} are read as {definition.label_space.name} already.")
    found = label_map(definition.label_space, space, dataset=definition.name)
    layouts = tuple(
        replace(
            layout,
            labels=tuple(replace(files, encoding=unified(files.encoding, found)) for files in layout.labels),
        )
        for layout in definition.layouts
    )
    return replace(
        definition,
        name=f"{definition.name}@{space.name}",
        label_space=space,
        layouts=layouts,
        label_map=found,
        home=definition.name,
    )


def located(text: str) -> str:
    """The same dataset argument with the paths of YAML files absolute, for processes that run elsewhere."""
    return str(DatasetText.read(text).with_files(lambda path: str(Path(path).expanduser().resolve())))


def _resolve(text: str) -> DatasetDefinition:
    if text.endswith(FILES):
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
