"""From the run folders to the database: reads what was appended since the last time, once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from prove.errors import ProveError
from prove.rundir import RunDir, read_json
from prove.spec.event import State
from prove.spec.job import METRICS, Job, canonical_json
from prove.store.connection import Connection
from prove.store.fold import MALFORMED, Progress
from prove.store.news import News
from prove.store.rows import ATTEMPT, SELECTED, Attempt, progress_of, run_row

BATCH = 500
"""Run folders per transaction: short enough for another writer to get its turn, long enough to be quick."""

EXCERPT = 500
"""Characters kept of a line that could not be read."""

REGISTER = """
    INSERT INTO runs (key, job, dataset, model, strategy, loss, seed, max_iters, state, created_at, updated_at)
    VALUES (:key, :job, :dataset, :model, :strategy, :loss, :seed, :max_iters, 'planned', :now, :now)
    ON CONFLICT (key) DO UPDATE SET loss = excluded.loss
"""

PROBLEM = """
    INSERT INTO problems (key, position, message, line, seen_at)
    VALUES (:key, :position, :message, :line, :seen_at)
    ON CONFLICT (key, position) DO NOTHING
"""

_FIELDS = tuple(name for name in Progress.__dataclass_fields__ if name != "metrics")

_PROGRESS = "UPDATE runs SET {} WHERE id = :id".format(
    ", ".join(f'"{name}" = :{name}' for name in (*_FIELDS, *METRICS))
)

_ATTEMPT = (
    f"INSERT INTO attempts (run_id, {', '.join(ATTEMPT)}) "
    f"VALUES (:run_id, {', '.join(f':{name}' for name in ATTEMPT)}) "
    f"ON CONFLICT (run_id, number) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in ATTEMPT[1:])}"
)

_CURVE = """
    INSERT INTO curves (run_id, split, iteration, payload) VALUES (:run_id, :split, :iteration, :payload)
    ON CONFLICT (run_id, split, iteration) DO UPDATE SET payload = excluded.payload
"""

_RESULT = """
    INSERT INTO results (run_id, checkpoint, scope, name, metric, value)
    VALUES (:run_id, :checkpoint, :scope, :name, :metric, :value)
"""

_EVIDENCE = """
    INSERT INTO evidence (run_id, payload) VALUES (:run_id, :payload)
    ON CONFLICT (run_id) DO UPDATE SET payload = excluded.payload
"""

_INGEST = """
    INSERT INTO ingest (run_id, position, size, mtime_ns, head) VALUES (:run_id, :position, :size, :mtime_ns, :head)
    ON CONFLICT (run_id) DO UPDATE SET
        position = excluded.position, size = excluded.size, mtime_ns = excluded.mtime_ns, head = excluded.head
