"""What a pool leaves word of: runs that could not start or died too often, and have not said so themselves."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from prove.rundir import write_json
from prove.spec.event import FailureKind


class Outcomes:
    """Keeps one file of `prove.launch.folder.LaunchDir.outcome`; an earlier process of the task may have begun it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, str]] = read_outcomes(path)
        self._changed = False

    def add(self, key: str, kind: FailureKind, message: str) -> None:
        """A run has failed."""
        self._known[key] = {"kind": kind.value, "message": message}
        self._changed = True

    def drop(self, key: str) -> None:
        """A run is started again."""
        self._changed |= self._known.pop(key, None) is not None

    def save(self) -> None:
        """Write what has changed; where that can't be done, the next time tries again."""
        if not self._changed:
            return
        with suppress(OSError):  # the folder may be gone, or the disk full
            self._path.parent.mkdir(exist_ok=True)
            write_json(self._path, self._known, lasting=False)
            self._changed = False


def read_outcomes(path: Path) -> dict[str, dict[str, str]]:
    """What is in such a file; nothing where it is not there or can't be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
