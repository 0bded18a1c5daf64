"""The runs of a pool that have no slot now, in the order in which they get one."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from prove.launch.folder import Assignment
from prove.launch.view import kind_of


@dataclass
class Entry:
    """A run on its way through the pool.

    Attributes:
        starts: how often it was started here.
        pardoned: how many of these don't count, since it was not to blame.
        unwritten: how often its folder could not be written.
        alone: whether it gets a GPU for itself: beside others it ran out of memory.
    """

    assignment: Assignment
    starts: int = 0
    pardoned: int = 0
    unwritten: int = 0
    alone: bool = False

    @property
    def key(self) -> str:
        return self.assignment.key

    @property
    def max_iters(self) -> int:
        return int(self.assignment.job["train"]["max_iters"])

    @cached_property
    def kind(self) -> str:
        return kind_of(self.assignment.job)


class Waiting:
    """A line of runs; some have to wait for a moment before they may stand in it.

    Attributes:
        iterations: those of all that wait, by kind of run.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._line: deque[Entry] = deque()
        self._later: list[tuple[float, int, Entry]] = []
        self._order = itertools.count()
        self.iterations: Counter[str] = Counter()
        for entry in entries:
            self.put(entry)

    def __len__(self) -> int:
        return len(self._line) + len(self._later)

    def put(self, entry: Entry, after: float = 0.0) -> None:
        """Behind the others, in so many seconds."""
        self.iterations[entry.kind] += entry.max_iters
        if after > 0:
            heapq.heappush(self._later, (time.monotonic() + after, next(self._order), entry))
        else:
            self._line.append(entry)

    def first(self) -> Entry | None:
        """Who is next; stays where it is."""
        while self._later and self._later[0][0] <= time.monotonic():
            self._line.append(heapq.heappop(self._later)[2])
        return self._line[0] if self._line else None

    def take(self) -> Entry:
        """Who is next, who leaves the line."""
        entry = self._line.popleft()
        self.iterations[entry.kind] -= entry.max_iters
        return entry

    def drop(self, keys: Iterable[str]) -> list[str]:
        """Send these away; returns those that were here."""
        unwanted = set(keys)
        if not unwanted:
            return []
        everyone = [(0.0, 0, entry) for entry in self._line] + self._later
        gone = [entry for _, _, entry in everyone if entry.key in unwanted]
        if gone:
            self._line = deque(entry for entry in self._line if entry.key not in unwanted)
            self._later = [each for each in self._later if each[2].key not in unwanted]
            heapq.heapify(self._later)
            for entry in gone:
                self.iterations[entry.kind] -= entry.max_iters
        return [entry.key for entry in gone]

    def keys(self) -> list[str]:
        """Of all that wait."""
        return [entry.key for entry in (*self._line, *(entry for _, _, entry in self._later))]
