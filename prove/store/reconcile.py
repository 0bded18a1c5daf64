"""Settles runs whose worker died without a word."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from prove.rundir import RunDir
from prove.spec.event import State
from prove.store.clock import file_system_time
from prove.store.connection import Connection
from prove.store.deleted import owns
from prove.store.fold import LOST
from prove.store.rows import RECORDED, progress_of
from prove.store.writing import write_progress

SILENT_SECONDS = 3600.0
"""How long a run of another machine that nobody has claimed may say nothing."""

_RUNNING = (
    "FROM runs JOIN ingest ON ingest.run_id = runs.id "
    "LEFT JOIN attempts ON attempts.run_id = runs.id AND attempts.number = runs.attempts "
    "WHERE runs.state = 'running' AND runs.launch IS NULL"
)


def reconcile(connection: Connection, results: Path) -> int:
    """Set runs whose worker died without a word to interrupted; how many those were.

    Not those that a launch has taken on: whether it will start them again is for who knows launches to say.
    Only after `ingest`. A worker holds its folder from before its first event to after its last: where nobody holds it
    and no event has come since it was last read, nothing more will come from this machine. Another machine's lock may
    not be seen from here: its run is given up after an hour without a word.
    """
    here = None if owns(connection, results) else str(results.resolve())
    hour_ago = (time.time() - SILENT_SECONDS) * 1e9  # by this machine's clock: who is worth a look
    rows = [
        (RunDir.of(results, key), size, host)
        for key, size, mtime_ns, host, folder in connection.query(
            f"SELECT runs.key, ingest.size, ingest.mtime_ns, attempts.host, ingest.results {_RUNNING}"
        )
        if (here is None or folder in (None, here)) and (host == socket.gethostname() or mtime_ns < hour_ago)
    ]
    quiet = [(run, host) for run, size, host in rows if _is_quiet(run, size)]
    dead = {run.key: LOST for run, host in quiet if host == socket.gethostname()}
    if elsewhere := [(run, host) for run, host in quiet if host != socket.gethostname()]:
        dead |= {
            run.key: f"No word from {host or 'its machine'} for an hour, and no launch has it."
            for run, host in _long_silent(results, elsewhere)
        }
    if not dead:
        return 0
    with connection.writing():
        return _interrupt(connection, results, dead)


def _is_quiet(run: RunDir, ingested: int) -> bool:
    try:
        return not run.is_held() and os.stat(run.events).st_size == ingested
    except OSError:
        return False  # another results folder's run, or a removed one, or it can't be known: not for us to settle


def _long_silent(results: Path, runs: list[tuple[RunDir, str | None]]) -> list[tuple[RunDir, str | None]]:
    try:
        before = file_system_time(results) - SILENT_SECONDS
        return [(run, host) for run, host in runs if os.stat(run.events).st_mtime < before]
    except OSError:
        return []  # it can't be known


def _interrupt(connection: Connection, results: Path, dead: Mapping[str, str]) -> int:
    count = 0
    for key, why in dead.items():
        rows = connection.query(f"SELECT {RECORDED}, runs.id, ingest.size {_RUNNING} AND key = :key", {"key": key})
        if not rows or not _is_quiet(RunDir.of(results, key), rows[0][-1]):
            continue  # somebody else has settled it, or started it again
        (*values, run_id, _) = rows[0]
        progress = progress_of(values)
        write_progress(connection, run_id, replace(progress, state=State.INTERRUPTED, message=why))
        connection.execute(
            "UPDATE attempts SET ending = 'interrupted', ended_at = seen_at, reason = :reason "
            "WHERE run_id = :run_id AND number = :number",
            {"run_id": run_id, "number": progress.attempts, "reason": why},
        )
        count += 1
    return count
