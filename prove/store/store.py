"""The store: what every command asks for runs."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prove.errors import ProveError, unknown
from prove.spec.event import State
from prove.spec.job import Job
from prove.store import claims, reporting, schema
from prove.store.claims import Claim, LaunchRow, Settlement
from prove.store.connection import DATABASE, SQLITE, Connection, connect
from prove.store.deleted import owns
from prove.store.ingest import ingest
from prove.store.reconcile import reconcile
from prove.store.register import register
from prove.store.reporting import Described, Resampled
from prove.store.rows import ATTEMPT, SELECTED, Attempt, CurvePoint, Problem, ResultRow, RunRow, run_row

PATIENCE_SECONDS = 30.0
"""How long to wait for another writer before giving up."""

SHORTEST_PREFIX = 4
"""Fewest characters of a key that name a run."""

_SELECT = f"SELECT {SELECTED} FROM runs"
_SELECT_WITH_JOB = f"SELECT {SELECTED}, runs.job FROM runs"


def database_url(results: Path, url: str | None = None) -> str:
    """The database of a results folder: the URL given, or ``$PROVE_DB``, or ``prove.db`` in the folder."""
    return url or os.environ.get("PROVE_DB") or f"{SQLITE}{Path(results) / DATABASE}"


class Store:
    """The database of one results folder; a context manager.

    ::

        with Store.open(Path("results")) as store:
            store.refresh()
            for run in store.runs():
                print(run.key, run.state, run.metrics["mIoU"])
    """

    def __init__(self, connection: Connection, results: Path) -> None:
        self.connection = connection
        self.results_folder = results

    @classmethod
    def open(cls, results: Path, url: str | None = None, *, patience_seconds: float = PATIENCE_SECONDS) -> Store:
        """Open the database of a results folder, and create it when there is none.

        Args:
            results: folder that holds ``runs/``.
            url: SQLAlchemy URL; None for ``$PROVE_DB`` or else ``prove.db`` in the folder.
            patience_seconds: how long to wait for another writer.

        Raises:
            ProveError: it can't be written, is locked, is not PROVE's database, or has another version's tables.
        """
        connection = connect(database_url(results, url), patience_seconds)
        try:
            schema.prepare(connection)
        except BaseException:
            connection.close()
            raise
        return cls(connection, Path(results))

    @classmethod
    def open_existing(cls, results: Path) -> Store:
        """`open`, for a command that asks for a run: where nothing is, nothing is created.

        Raises:
            ProveError: there are no runs.
        """
        if cls.holds_nothing(results):
            raise ProveError(
                f"There are no runs in {results}.",
                hint="Train one with `prove run`, or name another folder with --results DIR.",
            )
        return cls.open(results)

    @staticmethod
    def holds_nothing(results: Path, url: str | None = None) -> bool:
        """Whether a results folder has neither a database nor run folders: reading it must not create them.

        Raises:
            ProveError: what is named is a file.
        """
        if Path(results).is_file():
            raise ProveError(f"{results} is a file, not a results folder.", hint="Name a folder with --results DIR.")
        where = database_url(results, url)
        has_database = not where.startswith(SQLITE) or Path(where.removeprefix(SQLITE)).exists()
        return not has_database and not (Path(results) / "runs").exists()

    def close(self) -> None:
        """Let go of the database."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_own(self) -> bool:
        """Whether the database is the results folder's own: another may hold runs whose folders are elsewhere."""
        return owns(self.connection, self.results_folder)

    # What is written

    def upsert(self, job: Job, loss_text: str, experiment: str | None = None) -> RunRow:
        """The run of a job, registered as planned when it is new.

        Args:
            loss_text: the objective in its short canonical text.
            experiment: adds the run to this experiment.
        """
        self.register([(job, loss_text)], experiment)
        return self.run(job.key)

    def register(self, jobs: Iterable[tuple[Job, str]], experiment: str | None = None) -> None:
        """`upsert` for many jobs, in one transaction; a stream of them is not gathered in memory."""
        register(self.connection, jobs, experiment)

    def ingest(self) -> int:
        """Record what the run folders have reported since the last time; how many events were new."""
        return ingest(self.connection, self.results_folder)

    def reconcile(self) -> int:
        """After `ingest`: set runs whose worker died without a word to interrupted; how many those were."""
        return reconcile(self.connection, self.results_folder)

    def refresh(self) -> None:
        """`ingest`, then `reconcile`: what every command does before it reads."""
        self.ingest()
        self.reconcile()

    # Who has taken on which run: see `prove.store.claims`

    def claim(self, launch: LaunchRow, tasks: Mapping[str, int], states: Collection[State]) -> set[str]:
        """Take on those of these runs (key: task) that nobody has and that are in these states; which those were."""
        return claims.claim(self.connection, launch, tasks, states)

    def reassign(self, launch_id: str, tasks: Mapping[str, int]) -> None:
        """Give runs that a launch holds other tasks of it."""
        claims.reassign(self.connection, launch_id, tasks)

    def submitted(self, launch_id: str, slurm_jobs: Sequence[str]) -> None:
        """Note the array jobs of a launch."""
        claims.submitted(self.connection, launch_id, slurm_jobs)

    def found_jobs(self, launch_id: str, slurm_jobs: Sequence[str]) -> None:
        """`submitted`, of array jobs that were found by their name: what the submitting command has noted stands."""
        claims.found_jobs(self.connection, launch_id, slurm_jobs)

    def launch_ids(self) -> set[str]:
        """All launches that the database knows."""
        return claims.launch_ids(self.connection)

    def take_back(self, launch: LaunchRow, jobs: Sequence[tuple[Job, str]], tasks: Mapping[str, int]) -> None:
        """Record a launch that the database has lost: its runs, and its claim on what is not concluded."""
        claims.take_back(self.connection, launch, jobs, tasks)

    def open_launches(self) -> list[LaunchRow]:
        """The launches of which something may still start or run, oldest first."""
        return claims.open_launches(self.connection)

    def claims(self, launch_id: str | None = None) -> list[Claim]:
        """The runs that open launches hold, or that one holds, by launch and task."""
        return claims.claims(self.connection, launch_id)

    def states(self, keys: Iterable[str]) -> dict[str, tuple[State, str | None]]:
        """State and claiming launch of those of these runs that are registered."""
        return claims.states(self.connection, keys)

    def settle(self, settlements: Iterable[Settlement]) -> int:
        """Record what has become of claimed runs, in one transaction; how many that concerned."""
        return claims.settle(self.connection, self.results_folder, settlements)

    def close_launch(self, launch_id: str) -> None:
        """Note that nothing of a launch runs or will start; what it still holds is anybody's again."""
        claims.close_launch(self.connection, launch_id)

    def reset(self, keys: Iterable[str], to: State) -> int:
        """Set runs that nobody holds, that don't run and are not finished, to planned or cancelled; how many."""
        return claims.reset(self.connection, keys, to)

    # What is read

    def runs(
        self, experiment: str | None = None, *, states: Iterable[State] | None = None, limit: int | None = None
    ) -> list[RunRow]:
        """Runs, the most recently updated first; without their jobs.

        Raises:
            ProveError: no such experiment.
        """
        where, params = self._chosen(experiment)
        if states is not None:
            chosen = ", ".join(f"'{State(state)}'" for state in states)
            where += f" AND state IN ({chosen})"
        tail = "" if limit is None else f" LIMIT {int(limit)}"
        rows = self.connection.query(f"{_SELECT} WHERE {where} ORDER BY updated_at DESC, runs.id DESC{tail}", params)
        return [run_row(row) for row in rows]

    def counts(self, experiment: str | None = None) -> dict[State, int]:
        """How many runs are in each state; states without any are left out.

        Raises:
            ProveError: no such experiment.
        """
        where, params = self._chosen(experiment)
        rows = self.connection.query(f"SELECT state, COUNT(*) FROM runs WHERE {where} GROUP BY state", params)
        found = {State(state): int(count) for state, count in rows}
        return {state: found[state] for state in State if state in found}

    def run(self, key: str) -> RunRow:
        """The run of a key, or of the beginning of one.

        Args:
            key: at least `SHORTEST_PREFIX` characters that one run's key begins with.

        Raises:
            ProveError: no run, or several; names the candidates.
        """
        prefix = key.strip().lower()
        if len(prefix) < SHORTEST_PREFIX:
            raise ProveError(
                f"{key!r} is too short to name a run.",
                hint=f"Give at least the first {SHORTEST_PREFIX} characters of its key.",
            )
        rows = self.connection.query(
            f"{_SELECT_WITH_JOB} WHERE key >= :low AND key < :high ORDER BY key LIMIT 6",
            {"low": prefix, "high": prefix + "~"},
        )
        found = [run_row(row) for row in rows]
        if len(found) == 1:
            return found[0]
        if found:
            listed = "\n".join(_described(run) for run in found[:5])
            more = "\n  ..." if len(found) > 5 else ""
            raise ProveError(f"{key!r} begins the keys of several runs:\n{listed}{more}", hint="Give more of the key.")
        recent = self.runs(limit=3)
        if not recent:
            raise ProveError(
                f"There is no run {key!r}: {self.results_folder} has no runs yet.",
                hint="Train one with `prove run`, or name another folder with --results DIR.",
            )
        listed = "\n".join(_described(run) for run in recent)
        raise ProveError(
            f"There is no run {key!r} in {self.results_folder}. The latest are:\n{listed}",
            hint="List all with `prove status`.",
        )

    def find(self, key: str) -> RunRow | None:
        """The run of a whole key; None where it was never registered."""
        rows = self.connection.query(f"{_SELECT_WITH_JOB} WHERE key = :key", {"key": key})
        return run_row(rows[0]) if rows else None

    def attempts(self, key: str) -> list[Attempt]:
        """The attempts at a run, first to last."""
        rows = self.connection.query(
            f"SELECT {', '.join(ATTEMPT)} FROM attempts WHERE run_id = :run_id ORDER BY number",
            {"run_id": self._id(key)},
        )
        return [Attempt(*row) for row in rows]

    def results(self, key: str) -> list[ResultRow]:
        """All numbers of a finished run; empty before."""
        rows = self.connection.query(
            "SELECT checkpoint, scope, name, metric, value FROM results WHERE run_id = :run_id "
            "ORDER BY checkpoint DESC, scope DESC, name, metric",
            {"run_id": self._id(key)},
        )
        return [ResultRow(*row) for row in rows]

    def evidence(self, key: str) -> Mapping[str, Any] | None:
        """What the wiring proof of a run saw; None before it."""
        rows = self.connection.query("SELECT payload FROM evidence WHERE run_id = :run_id", {"run_id": self._id(key)})
        return dict(json.loads(rows[0][0])) if rows else None

    def curve(self, key: str, split: str | None = None) -> list[CurvePoint]:
        """What training, validation and the measurements of gradients of a run reported, by iteration.

        Args:
            split: ``train``, ``val`` or ``grads`` alone; None for all.
        """
        rows = self.connection.query(
            "SELECT split, iteration, payload FROM curves WHERE run_id = :run_id ORDER BY iteration, split",
            {"run_id": self._id(key)},
        )
        return [
            CurvePoint(name, iteration, json.loads(payload))
            for name, iteration, payload in rows
            if split in (None, name)
        ]

    # What reports read and keep: see `prove.store.reporting`

    def environments(self, experiment: str | None = None) -> dict[int, str]:
        """What runs were trained on, by ``runs.id``: `prove.provenance.comparability` as JSON, equal where runs are.

        Raises:
            ProveError: no such experiment.
        """
        where, params = self._chosen(experiment)
        return reporting.environments(self.connection, self.results_folder, where, params)

    def remember_study(self, name: str, report: Mapping[str, Any], description: str) -> None:
        """Keep what an experiment says of its report, plain JSON types; the last one who says it is right."""
        reporting.remember_study(self.connection, name, report, description)

    def study(self, name: str) -> Described | None:
        """What an experiment says of its report, ``(report, description)``; None where nothing is kept."""
        return reporting.studies(self.connection, [name]).get(name)

    def look(self, study: str, metric: str, digest: str, runs: int) -> tuple[int, ...]:
        """Keep that verdicts on a study were read with these runs finished; how many were, at each look so far."""
        return reporting.look(self.connection, study, metric, digest, runs)

    def replicates(self, checkpoint: str, scope: str, metric: str, run_ids: Iterable[int]) -> dict[int, Resampled]:
        """What is kept of a metric of these runs on resampled images, ``(stamp, payload)`` by ``runs.id``."""
        return reporting.replicates(self.connection, checkpoint, scope, metric, run_ids)

    def save_replicates(self, checkpoint: str, scope: str, metric: str, found: Mapping[int, Resampled]) -> None:
        """Keep a metric of runs on resampled images, each for the result it was computed for."""
        reporting.save_replicates(self.connection, checkpoint, scope, metric, found)

    def problems(self, key: str | None = None) -> list[Problem]:
        """What could not be read in the run folders, or in one of them."""
        where, params = ("1 = 1", {}) if key is None else ("key = :key", {"key": key})
        rows = self.connection.query(
            f"SELECT key, position, message, line FROM problems WHERE {where} ORDER BY key, position", params
        )
        return [Problem(*row) for row in rows]

    def experiments(self) -> list[str]:
        """Names of the experiments."""
        return [name for (name,) in self.connection.query("SELECT DISTINCT name FROM experiments ORDER BY name")]

    def _chosen(self, experiment: str | None) -> tuple[str, dict[str, Any]]:
        if experiment is None:
            return "1 = 1", {}
        names = self.experiments()
        if experiment not in names:
            if not names:
                raise ProveError(
                    f"Unknown experiment {experiment!r}: {self.results_folder} has none.",
                    hint="Leave the name out to see all runs.",
                )
            raise unknown("experiment", experiment, names)
        return "runs.id IN (SELECT run_id FROM experiments WHERE name = :experiment)", {"experiment": experiment}

    def _id(self, key: str) -> int:
        rows = self.connection.query("SELECT id FROM runs WHERE key = :key", {"key": key})
        return int(rows[0][0]) if rows else self._id(self.run(key).key)


def _described(run: RunRow) -> str:
    return f"  {run.key}  {run.state}  {run.dataset}, {run.model}, {run.loss}, seed {run.seed}"
