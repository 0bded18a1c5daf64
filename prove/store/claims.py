"""Who has taken on which run: launches, their claims, and how a claim ends.

A run that a launch has claimed is nobody else's to start. The claim is taken in one transaction with the launch's row,
so of two overlapping sweeps each gets what the other has not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prove.rundir import RunDir
from prove.spec.event import FailureKind, State
from prove.spec.job import Job
from prove.store.connection import Connection, Row, query_among
from prove.store.fold import LOST
from prove.store.register import JOIN, REGISTER, registration


@dataclass(frozen=True)
class LaunchRow:
    """One submission of runs, as the database knows it.

    Attributes:
        id: the name of its folder.
        launcher: ``local`` or ``slurm``.
        host, pid, user_name: of the command that made it.
        created_at: seconds since 1970, UTC.
        max_attempts: how often a run is started before it counts as failed.
        slurm_jobs: its array jobs; None until `sbatch` has answered.
        closed_at: None while anything of it may still start or run.
    """

    id: str
    launcher: str
    host: str
    pid: int
    user_name: str
    experiment: str | None
    created_at: float
    max_attempts: int
    slurm_jobs: tuple[str, ...] | None = None
    closed_at: float | None = None


@dataclass(frozen=True)
class Claim:
    """A run that an open launch has taken on.

    Attributes:
        task: which of the launch's tasks.
        attempts: attempts at the run that have reported something, over all launches.
        failure: why it failed; None otherwise.
    """

    key: str
    launch: str
    task: int
    state: State
    attempts: int
    failure: FailureKind | None = None


@dataclass(frozen=True)
class Settlement:
    """What has become of a claimed run.

    Attributes:
        state: `State.QUEUED` keeps the claim: its launch will start the run again. Any other gives it up. None: the
            run's own events have said how it ended.
        failure: the kind, with `State.FAILED`.
        message: why, for the run and for an attempt that has not said so itself.
    """

    key: str
    launch: str
    state: State | None
    failure: FailureKind | None = None
    message: str = ""


_LAUNCH = tuple(LaunchRow.__dataclass_fields__)

_NEW_LAUNCH = (
    f"INSERT INTO launches ({', '.join(_LAUNCH)}) VALUES ({', '.join(f':{name}' for name in _LAUNCH)}) "
    "ON CONFLICT (id) DO NOTHING"
)

_CONCLUDED = (State.FINISHED, State.FAILED, State.CANCELLED)
"""What a settlement leaves as it is."""

_OPEN_ATTEMPT_ENDS = """
    UPDATE attempts SET ending = 'interrupted', ended_at = seen_at, reason = :reason
    WHERE run_id = :id AND number = :attempts AND ending IS NULL
"""

_SETTLE = """
    UPDATE runs SET state = :state, failure = :failure, message = :message, advice = :advice,
        finished_at = :finished_at, launch = :launch, task = :task
    WHERE id = :id
