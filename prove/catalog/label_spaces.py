"""Which classes a dataset is trained on, and how its label files spell them.

A `LabelSpace` names the classes; train id k is its k-th class. An `Encoding` maps what stands in a label file, an
integer or a colour, to train ids. Sources of the numbers: Cityscapes `labels.py` (Cordts et al., CVPR 2016), SegNet's
CamVid (Badrinarayanan et al., PAMI 2017), Mapillary Vistas v1.2 (Neuhold et al., ICCV 2017), and for OUTSIDE15k the
list that the original study trains on, as for the 42 classes that several datasets share.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from prove.catalog.registry import Registry
from prove.errors import ProveError

Color = tuple[int, int, int]

IGNORE = 255
IGNORED = "ignore"
"""What stands in tables for the train id `IGNORE`."""
MAX_CLASSES = 255


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a dataset, in the order of their train ids.

    Args:
        palette: one RGB colour per class, for drawing.
        ignore_index: the train id of pixels that are neither trained on nor counted.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    ignore_index: int = IGNORE

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            raise ProveError(
                f"Label space {self.name!r} has {len(self.classes)} classes; 1 to {MAX_CLASSES} are possible."
            )
        if len(self.palette) != len(self.classes):
            raise ProveError(f"Label space {self.name!r}: {len(self.classes)} classes but {len(self.palette)} colours.")
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if repeated:
            raise ProveError(f"Label space {self.name!r} names a class twice: {', '.join(repeated)}.")

    @property
    def num_classes(self) -> int:
        """Classes that are trained on; ignored pixels belong to none."""
        return len(self.classes)


@dataclass(frozen=True)
class Encoding:
    """How label files spell train ids. A value that is not listed is an error, never a guess.

    Args:
        ids: pairs (value in the file, train id); `IGNORE` is the train id of ignored pixels.
        colors: pairs (RGB in the file, train id); when given, files with three channels are read by colour.
    """

    name: str
    ids: tuple[tuple[int, int], ...]
    colors: tuple[tuple[Color, int], ...] = ()

    def canonical(self) -> dict[str, Any]:
        """The same content as plain JSON types, in a fixed order."""
        return {
            "ids": [list(pair) for pair in sorted(self.ids)],
            "colors": [[list(c), t] for c, t in sorted(self.colors)],
        }


def train_ids(space: LabelSpace, *, name: str = "train_ids") -> Encoding:
    """Files hold train ids 0..C-1 already, and 255 where to ignore."""
    return Encoding(name, (*((k, k) for k in range(space.num_classes)), (IGNORE, IGNORE)))


def by_color(space: LabelSpace, *, name: str = "colors") -> Encoding:
    """Files hold the palette's colours, or train ids when they have one channel.

    Raises:
        ProveError: two classes share a colour.
    """
    first_of: dict[Color, int] = {}
    for train_id, color in enumerate(space.palette):
        if color in first_of:
            pair = f"{space.classes[first_of[color]]!r} and {space.classes[train_id]!r}"
            raise ProveError(
                f"Label space {space.name!r}: {pair} share the colour {color}, so labels can't be read by colour."
            )
        first_of[color] = train_id
    return Encoding(name, train_ids(space).ids, tuple(first_of.items()))


def _read_spaces() -> Registry[LabelSpace]:
    classes: dict[str, list[tuple[str, Color]]] = {}
    for row in _table("label_spaces.csv"):
        color = (int(row["red"]), int(row["green"]), int(row["blue"]))
        classes.setdefault(row["label_space"], []).append((row["class"], color))
    spaces = (LabelSpace(name, tuple(c for c, _ in rows), tuple(p for _, p in rows)) for name, rows in classes.items())
    return Registry("label space", tuple(spaces))


def map_table() -> list[dict[str, str]]:
    """The rows of ``label_maps.csv``, which `prove.catalog.label_maps` makes sense of."""
    return _table("label_maps.csv")


def _table(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((files("prove.catalog") / name).read_text(encoding="utf-8").splitlines()))


LABEL_SPACES = _read_spaces()
CITYSCAPES19 = LABEL_SPACES.get("cityscapes19")
CAMVID11 = LABEL_SPACES.get("camvid11")
MAPILLARY66 = LABEL_SPACES.get("mapillary66")
OUTSIDE24 = LABEL_SPACES.get("outside24")
CITYSCAPES34 = LABEL_SPACES.get("cityscapes34")
UNION42 = LABEL_SPACES.get("union42")
ADE20K150 = LABEL_SPACES.get("ade20k150")


def _train_ids_of_label_ids() -> tuple[tuple[int, int], ...]:
    targets = {row["class"]: row["target_class"] for row in map_table() if row["source"] == CITYSCAPES34.name}
    ids = {name: k for k, name in enumerate(CITYSCAPES19.classes)} | {IGNORED: IGNORE}
    return (*((k, ids[targets[name]]) for k, name in enumerate(CITYSCAPES34.classes)), (IGNORE, IGNORE))


CITYSCAPES_TRAIN_IDS = train_ids(CITYSCAPES19)
# labelIds 0..33; the license plate's -1 is never drawn into a label file.
CITYSCAPES_LABEL_IDS = Encoding("cityscapes_label_ids", _train_ids_of_label_ids())
CAMVID_IDS = Encoding("camvid", (*((k, k) for k in range(CAMVID11.num_classes)), (11, IGNORE), (IGNORE, IGNORE)))
# Vistas ships palette images whose index is the class; many copies were converted to RGB. Both are read.
MAPILLARY_IDS_OR_COLORS = by_color(MAPILLARY66, name="mapillary_ids_or_colors")
OUTSIDE_IDS = train_ids(OUTSIDE24, name="outside_ids")
# 0 is what belongs to none of the 150 classes, which are numbered from 1 (Zhou et al., CVPR 2017).
ADE20K_IDS = Encoding("ade20k_ids", ((0, IGNORE), *((k + 1, k) for k in range(ADE20K150.num_classes))))

ENCODINGS = Registry(
    "label encoding",
    (CITYSCAPES_TRAIN_IDS, CITYSCAPES_LABEL_IDS, CAMVID_IDS, MAPILLARY_IDS_OR_COLORS, OUTSIDE_IDS, ADE20K_IDS),
)
