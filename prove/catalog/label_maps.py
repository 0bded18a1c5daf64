"""From one label space into another: where each class goes. `docs/label_maps.md` says why.

The table is ``label_maps.csv``. Sources: Cityscapes' class definitions and `labels.py` (Cordts et al., CVPR 2016) say
what a class of another space is to Cityscapes; SegNet's grouping of CamVid's classes (Badrinarayanan et al., PAMI 2017)
what its eleven hold; the classes of ``union42``, and where those of Vistas go among them, are the original study's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from prove.catalog.label_spaces import IGNORED, LABEL_SPACES, Encoding, LabelSpace, map_table
from prove.catalog.registry import Registry
from prove.errors import ProveError
from prove.spec.canonical import canonical_json


@dataclass(frozen=True)
class MapRow:
    """Where one class goes.

    Args:
        target: a class of the target space; None where its pixels are ignored.
        also: what else the source class holds that the target space calls otherwise; empty where nothing.
        study: where the original study's code puts it instead, a class or "ignore"; empty where that agrees.
        note: why, where it is not plain; every ignored class has one.
    """

    source: str
    target: str | None
    also: str = ""
    study: str = ""
    note: str = ""


@dataclass(frozen=True)
class LabelMap:
    """A label space read as another.

    Args:
        rows: one per class of `source`, in its order.

    Raises:
        ProveError: a class of the source is missing, stands twice or is unknown, a target does not exist, or an ignored
            class doesn't say why.
    """

    source: LabelSpace
    target: LabelSpace
    rows: tuple[MapRow, ...]

    def __post_init__(self) -> None:
        named = tuple(row.source for row in self.rows)
        if named != self.source.classes:
            wrong = sorted(set(named) ^ set(self.source.classes)) or sorted({n for n in named if named.count(n) > 1})
            raise ProveError(
                f"Label map {self.name!r} must name every class of {self.source.name!r} once, in its order"
                + (f"; see {', '.join(wrong)}." if wrong else ".")
            )
        for row in self.rows:
            if row.target is not None and row.target not in self.target.classes:
                raise ProveError(f"Label map {self.name!r}: {row.source!r} leads to {row.target!r}, which is no class.")
            if row.target is None and not row.note:
                raise ProveError(f"Label map {self.name!r} ignores {row.source!r} and doesn't say why.")

    @property
    def name(self) -> str:
        """``mapillary66 to cityscapes19``."""
        return f"{self.source.name} to {self.target.name}"

    def train_id(self, source_id: int) -> int:
        """The target's train id of a train id of the source; ignored stays ignored."""
        if source_id == self.source.ignore_index:
            return self.target.ignore_index
        target = self.rows[source_id].target
        return self.target.ignore_index if target is None else self.target.classes.index(target)

    @property
    def unreachable(self) -> tuple[str, ...]:
        """Classes of the target that no class of the source leads to."""
        reached = {row.target for row in self.rows}
        return tuple(name for name in self.target.classes if name not in reached)

    @property
    def wide(self) -> tuple[MapRow, ...]:
        """Classes that hold pixels which the target space calls otherwise."""
        return tuple(row for row in self.rows if row.also and row.target is not None)

    @property
    def digest(self) -> str:
        """Twelve hex digits of what the map does to labels; notes don't count."""
        pairs = [[row.source, row.target] for row in self.rows]
        return hashlib.sha256(canonical_json([pairs, list(self.target.classes)]).encode()).hexdigest()[:12]


def unified(encoding: Encoding, label_map: LabelMap) -> Encoding:
    """The encoding that reads files of the source space as train ids of the target: by value and by colour alike.

    Args:
        encoding: leads into the map's source.
    """
    return Encoding(
        f"{encoding.name} as {label_map.target.name}",
        tuple((value, label_map.train_id(train_id)) for value, train_id in encoding.ids),
        tuple((color, label_map.train_id(train_id)) for color, train_id in encoding.colors),
    )


def known_space(space: LabelSpace) -> LabelSpace | None:
    """The label space of the catalogue with these very classes; a dataset of one's own may have them under its name."""
    return next((known for known in LABEL_SPACES if known.classes == space.classes), None)


def label_map(source: LabelSpace, target: LabelSpace, *, dataset: str) -> LabelMap:
    """The map between two label spaces.

    Args:
        dataset: whose labels are to be mapped, for messages.

    Raises:
        ProveError: there is none; names those that there are.
    """
    known = known_space(source)
    if known is None:
        raise ProveError(
            f"The labels of {dataset} can't be read as {target.name!r}: no map knows its {source.num_classes} classes.",
            hint=f"Maps start from {_listed(each.source for each in LABEL_MAPS)}, with their very names and order.",
        )
    name = f"{known.name} to {target.name}"
    if name in LABEL_MAPS:
        return LABEL_MAPS.get(name)
    ways = _listed(each.target for each in LABEL_MAPS if each.source == known)
    raise ProveError(
        f"The labels of {dataset} ({known.name}) can't be read as {target.name!r}: there is no such map.",
        hint=f"{known.name} can be read as {ways}." if ways else "`prove data map` lists the maps that there are.",
    )


def has_map(source: LabelSpace, target: LabelSpace) -> bool:
    """Whether labels of one space can be read as another, which is not the same."""
    known = known_space(source)
    return known is not None and f"{known.name} to {target.name}" in LABEL_MAPS


def targets() -> tuple[str, ...]:
    """Names of the label spaces that labels can be read as."""
    return tuple(dict.fromkeys(each.target.name for each in LABEL_MAPS))


def _listed(spaces: Iterable[LabelSpace]) -> str:
    return ", ".join(dict.fromkeys(space.name for space in spaces))


def _read_maps() -> Registry[LabelMap]:
    tables: dict[tuple[str, str], list[MapRow]] = {}
    for row in map_table():
        target = None if row["target_class"] == IGNORED else row["target_class"]
        tables.setdefault((row["source"], row["target"]), []).append(
            MapRow(row["class"], target, row["also"], row["study"], row["note"])
        )
    return Registry(
        "label map",
        tuple(
            LabelMap(LABEL_SPACES.get(source), LABEL_SPACES.get(target), tuple(rows))
            for (source, target), rows in tables.items()
        ),
    )


LABEL_MAPS = _read_maps()
