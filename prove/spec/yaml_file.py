"""YAML as users write it, read into located values."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from prove.errors import ProveError
from prove.spec.located import Node, Place, kind_of

MAX_BYTES = 4 * 2**20
MAX_VALUES = 100_000
"""Values in a file, every alias counted as what it stands for: a few lines of aliases can stand for billions."""

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_SURPRISE = re.compile(r"[-+]?0[0-7_]+|[-+]?0[xb][\da-fA-F_]+|[-+]?\d[\d_]*(:[0-5]?\d)+(\.[\d_]*)?")
"""Numbers that YAML 1.1 does not read as they look: 010 is 8, 12:00:00 is 43200."""


def read_yaml(file: Path, what: str) -> tuple[Node, str]:
    """Read a YAML file whose content is a mapping.

    Args:
        what: what the file should be, such as ``experiment``.

    Returns:
        Its content, and its text.

    Raises:
        ProveError: it can't be read, is no YAML or no mapping, or says something that YAML reads otherwise than it
            looks.
    """
    text = _text(file, what)
    if not text.strip():
        raise ProveError(f"The {what} file {file} is empty.")
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                raise ProveError(f"The {what} file {file} holds nothing but comments.")
            node = _Reader(file, loader).node(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1, 1)
        raise place.error(f"not valid YAML: {error.problem or error.context}.") from None
    except ReaderError as error:
        before = text[: error.position]
        place = Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise place.error(f"not valid YAML: the character {chr(error.character)!r} can't stand in it.") from None
    except RecursionError:
        raise ProveError(f"{file} nests its values too deeply.") from None
    if not isinstance(node.value, dict):
        raise node.error(f"The {what} must be a mapping of keys to values, not {kind_of(node.value)}.")
    return node, text


def _text(file: Path, what: str) -> str:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ProveError(f"Can't read the {what} file {file}: {error.strerror}.") from error
    if len(raw) > MAX_BYTES:
        raise ProveError(f"{file} is larger than {MAX_BYTES // 2**20} MiB: that is no {what} file.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProveError(f"The {what} file {file} is not UTF-8 text.") from error


class _Reader:
    """Turns what PyYAML composed into nodes."""

    def __init__(self, file: Path, loader: yaml.SafeLoader) -> None:
        self.file = file
        self.loader = loader
        self.around: set[int] = set()
        self.count = 0

    def place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def node(self, raw: yaml.Node, key_at: Place | None = None) -> Node:
        at = self.place(raw)
        if id(raw) in self.around:
            raise at.error("this value contains itself.")
        self.count += 1
        if self.count > MAX_VALUES:
            raise at.error(f"the file stands for more than {MAX_VALUES:,} values.", "Look at its aliases (*name).")
        self.around.add(id(raw))
        written = None
        value: Any
        if isinstance(raw, yaml.MappingNode):
            value = self._mapping(raw)
        elif isinstance(raw, yaml.SequenceNode):
            self._known(raw, "seq")
            value = [self.node(each) for each in raw.value]
        else:
            value = self._scalar(raw)
            written = raw.value if _is_plain(raw) else None
        self.around.discard(id(raw))
        return Node(value, at, key_at, written)

    def _known(self, raw: yaml.Node, *tags: str) -> None:
        if raw.tag not in [_TAG + tag for tag in tags]:
            raise self.place(raw).error(f"the tag {raw.tag.replace(_TAG, '!!')} has no meaning here.")

    def _mapping(self, raw: yaml.Node) -> dict[str, Node]:
        self._known(raw, "map")
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_raw, value_raw in raw.value:
            at = self.place(key_raw)
            if key_raw.tag == _MERGE:
                for each in value_raw.value if isinstance(value_raw, yaml.SequenceNode) else [value_raw]:
                    if not isinstance(each, yaml.MappingNode):
                        raise self.place(each).error("'<<' merges mappings, and this is none.")
                    merged = {**self.node(each).value, **merged}
                continue
            if not isinstance(key_raw, yaml.ScalarNode) or key_raw.tag != _TAG + "str":
                shown = repr(key_raw.value) if isinstance(key_raw, yaml.ScalarNode) else "this key"
                raise at.error(f"{shown} is not text to YAML, and a key must be.", "Put it in quotes.")
            if key_raw.value in own:
                raise at.error(f"{key_raw.value!r} stands twice.", f"First in line {self._line(own[key_raw.value])}.")
            own[key_raw.value] = self.node(value_raw, at)
        return {**merged, **own}

    @staticmethod
    def _line(node: Node) -> int:
        return (node.key_at or node.at).line

    def _scalar(self, raw: yaml.Node) -> Any:
        self._known(raw, "str", "int", "float", "bool", "null", "timestamp")
        at = self.place(raw)
        if _is_plain(raw) and raw.tag in (_TAG + "int", _TAG + "float") and _SURPRISE.fullmatch(raw.value):
            value = self._constructed(raw, at)
            raise at.error(
                f"YAML reads {raw.value} as the number {value}.",
                f'Write "{raw.value}" in quotes if it is text, or the number without leading zeros.',
            )
        value = self._constructed(raw, at)
        if isinstance(value, datetime.date):
            raise at.error(f"YAML reads {raw.value} as a date.", f'Put it in quotes: "{raw.value}".')
        return value

    def _constructed(self, raw: yaml.Node, at: Place) -> Any:
        try:
            return self.loader.construct_object(raw)
        except (ValueError, OverflowError) as error:  # !!int x, a month 13, more digits than Python reads
            raise at.error(f"YAML can't read {raw.value[:40]!r} as {raw.tag.replace(_TAG, '')}.") from error


def _is_plain(raw: yaml.Node) -> bool:
    """Whether a scalar stands there without quotes, so that YAML guesses what it is."""
    return isinstance(raw, yaml.ScalarNode) and raw.style is None
