"""A named collection of frozen entries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from prove.errors import unknown


class Named(Protocol):
    """What can be registered."""

    @property
    def name(self) -> str: ...


EntryT = TypeVar("EntryT", bound=Named)


class Registry(Generic[EntryT]):
    """Entries by name, in the order they were added.

    Args:
        kind: what an entry is, for error messages: "model", "dataset".
    """

    def __init__(self, kind: str, entries: tuple[EntryT, ...] = ()) -> None:
        self.kind = kind
        self._entries: dict[str, EntryT] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: EntryT) -> EntryT:
        if entry.name in self._entries:
            raise ValueError(f"{self.kind} {entry.name!r} is registered already")
        self._entries[entry.name] = entry
        return entry

    def get(self, name: str, *, where: str = "") -> EntryT:
        """The entry of that name.

        Raises:
            ProveError: no such entry; the message names the nearest ones.
        """
        try:
            return self._entries[name]
        except KeyError:
            raise unknown(self.kind, name, self._entries, where=where) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[EntryT]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)
