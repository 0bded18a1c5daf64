"""What has become of the tasks of SLURM launches: one question to the queue for all of them."""

from __future__ import annotations

import getpass
import time
from bisect import bisect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prove.errors import ProveError
from prove.launch.fates import ALIVE, UNKNOWN, Fate, Fates, is_gone, seems_held
from prove.launch.folder import LaunchDir
from prove.launch.queue import Queue, TaskStatus, compressed, query
from prove.launch.slurm import ask, cancel, job_name, offsets
from prove.spec.event import FailureKind
from prove.store.claims import LaunchRow

if TYPE_CHECKING:
    from prove.store import Store

GRACE_SECONDS = 120.0
"""How long a launch may go without jobs: its command may be dead and its `sbatch` still on the way."""

LAST_LINES = 12

_KINDS = {
    "TIMEOUT": FailureKind.TIMEOUT,
    "DEADLINE": FailureKind.TIMEOUT,
    "NODE_FAIL": FailureKind.NODE_LOST,
    "BOOT_FAIL": FailureKind.NODE_LOST,
    "LAUNCH_FAILED": FailureKind.NODE_LOST,
    "OUT_OF_MEMORY": FailureKind.OUT_OF_MEMORY,
}
"""What a run fails of, by the state in which SLURM ended its task; `FailureKind.KILLED` for the others."""

_WAITING = Fate(True, waiting=True)


def slurm_fates(store: Store, launches: Sequence[LaunchRow]) -> tuple[dict[str, Fates], list[str]]:
    """What is known of the tasks of these launches, and what the user should know.

    Array jobs that nobody noted, because the submitting command died, are found by their name and noted.
    """
    names = [job_name(row.id) for row in launches]
    # Asked first: what is being submitted now may be only half in the answer.
    submitting = {row.id for row in launches if seems_held(LaunchDir.of(store.results_folder, row.id))}
    try:
        queue = query(names, min(row.created_at for row in launches))
    except ProveError as error:
        note = f"{error.message}\nWhat SLURM runs is shown as it was last known."
        return {row.id: _SlurmFates(row, None, (), store.results_folder) for row in launches}, [note]
    fates: dict[str, Fates] = {}
    notes: list[str] = []
    noted = {row.id: row.slurm_jobs for row in store.open_launches()}  # by who has submitted them meanwhile
    for row in launches:
        if row.id in submitting:
            fates[row.id] = _SlurmFates(row, None, (), store.results_folder)
            continue
        folder = LaunchDir.of(store.results_folder, row.id)
        jobs = noted.get(row.id) or row.slurm_jobs or tuple(queue.arrays(job_name(row.id)))
        if not noted.get(row.id) and jobs:
            store.found_jobs(row.id, jobs)
        if is_gone(folder) and (living := _living(queue, jobs)):
            cancel(living)
            notes.append(f"Launch {row.id}: its folder is gone; its jobs were cancelled ({', '.join(jobs)}).")
        fates[row.id] = _SlurmFates(row, queue, jobs, store.results_folder)
        notes += _held_back(row, queue, jobs)
    return fates, notes


def withdraw(tasks: Iterable[tuple[LaunchRow, set[int]]], results: Path) -> None:
    """Take tasks out of the queue that wait there; those that run see for themselves what was called off.

    Raises:
        ProveError: SLURM does not answer.
    """
    elements: list[str] = []
    for row, numbers in tasks:
        starts = offsets(LaunchDir.of(results, row.id))
        for position, job in enumerate(row.slurm_jobs or ()):
            last = starts[position + 1] if position + 1 < len(starts) else float("inf")
            own = {number - starts[position] for number in numbers if starts[position] <= number < last}
            if own:
                elements.append(compressed(job, own))
    if elements:
        ask("scancel", "--state=PENDING", *elements)


