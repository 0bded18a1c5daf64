"""The worker's only voice: events appended to ``events.jsonl``."""

from __future__ import annotations

import json
import os
import time
from types import TracebackType
from typing import Any

from prove.errors import ProveError
from prove.rundir import RunDir
from prove.spec.event import encode
from prove.spec.narrate import line

_MILESTONES = {"checkpoint", "finished", "failed", "interrupted"}


class Recorder:
    """Appends the events of one attempt: handed to the system when `emit` returns, milestones on the disk.

    What happens is said in plain lines on stdout too, which is the run's log.

    Attributes:
        attempt: number of this attempt, from 1.
        validated: iterations whose validation earlier attempts have reported.
    """

    def __init__(self, run: RunDir) -> None:
        earlier = _events(run)
        self._key = run.key
        self.attempt = 1 + sum(event.get("kind") == "started" for event in earlier)
        self.validated = {event.get("iteration") for event in earlier if event.get("kind") == "validated"}
        self._max_iters = 0
        self._file = open(run.events, "ab")  # noqa: SIM115 - closed by __exit__
        if self._file.tell() and _last_byte(run) != b"\n":
            self._file.write(b"\n")  # the previous worker was killed inside a line

    def emit(self, kind: str, **fields: Any) -> None:
        """Report an event.

        Raises:
            ProveError: the file was deleted: nobody would read it, and another worker may have begun anew.
        """
        if os.fstat(self._file.fileno()).st_nlink == 0:
            raise ProveError(f"The folder of run {self._key} was deleted while it was trained.")
        event = {"kind": kind, "time": time.time(), "attempt": self.attempt, **fields}
        self._file.write(encode(event))
        self._file.flush()
        self._max_iters = fields.get("max_iters", self._max_iters)
        if said := line(event, self._max_iters):
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {said}", flush=True)
        if kind in _MILESTONES:
            os.fsync(self._file.fileno())

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _events(run: RunDir) -> list[dict[str, Any]]:
    """What earlier attempts reported."""
    if not run.events.exists():
        return []
    events = []
    with open(run.events, "rb") as file:
        for line_ in file:
            try:
                event = json.loads(line_)
            except ValueError:
                continue  # a line that a kill cut short; the store reports it
            if isinstance(event, dict):
                events.append(event)
    return events


def _last_byte(run: RunDir) -> bytes:
    with open(run.events, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
