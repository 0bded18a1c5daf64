"""A matrix: axes of values whose combinations are cells, streamed one at a time and never twice."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from prove.spec.expr import Value

Cell = dict[str, Any]
"""The settings of one job by name."""


def identity(value: Value) -> Hashable:
    """Equal for values that are the same: 1 and 1.0 are, true and 1 are not."""
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, list | tuple):
        return (tuple, *map(identity, value))
    return value


@dataclass(frozen=True)
class Group:
    """Axes that advance together: one axis alone, or several that are zipped.

    Attributes:
        names: the axes.
        rows: their values, one tuple for each step; a row that came before is left out.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.names) for row in self.rows):
            raise ValueError(f"rows of {self.names} need {len(self.names)} values")
        distinct: dict[Hashable, tuple[Value, ...]] = {}
        for row in self.rows:
            distinct.setdefault(identity(row), row)
        object.__setattr__(self, "rows", tuple(distinct.values()))

    @classmethod
    def axis(cls, name: str, values: Iterable[Value]) -> Group:
        """One axis alone."""
        return cls((name,), tuple((value,) for value in values))

    def values(self, name: str) -> Iterator[Value]:
        """The values of one of its axes, as often as they stand in it."""
        at = self.names.index(name)
        return (row[at] for row in self.rows)

    @cached_property
    def index(self) -> dict[Hashable, int]:
        """Where each row stands, by its identity."""
        return {identity(row): k for k, row in enumerate(self.rows)}


@dataclass(frozen=True)
class Filter:
    """Which cells: those in which every named setting has one of its values.

    Attributes:
        accepts: the identities of the values, by setting.
    """

    accepts: Mapping[str, frozenset[Hashable]]

    def allows(self, names: tuple[str, ...], row: tuple[Value, ...]) -> bool:
        """Whether a row of these settings has what the filter says about them; it may say nothing."""
        return all(
            identity(value) in self.accepts[name]
            for name, value in zip(names, row, strict=True)
            if name in self.accepts
        )


def matching(wanted: Value, values: Iterable[Value]) -> list[Value]:
    """The values that a filter's value means: the equal one; else, for text, those that it matches as a pattern.

    A text that is itself a value is no pattern: the ``*`` of ``ce + 0.3*focal`` stands for itself.
    """
    known = list(values)
    same = [value for value in known if identity(value) == identity(wanted)]
    if same or not isinstance(wanted, str):
        return same
    return [value for value in known if isinstance(value, str) and fnmatch.fnmatchcase(value, wanted)]


@dataclass(frozen=True)
class Override:
    """Settings for the cells that a filter accepts; a value None takes a setting away, so that its default applies."""

    when: Filter
    settings: Mapping[str, Value]