"""


def registration(job: Job, loss_text: str, now: float) -> dict[str, Any]:
    """The parameters of `REGISTER` for a job."""
    return {
        "key": job.key,
        "job": canonical_json(job.to_dict()),
        "dataset": job.dataset_name,
        "model": job.model.name,
        "strategy": job.strategy,
        "loss": loss_text,
        "seed": job.seed,
        "max_iters": job.train.max_iters,
        "now": now,
    }


def ingest(connection: Connection, results: Path) -> int:
    """Record what all run folders have reported since the last time; how many events were new.

    Idempotent, and safe beside other ingesters: one writes at a time, and each looks again at how far the others got.
    """
    changed = sorted(_changed(connection, results))
    events = 0
    for start in range(0, len(changed), BATCH):
        with connection.writing():
            events += sum(_ingest_run(connection, RunDir.of(results, key)) for key in changed[start : start + BATCH])
    return events


def _changed(connection: Connection, results: Path) -> Iterator[str]:
    known = {
        key: (size, mtime)
        for key, size, mtime in connection.query(
            "SELECT runs.key, ingest.size, ingest.mtime_ns FROM runs JOIN ingest ON ingest.run_id = runs.id"
        )
    }
    for key, size, mtime in _event_files(results):
        if known.get(key) != (size, mtime):
            yield key


def _event_files(results: Path) -> Iterator[tuple[str, int, int]]:
    try:
        folders = os.scandir(results / "runs")
    except FileNotFoundError:
        return
    with folders:
        for folder in folders:
            try:
                stat = os.stat(f"{folder.path}/events.jsonl")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                yield folder.name, -1, -1  # reading it will fail as well, and report why
                continue
            yield folder.name, stat.st_size, stat.st_mtime_ns


def _ingest_run(connection: Connection, run: RunDir) -> int:
    found = connection.query(
        f"SELECT {SELECTED}, runs.id, ingest.position, ingest.head "
        "FROM runs LEFT JOIN ingest ON ingest.run_id = runs.id WHERE key = :key",
        {"key": run.key},
    )
    if not found:
        try:
            job = Job.from_dict(read_json(run.job))
            if job.key != run.key:
                raise ProveError(f"{run.job} is the job {job.key}, not {run.key}.")
        except (ProveError, KeyError, TypeError, ValueError) as error:
            _report(connection, run.key, -1, f"{run.job} is not a job of this PROVE: {error}", "")
            return 0
        connection.execute(REGISTER, registration(job, str(job.loss), time.time()))
        return _ingest_run(connection, run)
    (*values, run_id, position, head) = found[0]
    news = News(progress_of(run_row(tuple(values))), {a.number: a for a in attempts_of(connection, run_id)})
    try:
        file = open(run.events, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return 0  # removed since it was listed
    except OSError as error:
        _report(connection, run.key, -1, f"{run.events} can't be read ({error.strerror}).", "")
        return 0
    with file:
        stat = os.fstat(file.fileno())
        first = hashlib.blake2b(file.readline(), digest_size=16).hexdigest()
        if position is None or first != head or stat.st_size < position:
            # New, or written anew from its beginning: what was recorded before is not what this file says.
            position = 0
            _forget(connection, run_id, run.key)
            news = News(Progress(state=_unstarted(news.progress.state)), {})
        file.seek(position)
        data = file.read()
    end = data.rfind(b"\n") + 1
    start = position
    for line in data[:end].split(b"\n")[:-1]:
        try:
            news.take(json.loads(line))
        except MALFORMED as error:
            message = f"Not an event that this PROVE knows ({type(error).__name__}: {error})."
            _report(connection, run.key, start, message, line.decode("utf-8", "replace"))
        start += len(line) + 1
    if start > 0:
        connection.execute("DELETE FROM problems WHERE key = :key AND position = -1", {"key": run.key})
        _write(connection, run_id, news)
        seen = {"position": start, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "head": first}
        connection.execute(_INGEST, {"run_id": run_id, **seen})
    return news.events


def _unstarted(state: State) -> State:
    """The state of a run whose events are read from the beginning: what they can't say themselves stays."""
    return state if state in (State.QUEUED, State.CANCELLED) else State.PLANNED


def _forget(connection: Connection, run_id: int, key: str) -> None:
    for table in ("attempts", "results", "curves", "evidence", "ingest"):
        connection.execute(f"DELETE FROM {table} WHERE run_id = :run_id", {"run_id": run_id})
    connection.execute("DELETE FROM problems WHERE key = :key", {"key": key})


def _write(connection: Connection, run_id: int, news: News) -> None:
    run = {"run_id": run_id}
    if news.restarted_from is not None:
        connection.execute(
            "DELETE FROM curves WHERE run_id = :run_id AND iteration > :iteration",
            {**run, "iteration": news.restarted_from},
        )
        connection.execute("DELETE FROM results WHERE run_id = :run_id", run)
        if news.restarted_from == 0:
            connection.execute("DELETE FROM evidence WHERE run_id = :run_id", run)
    write_progress(connection, run_id, news.progress)
    connection.execute_many(_ATTEMPT, [{**run, **attempt.to_dict()} for attempt in news.attempts.values()])
    connection.execute_many(
        _CURVE,
        [
            {**run, "split": split, "iteration": iteration, "payload": payload}
            for (split, iteration), payload in news.curves.items()
        ],
    )
    if news.results:
        connection.execute("DELETE FROM results WHERE run_id = :run_id", run)
        connection.execute_many(
            _RESULT,
            [
                {**run, "checkpoint": checkpoint, "scope": scope, "name": name, "metric": metric, "value": value}
                for (checkpoint, scope, name, metric), value in news.results.items()
            ],
        )
    if news.evidence is not None:
        connection.execute(_EVIDENCE, {**run, "payload": news.evidence})


def write_progress(connection: Connection, run_id: int, progress: Progress) -> None:
    """Record a run's state."""
    if progress.updated_at is None:
        progress = replace(progress, updated_at=time.time())
    values = {name: getattr(progress, name) for name in _FIELDS}
    metrics = {metric: progress.metrics.get(metric) for metric in METRICS}
    connection.execute(_PROGRESS, {"id": run_id, **values, **metrics})


def attempts_of(connection: Connection, run_id: int) -> list[Attempt]:
    """The attempts at a run, first to last."""
    rows = connection.query(
        f"SELECT {', '.join(ATTEMPT)} FROM attempts WHERE run_id = :run_id ORDER BY number", {"run_id": run_id}
    )
    return [Attempt(*row) for row in rows]


def _report(connection: Connection, key: str, position: int, message: str, line: str) -> None:
    values = {"key": key, "position": position, "message": message, "line": line[:EXCERPT], "seen_at": time.time()}
    connection.execute(PROBLEM, values)
