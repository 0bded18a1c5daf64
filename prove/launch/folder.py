"""Every path inside a launch folder, and the only code that writes there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from prove.errors import ProveError
from prove.rundir import hold, is_held, read_json, write_atomically, write_json

WORKER = "prove.training.preloaded:main"
"""What a worker runs: called with ``[RUN_DIR]``, it returns the exit code."""


@dataclass(frozen=True)
class Assignment:
    """One run that a launch has taken on, with all that its worker needs; plain data.

    Attributes:
        key: the run.
        job: the job's canonical form.
        placement: where it runs (`prove.build.job_config.Placement` as a mapping); the slot says what
            ``threads`` and ``cuda`` are when the run is prepared.
        device: what was asked for: ``auto`` (a GPU where the slot has one), ``cpu``, or ``cuda`` (nothing else).
        model_config: file in the launch's ``files/`` with the flattened config, for a model given as a file.
        terms: the user's own loss terms: to each name the stem of its ``files/<stem>.yaml`` and ``.py``, as `stem_of`
            makes it of what they hold: two runs of a launch may have two versions of a term.
        peak_memory_mib: what a run like this was measured to need on its device; None when none was.
    """

    key: str
    job: Mapping[str, Any]
    placement: Mapping[str, Any]
    device: str = "auto"
    model_config: str | None = None
    terms: Mapping[str, str] = field(default_factory=dict)
    peak_memory_mib: float | None = None


@dataclass(frozen=True)
class Launch:
    """One submission of runs: what was asked for, by whom, from where.

    Attributes:
        id: sorts by time, such as ``20261121-141530-3fa2c1``; the name of its folder.
        launcher: ``local`` or ``slurm``.
        host, pid, user: of the command that made it.
        created_at: seconds since 1970, UTC.
        experiment: its name, or None.
        max_attempts: how often a run is started before it counts as failed.
        worker: see `WORKER`.
        options: the launcher's own: slots and threads, or SLURM's directives.
    """

    id: str
    launcher: str
    host: str
    pid: int
    user: str
    created_at: float
    experiment: str | None = None
    max_attempts: int = 3
    worker: str = WORKER
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)


class LaunchDir:
    """The folder of one launch, ``results/launches/<id>/``.

    ::

        launch.json      the Launch
        tasks/<n>.json   the Assignments of task n, from 0: a local launch has one task, a SLURM array one per element
        files/           configs and loss terms that the runs share
        lock             held by the living local pool
        heartbeat        touched by it every half minute: what another host can see
        closed           once it exists, nothing of this launch starts any more
        cancelled/<key>  the run is called off
        outcomes/<n>.json  the runs of task n that could not start, or died too often, and have not said so themselves:
                         by key {"kind": FailureKind, "message": why}
        log.txt          what a detached pool prints
        slurm/           the batch script, and what SLURM writes: <array job>_<task>.out
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @classmethod
    def of(cls, results: Path, launch_id: str) -> LaunchDir:
        """The folder of a launch, below a results folder."""
        return cls(Path(results) / "launches" / launch_id)

    @property
    def id(self) -> str:
        """The launch: the folder's name."""
        return self.path.name

    @property
    def results(self) -> Path:
        """The results folder that it belongs to."""
        return self.path.parent.parent

    @property
    def record(self) -> Path:
        """The Launch."""
        return self.path / "launch.json"

    @property
    def files(self) -> Path:
        """Folder of configs and loss terms that the runs share."""
        return self.path / "files"

    @property
    def heartbeat(self) -> Path:
        """Touched by the living local pool."""
        return self.path / "heartbeat"

    @property
    def log(self) -> Path:
        """What a detached pool prints."""
        return self.path / "log.txt"

    @property
    def slurm(self) -> Path:
        """Folder of the batch script and of what SLURM writes."""
        return self.path / "slurm"

    def task(self, number: int) -> Path:
        """The Assignments of one task."""
        return self.path / "tasks" / f"{number}.json"

    def outcome(self, task: int) -> Path:
        """What became of those runs of a task that could not say so themselves; absent where there are none."""
        return self.path / "outcomes" / f"{task}.json"

    def begin(self) -> None:
        """Make the folder with next to nothing in it, so that it can be locked before anything is claimed for it.

        What is claimed can be called off from then on.

        Raises:
            ProveError: it can't be written.
        """
        try:
            self.path.mkdir(parents=True)
            (self.path / "cancelled").mkdir()
            self.heartbeat.touch()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ProveError:
        return ProveError(
            f"The launch folder can't be written: {self.path} ({error.strerror}).",
            hint="Choose another results folder with --results DIR or $PROVE_RESULTS.",
        )

    def create(self, launch: Launch, tasks: Sequence[Sequence[Assignment]], files: Mapping[str, bytes]) -> None:
        """Write the folder, ``launch.json`` last: a folder without it was never complete.

        Raises:
            ProveError: it can't be written.
        """
        try:
            self.files.mkdir()
            (self.path / "tasks").mkdir()
            for name, content in files.items():
                (self.files / name).write_bytes(content)
            for number, assignments in enumerate(tasks):
                write_atomically(self.task(number), partial(_write_list, map(vars, assignments)), lasting=False)
            write_json(self.record, launch.to_dict())
        except OSError as error:
            raise self._unwritable(error) from error

    def read(self) -> Launch:
        """The Launch; ProveError when the folder is not complete."""
        return Launch(**read_json(self.record))

    def assignments(self, task: int) -> list[Assignment]:
        """What one task has to do; ProveError when it is not there."""
        return [Assignment(**each) for each in read_json(self.task(task))]

    def close(self) -> None:
        """From now on nothing of this launch starts any more."""
        write_atomically(self.path / "closed", lambda file: file.write(b""))

    @property
    def is_closed(self) -> bool:
        """Whether nothing of this launch may start any more; also true once the folder is gone."""
        return (self.path / "closed").exists() or not self.path.exists()

    def call_off(self, key: str) -> None:
        """Have a run of this launch not started, or stopped."""
        write_atomically(self.path / "cancelled" / key, lambda file: file.write(b""))

    def is_called_off(self, key: str) -> bool:
        """Whether this run was called off."""
        return (self.path / "cancelled" / key).exists()

    def called_off(self) -> set[str]:
        """The runs that were called off."""
        try:
            return {name for name in os.listdir(self.path / "cancelled") if not name.startswith(".")}
        except FileNotFoundError:
            return set()

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Be the one process that makes or works on this launch.

        Yields:
            the descriptor of the lock: a child that inherits it holds the launch as long as it lives.

        Raises:
            ProveError: another process is.
        """
        with hold(self.path / "lock") as held:
            if held is None:
                raise ProveError(f"Launch {self.id} is being worked on by another process.")
            yield held

    def is_held(self) -> bool:
        """Whether a living pool on this machine works on it."""
        return is_held(self.path / "lock")


def stem_of(*contents: bytes) -> str:
    """What a launch's file, or files that belong together, are called: the same contents have the same name."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(b"%d:" % len(content) + content)
    return digest.hexdigest()[:16]


def _write_list(items: Iterable[Mapping[str, Any]], file: IO[bytes]) -> None:
    """A JSON list, one item per line, written as it is made: it may be longer than memory should hold as text."""
    before = b"[\n"
    for item in items:
        file.write(before + json.dumps(item, ensure_ascii=False, allow_nan=False).encode())
        before = b",\n"
    file.write(b"\n]\n" if before == b",\n" else b"[]\n")
