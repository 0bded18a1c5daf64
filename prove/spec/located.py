"""Values with the place where a user wrote them: what an error about them points at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prove.errors import ProveError, nearest


@dataclass(frozen=True)
class Place:
    """Where something stands; line and column count from 1."""

    file: Path
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def error(self, message: str, hint: str = "") -> ProveError:
        """An error that points here."""
        return ProveError(f"{self}: {message}", hint=hint)


@dataclass(frozen=True)
class Node:
    """A value of a file and where it stands.

    Attributes:
        value: what it is: a plain scalar, a list of nodes, or a mapping of text to nodes.
        at: where it starts.
        key_at: where its key starts, when it is a mapping's value.
        written: how a scalar without quotes is written in the file; None for everything else.
    """

    value: Any
    at: Place
    key_at: Place | None = None
    written: str | None = field(default=None, compare=False)

    def error(self, message: str, hint: str = "") -> ProveError:
        """An error that points at the value."""
        return self.at.error(message, hint)

    def key_error(self, message: str, hint: str = "") -> ProveError:
        """An error that points at the key."""
        return (self.key_at or self.at).error(message, hint)

    def plain(self) -> Any:
        """The value with plain lists and dicts inside."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def mapping(self, what: str, example: str) -> dict[str, Node]:
        """The items of a mapping.

        Raises:
            ProveError: it is none.
        """
        if not isinstance(self.value, dict):
            raise self.error(f"{what} must be a mapping, not {kind_of(self.value)}.", f"Write {example}.")
        return self.value

    def entries(self, what: str, example: str) -> list[Node]:
        """The items of a list.

        Raises:
            ProveError: it is none.
        """
        if not isinstance(self.value, list):
            raise self.error(f"{what} must be a list, not {kind_of(self.value)}.", f"Write {example}.")
        return self.value

    def text(self, what: str) -> str:
        """Text with something in it.

        Raises:
            ProveError: it is none; says so when YAML takes for a number what looks like text.
        """
        if isinstance(self.value, str) and self.value.strip():
            return self.value
        hint = f'Put it in quotes: "{self.written}".' if self.written else ""
        raise self.error(f"{what} must be text, not {kind_of(self.value)}.", hint)

    def only(self, valid: tuple[str, ...], what: str, example: str) -> dict[str, Node]:
        """The items of a mapping that has no keys but these.

        Raises:
            ProveError: it is no mapping, or a key is another; names the nearest.
        """
        items = self.mapping(what, example)
        for key, node in items.items():
            if key not in valid:
                close = nearest(key, valid)
                meant = f"Did you mean {close[0]!r}? " if close else ""
                raise node.key_error(f"Unknown key {key!r} in {what}.", f"{meant}Valid: {', '.join(valid)}.")
        return items


@dataclass(frozen=True)
class Section(Mapping[str, Any]):
    """A part of a file that others give a meaning to: plain values by key, and where each stands."""

    values_by_key: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, items: Mapping[str, Node]) -> Section:
        """The section of a mapping's items."""
        return cls({key: node.plain() for key, node in items.items()}, {key: node.at for key, node in items.items()})

    def __getitem__(self, key: str) -> Any:
        return self.values_by_key[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_key)

    def __len__(self) -> int:
        return len(self.values_by_key)

    def error(self, key: str, message: str, hint: str = "") -> ProveError:
        """An error about a key's value; it names the place when the value comes from a file."""
        place = self.places.get(key)
        return place.error(message, hint) if place else ProveError(message, hint=hint)


def kind_of(value: Any) -> str:
    """What a value is, for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"{value!r}" if value else "an empty text"
    return "a list" if isinstance(value, list | tuple) else "a mapping"
