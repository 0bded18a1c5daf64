"""What is known of the tasks of a launch: whether they live, and what ended those that don't."""

from __future__ import annotations

import os
import socket
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from prove.launch.folder import LaunchDir
from prove.rundir import RunDir
from prove.spec.event import FailureKind
from prove.store.claims import LaunchRow
from prove.store.clock import file_system_time

SILENT_SECONDS = 300.0
"""How long a pool on another machine may leave its heartbeat untouched: ten beats."""


@dataclass(frozen=True)
class Fate:
    """What is known of a task.

    Attributes:
        alive: whether it runs or will run; None where nobody can say.
        waiting: whether it waits for its turn, so that no worker of it lives.
        why: what ended it, for a message.
        kind: what a run fails of when it has no attempts left.
        at_once: fail it even if it has some.
        by_itself: whether it ended as a program that fails does, not by a signal.
        cancelled: whether somebody has called it off.
    """

    alive: bool | None
    waiting: bool = False
    why: str = ""
    kind: FailureKind = FailureKind.KILLED
    at_once: bool = False
    by_itself: bool = False
    cancelled: bool = False


UNKNOWN = Fate(None)
ALIVE = Fate(True)


class Fates(ABC):
    """What is known of the tasks of one launch."""

    @abstractmethod
    def of(self, task: int) -> Fate:
        """What is known of a task."""

    @abstractmethod
    def over(self) -> bool:
        """Whether it is certain that no task lives."""

    def withdraw(self) -> list[str]:
        """Take what waits for its turn out of the queue; what the user should know."""
        return []

    def launcher(self, task: int) -> str:
        """What a task's attempts call the one that has started them."""
        return "local"

    def last_words(self, task: int) -> str:
        """The end of what a task printed; empty where there is nothing."""
        return ""


class LocalFates(Fates):
    """A local launch has one task: its pool."""

    def __init__(self, row: LaunchRow, results: Path) -> None:
        self._folder = LaunchDir.of(results, row.id)
        self._fate = self._look(row)

    def _look(self, row: LaunchRow) -> Fate:
        alive = seems_held(self._folder)
        if row.host != socket.gethostname():  # whose locks may not be seen from here
            alive = alive or _silent_seconds(self._folder, row) < SILENT_SECONDS
        return ALIVE if alive else Fate(False, why=f"Its launch on {row.host} has ended.")

    def of(self, task: int) -> Fate:
        return self._fate

    def over(self) -> bool:
        return self._fate.alive is False


def is_gone(folder: LaunchDir) -> bool:
    """Whether a launch folder was deleted: not the whole results folder taken away, nor its file server."""
    try:
        os.lstat(folder.path)
    except FileNotFoundError:
        return os.path.isdir(folder.path.parent)
    except OSError:
        return False
    return False


def seems_held(folder: LaunchDir | RunDir) -> bool:
    """Whether a living process of this machine holds a folder, or may: the file system can't say."""
    try:
        return folder.is_held()
    except OSError:
        return True


def _silent_seconds(folder: LaunchDir, row: LaunchRow) -> float:
    """How long ago the heartbeat was touched, by the clock of the file system: two machines' may differ."""
    try:
        now = file_system_time(folder.path)
        beaten = folder.heartbeat.stat().st_mtime if folder.heartbeat.exists() else folder.record.stat().st_mtime
    except FileNotFoundError:
        return abs(time.time() - row.created_at)  # no folder, or not yet
    except OSError:
        return 0.0  # it can't be known
    return now - beaten
