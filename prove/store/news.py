"""What a run's new events bring about, gathered before anything of it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prove.store.fold import Event, Progress, advance, count, optional, real, text
from prove.store.rows import Attempt


@dataclass
class News:
    """What a run's new events say, before it is written; the writing undoes what a new attempt made void."""

    progress: Progress
    attempts: dict[int, Attempt]
    curves: dict[tuple[str, int], str] = field(default_factory=dict)
    results: dict[tuple[str, str, str, str], float | None] = field(default_factory=dict)
    evidence: str | None = None
    restarted_from: int | None = None
    events: int = 0

    def take(self, event: Event) -> None:
        """Add one event.

        Raises:
            One of `MALFORMED`: it is not of the format; nothing was taken.
        """
        progress = advance(self.progress, event)
        kind, number = str(event["kind"]), int(event["attempt"])
        attempt = _attempt(self.attempts.get(number) or Attempt(number), event, progress)
        # The whole event is read before anything of it is kept.
        evidence = json.dumps(event["evidence"]) if kind == "wired" else None
        results = dict(_results(event)) if kind == "finished" else {}
        if kind == "started" or number > self.progress.attempts:
            self._restart(progress.iteration)
        if kind in ("train", "validated"):
            self.curves["train" if kind == "train" else "val", event["iteration"]] = _curve(event)
        elif kind == "wired":
            self.evidence = evidence
        elif kind == "finished":
            self.results = results
        self.progress = progress
        self.attempts[number] = attempt
        self.events += 1

    def _restart(self, iteration: int) -> None:
        self.curves = {place: payload for place, payload in self.curves.items() if place[1] <= iteration}
        self.results = {}
        if iteration == 0:
            self.evidence = None
        self.restarted_from = iteration if self.restarted_from is None else min(iteration, self.restarted_from)


def _attempt(attempt: Attempt, event: Event, progress: Progress) -> Attempt:
    kind, at = str(event["kind"]), real(event["time"])
    changes: dict[str, Any] = {"seen_at": max(at, attempt.seen_at), "ended_at": None, "ending": None, "reason": None}
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


def _named(event: Event, name: str) -> str | None:
    return None if event.get(name) is None else text(event[name])


def _curve(event: Event) -> str:
    # Per-class numbers of every validation stay in the run folder: they would be most of the database.
    dropped = ("kind", "time", "attempt", "iteration", "classes")
    return json.dumps({name: value for name, value in event.items() if name not in dropped}, separators=(",", ":"))


def _results(event: Event) -> Iterator[tuple[tuple[str, str, str, str], float | None]]:
    for checkpoint in ("last", "best"):
        report: Mapping[str, Any] = event[checkpoint] or {}
        for metric, value in report.get("metrics", {}).items():
            yield (checkpoint, "overall", "", text(metric)), optional(value)
        for scope, names in (("condition", report.get("conditions") or {}), ("class", report.get("classes") or {})):
            for name, metrics in names.items():
                for metric, value in metrics.items():
                    yield (checkpoint, scope, text(name), text(metric)), optional(value)
