"""The matrix of an experiment file: from located YAML to the blocks of a `Matrix`."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

from prove.errors import ProveError, nearest
from prove.spec.dataset_text import DatasetText
from prove.spec.expr import Value
from prove.spec.located import Node, Place
from prove.spec.matrix import Block, Filter, Group, Override, identity, matching
from prove.spec.settings import AXES, MAX_VALUES, SETTINGS, expand_range

_T = TypeVar("_T")

MAX_BLOCKS = 10_000
"""Additions to a matrix, those of files that it includes counted in."""

_OBJECTIVE = 'Give whole objectives as loss ("ce", "ce + 0.3*focal") or additions to ce as aux_loss (none, focal).'


@dataclass
class MatrixReader:
    """Reads the keys ``matrix``, ``zip``, ``include``, ``exclude``, ``overrides`` and ``train`` of one experiment.

    Attributes:
        keys: the experiment's top level.
        included: the blocks of another experiment file; takes the node that names it.
        places: filled while reading: where each value of each setting stands.
    """

    keys: Mapping[str, Node]
    included: Callable[[Node], Sequence[Block]]
    places: dict[tuple[str, Hashable], Place] = field(default_factory=dict)

    def read(self) -> tuple[Block, ...]:
        """The blocks: the matrix itself, when there is one, and one or more for each addition.

        Raises:
            ProveError: something can't stand where it stands; points at it.
        """
        base = Block(tuple(self._groups()), self.train)
        matrix = [base] if base.groups else []
        entries = self._entries("include", "include: [{model: NAME, seed: 0..2}, other.yaml]")
        additions = [None if isinstance(each.value, str) else self._addition(each, base) for each in entries]
        own = [*matrix, *(block for block in additions if block is not None)]
        if not matrix and not entries:
            raise self._missing()
        excludes = self._excludes(matrix)
        overrides = self._overrides(own, set(base.axes))
        blocks = [replace(block, exclude=excludes, overrides=overrides) for block in matrix]
        for entry, addition in zip(entries, additions, strict=True):
            if addition is None:
                blocks.extend(self.included(entry))
            else:
                blocks.append(replace(addition, overrides=_without(overrides, entry.value)))
            if len(blocks) > MAX_BLOCKS:
                raise self.keys["include"].key_error(f"include leads to more than {MAX_BLOCKS:,} additions.")
        return tuple(blocks)

    @cached_property
    def train(self) -> dict[str, Value]:
        """The settings under ``train``; none when it is not there."""
        if "train" not in self.keys:
            return {}
        items = self.keys["train"].only(tuple(SETTINGS), "train", "train: {max_iters: 15000, batch_size: 16}")
        return {name: self._one(name, node) for name, node in items.items()}

    def _entries(self, key: str, example: str) -> list[Node]:
        return self.keys[key].entries(key, example) if key in self.keys else []

    def _missing(self) -> ProveError:
        hint = "Write matrix: {model: [NAME, ...], aux_loss: [none, focal], seed: 0..2}."
        if "matrix" in self.keys:
            return self.keys["matrix"].error("The matrix has no axis.", hint)
        return next(iter(self.keys.values())).key_error("The experiment has no matrix.", hint)

    # axes

    def _groups(self) -> list[Group]:
        groups: list[Group] = []
        taken: dict[str, str] = dict.fromkeys(self.train, "train")
        if "matrix" in self.keys:
            for name, node in self._axes(self.keys["matrix"], "matrix").items():
                self._free(name, node, taken, "matrix")
                groups.append(Group.axis(name, self._values(name, node)))
        example = "zip: [{model: [a, b], crop_size: [512x512, 769x769]}]"
        for entry in self._entries("zip", example):
            items = self._axes(entry, "zip", example)
            columns = []
            for name, node in items.items():
                self._free(name, node, taken, "zip")
                columns.append(self._values(name, node))
            lengths = {name: len(column) for name, column in zip(items, columns, strict=True)}
            if len(set(lengths.values())) > 1:
                counts = ", ".join(f"{name} has {length}" for name, length in lengths.items())
                raise entry.error(f"Zipped axes must have equally many values: {counts}.")
            if items:
                groups.append(Group(tuple(items), tuple(zip(*columns, strict=True))))
        _one_objective(taken, lambda name, message: self._key(name).key_error(message, _OBJECTIVE))
        return groups

    def _key(self, name: str) -> Node:
        """Where a setting of the matrix, a zip or train stands."""
        mappings = [self.keys[key].value for key in ("matrix", "train") if key in self.keys]
        mappings += [entry.value for entry in self._entries("zip", "")]
        return next(cast(Node, each[name]) for each in mappings if name in each)

    @staticmethod
    def _axes(node: Node, what: str, example: str = "matrix: {model: [a, b], seed: 0..2}") -> dict[str, Node]:
        items = node.mapping(what, example)
        for name, each in items.items():
            if name in SETTINGS and name not in AXES:
                raise each.key_error(
                    f"{name} says how a job runs, not what it is: it can't be an axis.",
                    f"Write train: {{{name}: ...}}.",
                )
        return node.only(AXES, what, example)

    @staticmethod
    def _free(name: str, node: Node, taken: dict[str, str], where: str) -> None:
        if name in taken:
            cure = (
                "Keep one of them; `overrides` sets it for some of the cells."
                if "train" in (taken[name], where)
                else ""
            )
            raise node.key_error(f"{name} stands in {taken[name]} already.", cure or "An axis stands in one place.")
        taken[name] = where

    # values

    def _values(self, name: str, node: Node) -> tuple[Value, ...]:
        """The values of an axis: one, a range, or a list of both."""
        items = node.value if isinstance(node.value, list) else [node]
        if not items:
            raise node.error(f"{name} has no value.", "Leave it out for its default.")
        values = [value for item in items for value in self._item(name, item)]
        if len(values) > MAX_VALUES:
            raise node.error(f"{name} has more than {MAX_VALUES:,} values.")
        return tuple(values)

    def _item(self, name: str, node: Node) -> list[Value]:
        setting = SETTINGS[name]
        if setting.kind == "integer" and isinstance(node.value, str):
            expanded = _placed(node, lambda: expand_range(name, node.value))
            if expanded is not None:
                values = _placed(node, lambda: [setting.read(k) for k in expanded])
                return [self._noted(name, value, node) for value in values]
        return [self._one(name, node)]

    def _one(self, name: str, node: Node) -> Value:
        if isinstance(node.value, list):
            hint = "Several values make an axis: write it under matrix." if node.key_at else ""
            raise node.error(f"{name} takes one value here, not a list.", hint)
        value = _placed(node, lambda: SETTINGS[name].read(node.plain(), node.written))
        return self._noted(name, _anchored(name, value, node), node)

    def _noted(self, name: str, value: Value, node: Node) -> Value:
        self.places.setdefault((name, identity(value)), node.at)
        return value

    # additions

    def _addition(self, entry: Node, base: Block) -> Block:
        """The block of a mapping under ``include``: its axes in place of those of the matrix."""
        example = "include: [{model: NAME, seed: 0..2}, other.yaml]"
        items = self._axes(entry, "an entry of include", example)
        if not items:
            raise entry.error("This entry of include adds nothing.", f"Write {example}.")
        new: dict[str, Group] = {}
        for name, node in items.items():
            if node.value is not None:
                new[name] = Group.axis(name, self._values(name, node))
            elif name not in (*base.axes, *base.fixed):
                hint = "For no auxiliary loss write none." if name == "aux_loss" else "Leave it out."
                raise node.error(f"{name}: null takes a setting away, and there is none in matrix, zip or train.", hint)
        groups: list[Group] = []
        for group in base.groups:
            named = [name for name in group.names if name in items]
            if named and len(named) < len(group.names):
                others = " and ".join(name for name in group.names if name not in items)
                raise items[named[0]].key_error(
                    f"{named[0]} is zipped with {others}.", f"Name {others} as well; null takes it away."
                )
            groups.extend([group] if not named else [new.pop(name) for name in group.names if name in new])
        fixed = {name: value for name, value in base.fixed.items() if name not in items}
        block = Block((*groups, *new.values()), fixed)
        _one_objective(
            (*block.axes, *fixed),
            lambda name, message: (items.get(name) or entry).error(
                message, "Take the other away in this entry: aux_loss: null, or loss: null."
            ),
        )
        return block

    # filters

    def _excludes(self, blocks: Sequence[Block]) -> tuple[Filter, ...]:
        entries = self._entries("exclude", "exclude: [{model: NAME, aux_loss: boundary}]")
        if entries and not blocks:
            raise self.keys["exclude"].key_error("exclude takes cells from the matrix, and there is no matrix.")
        return tuple(self._filter(entry, "exclude", blocks) for entry in entries)

    def _overrides(self, blocks: Sequence[Block], axes: set[str]) -> tuple[Override, ...]:
        example = "overrides: [{when: {model: NAME}, set: {batch_size: 8}}]"
        overrides = []
        for entry in self._entries("overrides", example):
            items = entry.only(("when", "set"), "an entry of overrides", example)
            for key in ("when", "set"):
                if key not in items:
                    raise entry.error(f"This entry of overrides has no {key!r}.", f"Write {example}.")
            when = self._filter(items["when"], "when", blocks)
            met = [block for block in blocks if block.can_meet(when)]
            overrides.append(Override(when, self._set(items["set"], axes, met, example)))
        return tuple(overrides)

    def _set(self, node: Node, axes: set[str], blocks: Sequence[Block], example: str) -> dict[str, Value]:
        items = node.only(tuple(SETTINGS), "set", example)
        if not items:
            raise node.error("This override sets nothing.", f"Write {example}.")
        settings: dict[str, Value] = {}
        for name, each in items.items():
            if name in axes:
                raise each.key_error(
                    f"An override can't set {name}, an axis: two cells could become one.",
                    "Zip the axes that belong together, or exclude these cells and include others.",
                )
            if each.value is None and not any(name in block.fixed for block in blocks):
                raise each.error(f"{name}: null takes a setting away, and train has none.", "Leave it out.")
            settings[name] = None if each.value is None else self._one(name, each)
        for block in blocks:
            names = {*block.axes, *block.fixed, *settings} - {name for name, value in settings.items() if value is None}
            _one_objective(names, lambda name, message: (items.get(name) or node).error(message, _OBJECTIVE))
        return settings

    def _filter(self, node: Node, what: str, blocks: Sequence[Block]) -> Filter:
        """A filter whose every value some cell of these blocks has."""
        items = node.mapping(what, f"{what}: {{model: segformer_*, seed: [0, 1]}}")
        if not items:
            raise node.error(f"{what} names no setting: it would mean every cell.")
        known = tuple(dict.fromkeys(name for block in blocks for name in (*block.axes, *block.fixed) if name in AXES))
        accepts = {}
        for name, each in items.items():
            if name not in known:
                close = nearest(name, known)
                hint = f"Did you mean {close[0]!r}? " if close else ""
                raise each.key_error(
                    f"{what} names {name!r}, which is neither an axis nor set in train.",
                    f"{hint}Valid here: {', '.join(known)}." + self._inherited(node),
                )
            choices = [value for block in blocks for value in block.values(name)]
            wanted = each.value if isinstance(each.value, list) else [each]
            if not wanted:
                raise each.error(f"{what}: {name} has no value.")
            accepts[name] = frozenset(
                identity(value) for item in wanted for value in self._meant(name, item, what, choices)
            )
        chosen = Filter(accepts)
        if not any(block.can_meet(chosen) for block in blocks):
            raise node.error(f"{what}: no cell has all of this at once.", self._inherited(node).strip())
        return chosen

    def _meant(self, name: str, node: Node, what: str, choices: list[Value]) -> list[Value]:
        setting = SETTINGS[name]
        found: list[Value]
        if isinstance(node.value, str) and setting.kind in ("text", "objective", "size"):
            found = matching(str(_anchored(name, node.value.strip(), node)), choices)
        else:
            expanded = None
            if setting.kind == "integer" and isinstance(node.value, str):
                expanded = _placed(node, lambda: expand_range(name, node.value))
            wanted = expanded or [_placed(node, lambda: setting.read(node.plain(), node.written))]
            found = [value for each in wanted for value in matching(each, choices)]
        if found:
            return found
        texts = list(dict.fromkeys(str(choice) for choice in choices))
        close = nearest(str(node.value), texts)
        hint = f"Did you mean {close[0]!r}?" if close else f"Valid here: {', '.join(texts[:12])}."
        raise node.error(f"{what}: no cell has the {name} {node.value!r}.", hint + self._inherited(node))

    def _inherited(self, node: Node) -> str:
        """What to do about a filter that another file brought along."""
        here = {each.at.file for each in self.keys.values()}
        return f" It comes from {node.at.file.name}; a list of your own replaces it." if len(here) > 1 else ""


def _without(overrides: Iterable[Override], names: Container[str]) -> tuple[Override, ...]:
    """The overrides for an addition: what it names itself, it has from itself."""
    kept = (
        Override(each.when, {name: value for name, value in each.settings.items() if name not in names})
        for each in overrides
    )
    return tuple(each for each in kept if each.settings)


def _one_objective(names: Iterable[str], error: Callable[[str, str], ProveError]) -> None:
    """Whole objectives and additions to ce don't mix."""
    given = list(names)
    if "loss" in given:
        for other in ("aux_loss", "aux_weight"):
            if other in given:
                raise error(other, f"loss and {other} are two ways to say what is minimised.")


def _placed(node: Node, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except ProveError as error:
        raise node.error(error.message, error.hint) from None


def _anchored(name: str, value: Value, node: Node) -> Value:
    """Paths are relative to the file that they stand in."""
    setting = SETTINGS[name]
    if setting.kind == "folders":
        if not isinstance(value, tuple):
            return anchored(str(value), node.at.file)
        pairs = cast(tuple[tuple[str, str], ...], value)
        return tuple((dataset, anchored(folder, node.at.file)) for dataset, folder in pairs)
    if name == "dataset" and isinstance(value, str):
        return str(DatasetText.read(value).with_files(lambda path: anchored(path, node.at.file)))
    if isinstance(value, str) and setting.path and value.endswith(setting.path):
        return anchored(value, node.at.file)
    return value


def anchored(path: str, file: Path) -> str:
    """A path as it is meant in a file: absolute, relative ones counted from the file's folder."""
    return os.path.normpath(file.absolute().parent / Path(path).expanduser())
