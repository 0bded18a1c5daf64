"""Launches of trivial workers, or of one real training, on the SLURM of these tests."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from journal import make_job
from launches import WORKER, assignment, events
from slurm_cluster import until

from prove.cli.request import Plan
from prove.launch.folder import WORKER as TRAINING
from prove.launch.folder import Assignment
from prove.launch.settle import refresh
from prove.launch.slurm import submit
from prove.launch.slurm_options import SlurmOptions
from prove.launch.start import Request, opened
from prove.rundir import RunDir
from prove.spec.event import State
from prove.store import Store


class Sweep:
    """A launch of trivial workers, as `prove sweep` makes it."""

    def __init__(
        self,
        store: Store,
        plan: Mapping[str, Any],
        runs: int = 1,
        *,
        submits: bool = True,
        attempts: int = 3,
        trains: Plan | None = None,
        **options: Any,
    ) -> None:
        self.store, self.results = store, store.results_folder
        (self.results / "plan.json").write_text(json.dumps(plan))
        self.options = SlurmOptions.from_mapping({"signal_seconds": 5, **options}, "in a test")
        jobs = [make_job(seed, max_iters=10) for seed in range(runs)] if trains is None else [trains.job]
        self.keys = [job.key for job in jobs]
        store.register((job, "ce") for job in jobs)
        wanted = [assignment(seed, device="cpu") for seed in range(runs)]  # the GPUs of the cluster are imagined
        if trains is not None:
            wanted = [Assignment(trains.job.key, trains.job.to_dict(), dataclasses.asdict(trains.placement))]
        worker = WORKER if trains is None else TRAINING
        request = Request("slurm", self.options.to_dict(), self.options.pack, attempts, "ablation", worker)
        self.jobs: list[str] = []
        with opened(store, wanted, {}, request, (State.PLANNED, State.INTERRUPTED, State.FAILED)) as begun:
            self.folder, self.taken = begun.folder, [each.key for each in begun.assignments]
            if submits and begun.assignments:
                self.jobs = submit(begun.folder, begun.tasks, self.options)
                store.submitted(begun.launch.id, self.jobs)

    def run(self, index: int = 0) -> RunDir:
        return RunDir.of(self.results, self.keys[index])

    def states(self) -> list[State]:
        """The states after a refresh."""
        refresh(self.store)
        found = self.store.states(self.keys)
        return [found[key][0] for key in self.keys]

    def let_finish(self) -> None:
        """Give the word that a plan `WAITING` waits for."""
        (self.results / "go").touch()

    def until_states(self, *states: State) -> None:
        """Wait until every run is in one of these states."""
        until(lambda: set(self.states()) <= set(states), lambda: f"{states}, not {self.states()}: {self.said()}")

    def until_starts(self, count: int, index: int = 0) -> None:
        """Wait until a run has been started so often and has trained."""
        run = self.run(index)
        until(lambda: len(events(run, "started")) >= count and len(events(run, "train")) > 0, f"{count} starts")

    def until_closed(self) -> None:
        """Wait until nothing of the launch is left, and see that it is not."""

        def closed() -> bool:
            refresh(self.store)
            return not self.store.open_launches()

        until(closed, lambda: f"the launch is closed: {self.said()}")
        assert self.folder.is_closed
        assert not [launch for _, launch in self.store.states(self.keys).values() if launch]

    def assert_finished_once(self) -> None:
        """Every run has one result, and nobody is left."""
        self.until_states(State.FINISHED)
        assert [len(events(self.run(index), "finished")) for index in range(len(self.keys))] == [1] * len(self.keys)
        self.until_closed()
        self.assert_sound()

    def assert_sound(self) -> None:
        """No process is left, no run folder is held, the database is whole."""
        mark = f"PROVE_TEST_MARK={self.results}".encode()

        def workers() -> list[str]:
            found = []
            for entry in Path("/proc").iterdir():
                try:
                    if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append((entry / "cmdline").read_text().replace("\0", " "))
                except OSError:
                    continue
            return [command for command in found if "pytest" not in command]

        until(lambda: not workers(), lambda: f"processes end: {workers()}")
        assert not [key for key in self.keys if RunDir.of(self.results, key).is_held()]
        assert self.store.connection.query("PRAGMA integrity_check") == [("ok",)]

    def said(self) -> str:
        """What the queue holds and what the tasks printed."""
        queue = subprocess.run(["squeue", "-t", "all"], capture_output=True, text=True).stdout
        printed = [f"{path.name}: {path.read_text()}" for path in sorted(self.folder.slurm.glob("*.out"))]
        return "\n".join([queue, *printed])

    def task_pids(self) -> list[int]:
        """The processes of `prove.launch.task` that work on this launch."""
        return self._pids(b"prove.launch.task")

    def _pids(self, word: bytes) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if word in command and str(self.folder.path).encode() in command and b"srun" not in command[0]:
                found.append(int(entry.name))
        return found


LONG = {"default": {"steps": 400, "seconds": 0.1}}
"""40 seconds, unless something happens."""

WAITING = {"default": {"waits": "go"}}
"""Finishes after `Sweep.let_finish`, however slow the cluster is until then."""
