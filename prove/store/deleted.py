"""Settles runs whose folder was deleted: with it went all that was known of them but that they exist."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from prove.rundir import RunDir
from prove.spec.event import State
from prove.store.connection import DATABASE, Connection, query_among
from prove.store.fold import Progress
from prove.store.writing import FORGOTTEN, FORGOTTEN_PROBLEMS, write_progress

MESSAGE = "Its run folder was deleted, and its results with it."


def owns(connection: Connection, results: Path) -> bool:
    """Whether the database is the results folder's own: another may hold runs whose folders are elsewhere."""
    return Path(connection.name).resolve() == (results / DATABASE).resolve()


def settle_deleted(connection: Connection, results: Path, keys: Iterable[str]) -> int:
    """Forget what those of these runs have reported whose folder is gone; how many that were.

    They are planned again; queued where a launch has taken them on; cancelled where they were. A folder that comes back
    is read again.
    """
    with connection.writing():
        found = query_among(connection, "SELECT key, id, state, launch FROM runs WHERE key IN :values", keys)
        gone = {key: row for key, *row in found if _is_gone(RunDir.of(results, key))}
        for sql in FORGOTTEN:
            connection.execute_many(sql, [{"run_id": run_id} for run_id, _, _ in gone.values()])
        connection.execute_many(FORGOTTEN_PROBLEMS, [{"key": key} for key in gone])
        for run_id, before, launch in gone.values():
            state = State.PLANNED if launch is None else State.QUEUED
            if before == State.CANCELLED:
                state = State.CANCELLED
            write_progress(connection, run_id, Progress(state=state, message=MESSAGE))
    return len(gone)


def _is_gone(run: RunDir) -> bool:
    """Whether a folder was deleted: not its whole file system taken away, nor its link left without a target."""
    try:
        os.lstat(run.path)
    except FileNotFoundError:
        return run.path.parent.is_dir()
    except OSError:
        return False  # a network that is down deletes nothing
    return False
