"""From runs that are wanted to a launch that has them: folder, claim, start, in an order that survives death anywhere.

1. The launch folder is made and locked: whoever looks sees that somebody is at work on it.
2. The runs are claimed in the database, with the launch's row: two overlapping sweeps never get the same.
3. The folder is written: what it holds is what was claimed.
4. The launcher starts: a pool here, a pool in the background, or SLURM arrays.

After a death between 1 and 4 the next `prove.launch.settle.refresh` finds a launch that nobody holds, looks for its
SLURM jobs by name, and frees the runs if there are none.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from prove.errors import ProveError
from prove.launch.folder import WORKER, Assignment, Launch, LaunchDir
from prove.spec.event import State
from prove.store import Store
from prove.store.claims import LaunchRow

UNSTARTED = (State.PLANNED, State.INTERRUPTED)
"""States of runs that a sweep takes on: never started, or to be continued."""


@dataclass(frozen=True)
class Request:
    """How runs are to be launched.

    Attributes:
        launcher: ``local`` or ``slurm``.
        options: the launcher's own, plain data.
        pack: runs per task; 0 puts all into one.
        max_attempts: how often a run is started before it counts as failed.
        experiment: the experiment that they are launched for.
        worker: see `prove.launch.folder.WORKER`.
    """

    launcher: str = "local"
    options: Mapping[str, Any] = field(default_factory=dict)
    pack: int = 0
    max_attempts: int = 3
    experiment: str | None = None
    worker: str = WORKER


@dataclass(frozen=True)
class Opened:
    """A launch whose folder is complete and whose runs are claimed; locked by this process.

    Attributes:
        lock: descriptor of its lock, for a child that is to hold it.
        assignments: what it got, in the order that was asked for; the rest is in others' hands.
        tasks: how many tasks they make up.
    """

    launch: Launch
    folder: LaunchDir
    lock: int
    assignments: tuple[Assignment, ...]
    tasks: int


@contextmanager
def opened(
    store: Store,
    wanted: Sequence[Assignment],
    files: Mapping[str, bytes],
    request: Request,
    states: Collection[State] = UNSTARTED,
) -> Iterator[Opened]:
    """Claim runs for a new launch and write its folder; the block starts it.

    When the block fails, or nothing could be claimed, the launch is closed and its runs are anybody's again.

    Args:
        files: what the launch's ``files/`` holds, by name.
        states: states in which a run is taken.

    Raises:
        ProveError: the folder can't be written.
    """
    launch = _launch(request)
    folder = LaunchDir.of(store.results_folder, launch.id)
    folder.begin()
    with folder.lock() as lock:
        try:
            taken = store.claim(row_of(launch), _numbers(_tasks(wanted, request.pack)), states)
            mine = tuple(each for each in wanted if each.key in taken)
            tasks = _tasks(mine, request.pack)
            if len(mine) < len(wanted):
                store.reassign(launch.id, _numbers(tasks))
            folder.create(launch, tasks, files)
            yield Opened(launch, folder, lock, mine, len(tasks))
        except ProveError:
            give_up(store, folder)
            raise
    if not mine:
        give_up(store, folder)


def row_of(launch: Launch) -> LaunchRow:
    """What the database keeps of a launch."""
    return LaunchRow(
        id=launch.id,
        launcher=launch.launcher,
        host=launch.host,
        pid=launch.pid,
        user_name=launch.user,
        experiment=launch.experiment,
        created_at=launch.created_at,
        max_attempts=launch.max_attempts,
    )


def give_up(store: Store, folder: LaunchDir) -> None:
    """Close a launch of which nothing was started, and free its runs."""
    folder.close()
    store.close_launch(folder.id)


def start_in_background(opened: Opened) -> int:
    """Have a process of its own work on a local launch, which goes on after logout; returns its pid.

    It inherits the lock: there is no moment at which nobody holds the launch.
    """
    os.set_inheritable(opened.lock, True)
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "prove.launch.pool", str(opened.folder.path), "--lock", str(opened.lock)],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(opened.folder.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
    finally:
        os.set_inheritable(opened.lock, False)


def _launch(request: Request) -> Launch:
    now = time.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    return Launch(
        id=f"{stamp}-{secrets.token_hex(3)}",
        launcher=request.launcher,
        host=socket.gethostname(),
        pid=os.getpid(),
        user=getpass.getuser(),
        created_at=now,
        experiment=request.experiment,
        max_attempts=request.max_attempts,
        worker=request.worker,
        options=request.options,
    )


def _tasks(assignments: Sequence[Assignment], pack: int) -> list[tuple[Assignment, ...]]:
    if pack == 0:
        return [tuple(assignments)] if assignments else []
    return [tuple(assignments[first : first + pack]) for first in range(0, len(assignments), pack)]


def _numbers(tasks: Sequence[Sequence[Assignment]]) -> dict[str, int]:
    return {each.key: number for number, task in enumerate(tasks) for each in task}
