"""What a run has reported so far, read while it is written."""

from __future__ import annotations

from typing import Any

from prove.launch.worker import read_events
from prove.rundir import RunDir

ENDINGS = ("finished", "failed", "interrupted")
"""Kinds of events with which an attempt ends."""


class Trail:
    """Follows the events of a run folder.

    Attributes:
        attempts: how many attempts have said so.
        ending: the event with which the latest attempt ended; None while it runs, or when it was cut short.
        iteration, max_iters: how far it is.
        loss, miou_percent: latest reported; None before.
        seconds_per_iteration: latest reported.
        peak_memory_mib: latest reported.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._position = 0
        self.attempts = 0
        self.ending: dict[str, Any] | None = None
        self.iteration = 0
        self.max_iters = 0
        self.loss: float | None = None
        self.miou_percent: float | None = None
        self.seconds_per_iteration: float | None = None
        self.peak_memory_mib: float | None = None
        self.read()

    @property
    def finished(self) -> bool:
        return self.ending is not None and self.ending["kind"] == "finished"

    @property
    def failed(self) -> bool:
        return self.ending is not None and self.ending["kind"] == "failed"

    def expect(self) -> None:
        """A new attempt is about to start: how earlier ones ended is past, and the file may be a new one."""
        self.ending = None
        if not self._run.events.exists():
            self._position = 0

    def read(self) -> None:
        """Take in what is new; a folder that can't be read has said nothing."""
        try:
            events, self._position = read_events(self._run, self._position)
        except OSError:
            return
        for event in events:
            self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["kind"]
        self.iteration = event.get("iteration", self.iteration)
        if kind == "started":
            self.attempts += 1
            self.ending = None
            self.iteration = event.get("resumed_from", 0)
            self.max_iters = event.get("max_iters", self.max_iters)
        elif kind == "train":
            self.loss = event.get("loss")
            self.seconds_per_iteration = event.get("seconds_per_iteration")
            self.peak_memory_mib = event.get("peak_memory_mib")
        elif kind == "validated":
            self.miou_percent = event.get("metrics", {}).get("mIoU")
        elif kind in ENDINGS:
            self.ending = event
        if kind == "finished":
            self.miou_percent = (event.get("last") or {}).get("metrics", {}).get("mIoU", self.miou_percent)
