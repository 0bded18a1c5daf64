"""What a run's new events bring about, gathered before anything of it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prove.spec.event import State
from prove.store.fold import TERMINAL, Event, Progress, advance, count, optional, real, text
from prove.store.rows import Attempt

_decode = json.JSONDecoder().raw_decode

_dump = json.JSONEncoder(separators=(",", ":")).encode

_TRAIN = re.compile(r'\{"kind":"train","time":[-+.\deE]+,"attempt":\d+,"iteration":\d+,')
"""How the recorder begins a report of training; what follows is what the curve keeps."""

_SPLITS = {"train": "train", "validated": "val", "grads": "grads"}
"""The split of `curves` that events of a kind are points of."""

_NOT_IN_CURVES = ("kind", "time", "attempt", "iteration", "classes")
"""Per-class numbers of every validation stay in the run folder: they would be most of the database."""


@dataclass
class News:
    """What a run's new events say, before it is written; the writing undoes what a new attempt made void.

    Nearly all events report a step of training within an attempt that is known to run. These only move a time and an
    iteration forward, which is done once for a row of them: `fold.advance` says the same of each.

    Attributes:
        progress, attempts: as far as `catch_up` has brought them.
        touched: numbers of the attempts that the events changed.
        eventful: whether there was anything but such reports.
    """

    progress: Progress
    attempts: dict[int, Attempt]
    touched: set[int] = field(default_factory=set)
    curves: dict[tuple[str, int], str] = field(default_factory=dict)
    results: dict[tuple[str, str, str, str], float | None] = field(default_factory=dict)
    evidence: str | None = None
    environment: str | None = None
    restarted_from: int | None = None
    events: int = 0
    eventful: bool = False
    _running: int | None = None
    """The attempt of which reports of training are expected; None where they would change more than time and place."""
    _last: tuple[float, int] | None = None
    """Latest time and furthest iteration of such reports that `progress` does not know of yet."""

    def __post_init__(self) -> None:
        self._running = self._known_to_run()

    def take(self, line: bytes) -> None:
        """Add the event of a line.

        Raises:
            One of `MALFORMED`: it is not of the format; nothing was taken.
        """
        event, written = _parsed(line)
        number = event["attempt"]
        if number == self._running and event["kind"] == "train" and type(number) is int:
            at, iteration = real(event["time"]), count(event["iteration"])
            latest, furthest = self._last or (at, iteration)
            self.curves["train", iteration] = _curve(event, written)
            self._last = max(at, latest), max(iteration, furthest)
        else:
            self.catch_up()
            self._take(event, written)
            self.eventful = True
            self._running = self._known_to_run()
        self.events += 1

    def catch_up(self) -> None:
        """Bring `progress` and `attempts` up to the last event."""
        if self._last is None or self._running is None:
            return
        (at, iteration), attempt, before = self._last, self.attempts[self._running], self.progress.updated_at
        reached = {
            "iteration": max(iteration, self.progress.iteration),
            "updated_at": at if before is None else max(at, before),
        }
        # Not `replace`, which takes three times as long, once for each run that is followed.
        self.progress = Progress(**vars(self.progress) | reached)
        reached = {"iteration": max(iteration, attempt.iteration or 0), "seen_at": max(at, attempt.seen_at)}
        self.attempts[attempt.number] = Attempt(**vars(attempt) | reached)
        self.touched.add(attempt.number)
        self._last = None

    def _known_to_run(self) -> int | None:
        attempt = self.attempts.get(self.progress.attempts)
        runs = self.progress.state is State.RUNNING and not self.progress.message
        return attempt.number if runs and attempt is not None and attempt.ending is None else None

    def _take(self, event: Event, written: str) -> None:
        progress = advance(self.progress, event)
        kind, number = str(event["kind"]), int(event["attempt"])
        attempt = _attempt(self.attempts.get(number) or Attempt(number), event, progress)
        # The whole event is read before anything of it is kept.
        evidence = json.dumps(event["evidence"]) if kind == "wired" else None
        environment = flat(event["environment"]) if kind == "environment" else None
        results = dict(_results(event)) if kind == "finished" else {}
        curve = (count(event["iteration"]), _curve(event, written)) if kind in _SPLITS else None
        if kind == "started" or number > self.progress.attempts:
            self._restart(progress.iteration)
        if curve is not None:
            self.curves[_SPLITS[kind], curve[0]] = curve[1]
        elif kind == "wired":
            self.evidence = evidence
        elif kind == "environment":
            self.environment = environment
        elif kind == "finished":
            self.results = results
        self.progress = progress
        self.attempts[number] = attempt
        self.touched.add(number)

    def _restart(self, iteration: int) -> None:
        self.curves = {place: payload for place, payload in self.curves.items() if place[1] <= iteration}
        self.results = {}
        if iteration == 0:
            self.evidence = self.environment = None
        self.restarted_from = iteration if self.restarted_from is None else min(iteration, self.restarted_from)


def _parsed(line: bytes) -> tuple[Any, str]:
    """What a line holds, and its text; the text is empty unless it is plain ASCII, as the recorder writes it."""
    if not line.isascii():
        return json.loads(line), ""
    written = line.decode("ascii")
    event, end = _decode(written)
    return (event, written) if end == len(written) else (json.loads(written), "")


def _attempt(attempt: Attempt, event: Event, progress: Progress) -> Attempt:
    kind, at = str(event["kind"]), real(event["time"])
    changes: dict[str, Any] = {"seen_at": max(at, attempt.seen_at)}
    if kind == "started" or progress.state not in TERMINAL:  # what comes late does not open it again
        changes |= {"ended_at": None, "ending": None, "reason": None}
    if kind == "started":
        changes |= {
            "host": _named(event, "host"),
            "pid": None if event.get("pid") is None else count(event["pid"]),
            "launcher": _named(event, "launcher"),
            "device": _named(event, "device"),
            "resumed_from": progress.iteration,
            "iteration": progress.iteration,
            "started_at": at,
        }
    elif event.get("iteration") is not None:
        changes["iteration"] = max(count(event["iteration"]), attempt.iteration or 0)
    if kind in ("finished", "failed", "interrupted"):
        reason = event["message"] if kind == "failed" else event["reason"]
        changes |= {"ended_at": at, "ending": kind, "reason": text(reason)}
    return replace(attempt, **changes)


def flat(environment: Mapping[str, Any]) -> str:
    """What a run was trained on as JSON: equal facts, equal text."""
    return json.dumps(dict(environment), separators=(",", ":"), sort_keys=True)


def _named(event: Event, name: str) -> str | None:
    return None if event.get(name) is None else text(event[name])


def _curve(event: Event, written: str) -> str:
    """What a curve keeps of an event, as JSON; as it was written where that is the same."""
    start = _TRAIN.match(written)
    if start is not None and "classes" not in event:
        return "{" + written[start.end() :]
    return _dump({name: value for name, value in event.items() if name not in _NOT_IN_CURVES})


def _results(event: Event) -> Iterator[tuple[tuple[str, str, str, str], float | None]]:
    for checkpoint in ("last", "best"):
        report: Mapping[str, Any] = event[checkpoint] or {}
        for metric, value in report.get("metrics", {}).items():
            yield (checkpoint, "overall", "", text(metric)), optional(value)
        for scope, names in (("condition", report.get("conditions") or {}), ("class", report.get("classes") or {})):
            for name, metrics in names.items():
                for metric, value in metrics.items():
                    yield (checkpoint, scope, text(name), text(metric)), optional(value)