class _SlurmFates(Fates):
    def __init__(self, row: LaunchRow, queue: Queue | None, jobs: Sequence[str], results: Path) -> None:
        self._row, self._queue, self._jobs = row, queue, jobs
        self._folder = LaunchDir.of(results, row.id)
        self._offsets = offsets(self._folder)
        self._gone = is_gone(self._folder)
        self._young = abs(time.time() - row.created_at) < GRACE_SECONDS  # abs: clocks are set back, too

    def of(self, task: int) -> Fate:
        if self._queue is None:
            return UNKNOWN
        if self._gone:
            return Fate(False, why="Its launch folder was deleted.")
        position, index = self._element(task)
        if position >= len(self._jobs):
            return UNKNOWN if self._young else Fate(False, why="It was never submitted: its launch died before that.")
        job = self._jobs[position]
        return self._fate(self._queue, job, index, task)

    def _fate(self, queue: Queue, job: str, index: int, task: int) -> Fate:
        status = queue.find((job, index))
        if status is None and job not in queue.jobs:
            if self._young or self._row.user_name != getpass.getuser():  # a cluster may hide others' jobs
                return UNKNOWN
            return Fate(False, why=f"SLURM no longer knows job {job}.", kind=FailureKind.NODE_LOST)
        if status is None and queue.past is None:
            return Fate(False, why=f"SLURM has ended {job}_{index}.")
        if status is None:  # accounts are kept of whatever has started, and the queue holds what has not
            return Fate(False, why=f"{job}_{index} was cancelled before it started.", cancelled=True)
        if status.life != "over" and (job, index) not in queue.live:
            if self._young:
                return UNKNOWN  # submitted between the two questions
            return Fate(False, why=f"SLURM has lost {job}_{index}.", kind=FailureKind.NODE_LOST)
        if status.life != "over":
            return _WAITING if status.life == "waiting" else ALIVE
        return self._end(status, f"{job}_{index}", task)

    def _end(self, status: TaskStatus, element: str, task: int) -> Fate:
        where = f" on {status.node}" if status.node else ""
        why = f"SLURM has ended {element}{where}: {status.state}{_meaning(status)}."
        kind = _KINDS.get(status.state, FailureKind.KILLED)
        if status.state == "CANCELLED":
            return Fate(False, why=why, cancelled=True)
        if (self._folder.slurm / f"time_is_up_{task}").exists():
            return Fate(False, why=f"{element}{where} was stopped at its time limit.", kind=FailureKind.TIMEOUT)
        code, _, number = status.exit_code.partition(":")
        by_itself = status.state == "FAILED" and number in ("", "0") and int(code or 1) < 128  # above: by a signal
        return Fate(False, why=why, kind=kind, at_once=kind is FailureKind.OUT_OF_MEMORY, by_itself=by_itself)

    def _element(self, task: int) -> tuple[int, int]:
        position = bisect(self._offsets, task) - 1
        return position, task - self._offsets[position]

    def over(self) -> bool:
        if self._queue is None:
            return False
        if not self._jobs:
            return not self._young
        if self._young and not self._queue.jobs.issuperset(self._jobs):
            return False  # just submitted, and not to be seen yet
        return not _living(self._queue, self._jobs)

    def withdraw(self) -> list[str]:
        waiting = {
            job
            for (job, _), status in (self._queue.live if self._queue else {}).items()
            if job in self._jobs and status.life == "waiting"
        }
        try:
            if waiting:
                ask("scancel", "--state=PENDING", *sorted(waiting))
        except ProveError as error:
            return [error.message]
        return []

    def launcher(self, task: int) -> str:
        position, index = self._element(task)
        return f"slurm {self._jobs[position]}_{index}" if position < len(self._jobs) else ""

    def last_words(self, task: int) -> str:
        element = self.launcher(task).removeprefix("slurm ")
        fate = self.of(task)
        if not element or not fate.by_itself:
            return ""
        try:
            printed = (self._folder.slurm / f"{element}.out").read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(printed.strip().splitlines()[-LAST_LINES:])


def _meaning(status: TaskStatus) -> str:
    code, _, number = status.exit_code.partition(":")
    if number not in ("", "0"):
        return f", signal {number}"
    return f", exit code {code}" if code not in ("", "0") else ""


def _living(queue: Queue, jobs: Sequence[str]) -> list[str]:
    """Elements of these array jobs that wait or run."""
    return [f"{job}_{index}" for (job, index), status in queue.live.items() if job in jobs and status.life != "over"]


def _held_back(row: LaunchRow, queue: Queue, jobs: Sequence[str]) -> list[str]:
    """A note on tasks that wait for somebody, not for their turn."""
    reasons = {
        status.reason
        for (job, _), status in queue.live.items()
        if job in jobs and status.life == "waiting" and "held" in f"{status.reason}{status.state}".lower()
    }
    return [
        f"Launch {row.id}: SLURM holds tasks back ({reason}); `scontrol release {' '.join(jobs)}` lets them go on."
        for reason in sorted(reasons)
    ]
