"""What ingest writes, gathered over the runs of a transaction: one statement for many rows costs far less than many."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from prove.spec.job import METRICS
from prove.store.connection import Connection
from prove.store.fold import Progress
from prove.store.news import News
from prove.store.rows import ATTEMPT, FIELDS

UNREADABLE = -1
"""Position of the problem that a run folder as a whole can't be read."""

ELSEWHERE = -2
"""Position of the problem that another results folder has reported the run to the same database."""

EXCERPT = 500
"""Characters kept of a line that could not be read."""

FORGOTTEN = tuple(
    f"DELETE FROM {table} WHERE run_id = :run_id"
    for table in ("attempts", "results", "curves", "evidence", "environments", "replicates", "ingest")
)
"""Remove all that events have said of a run."""

_PROGRESS = "UPDATE runs SET {} WHERE id = :run_id".format(
    ", ".join(f'"{name}" = :{name}' for name in (*FIELDS, *METRICS))
)

_FURTHER = "UPDATE runs SET iteration = :iteration, updated_at = :updated_at WHERE id = :run_id"

_ATTEMPT = (
    f"INSERT INTO attempts (run_id, {', '.join(ATTEMPT)}) "
    f"VALUES (:run_id, {', '.join(f':{name}' for name in ATTEMPT)}) "
    f"ON CONFLICT (run_id, number) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in ATTEMPT[1:])}"
)

_ATTEMPT_FURTHER = (
    "UPDATE attempts SET iteration = :iteration, seen_at = :seen_at WHERE run_id = :run_id AND number = :number"
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

_ENVIRONMENT = """
    INSERT INTO environments (run_id, payload) VALUES (:run_id, :payload)
    ON CONFLICT (run_id) DO UPDATE SET payload = excluded.payload
"""

_INGEST = """
    INSERT INTO ingest (run_id, position, size, mtime_ns, head, results)
    VALUES (:run_id, :position, :size, :mtime_ns, :head, :results)
    ON CONFLICT (run_id) DO UPDATE SET
        position = excluded.position, size = excluded.size, mtime_ns = excluded.mtime_ns,
        head = excluded.head, results = excluded.results
"""

_PROBLEM = """
    INSERT INTO problems (key, position, message, line, seen_at)
    VALUES (:key, :position, :message, :line, :seen_at)
    ON CONFLICT (key, position) DO NOTHING
"""

_VOID_CURVES = "DELETE FROM curves WHERE run_id = :run_id AND iteration > :iteration"

_VOID_RESULTS = "DELETE FROM results WHERE run_id = :run_id"

_VOID_REPLICATES = "DELETE FROM replicates WHERE run_id = :run_id"

_VOID_EVIDENCE = "DELETE FROM evidence WHERE run_id = :run_id"

_VOID_ENVIRONMENT = "DELETE FROM environments WHERE run_id = :run_id"

FORGOTTEN_PROBLEMS = "DELETE FROM problems WHERE key = :key"

FULL = 20_000
"""Rows of curves and results after which `Writing` has them written: an upper bound on memory."""

Rows = list[dict[str, Any]]


@dataclass
class Writing:
    """The rows that are still to be written, by their statement, in the order in which they have to be."""

    connection: Connection
    _rows: dict[str, Rows] = field(default_factory=dict)
    _count: int = 0

    def forget(self, run_id: int, key: str) -> None:
        """Remove all that events have said of a run."""
        for sql in FORGOTTEN:
            self._add(sql, {"run_id": run_id})
        self._add(FORGOTTEN_PROBLEMS, {"key": key})

    def report(self, key: str, position: int, message: str, line: str) -> None:
        """Record what could not be read."""
        excerpt = {"line": line[:EXCERPT], "seen_at": time.time()}
        self._add(_PROBLEM, {"key": key, "position": position, "message": message, **excerpt})

    def add(self, run_id: int, news: News, seen: dict[str, Any]) -> None:
        """Record what a run's new events say, and ``seen``: how far its file has been read."""
        run = {"run_id": run_id}
        if news.eventful:
            self._add_turns(run_id, news)
        else:
            reached = {"iteration": news.progress.iteration, "updated_at": news.progress.updated_at}
            self._add(_FURTHER, {**run, **reached})
            for attempt in (news.attempts[number] for number in news.touched):
                place = {**run, "number": attempt.number}
                self._add(_ATTEMPT_FURTHER, {**place, "iteration": attempt.iteration, "seen_at": attempt.seen_at})
        self._rows.setdefault(_CURVE, []).extend(
            {"run_id": run_id, "split": split, "iteration": iteration, "payload": payload}
            for (split, iteration), payload in news.curves.items()
        )
        self._add(_INGEST, {**run, **seen})
        self._count += len(news.curves) + len(news.results)
        if self._count >= FULL:
            self.flush()

    def _add_turns(self, run_id: int, news: News) -> None:
        run = {"run_id": run_id}
        if news.restarted_from is not None:
            self._add(_VOID_CURVES, {**run, "iteration": news.restarted_from})
            if news.restarted_from == 0:
                self._add(_VOID_EVIDENCE, run)
                self._add(_VOID_ENVIRONMENT, run)
        if news.restarted_from is not None or news.results:
            self._add(_VOID_RESULTS, run)
            self._add(_VOID_REPLICATES, run)
        self._add(_PROGRESS, progress_values(run_id, news.progress))
        for number in news.touched:
            self._add(_ATTEMPT, {**run, **news.attempts[number].to_dict()})
        self._rows.setdefault(_RESULT, []).extend(
            {**run, "checkpoint": checkpoint, "scope": scope, "name": name, "metric": metric, "value": value}
            for (checkpoint, scope, name, metric), value in news.results.items()
        )
        if news.evidence is not None:
            self._add(_EVIDENCE, {**run, "payload": news.evidence})
        if news.environment is not None:
            self._add(_ENVIRONMENT, {**run, "payload": news.environment})

    def _add(self, sql: str, row: dict[str, Any]) -> None:
        self._rows.setdefault(sql, []).append(row)

    def flush(self) -> None:
        """Write what has been gathered, what is removed first."""
        for sql in sorted(self._rows, key=lambda sql: not sql.startswith("DELETE")):
            self.connection.execute_many(sql, self._rows[sql])
        self._rows.clear()
        self._count = 0


def progress_values(run_id: int, progress: Progress) -> dict[str, Any]:
    """The columns of a run's row that hold its progress."""
    values = {name: getattr(progress, name) for name in FIELDS}
    if progress.updated_at is None:
        values["updated_at"] = time.time()
    metrics = {metric: progress.metrics.get(metric) for metric in METRICS}
    return {"run_id": run_id, **values, **metrics}


def write_progress(connection: Connection, run_id: int, progress: Progress) -> None:
    """Record a run's state."""
    connection.execute(_PROGRESS, progress_values(run_id, progress))
