"""Takes launches back that have a folder and no row: somebody has deleted the database, maybe while they lived."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from prove.errors import ProveError
from prove.launch.folder import LaunchDir
from prove.launch.start import row_of
from prove.spec.job import Job
from prove.store.fold import MALFORMED
from prove.store.register import shown

if TYPE_CHECKING:
    from prove.store import Store


def take_back(store: Store) -> None:
    """Record the launches below the results folder that its own database does not know, with what they hold.

    A launch that is closed holds nothing. The array jobs of one that was given to SLURM are found by their name.
    """
    try:
        names = set(os.listdir(store.results_folder / "launches"))
    except OSError:
        return
    for name in sorted(names - store.launch_ids()):  # in this order: a launch has its row before it has a record
        folder = LaunchDir.of(store.results_folder, name)
        if folder.record.exists():
            with suppress(ProveError, OSError, *MALFORMED):  # no launch of this PROVE, or just gone
                _take_back(store, folder)


def _take_back(store: Store, folder: LaunchDir) -> None:
    launch = folder.read()
    closed_at = _closed_at(folder)
    jobs: list[tuple[Job, str]] = []
    tasks: dict[str, int] = {}
    for number in _numbers(folder) if closed_at is None else ():
        for each in folder.assignments(number):
            job = Job.from_dict(each.job)
            jobs.append((job, shown(job.loss)))
            tasks[job.key] = number
    row = replace(row_of(launch), id=folder.id, closed_at=closed_at)
    store.take_back(row, jobs, tasks)


def _numbers(folder: LaunchDir) -> list[int]:
    """The launch's tasks."""
    return sorted(int(path.stem) for path in (folder.path / "tasks").glob("*.json") if path.stem.isdigit())


def _closed_at(folder: LaunchDir) -> float | None:
    try:
        return (folder.path / "closed").stat().st_mtime
    except FileNotFoundError:
        return None