@dataclass(frozen=True)
class Block:
    """All combinations of some groups, with what is fixed in each of them.

    Attributes:
        groups: the first is the slowest.
        fixed: settings that all its cells have.
        exclude: combinations that a filter accepts are left out; filters look at groups and fixed settings.
        overrides: later ones win over earlier ones and over fixed settings. They never touch a group's axes, so that
            two combinations never become one cell.
    """

    groups: tuple[Group, ...] = ()
    fixed: Mapping[str, Value] = field(default_factory=dict)
    exclude: tuple[Filter, ...] = ()
    overrides: tuple[Override, ...] = ()

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of its axes, slowest first."""
        return tuple(name for group in self.groups for name in group.names)

    def values(self, name: str) -> list[Value]:
        """The values that a setting has in its groups or as a fixed one; none for a setting that it does not have."""
        for group in self.groups:
            if name in group.names:
                return list(group.values(name))
        return [self.fixed[name]] if name in self.fixed else []

    def can_meet(self, chosen: Filter) -> bool:
        """Whether a filter accepts any combination, excluded ones too."""
        parts = [*((group.names, group.rows) for group in self.groups), self._fixed_part]
        named = {name for names, _ in parts for name in names}
        return set(chosen.accepts) <= named and all(
            any(chosen.allows(names, row) for row in rows) for names, rows in parts
        )

    @property
    def _fixed_part(self) -> tuple[tuple[str, ...], tuple[tuple[Value, ...], ...]]:
        return tuple(self.fixed), (tuple(self.fixed.values()),)

    @cached_property
    def _filters(self) -> list[Filter]:
        return [*self.exclude, *(override.when for override in self.overrides)]

    @cached_property
    def _always(self) -> int:
        """Bit k: the fixed settings are what filter k says about them, and it says nothing about unknown ones."""
        known = {*self.axes, *self.fixed}
        names, (row,) = self._fixed_part
        return _bits(set(each.accepts) <= known and each.allows(names, row) for each in self._filters)

    @cached_property
    def _masks(self) -> tuple[tuple[int, ...], ...]:
        """For each row of each group, bit k: the row is what filter k says about it."""
        return tuple(
            tuple(_bits(each.allows(group.names, row) for each in self._filters) for row in group.rows)
            for group in self.groups
        )

    @cached_property
    def _excluding(self) -> int:
        return (1 << len(self.exclude)) - 1

    def cells(self) -> Iterator[Cell]:
        """Its cells in order, in memory that depends on the lengths of the axes and not on their product."""
        names, always, excluding = self.axes, self._always, self._excluding
        rows = [
            list(zip(group.rows, masks, strict=True)) for group, masks in zip(self.groups, self._masks, strict=True)
        ]
        for combination in itertools.product(*rows):
            accepted = always
            values: tuple[Value, ...] = ()
            for row, mask in combination:
                accepted &= mask
                values += row
            if not accepted & excluding:
                yield self._cell(names, values, accepted)

    def _cell(self, names: tuple[str, ...], values: tuple[Value, ...], accepted: int) -> Cell:
        cell: Cell = {**self.fixed, **dict(zip(names, values, strict=True))}
        accepted >>= len(self.exclude)
        for override in self.overrides if accepted else ():
            if accepted & 1:
                cell.update(override.settings)
            accepted >>= 1
        return {name: value for name, value in cell.items() if value is not None} if None in cell.values() else cell

    @cached_property
    def _reach(self) -> dict[str, frozenset[Hashable] | None]:
        """The identities of the values that each setting has in its cells; None when an override may change it."""
        reach: dict[str, frozenset[Hashable] | None] = {
            name: frozenset(map(identity, self.values(name))) for name in (*self.axes, *self.fixed)
        }
        return reach | {name: None for override in self.overrides for name in override.settings}

    def may_share(self, other: Block) -> bool:
        """Whether a cell could be in both; false only when none is."""
        for one, two in ((self, other), (other, self)):
            for name in one.axes:
                here, there = one._reach[name], two._reach.get(name, frozenset())
                if here is not None and there is not None and here.isdisjoint(there):
                    return False
        return True

    def __contains__(self, cell: Cell) -> bool:
        """Whether it yields an equal cell; asks its axes and filters, not its cells."""
        accepted = self._always
        values: tuple[Value, ...] = ()
        for group, masks in zip(self.groups, self._masks, strict=True):
            if not cell.keys() >= set(group.names):
                return False
            at = group.index.get(identity(tuple(cell[name] for name in group.names)))
            if at is None:
                return False
            accepted &= masks[at]
            values += group.rows[at]
        if accepted & self._excluding:
            return False
        mine = self._cell(self.axes, values, accepted)
        return mine.keys() == cell.keys() and all(identity(mine[name]) == identity(cell[name]) for name in mine)


def _bits(flags: Iterable[bool]) -> int:
    return sum(1 << k for k, flag in enumerate(flags) if flag)


@dataclass(frozen=True)
class Matrix:
    """Blocks of cells, in order: the axes of an experiment, then one block for each addition."""

    blocks: tuple[Block, ...] = ()

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of all axes, as they first come."""
        return tuple(dict.fromkeys(name for block in self.blocks for name in block.axes))

    def cells(self) -> Iterator[Cell]:
        """Every cell once, in the same order each time."""
        for count, block in enumerate(self.blocks):
            earlier = [each for each in self.blocks[:count] if each.may_share(block)]
            for cell in block.cells():
                if not any(cell in each for each in earlier):
                    yield cell
