"""What a pool does, in plain lines: for a log, or where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from prove.launch.view import PoolView, RunView

EVERY_SECONDS = 60.0
"""Between two lines that say how far all is."""


class Lines:
    """Says each start, each end, and now and then how far all is.

    Args:
        say: takes a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._begun: dict[str, int] = {}
        self._summed = time.monotonic()

    def __call__(self, view: PoolView) -> None:
        for run in (*view.active, *view.ended):
            if self._begun.get(run.key) != run.attempt:
                self._begun[run.key] = run.attempt
                again = f", attempt {run.attempt}" if run.attempt > 1 else ""
                self._line(f"{run.key}  started on {run.slot}{again}")
        for run in view.ended:
            self._begun.pop(run.key, None)
            self._line(f"{run.key}  {_end(run)}")
        if time.monotonic() - self._summed >= EVERY_SECONDS:
            self._summed = time.monotonic()
            self._line(summary(view))

    def _line(self, text: str) -> None:
        self._say(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}")


def summary(view: PoolView) -> str:
    """How far all is, in a line."""
    parts = [f"{view.finished} finished", f"{len(view.active)} running", f"{view.queued} queued"]
    if view.failed:
        parts.append(f"{view.failed} failed")
    if view.eta_seconds is not None and not view.stopping:
        parts.append(f"about {duration(view.eta_seconds)} left")
    return ", ".join(parts) + (", stopping" if view.stopping else "")


def duration(seconds: float) -> str:
    """Such as ``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 5 h``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def _end(run: RunView) -> str:
    metric = "" if run.miou_percent is None else f", mIoU {run.miou_percent:.2f}"
    text = f"{run.state} at iteration {run.iteration}{metric}"
    return f"{text}: {run.message}" if run.message else text
