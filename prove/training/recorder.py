"""The worker's only voice: events appended to ``events.jsonl``."""

from __future__ import annotations

import json
import os
import time
from types import TracebackType
from typing import Any

from prove.rundir import RunDir
from prove.spec.event import encode

_MILESTONES = {"checkpoint", "finished", "failed", "interrupted"}


class Recorder:
    """Appends the events of one attempt: handed to the system when `emit` returns, milestones on the disk."""

    def __init__(self, run: RunDir) -> None:
        self.attempt = 1 + _attempts(run)
        self._file = open(run.events, "ab")  # noqa: SIM115 - closed by __exit__
        if self._file.tell() and _last_byte(run) != b"\n":
            self._file.write(b"\n")  # the previous worker was killed inside a line

    def emit(self, kind: str, **fields: Any) -> None:
        self._file.write(encode({"kind": kind, "time": time.time(), "attempt": self.attempt, **fields}))
        self._file.flush()
        if kind in _MILESTONES:
            os.fsync(self._file.fileno())

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _attempts(run: RunDir) -> int:
    if not run.events.exists():
        return 0
    count = 0
    with open(run.events, "rb") as file:
        for line in file:
            try:
                count += json.loads(line).get("kind") == "started"
            except ValueError:
                continue  # a line that a kill cut short; the store reports it
    return count


def _last_byte(run: RunDir) -> bytes:
    with open(run.events, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
