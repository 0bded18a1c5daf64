"""A user's own dataset: a few lines of YAML, read with a safe loader into a definition."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prove.catalog.datasets import DATASETS, FIRST_FOLDER, ConditionRule, LabelFiles, Layout, SplitFolders
from prove.catalog.label_spaces import ENCODINGS, IGNORE, MAX_CLASSES, Color, Encoding, LabelSpace, by_color, train_ids
from prove.data.definition import DatasetDefinition
from prove.errors import ProveError, nearest

_KEYS = (
    "name", "root", "train", "val", "image_suffix", "label_suffix", "classes", "palette", "ignore_index", "encoding",
    "condition", "crop",
)  # fmt: skip
_SPLIT_KEYS = ("images", "labels", "image_suffix", "label_suffix")
_DEFAULT_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_DEFAULT_CROP = (512, 512)


@dataclass(frozen=True)
class _Node:
    """A value in the file, with its place."""

    value: Any
    file: Path
    line: int
    items: dict[str, _Node]

    def error(self, message: str, hint: str = "") -> ProveError:
        return ProveError(f"{self.file}, line {self.line}: {message}", hint=hint)

    def text(self, key: str, default: str | None = None) -> str:
        node = self.items.get(key)
        if node is None:
            if default is None:
                raise self.error(f"{key!r} is missing.")
            return default
        if not isinstance(node.value, str) or not node.value:
            raise node.error(f"{key} must be text, not {node.value!r}.")
        return node.value

    def keys_among(self, valid: tuple[str, ...], what: str) -> None:
        if not self.items:
            raise self.error(f"{what} must be a mapping with the keys {', '.join(valid)}.")
        for key, node in self.items.items():
            if key not in valid:
                close = nearest(key, valid)
                hint = f"Did you mean {close[0]!r}? " if close else ""
                raise node.error(f"Unknown key {key!r} in {what}.", hint=f"{hint}Valid: {', '.join(valid)}.")


def read_definition(file: Path) -> DatasetDefinition:
    """Read a dataset's YAML file; `docs/data.md` describes its keys.

    Raises:
        ProveError: unreadable, not YAML, or a key or value that can't stand there; names the line.
    """
    top = _load(file)
    top.keys_among(_KEYS, "the dataset")
    name = top.text("name")
    if name in DATASETS:
        raise top.items["name"].error(f"{name!r} is a dataset that PROVE knows.", hint="Choose another name.")
    space = _label_space(top, name)
    train, val = (_split(top, key) for key in ("train", "val"))
    if train.files != val.files:
        raise top.items["val"].error("image_suffix and label_suffix must be the same in train and val.")
    layout = Layout(
        "yaml",
        train.folders,
        val.folders,
        image_suffixes=train.files[0],
        labels=(LabelFiles(train.files[1], _encoding(top, space)),),
        condition=_condition(top),
    )
    root = (file.parent / Path(top.text("root", ".")).expanduser()).resolve()
    return DatasetDefinition(name, space, (layout,), _crop(top), file=file, root=root)


def _load(file: Path) -> _Node:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ProveError(f"Can't read the dataset file {file}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ProveError(f"The dataset file {file} is not UTF-8 text.") from error
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ProveError(f"{file} holds no mapping.", hint=f"A dataset has the keys {', '.join(_KEYS)}.")
        return _locate(loader, node, file)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ProveError(f"{file}, line {line}: not valid YAML: {error.problem}.") from error
    finally:
        loader.dispose()


def _locate(loader: yaml.SafeLoader, node: yaml.Node, file: Path) -> _Node:
    line = node.start_mark.line + 1
    items: dict[str, _Node] = {}
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in items:
                raise ProveError(f"{file}, line {key_node.start_mark.line + 1}: {key!r} stands twice.")
            inner = _locate(loader, value_node, file)
            items[key] = _Node(inner.value, file, key_node.start_mark.line + 1, inner.items)
    return _Node(loader.construct_object(node, deep=True), file, line, items)


@dataclass(frozen=True)
class _Split:
    folders: SplitFolders
    files: tuple[tuple[str, ...], str]


def _split(top: _Node, key: str) -> _Split:
    if key not in top.items:
        raise top.error(f"{key!r} is missing.", hint=f"Write {key}: {{images: DIR, labels: DIR}}.")
    node = top.items[key]
    node.keys_among(_SPLIT_KEYS, key)
    images, glob = _before_wildcard(node.text("images"))
    for name in ("images", "labels"):
        if Path(node.text(name)).is_absolute() or ".." in Path(node.text(name)).parts:
            raise node.items[name].error(f"{name} must lie below the root.", hint="Set root instead.")
    suffixes = _texts(node.items.get("image_suffix") or top.items.get("image_suffix"), _DEFAULT_IMAGE_SUFFIXES)
    label_suffix = node.text("label_suffix", top.text("label_suffix", ".png"))
    return _Split(SplitFolders(images, node.text("labels").rstrip("/"), glob), (suffixes, label_suffix))


def _before_wildcard(pattern: str) -> tuple[str, str]:
    """``frames/*/left/*.png`` → (``frames``, ``*/left/*.png``)."""
    parts = pattern.rstrip("/").split("/")
    wild = next((k for k, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts))
    return "/".join(parts[:wild]) or ".", "/".join(parts[wild:])


def _texts(node: _Node | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if node is None:
        return default
    values = node.value if isinstance(node.value, list) else [node.value]
    if not values or not all(isinstance(value, str) and value for value in values):
        raise node.error("expected a text or a list of texts.")
    return tuple(values)


def _label_space(top: _Node, name: str) -> LabelSpace:
    node = top.items.get("classes")
    classes = node.value if node else None
    if node is None or not isinstance(classes, list) or not classes or not all(isinstance(c, str) for c in classes):
        raise (node or top).error("classes must list the names of the classes, in the order of their ids.")
    if len(classes) > MAX_CLASSES or len(set(classes)) < len(classes):
        raise node.error(f"classes must be at most {MAX_CLASSES} different names.")
    palette = tuple(_distinct_color(k) for k in range(len(classes)))
    if "palette" in top.items:
        palette = _palette(top.items["palette"], len(classes))
    return LabelSpace(name, tuple(classes), palette)


def _palette(node: _Node, count: int) -> tuple[Color, ...]:
    colors = node.value if isinstance(node.value, list) else []
    if len(colors) != count:
        raise node.error(
            f"palette must have one [red, green, blue] for each of the {count} classes, not {len(colors)}."
        )
    for color in colors:
        if not (
            isinstance(color, list) and len(color) == 3 and all(isinstance(k, int) and 0 <= k <= 255 for k in color)
        ):
            raise node.error(f"{color!r} is not a colour.", hint="Write [red, green, blue], each 0 to 255.")
    return tuple((c[0], c[1], c[2]) for c in colors)


def _distinct_color(index: int) -> Color:
    """The PASCAL VOC colour map: bits of the index spread over the high bits of the channels; 0 is skipped (black)."""
    code, channels = index + 1, [0, 0, 0]
    for shift in range(7, -1, -1):
        for channel in range(3):
            channels[channel] |= ((code >> channel) & 1) << shift
        code >>= 3
    return channels[0], channels[1], channels[2]


def _encoding(top: _Node, space: LabelSpace) -> Encoding:
    ignore = _ignored_value(top)
    node = top.items.get("encoding")
    if node is None:
        return _with_ignored(train_ids(space, name=f"{space.name} ids"), ignore)
    if isinstance(node.value, str):
        if node.value == "colors":
            if "palette" not in top.items:
                raise node.error("encoding: colors needs a palette.", hint="Add palette: one [r, g, b] per class.")
            return _with_ignored(by_color(space), ignore)
        if node.value not in ENCODINGS:
            raise node.error(f"Unknown encoding {node.value!r}.", hint=f"Valid: colors, {', '.join(ENCODINGS.names)}.")
        named = ENCODINGS.get(node.value)
        if any(t >= space.num_classes and t != IGNORE for _, t in named.ids):
            raise node.error(f"Encoding {node.value!r} has more classes than the {space.num_classes} listed.")
        return _with_ignored(named, ignore)
    if not isinstance(node.value, dict) or not node.value:
        raise node.error("encoding must be a name, {offset: N}, or pairs such as {0: ignore, 1: road}.")
    if set(node.value) == {"offset"}:
        offset = node.value["offset"]
        if not isinstance(offset, int) or isinstance(offset, bool):
            raise node.error("offset must be a whole number; -1 reads 1 as the first class and ignores 0.")
        shifted = {k - offset: k for k in range(space.num_classes)}
        below = {value: IGNORE for value in range(-offset) if value not in shifted}
        return _from_pairs(node, space, below | shifted, ignore)
    return _from_pairs(node, space, {key: _target(node, space, t) for key, t in node.value.items()}, ignore)


def _target(node: _Node, space: LabelSpace, target: Any) -> int:
    if target == "ignore":
        return IGNORE
    if isinstance(target, str):
        if target not in space.classes:
            close = nearest(target, space.classes)
            raise node.error(
                f"encoding names {target!r}, which is no class.", hint=f"Did you mean {close[0]!r}?" if close else ""
            )
        return space.classes.index(target)
    if (
        isinstance(target, int)
        and not isinstance(target, bool)
        and (0 <= target < space.num_classes or target == IGNORE)
    ):
        return target
    raise node.error(f"encoding leads to {target!r}; valid are ignore, a class name, or 0..{space.num_classes - 1}.")


def _from_pairs(node: _Node, space: LabelSpace, pairs: dict[Any, int], ignore: _Node | None) -> Encoding:
    for value in pairs:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
            raise node.error(f"encoding: {value!r} can't stand in a label file; values are 0 to 65535.")
    if missing := sorted(set(range(space.num_classes)) - set(pairs.values())):
        raise node.error(f"encoding never leads to class {space.classes[missing[0]]!r}.")
    return _with_ignored(Encoding(f"{space.name} ids", tuple(sorted(pairs.items()))), ignore)


def _ignored_value(top: _Node) -> _Node | None:
    node = top.items.get("ignore_index")
    if node is None:
        return None
    if not isinstance(node.value, int) or isinstance(node.value, bool) or not 0 <= node.value <= 65535:
        raise node.error(f"ignore_index must be a value in the label files, 0 to 65535, not {node.value!r}.")
    return node


def _with_ignored(encoding: Encoding, ignored: _Node | None) -> Encoding:
    """Add the value that means ignore in the files; without one that is 255, unless 255 has a meaning already."""
    pairs = dict(encoding.ids)
    if ignored is None:
        pairs.setdefault(IGNORE, IGNORE)
    elif pairs.get(ignored.value, IGNORE) != IGNORE:
        raise ignored.error(
            f"ignore_index {ignored.value} is also the value of a class.",
            hint="Give `encoding`, such as {offset: -1} where 0 is to be ignored and 1 is the first class.",
        )
    else:
        pairs[ignored.value] = IGNORE
    return Encoding(encoding.name, tuple(sorted(pairs.items())), encoding.colors)


def _condition(top: _Node) -> ConditionRule:
    node = top.items.get("condition")
    if node is None:
        return ConditionRule()
    if node.value == "folder":
        return ConditionRule(FIRST_FOLDER, default=None)
    try:
        groups = re.compile(node.value).groups if isinstance(node.value, str) else 0
    except re.error as error:
        raise node.error(f"condition is not a regular expression: {error}.") from error
    if groups < 1:
        raise node.error(
            "condition must be 'folder' or a regular expression with one group.", hint='Such as "^(day|night)_".'
        )
    return ConditionRule(node.value, default=None)


def _crop(top: _Node) -> tuple[int, int]:
    node = top.items.get("crop")
    if node is None:
        return _DEFAULT_CROP
    value = node.value
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(k, int) and k > 0 for k in value)):
        raise node.error("crop must be [height, width].")
    return value[0], value[1]
