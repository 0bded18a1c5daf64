"""What the end of a worker means for its run."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from prove.spec.event import FailureKind


class Verdict(StrEnum):
    """What is next for a run whose worker is gone."""

    FINISHED = "finished"
    FAILED = "failed"
    NOT_STARTED = "not_started"
    STOPPED = "stopped"
    HELD = "held"
    AGAIN = "again"
    AGAIN_ALONE = "again_alone"


@dataclass(frozen=True)
class End:
    """How an attempt ended.

    Attributes:
        ending: its last event, if that is one that ends an attempt.
        status: the worker's exit code, -n for signal n.
        said: what it wrote before it had a log.
        spoke: whether it reported anything.
        stopped: whether this pool had told it to stop.
        held: whether another process holds the run folder now.
        gone: whether the run folder was deleted under it.
        shared: whether it shared its GPU, and has not been tried alone.
        starts: how often the run was started here.
        max_attempts: how often it may be.
    """

    ending: Mapping[str, Any] | None
    status: int
    said: str = ""
    spoke: bool = True
    stopped: bool = False
    held: bool = False
    gone: bool = False
    shared: bool = False
    starts: int = 1
    max_attempts: int = 1


def judge(end: End) -> tuple[Verdict, str]:
    """What is next for a run, and why. What its events say counts first; nothing is guessed as finished."""
    kind = end.ending["kind"] if end.ending else None
    if end.ending and kind == "finished":
        return Verdict.FINISHED, ""
    if end.ending and kind == "failed":
        failure = end.ending.get("failure")
        why = f"{failure}: {end.ending.get('message', '')}"
        if failure == FailureKind.OUT_OF_MEMORY and end.shared:
            return Verdict.AGAIN_ALONE, f"{why} (it shared its GPU: it is tried again alone)"
        return Verdict.FAILED, why
    if end.stopped:
        return Verdict.STOPPED, ""
    if end.status == 2 and not end.spoke and not end.gone:
        return (Verdict.HELD, end.said) if end.held else (Verdict.NOT_STARTED, end.said or "it said nothing")
    why = _cut_short(end)
    if end.starts < end.max_attempts:
        return Verdict.AGAIN, why
    times = "once" if end.starts == 1 else f"{end.starts} times"
    return Verdict.FAILED, f"{FailureKind.KILLED}: {why}; it was started {times}"


def _cut_short(end: End) -> str:
    if end.ending:
        return str(end.ending.get("reason", "interrupted"))
    if end.status < 0:
        how = f"its worker was killed by {signal.Signals(-end.status).name}"
    else:
        how = f"its worker ended with code {end.status} and did not say how its run ended"
    last = end.said.splitlines()[-1:]
    return f"{how} ({last[0]})" if last else how