"""


def claim(connection: Connection, launch: LaunchRow, tasks: Mapping[str, int], states: Collection[State]) -> set[str]:
    """Take on those of these runs that nobody has and that are in one of these states; which those were.

    Args:
        launch: recorded with it if it is new.
        tasks: the task of each key.
    """
    chosen = ", ".join(f"'{State(state)}'" for state in states) or "NULL"
    with connection.writing():
        jobs = None if launch.slurm_jobs is None else ",".join(launch.slurm_jobs)
        connection.execute(_NEW_LAUNCH, {**asdict(launch), "slurm_jobs": jobs})
        before = _held(connection, launch.id)
        connection.execute_many(
            "UPDATE runs SET state = 'queued', failure = NULL, message = '', advice = '', launch = :launch, "
            f"task = :task WHERE key = :key AND launch IS NULL AND state IN ({chosen})",
            [{"launch": launch.id, "task": task, "key": key} for key, task in tasks.items()],
        )
        return _held(connection, launch.id) - before


def _held(connection: Connection, launch_id: str) -> set[str]:
    return {key for (key,) in connection.query("SELECT key FROM runs WHERE launch = :launch", {"launch": launch_id})}


def reassign(connection: Connection, launch_id: str, tasks: Mapping[str, int]) -> None:
    """Give runs that a launch holds other tasks of it."""
    with connection.writing():
        connection.execute_many(
            "UPDATE runs SET task = :task WHERE key = :key AND launch = :launch",
            [{"launch": launch_id, "task": task, "key": key} for key, task in tasks.items()],
        )


def submitted(connection: Connection, launch_id: str, slurm_jobs: Sequence[str]) -> None:
    """Note the array jobs of a launch."""
    with connection.writing():
        connection.execute(
            "UPDATE launches SET slurm_jobs = :jobs WHERE id = :id", {"jobs": ",".join(slurm_jobs), "id": launch_id}
        )


def found_jobs(connection: Connection, launch_id: str, slurm_jobs: Sequence[str]) -> None:
    """`submitted`, of array jobs that were found by their name: what the submitting command has noted stands."""
    with connection.writing():
        connection.execute(
            "UPDATE launches SET slurm_jobs = :jobs WHERE id = :id AND slurm_jobs IS NULL",
            {"jobs": ",".join(slurm_jobs), "id": launch_id},
        )


def launch_ids(connection: Connection) -> set[str]:
    """All launches that the database knows."""
    return {launch_id for (launch_id,) in connection.query("SELECT id FROM launches")}


def take_back(
    connection: Connection, launch: LaunchRow, jobs: Sequence[tuple[Job, str]], tasks: Mapping[str, int]
) -> None:
    """Record a launch that the database has lost, in one transaction: its runs, and its claim on what is not concluded.

    Args:
        jobs: of its runs, each with its objective in its short canonical text.
        tasks: the task of each key.
    """
    rows = [registration(job, loss_text, launch.created_at) for job, loss_text in jobs]
    with connection.writing():
        connection.execute(_NEW_LAUNCH, {**asdict(launch), "slurm_jobs": None})
        connection.execute_many(REGISTER, rows)
        if launch.experiment is not None:
            connection.execute_many(JOIN, [{"experiment": launch.experiment, "key": row["key"]} for row in rows])
        connection.execute_many(
            "UPDATE runs SET launch = :launch, task = :task "
            "WHERE key = :key AND launch IS NULL AND state IN ('planned', 'interrupted', 'running')",
            [{"launch": launch.id, "task": task, "key": key} for key, task in tasks.items()],
        )


def open_launches(connection: Connection) -> list[LaunchRow]:
    """The launches of which something may still start or run, oldest first."""
    rows = connection.query(
        f"SELECT {', '.join(_LAUNCH)} FROM launches WHERE closed_at IS NULL ORDER BY created_at, id"
    )
    return [_launch_row(row) for row in rows]


def _launch_row(row: Row) -> LaunchRow:
    named = dict(zip(_LAUNCH, row, strict=True))
    jobs = named["slurm_jobs"]
    return LaunchRow(**named | {"slurm_jobs": None if jobs is None else tuple(filter(None, jobs.split(",")))})


def claims(connection: Connection, launch_id: str | None = None) -> list[Claim]:
    """The runs that open launches hold, or that one holds, by launch and task."""
    where, params = ("launch IS NOT NULL", {}) if launch_id is None else ("launch = :launch", {"launch": launch_id})
    rows = connection.query(
        "SELECT key, launch, task, state, attempts, failure FROM runs "
        f"WHERE {where} AND launch IN (SELECT id FROM launches WHERE closed_at IS NULL) ORDER BY launch, task, runs.id",
        params,
    )
    return [
        Claim(key, launch, task, State(state), attempts, FailureKind(failure) if failure else None)
        for key, launch, task, state, attempts, failure in rows
    ]


def states(connection: Connection, keys: Iterable[str]) -> dict[str, tuple[State, str | None]]:
    """State and claiming launch of those of these runs that are registered."""
    rows = query_among(connection, "SELECT key, state, launch FROM runs WHERE key IN :values", keys)
    return {key: (State(state), launch) for key, state, launch in rows}


def settle(connection: Connection, results: Path, settlements: Iterable[Settlement]) -> int:
    """Record what has become of claimed runs, in one transaction; how many that concerned.

    One is passed over, and left to the next refresh, where the run is no longer that launch's, or where its folder
    holds events that nobody has read yet: they may say something else. A run that is finished stays so.
    """
    wanted = {settlement.key: settlement for settlement in settlements}
    if not wanted:
        return 0
    with connection.writing():
        found = [
            row
            for row in _held_rows(connection, wanted)
            if row["launch"] == wanted[row["key"]].launch and _is_read(RunDir.of(results, row["key"]), row["size"])
        ]
        changes = [_settled(row, wanted[row["key"]]) for row in found]
        connection.execute_many(_SETTLE, changes)
        connection.execute_many(_OPEN_ATTEMPT_ENDS, [change for change in changes if change["ends"]])
    return len(changes)


_HELD = "id, key, launch, task, state, failure, message, advice, finished_at, updated_at, attempts"


def _held_rows(connection: Connection, keys: Iterable[str]) -> Iterator[dict[str, Any]]:
    newest = "FROM attempts WHERE attempts.run_id = runs.id AND attempts.number = runs.attempts"
    more = ("size", "ending", "reason")
    sql = (
        f"SELECT {_HELD}, (SELECT size FROM ingest WHERE ingest.run_id = runs.id), "
        f"(SELECT ending {newest}), (SELECT reason {newest}) FROM runs WHERE key IN :values"
    )
    for row in query_among(connection, sql, keys):
        yield dict(zip((*_HELD.split(", "), *more), row, strict=True))


def _is_read(run: RunDir, ingested: int | None) -> bool:
    try:
        return os.stat(run.events).st_size == (ingested or 0)
    except OSError:
        return True


def _settled(row: Mapping[str, Any], settlement: Settlement) -> dict[str, Any]:
    """The row of a run after a settlement; ``ends`` says whether an attempt that is open has ended."""
    state, wanted = State(row["state"]), settlement.state
    claim_of = {name: row[name] if wanted is State.QUEUED else None for name in ("launch", "task")}
    if state in _CONCLUDED or (wanted is None and state is not State.QUEUED):
        return {**row, "launch": None, "task": None, "ends": False}
    if wanted is not State.QUEUED and state is State.QUEUED and row["ending"] == State.FINISHED:
        # It was to be trained again, and was not: the result that it has still stands.
        return {**row, **claim_of, "state": State.FINISHED, "message": row["reason"] or "", "ends": False}
    failure = settlement.failure if wanted is State.FAILED else None
    return {
        **row,
        **claim_of,
        "state": wanted or (State.INTERRUPTED if row["attempts"] else State.PLANNED),
        "failure": failure,
        "message": settlement.message,
        "advice": "" if failure is None else failure.advice,
        "finished_at": row["updated_at"] if wanted is State.FAILED else None,
        "reason": settlement.message or LOST,
        "ends": True,
    }


def close_launch(connection: Connection, launch_id: str) -> None:
    """Note that nothing of a launch runs or will start; what it still holds is anybody's again."""
    with connection.writing():
        left = [
            _settled(row, Settlement(row["key"], launch_id, None))
            for row in _held_rows(connection, _held(connection, launch_id))
        ]
        connection.execute_many(_SETTLE, left)
        connection.execute(
            "UPDATE launches SET closed_at = :now WHERE id = :id AND closed_at IS NULL",
            {"now": time.time(), "id": launch_id},
        )


def reset(connection: Connection, keys: Iterable[str], to: State) -> int:
    """Set runs that nobody holds to planned or cancelled; how many those were.

    Not one that is finished, nor one that runs: `prove run` is training it.
    """
    if to not in (State.PLANNED, State.CANCELLED):
        raise ValueError(f"a run can't be set to {to}")
    with connection.writing():
        ids = [
            {"id": run_id, "to": to}
            for run_id, state, launch in query_among(
                connection, "SELECT id, state, launch FROM runs WHERE key IN :values", keys
            )
            if launch is None and state not in (State.FINISHED, State.RUNNING)
        ]
        connection.execute_many(
            "UPDATE runs SET state = :to, failure = NULL, message = '', advice = '', finished_at = NULL WHERE id = :id",
            ids,
        )
    return len(ids)
