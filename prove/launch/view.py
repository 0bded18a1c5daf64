"""What a pool of runs shows while it works, and what it has to say in the end."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunView:
    """One run, as it is now.

    Attributes:
        state: ``starting`` (it has said nothing yet), ``running``, ``stopping``; of one that has ended ``finished``,
            ``failed``, ``interrupted``, ``cancelled``, or ``queued`` when it will be started again.
        slot: name of the slot that it has or had.
        attempt: how often this pool has started it.
        loss, miou_percent, seconds_per_iteration: latest reported; None before.
        started_at: when this attempt began, seconds since 1970.
        message: why it ended as it did.
    """

    key: str
    state: str
    slot: str
    attempt: int
    iteration: int
    max_iters: int
    loss: float | None
    miou_percent: float | None
    seconds_per_iteration: float | None
    started_at: float
    message: str = ""


@dataclass(frozen=True)
class PoolView:
    """A pool, as it is now.

    Attributes:
        active: the runs that have a slot.
        ended: the runs whose attempt has ended since the last view.
        queued: runs that wait for a slot.
        finished, failed: runs so far; a run that could not be started counts as failed.
        eta_seconds: until all is done, from what was measured here; None while nothing was.
        stopping: whether the pool was told to stop.
    """

    active: tuple[RunView, ...]
    ended: tuple[RunView, ...]
    queued: int
    finished: int
    failed: int
    eta_seconds: float | None
    stopping: bool


@dataclass(frozen=True)
class PoolOutcome:
    """What became of the runs of a pool; every one is in exactly one place.

    Attributes:
        finished: keys.
        failed: why, by key: their events say so, or they were killed as often as they may be started.
        not_started: why, by key: what the worker said before its first event, or why its folder can't be written.
        cancelled: keys of the runs that were called off.
        interrupted: keys of the runs that were stopped, or not reached, because the pool was stopped.
        signal: what stopped the pool: the name of a signal, or a pause of its own; empty if nothing did.
    """

    finished: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    not_started: Mapping[str, str] = field(default_factory=dict)
    cancelled: tuple[str, ...] = ()
    interrupted: tuple[str, ...] = ()
    signal: str = ""

    @property
    def exit_code(self) -> int:
        """0 all is done, 1 a run failed, 130 it was stopped."""
        return 130 if self.interrupted else 1 if self.failed or self.not_started else 0


def kind_of(job: Mapping[str, Any]) -> str:
    """What the speed and the memory of a run depend on most: runs of one kind differ in seed, loss or length."""
    train = job.get("train", {})
    parts = [job.get("dataset"), job.get("model"), train.get("batch_size"), train.get("crop_size"), train.get("amp")]
    return json.dumps(parts, sort_keys=True)


class Pace:
    """How long runs take here, by their kind, and so how long the queue will."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._iterations: Counter[str] = Counter()

    def measured(self, kind: str, seconds: float, iterations: int) -> None:
        """Take in an attempt: its wall time from start to end, and the iterations that it did."""
        self._seconds[kind] += seconds
        self._iterations[kind] += iterations

    def eta(
        self, active: Iterable[tuple[str, int, float | None]], queued: Mapping[str, int], slots: int
    ) -> float | None:
        """Seconds until all is done; None while nothing was measured.

        Args:
            active: of each run that has a slot its kind, the iterations that it has left and its seconds per iteration.
            queued: iterations of the runs that wait, by kind.
            slots: how many runs go on at a time.
        """
        active = list(active)
        speeds: defaultdict[str, list[float]] = defaultdict(list)
        for kind, _, seconds in active:
            if seconds is not None:
                speeds[kind].append(seconds)
        rates = {kind: sum(found) / len(found) for kind, found in speeds.items()}
        rates |= {kind: self._seconds[kind] / count for kind, count in self._iterations.items() if count}
        if not rates:
            return None
        usual = sum(rates.values()) / len(rates)
        rest = [left * (seconds if seconds is not None else rates.get(kind, usual)) for kind, left, seconds in active]
        waiting = sum(rates.get(kind, usual) * iterations for kind, iterations in queued.items())
        return max([(sum(rest) + waiting) / max(1, slots), *rest])
