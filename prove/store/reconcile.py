"""Settles runs whose worker died without a word."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from prove.rundir import RunDir
from prove.store.connection import Connection
from prove.store.fold import LOST, settle
from prove.store.rows import RECORDED, progress_of
from prove.store.writing import write_progress


def reconcile(connection: Connection, results: Path) -> int:
    """Set runs whose worker on this machine died without a word to interrupted; how many those were.

    Not those that a launch has taken on: whether it will start them again is for who knows launches to say.
    Only after `ingest`. A worker holds its folder from before its first event to after its last: where nobody holds it
    and no event has come since it was last read, nothing more will come.
    """
    rows = connection.query(
        "SELECT runs.key, ingest.size FROM runs "
        "JOIN ingest ON ingest.run_id = runs.id "
        "JOIN attempts ON attempts.run_id = runs.id AND attempts.number = runs.attempts "
        "WHERE runs.state = 'running' AND runs.launch IS NULL AND attempts.host = :host",
        {"host": socket.gethostname()},
    )
    dead = [key for key, size in rows if _is_dead(RunDir.of(results, key), size)]
    if not dead:
        return 0
    with connection.writing():
        return sum(_interrupt(connection, RunDir.of(results, key)) for key in dead)


def _is_dead(run: RunDir, ingested: int) -> bool:
    try:
        return not run.is_held() and os.stat(run.events).st_size == ingested
    except FileNotFoundError:
        return False  # another results folder's run, or a removed one: not for us to settle


def _interrupt(connection: Connection, run: RunDir) -> int:
    rows = connection.query(
        f"SELECT {RECORDED}, runs.id, ingest.size FROM runs JOIN ingest ON ingest.run_id = runs.id "
        "WHERE key = :key AND state = 'running' AND launch IS NULL",
        {"key": run.key},
    )
    if not rows or not _is_dead(run, rows[0][-1]):
        return 0  # somebody else has settled it, or started it again
    (*values, run_id, _) = rows[0]
    progress = progress_of(values)
    write_progress(connection, run_id, settle(progress, alive=False))
    connection.execute(
        "UPDATE attempts SET ending = 'interrupted', ended_at = seen_at, reason = :reason "
        "WHERE run_id = :run_id AND number = :number",
        {"run_id": run_id, "number": progress.attempts, "reason": LOST},
    )
    return 1
