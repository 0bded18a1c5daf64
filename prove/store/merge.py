"""Takes the runs of an archive into a results folder: what is missing here is added, what is here is kept."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Any

from prove.errors import ProveError
from prove.rundir import RunDir, hold, read_json
from prove.spec.event import State
from prove.spec.job import Job
from prove.store import archive
from prove.store.archive import Contents, Packed
from prove.store.connection import query_among
from prove.store.fold import MALFORMED, Progress
from prove.store.news import News
from prove.store.reporting import studies
from prove.store.store import Store
from prove.store.writing import FORGOTTEN, FORGOTTEN_PROBLEMS

ASIDE = "replaced"
"""Folder of a results folder for run folders that an import has put another in the place of."""


class Verdict(StrEnum):
    """What an import does with a run."""

    ADDED = "added"
    """It was not here."""

    REPLACED = "replaced"
    """It was not finished here and is there, or had reported nothing here; the old folder is in ``replaced/``."""

    SAME = "same"
    """It is here already, event for event."""

    KEPT = "kept"
    """It differs, and theirs is not finished: ours stays."""

    HELD = "held"
    """It is not finished here, but somebody is training it, or a launch is about to: ours stays."""

    CONFLICT = "conflict"
    """It is finished here and there, with different events: ours stays."""


@dataclass(frozen=True)
class Merged:
    """What an import did.

    Attributes:
        verdicts: by the runs' keys.
        conflicts: of those in conflict, the mIoU here and there, in percent.
    """

    verdicts: Mapping[str, Verdict]
    conflicts: Mapping[str, tuple[float | None, float | None]]

    def keys(self, verdict: Verdict) -> list[str]:
        """The runs of one verdict."""
        return [key for key, found in self.verdicts.items() if found is verdict]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        conflicts = [{"key": key, "ours": ours, "theirs": theirs} for key, (ours, theirs) in self.conflicts.items()]
        without = {verdict.value: self.keys(verdict) for verdict in Verdict if verdict is not Verdict.CONFLICT}
        return {**without, "conflicts": conflicts}


def export_runs(store: Store, path: Path, experiment: str | None = None) -> tuple[int, int]:
    """Write the runs that have reported anything to an archive.

    Args:
        experiment: only the runs of this one.

    Returns:
        how many runs the archive holds, and how many were left out because they are running.

    Raises:
        ProveError: no such experiment, or the file exists or can't be written.
    """
    if path.exists():
        raise ProveError(f"{path} exists already.", hint="Name another file, or delete it first.")
    members: dict[str, list[str]] = {}
    for key, name in store.connection.query(
        "SELECT runs.key, experiments.name FROM experiments JOIN runs ON runs.id = run_id ORDER BY experiments.name"
    ):
        members.setdefault(key, []).append(name)
    rows = sorted((row for row in store.runs(experiment) if row.attempts), key=lambda row: row.key)
    here = [row for row in rows if RunDir.of(store.results_folder, row.key).events.exists()]
    resting = [row for row in here if row.state not in (State.RUNNING, State.QUEUED)]
    written = archive.write(
        path,
        (
            (RunDir.of(store.results_folder, row.key), Packed(row.state.value, row.loss, members.get(row.key, [])))
            for row in resting
        ),
        studies(store.connection, sorted({name for names in members.values() for name in names})),
    )
    return written, len(here) - written


def import_runs(store: Store, path: Path) -> Merged:
    """Take in the runs of an archive; nothing is changed unless all of it is sound.

    Raises:
        ProveError: it is damaged, holds what no export writes, or is of another format.
    """
    results = store.results_folder
    place = results / "runs" / f".import-{secrets.token_hex(4)}"  # on the same disk as the runs
    try:
        place.mkdir(parents=True)
        try:
            contents = archive.unpack(path, place)
            jobs = {key: _job(path, RunDir(place / key)) for key in contents.runs}
            merged = _merge(store, place, contents.runs)
        finally:
            shutil.rmtree(place)
    except OSError as error:
        raise ProveError(
            f"The results folder can't be written: {results} ({error.strerror or error}).",
            hint="What has been imported is sound. Import the file again when this is mended: it goes on from there.",
        ) from error
    _register(store, contents, jobs)
    store.refresh()
    return merged


def _job(path: Path, run: RunDir) -> Job:
    try:
        job = Job.from_dict(read_json(run.job))
    except (ProveError, *MALFORMED) as error:
        raise ProveError(f"{path}: the job of run {run.key} can't be read: {error}.") from error
    if job.key != run.key:
        raise ProveError(f"{path}: what is in the folder of run {run.key} is the job {job.key}.")
    return job


def _merge(store: Store, place: Path, packed: Mapping[str, Packed]) -> Merged:
    verdicts: dict[str, Verdict] = {}
    conflicts: dict[str, tuple[float | None, float | None]] = {}
    connection = store.connection
    with connection.writing():  # so that nobody claims a run in between
        rows = query_among(connection, "SELECT key, id, launch FROM runs WHERE key IN :values", packed)
        known = {key: (run_id, launch) for key, run_id, launch in rows}
        for key in sorted(packed):
            ours, theirs = RunDir.of(store.results_folder, key), RunDir(place / key)
            run_id, launch = known.get(key, (None, None))
            verdict = _verdict(ours, theirs, held=launch is not None)
            if verdict is Verdict.ADDED:
                theirs.path.rename(ours.path)
            elif verdict is Verdict.REPLACED and not _replace(store.results_folder, ours, theirs):
                verdict = Verdict.HELD
            elif verdict is Verdict.CONFLICT:
                conflicts[key] = (_outcome(ours).metrics.get("mIoU"), _outcome(theirs).metrics.get("mIoU"))
            if verdict in (Verdict.ADDED, Verdict.REPLACED) and run_id is not None:
                # Of two continuations of one beginning, what was read of the one is not what the other says.
                for sql in FORGOTTEN:
                    connection.execute(sql, {"run_id": run_id})
                connection.execute(FORGOTTEN_PROBLEMS, {"key": key})
            verdicts[key] = verdict
    return Merged(verdicts, conflicts)


def _verdict(ours: RunDir, theirs: RunDir, *, held: bool) -> Verdict:
    if ours.events.exists():
        if ours.events.read_bytes() == theirs.events.read_bytes():
            return Verdict.SAME
        if _outcome(theirs).state is not State.FINISHED:
            return Verdict.KEPT
        if _outcome(ours).state is State.FINISHED:
            return Verdict.CONFLICT
    if held:
        return Verdict.HELD
    return Verdict.REPLACED if ours.path.exists() else Verdict.ADDED


def _replace(results: Path, ours: RunDir, theirs: RunDir) -> bool:
    """Put their folder in the place of ours, which is kept aside; False where a worker is at ours."""
    with hold(ours.path / "worker.lock") as lock:
        if lock is not None:
            aside = results / ASIDE
            aside.mkdir(exist_ok=True)
            taken = {path.name for path in aside.iterdir()}
            shutil.move(ours.path, aside / next(n for n in _numbered(ours.key) if n not in taken))
            theirs.path.rename(ours.path)
    return lock is not None


def _numbered(key: str) -> Iterator[str]:
    return (f"{key}-{number}" for number in count(1))


def _outcome(run: RunDir) -> Progress:
    """What the events of a run folder say by themselves."""
    news = News(Progress(), {})
    data = run.events.read_bytes()
    for line in data[: data.rfind(b"\n") + 1].split(b"\n"):
        try:
            news.take(line)
        except MALFORMED:
            continue
    news.catch_up()
    return news.progress


def _register(store: Store, contents: Contents, jobs: Mapping[str, Job]) -> None:
    packed = contents.runs
    store.register((jobs[key], about.loss) for key, about in packed.items())
    for experiment in sorted({name for about in packed.values() for name in about.experiments}):
        members = [key for key, about in packed.items() if experiment in about.experiments]
        store.register([(jobs[key], packed[key].loss) for key in members], experiment)
    for name, said in contents.studies.items():
        if store.study(name) is None:  # what is said here stands
            store.remember_study(name, *said)
