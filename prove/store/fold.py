"""From a run's events to its state: a pure fold, so that any split of the same bytes ends in the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from math import isfinite
from typing import Any

from prove.spec.event import FailureKind, State

Event = Mapping[str, Any]

LOST = "The worker ended without a word: it was killed, or its machine went down."

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What a line that is not an event of this PROVE raises."""

TERMINAL = (State.FINISHED, State.FAILED, State.CANCELLED)
"""States that only a new attempt leads out of, or an end that the events tell themselves."""


@dataclass(frozen=True)
class Progress:
    """What the events so far say about a run.

    Attributes:
        iteration: the furthest iteration of the newest attempt.
        attempts: the highest attempt number seen, 0 before the first.
        updated_at: time of the newest event, seconds since 1970; None before the first.
        started_at: start of the first attempt.
        metrics: of the last checkpoint, in percent; empty until the run is finished.
        val_mIoU: mIoU of the latest validation, in percent; what a running run can show.
        best_mIoU: mIoU of the best checkpoint, in percent.
        peak_memory_mib: most memory on the device; of the last attempt that finished, since the job's need stays.
    """

    state: State = State.PLANNED
    failure: FailureKind | None = None
    message: str = ""
    advice: str = ""
    iteration: int = 0
    attempts: int = 0
    updated_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    val_mIoU: float | None = None  # noqa: N815 - the metric's name
    best_mIoU: float | None = None  # noqa: N815
    best_iteration: int | None = None
    train_seconds: float | None = None
    peak_memory_mib: float | None = None


def advance(progress: Progress, event: Event) -> Progress:
    """The progress after one more event.

    A new attempt sets a run running again, also one whose ``started`` is missing: what it says counts, and it may have
    failed before it could say more. ``finished`` wins over whatever was concluded before, and nothing but a new
    attempt changes it.

    Raises:
        One of `MALFORMED`: the event is not of the format in `prove.spec.event`.
    """
    attempt, at = count(event["attempt"]), real(event["time"])
    if attempt > progress.attempts and event["kind"] != "started":
        progress = replace(progress, **_AGAIN)
    return replace(
        progress,
        attempts=max(progress.attempts, attempt),
        updated_at=at if progress.updated_at is None else max(at, progress.updated_at),
        **_changes(progress, event),
    )


_AGAIN: dict[str, Any] = {
    "state": State.RUNNING,
    "failure": None,
    "message": "",
    "advice": "",
    "finished_at": None,
    "metrics": {},
    "train_seconds": None,
}
"""What any new attempt sets, from wherever it goes on."""


def _changes(progress: Progress, event: Event) -> dict[str, Any]:
    kind = event["kind"]
    match kind:
        case "started":
            return _started(progress, event)
        case "finished":
            return _finished(event)
        case "failed" if progress.state is State.FINISHED:
            return {}
        case "failed":
            failure = FailureKind(event["failure"])
            return {
                "state": State.FAILED,
                "failure": failure,
                "message": text(event["message"]),
                "advice": text(event.get("advice") or failure.advice),
                "iteration": _reached(progress, event.get("iteration")),
                "finished_at": real(event["time"]),
            }
        case "interrupted" | "environment" | "wired" | "train" | "grads" | "validated" | "best" | "checkpoint" if (
            progress.state in TERMINAL
        ):
            return {}
        case "interrupted":
            reached = _reached(progress, event.get("iteration"))
            return {"state": State.INTERRUPTED, "message": text(event["reason"]), "iteration": reached}
        case "environment" | "wired":
            return {"state": State.RUNNING, "message": ""}
        case "train" | "grads" | "validated" | "best" | "checkpoint":
            reached = _reached(progress, event["iteration"])
            return {"state": State.RUNNING, "message": "", "iteration": reached, **_measured(kind, event)}
    raise ValueError(f"unknown kind of event {kind!r}")


def _started(progress: Progress, event: Event) -> dict[str, Any]:
    resumed_from = count(event.get("resumed_from") or 0)
    gone = {"val_mIoU": None, "best_mIoU": None, "best_iteration": None} if resumed_from == 0 else {}
    return {
        **_AGAIN,
        "iteration": resumed_from,
        "started_at": real(event["time"]) if progress.started_at is None else progress.started_at,
        **gone,
    }


def _measured(kind: str, event: Event) -> dict[str, Any]:
    if kind == "validated":
        return {"val_mIoU": optional(event["metrics"].get("mIoU"))}
    if kind == "best":
        value = optional(event["value"]) if event["monitor"] == "mIoU" else None
        return {"best_iteration": count(event["iteration"]), "best_mIoU": value}
    return {}


def _finished(event: Event) -> dict[str, Any]:
    best = event["best"] or {"iteration": None, "metrics": {}}
    metrics = {text(name): optional(value) for name, value in event["last"]["metrics"].items()}
    return {
        "state": State.FINISHED,
        "failure": None,
        "message": text(event["reason"]),
        "advice": "",
        "iteration": count(event["iteration"]),
        "finished_at": real(event["time"]),
        "metrics": metrics,
        "val_mIoU": metrics.get("mIoU"),
        "best_mIoU": optional(best["metrics"].get("mIoU")),
        "best_iteration": None if best["iteration"] is None else count(best["iteration"]),
        "train_seconds": optional(event["train_seconds"]),
        "peak_memory_mib": optional(event.get("peak_memory_mib")),
    }


def settle(progress: Progress, alive: bool | None) -> Progress:
    """The progress in the light of whether a worker lives (None: it can't be known from here).

    A running run without a worker is interrupted; nothing is ever concluded to be finished.
    """
    if progress.state is State.RUNNING and alive is False:
        return replace(progress, state=State.INTERRUPTED, message=LOST)
    return progress


def derive_state(events: Iterable[Event], alive: bool | None = None) -> State:
    """The state of a run from all its events and from whether a worker lives."""
    return settle(reduce(advance, events, Progress()), alive).state


def _reached(progress: Progress, iteration: object) -> int:
    return progress.iteration if iteration is None else max(progress.iteration, count(iteration))


def count(value: object) -> int:
    """A whole number that fits a column; ValueError otherwise."""
    if type(value) is int and 0 <= value < 2**31:  # a bool is not one
        return value
    raise ValueError(f"{value!r} is not a whole number")


def real(value: Any) -> float:
    """A number; ValueError otherwise, also for those that JSON has no name for."""
    if type(value) in (float, int) and isfinite(value):
        return float(value)
    raise ValueError(f"{value!r} is not a number")


def optional(value: object) -> float | None:
    """A number or nothing."""
    return None if value is None else real(value)


def text(value: object) -> str:
    """A text that a database can hold: JSON's escapes can spell half a character, or a NUL, which it can't."""
    written = str(value)
    if written.isascii() and "\0" not in written:
        return written
    return written.replace("\0", "").encode("utf-8", "replace").decode()
