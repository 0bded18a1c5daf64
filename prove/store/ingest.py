"""From the run folders to the database: reads what was appended since the last time, once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from prove.errors import ProveError
from prove.rundir import RunDir, read_json
from prove.spec.event import State
from prove.spec.job import Job
from prove.store.connection import Connection, query_among
from prove.store.deleted import owns, settle_deleted
from prove.store.fold import MALFORMED, Progress
from prove.store.news import News
from prove.store.register import REGISTER, registration, shown
from prove.store.rows import ATTEMPT, RECORDED, Attempt, progress_of
from prove.store.writing import ELSEWHERE, UNREADABLE, Writing

EVENTS = RunDir(Path()).events.name

BATCH = 500
"""Run folders per transaction: short enough for another writer to get its turn, long enough to be quick."""

HEAD = 4096
"""Bytes in which the first line of a file is expected to end."""


def ingest(connection: Connection, results: Path) -> int:
    """Record what all run folders have reported since the last time; how many events were new.

    Idempotent, and safe beside other ingesters: one writes at a time, and each looks again at how far the others got.
    Where the database is the results folder's own, a run whose folder is gone is planned again. Where it is not, a run
    that another results folder has reported stays that one's: it would change with whoever looks.
    """
    owned = owns(connection, results)
    changed, gone = _survey(connection, results)
    if changed and not owned:
        told = {key for (key,) in connection.query(f"SELECT key FROM problems WHERE position = {ELSEWHERE}")}
        others = _reported_elsewhere(connection, results, changed)
        changed = [key for key in changed if key not in told or key not in others]
    events = 0
    for start in range(0, len(changed), BATCH):
        with connection.writing():
            batch = changed[start : start + BATCH]
            others = {} if owned else _reported_elsewhere(connection, results, batch)
            events += _ingest_runs(connection, results, batch, others)
    if gone and owned:
        settle_deleted(connection, results, gone)
    return events


def _survey(connection: Connection, results: Path) -> tuple[list[str], list[str]]:
    """Folders with events that differ from what is recorded of them, and runs with recorded events without a folder."""
    # The record must be older than the listing: otherwise a folder made between the two would look deleted.
    known = _seen(connection)
    try:
        folder = os.open(results / "runs", os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    try:
        names = os.listdir(folder)
        found = ((name, _event_file(folder, name)) for name in names)
        changed = [name for name, file in found if file is not None and file != known.get(name)]
    finally:
        os.close(folder)
    return sorted(changed), sorted(known.keys() - set(names))


def _seen(connection: Connection) -> dict[str, tuple[int, int]]:
    """Size and time of the events of each run when they were last read."""
    rows = connection.query(
        "SELECT runs.key, ingest.size, ingest.mtime_ns FROM runs JOIN ingest ON ingest.run_id = runs.id"
    )
    return {key: (size, mtime) for key, size, mtime in rows}


def _reported_elsewhere(connection: Connection, results: Path, keys: Iterable[str]) -> dict[str, str]:
    """Those of these runs whose events came from another results folder, and from which.

    Not those that a launch of this one has taken on: what they report from now on is reported here.
    """
    here = str(results.resolve())
    rows = query_among(
        connection,
        "SELECT runs.key, runs.launch, ingest.results FROM runs JOIN ingest ON ingest.run_id = runs.id "
        "WHERE runs.key IN :values",
        keys,
    )
    return {
        key: folder
        for key, launch, folder in rows
        if folder not in (None, here) and not (launch and os.path.isdir(results / "launches" / launch))
    }


def _event_file(folder: int, name: str) -> tuple[int, int] | None:
    """Size and time of a run folder's events; None where there are none."""
    try:
        stat = os.stat(f"{name}/{EVENTS}", dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return -1, -1  # reading it will fail as well, and report why
    return stat.st_size, stat.st_mtime_ns


class _Known(NamedTuple):
    """What is recorded of a run: its row's id, where its events have brought it, and how far they were read."""

    run_id: int
    progress: Progress
    position: int | None
    head: str | None


def _ingest_runs(connection: Connection, results: Path, batch: Sequence[str], others: Mapping[str, str]) -> int:
    writing, here = Writing(connection), str(results.resolve())
    for key, other in others.items():
        writing.report(key, ELSEWHERE, f"The events in {here} are not taken in: {other} has reported this run.", "")
    keys = [key for key in batch if key not in others]
    known = _known(connection, keys)
    if new := _register(connection, results, [key for key in keys if key not in known], writing):
        known |= _known(connection, new)
    attempts = _attempts(connection, [run.run_id for run in known.values()])
    folder, events, read = f"{results}/runs", 0, []
    for key, run in known.items():
        found = _ingest_run(f"{folder}/{key}/{EVENTS}", key, run, attempts.get(run.run_id, {}), writing, here)
        if found is not None:
            events += found
            read.append(key)
    _now_readable(connection, read)
    writing.flush()
    return events


def _known(connection: Connection, keys: Iterable[str]) -> dict[str, _Known]:
    rows = query_among(
        connection,
        f"SELECT {RECORDED}, runs.key, runs.id, ingest.position, ingest.head "
        "FROM runs LEFT JOIN ingest ON ingest.run_id = runs.id WHERE key IN :values",
        keys,
    )
    return {key: _Known(run_id, progress_of(values), position, head) for *values, key, run_id, position, head in rows}


def _attempts(connection: Connection, run_ids: Iterable[int]) -> dict[int, dict[int, Attempt]]:
    found: dict[int, dict[int, Attempt]] = {}
    sql = f"SELECT run_id, {', '.join(ATTEMPT)} FROM attempts WHERE run_id IN :values"
    for run_id, number, *rest in query_among(connection, sql, run_ids):
        found.setdefault(run_id, {})[number] = Attempt(number, *rest)
    return found


def _register(connection: Connection, results: Path, keys: Iterable[str], writing: Writing) -> list[str]:
    """Add the runs of these folders, as their ``job.json`` describes them; the keys of those that have a sound one."""
    rows, now = [], time.time()
    for run in (RunDir.of(results, key) for key in keys):
        try:
            job = Job.from_dict(read_json(run.job))
            if job.key != run.key:
                raise ProveError(f"{run.job} is the job {job.key}, not {run.key}.")
        except (ProveError, *MALFORMED) as error:
            writing.report(run.key, UNREADABLE, f"{run.job} is not a job of this PROVE: {error}", "")
        else:
            rows.append(registration(job, shown(job.loss), now))
    connection.execute_many(REGISTER, rows)
    return [row["key"] for row in rows]


def _ingest_run(
    path: str, key: str, known: _Known, attempts: dict[int, Attempt], writing: Writing, here: str
) -> int | None:
    """How many events were new; None where they can't be read."""
    try:
        tail = _tail(path, known)
    except FileNotFoundError:
        return None  # removed since it was listed
    except OSError as error:
        writing.report(key, UNREADABLE, f"{path} can't be read ({error.strerror}).", "")
        return None
    if tail.anew:
        news = News(Progress(state=_unstarted(known.progress.state)), {}, eventful=True)
        if known.position is not None:
            writing.forget(known.run_id, key)
    else:
        news = News(known.progress, attempts)
    position = tail.start
    for line in tail.data[: tail.data.rfind(b"\n") + 1].split(b"\n")[:-1]:
        try:
            news.take(line)
        except MALFORMED as error:
            message = f"Not an event that this PROVE knows ({type(error).__name__}: {error})."
            writing.report(key, position, message, line.decode("utf-8", "replace"))
        position += len(line) + 1
    if position > 0 or known.position is not None:
        news.catch_up()
        # The size is less than the file's where a read falls short: it is looked at again.
        size = tail.start + len(tail.data)
        seen = {"position": position, "size": size, "mtime_ns": tail.mtime_ns, "head": tail.head, "results": here}
        writing.add(known.run_id, news, seen)
    return news.events


class _Tail(NamedTuple):
    """What a file holds beyond what was read of it; all of it where it is ``anew``.

    Attributes:
        anew: not read before, or written anew from its beginning: what was recorded is not what it says.
        head: a hash of the first line, which tells whether it is still the file that was read before.
    """

    start: int
    data: bytes
    anew: bool
    head: str
    mtime_ns: int


def _tail(path: str, known: _Known) -> _Tail:
    file = os.open(path, os.O_RDONLY)
    try:
        stat, head = os.fstat(file), _hash_of_first_line(file)
        anew = known.position is None or head != known.head or stat.st_size < known.position
        start = 0 if anew else known.position or 0
        return _Tail(start, os.pread(file, stat.st_size - start, start), anew, head, stat.st_mtime_ns)
    finally:
        os.close(file)


def _hash_of_first_line(file: int) -> str:
    size = HEAD
    while b"\n" not in (begun := os.pread(file, size, 0)) and len(begun) == size:
        size *= 8
    return hashlib.blake2b(begun[: begun.find(b"\n") + 1] or begun, digest_size=16).hexdigest()


def _now_readable(connection: Connection, keys: Sequence[str]) -> None:
    where = f"WHERE position = {UNREADABLE}"
    were_not = {key for (key,) in connection.query(f"SELECT key FROM problems {where}")}
    mended = [{"key": key} for key in keys if key in were_not]
    connection.execute_many(f"DELETE FROM problems {where} AND key = :key", mended)


def _unstarted(state: State) -> State:
    """The state of a run whose events are read from the beginning: what they can't say themselves stays."""
    return state if state in (State.QUEUED, State.CANCELLED) else State.PLANNED
