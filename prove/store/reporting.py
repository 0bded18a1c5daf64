"""What reports ask of the database beside runs: environments, resampled metrics, what experiments say of reports."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prove.errors import ProveError
from prove.rundir import RunDir, read_json
from prove.store.connection import Connection, query_among
from prove.store.fold import MALFORMED
from prove.store.news import flat

_ENVIRONMENT = """
    INSERT INTO environments (run_id, payload) SELECT id, :payload FROM runs WHERE id = :run_id
    ON CONFLICT (run_id) DO NOTHING
"""
"""Of an old run, beside a worker that may just report a newer one: that one stands."""

_STUDY = """
    INSERT INTO studies (name, report, description) VALUES (:name, :report, :description)
    ON CONFLICT (name) DO UPDATE SET report = excluded.report, description = excluded.description
"""

_REPLICATES = """
    INSERT INTO replicates (run_id, checkpoint, scope, metric, stamp, payload)
    SELECT id, :checkpoint, :scope, :metric, finished_at, :payload FROM runs WHERE id = :run_id AND finished_at = :stamp
    ON CONFLICT (run_id, checkpoint, scope, metric) DO UPDATE SET stamp = excluded.stamp, payload = excluded.payload
"""
"""Nothing of a run that has started again, or is gone, while its images were resampled."""


class Described(NamedTuple):
    """What an experiment says of its report.

    Attributes:
        report: its section ``report``.
        description: what it is about, in words.
    """

    report: Mapping[str, Any]
    description: str


class Resampled(NamedTuple):
    """A metric of one run on resampled images, as it is kept.

    Attributes:
        stamp: ``finished_at`` of the run that it was computed for: later, it is of another result.
        payload: as `prove.report.replicates` writes it.
    """

    stamp: float
    payload: bytes


def environments(connection: Connection, results: Path, where: str, params: Mapping[str, Any]) -> dict[int, str]:
    """What runs were trained on, by ``runs.id``: the facts of `prove.provenance.comparability` as JSON.

    Of a run whose worker did not report it yet, it is read from the run folder and kept; one without either is left
    out.

    Args:
        where, params: which runs.
    """
    found: dict[int, str] = dict(
        connection.query(
            f"SELECT run_id, payload FROM environments JOIN runs ON runs.id = run_id WHERE {where}", params
        )
    )
    silent = connection.query(
        "SELECT runs.id, runs.key FROM runs LEFT JOIN environments ON environments.run_id = runs.id "
        f"WHERE environments.run_id IS NULL AND attempts > 0 AND {where}",
        params,
    )
    read = _from_folders(connection, results, dict(silent)) if silent else {}
    if read:
        with connection.writing():
            rows = [{"run_id": run_id, "payload": payload} for run_id, payload in read.items()]
            connection.execute_many(_ENVIRONMENT, rows)
    return found | read


def _from_folders(connection: Connection, results: Path, keys: Mapping[int, str]) -> dict[int, str]:
    from prove.provenance import comparability  # its imports would cost every command more than `prove.store` does

    known = {}
    for run_id, key in keys.items():
        try:
            known[run_id] = read_json(RunDir.of(results, key).env)
        except ProveError:
            continue  # its folder is elsewhere, or was never written so far
    rows = query_among(
        connection,
        "SELECT runs.id, job, resumed_from FROM runs "
        "LEFT JOIN attempts ON attempts.run_id = runs.id AND attempts.number = runs.attempts WHERE runs.id IN :values",
        known,
    )
    found = {}
    for run_id, job, resumed_from in rows:
        try:
            train = json.loads(job)["train"]
            facts = comparability(
                known[run_id],
                batch_size=int(train["batch_size"]),
                amp=bool(train.get("amp")),
                resumed=bool(resumed_from),
            )
        except MALFORMED:
            continue  # not written by PROVE
        found[run_id] = flat(facts)
    return found


def remember_study(connection: Connection, name: str, report: Mapping[str, Any], description: str) -> None:
    """Keep what an experiment says of its report; the last one who says it is right."""
    row = {"name": name, "report": json.dumps(dict(report), sort_keys=True), "description": description}
    with connection.writing():
        connection.execute(_STUDY, row)


def studies(connection: Connection, names: Iterable[str]) -> dict[str, Described]:
    """What these experiments say of their reports; those that say nothing are left out."""
    rows = query_among(connection, "SELECT name, report, description FROM studies WHERE name IN :values", names)
    return {name: Described(json.loads(report), description) for name, report, description in rows}


_LOOK = """
    INSERT INTO looks (study, metric, digest, runs, seen_at) VALUES (:study, :metric, :digest, :runs, :seen_at)
    ON CONFLICT (study, metric, digest) DO NOTHING
"""


def look(connection: Connection, study: str, metric: str, digest: str, runs: int) -> tuple[int, ...]:
    """Keep that verdicts on a study were read when these runs had finished.

    Args:
        digest: of which runs had finished, and when.
        runs: how many.

    Returns:
        how many had finished at each look so far, this one included, in the order of time.
    """
    what = {"study": study, "metric": metric}
    sql = "SELECT digest, runs FROM looks WHERE study = :study AND metric = :metric ORDER BY seen_at"
    known = dict(connection.query(sql, what))
    if digest not in known:
        with connection.writing():
            connection.execute(_LOOK, {**what, "digest": digest, "runs": runs, "seen_at": time.time()})
        known[digest] = runs
    return tuple(known.values())


def replicates(
    connection: Connection, checkpoint: str, scope: str, metric: str, run_ids: Iterable[int]
) -> dict[int, Resampled]:
    """What is kept of a metric of these runs, by ``runs.id``; see `prove.report.replicates`."""
    rows = query_among(
        connection,
        "SELECT run_id, stamp, payload FROM replicates WHERE run_id IN :values "
        "AND checkpoint = :checkpoint AND scope = :scope AND metric = :metric",
        run_ids,
        {"checkpoint": checkpoint, "scope": scope, "metric": metric},
    )
    return {run_id: Resampled(stamp, payload) for run_id, stamp, payload in rows}


def save_replicates(
    connection: Connection, checkpoint: str, scope: str, metric: str, found: Mapping[int, Resampled]
) -> None:
    """Keep a metric of runs on resampled images, in one transaction, each for the result it was computed for."""
    what = {"checkpoint": checkpoint, "scope": scope, "metric": metric}
    rows = [{**what, "run_id": run_id, "stamp": each.stamp, "payload": each.payload} for run_id, each in found.items()]
    with connection.writing():
        connection.execute_many(_REPLICATES, rows)
