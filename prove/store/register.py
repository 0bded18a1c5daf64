"""From jobs to rows: a run is registered once, whoever asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from prove.errors import ProveError
from prove.spec import LossExpr
from prove.spec.job import Job
from prove.store.connection import Connection

CHUNK = 2_000
"""Jobs that are held in memory at a time."""

REGISTER = """
    INSERT INTO runs (key, job, dataset, model, strategy, loss, seed, max_iters, state, created_at, updated_at)
    VALUES (:key, :job, :dataset, :model, :strategy, :loss, :seed, :max_iters, 'planned', :now, :now)
    ON CONFLICT (key) DO UPDATE SET loss = excluded.loss WHERE runs.loss <> excluded.loss
"""

JOIN = """
    INSERT INTO experiments (name, run_id) SELECT :experiment, id FROM runs WHERE key = :key
    ON CONFLICT (name, run_id) DO NOTHING
"""


def shown(loss: LossExpr) -> str:
    """The short text of a job's objective; with every parameter where it has a term that is not known here."""
    from prove.catalog.losses import short

    try:
        return short(loss)
    except ProveError:
        return str(loss)


def registration(job: Job, loss_text: str, now: float) -> dict[str, Any]:
    """The parameters of `REGISTER` for a job."""
    return {
        "key": job.key,
        "job": job.canonical,
        "dataset": job.dataset_name,
        "model": job.model.name,
        "strategy": job.strategy,
        "loss": loss_text,
        "seed": job.seed,
        "max_iters": job.train.max_iters,
        "now": now,
    }


def register(connection: Connection, jobs: Iterable[tuple[Job, str]], experiment: str | None) -> None:
    """Add the runs of jobs, as planned where they are new, in one transaction; the jobs may be a stream.

    Args:
        jobs: each with its objective in its short canonical text.
        experiment: adds the runs to this experiment.
    """
    now = time.time()
    rows = (registration(job, loss_text, now) for job, loss_text in jobs)
    with connection.writing():
        for chunk in _chunks(rows):
            connection.execute_many(REGISTER, chunk)
            if experiment is not None:
                connection.execute_many(JOIN, [{"experiment": experiment, "key": row["key"]} for row in chunk])


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while chunk := list(islice(rows, CHUNK)):
        yield chunk
