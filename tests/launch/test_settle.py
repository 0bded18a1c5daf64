"""What becomes of launched runs: from events, from what lives, and from what SLURM says of the rest."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from journal import failed, finished, interrupted, make_job, make_run, started, train

from prove.errors import ProveError
from prove.launch import settle, slurm_fates
from prove.launch.folder import Launch, LaunchDir
from prove.launch.lives import Lives
from prove.launch.queue import Element, Queue, TaskStatus
from prove.launch.settle import cancel, refresh
from prove.rundir import RunDir
from prove.spec.event import FailureKind, State
from prove.store import Store
from prove.store.claims import LaunchRow

HOST = socket.gethostname()
KEYS = [make_job(seed).key for seed in range(4)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "results") as store:
        store.register((make_job(seed), "ce") for seed in range(4))
        yield store


def launched(
    store: Store,
    tasks: dict[str, int],
    launcher: str = "local",
    *,
    host: str = HOST,
    jobs: tuple[str, ...] | None = None,
    created_at: float = 1000.0,
    attempts: int = 3,
) -> LaunchDir:
    """A launch that has claimed these runs."""
    folder = LaunchDir.of(store.results_folder, "one")
    folder.begin()
    fields: dict[str, Any] = {"id": "one", "launcher": launcher, "host": host, "pid": 1, "created_at": created_at}
    import getpass

    user = getpass.getuser()
    row = LaunchRow(**fields, user_name=user, experiment=None, max_attempts=attempts, slurm_jobs=jobs)
    assert store.claim(row, tasks, list(State)) == set(tasks)
    folder.create(Launch(**fields, user=user, max_attempts=attempts), [[]] * (1 + max(tasks.values())), {})
    folder.slurm.mkdir()
    return folder


def by(launcher: str, event: dict[str, Any]) -> dict[str, Any]:
    """A journal's event, by another launcher."""
    return {**event, "launcher": launcher} if event["kind"] == "started" else event


def states(store: Store) -> list[State]:
    return [store.states([key])[key][0] for key in KEYS]


def held_by(store: Store) -> list[str | None]:
    return [store.states([key])[key][1] for key in KEYS]


class Slurm:
    """A SLURM that says what it is told to."""

    def __init__(self) -> None:
        self.live: dict[Element, TaskStatus] = {}
        self.past: dict[Element, TaskStatus] | None = {}
        self.cancelled: list[tuple[str, ...]] = []
        self.asked = 0

    def query(self, names: list[str], since: float) -> Queue:
        self.asked += 1
        return Queue(self.live, self.past)

    def ask(self, *command: str) -> str:
        assert command[0] == "scancel"
        self.cancelled.append(command[1:])
        return ""


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    fake = Slurm()
    monkeypatch.setattr(slurm_fates, "query", fake.query)
    monkeypatch.setattr(slurm_fates, "ask", fake.ask)
    monkeypatch.setattr(slurm_fates, "cancel", lambda elements: fake.cancelled.append(tuple(elements)))
    return fake


def test_without_launches_nobody_is_asked(store: Store, slurm: Slurm) -> None:
    assert refresh(store) == []
    assert slurm.asked == 0


def test_settling_imports_nothing_heavy() -> None:
    heavy = "torch mmseg sqlalchemy submitit pydantic yaml numpy subprocess"
    code = f"import sys, prove.launch.settle; print([name for name in {heavy.split()} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# A local launch


def test_while_its_pool_lives_a_local_launch_keeps_its_runs(store: Store) -> None:
    folder = launched(store, dict.fromkeys(KEYS[:3], 0))
    make_run(store.results_folder, [started(), train(5), interrupted()], seed=1)
    make_run(store.results_folder, [started(), train(5), finished()], seed=2)
    with folder.lock():
        refresh(store)
        assert states(store)[:3] == [State.QUEUED, State.QUEUED, State.FINISHED]
        assert held_by(store)[:3] == ["one", "one", None]
        refresh(store)
        assert states(store)[:3] == [State.QUEUED, State.QUEUED, State.FINISHED]


def test_when_its_pool_is_gone_its_runs_are_free(store: Store) -> None:
    folder = launched(store, dict.fromkeys(KEYS, 0))
    make_run(store.results_folder, [started(1e9), train(5)], seed=1)
    make_run(store.results_folder, [started(1e9), interrupted(2e9)], seed=2)
    make_run(store.results_folder, [started(1e9), failed(2e9)], seed=3)
    refresh(store)
    assert states(store) == [State.PLANNED, State.INTERRUPTED, State.INTERRUPTED, State.FAILED]
    assert held_by(store) == [None] * 4
    assert store.open_launches() == []
    assert folder.is_closed
    assert store.run(KEYS[2]).message == "signal SIGTERM"


def test_a_run_that_ended_without_a_word_too_often_has_failed(store: Store) -> None:
    launched(store, dict.fromkeys(KEYS[:3], 0), attempts=2)
    twice = [started(1e9), train(5), started(2e9, attempt=2), train(7, attempt=2)]
    make_run(store.results_folder, twice, seed=0)
    make_run(store.results_folder, [*twice, interrupted(3e9, attempt=2)], seed=1)
    make_run(store.results_folder, twice[:2], seed=2)
    refresh(store)
    assert states(store)[:3] == [State.FAILED, State.INTERRUPTED, State.INTERRUPTED]
    assert store.run(KEYS[0]).failure is FailureKind.KILLED
    assert "2 times" in store.run(KEYS[0]).message


def test_attempts_of_earlier_launches_are_not_this_ones(store: Store) -> None:
    launched(store, {KEYS[0]: 0}, attempts=1, created_at=time.time())
    make_run(store.results_folder, [started(), train(5), started(1.0, attempt=2), failed(3.0, attempt=2)], seed=0)
    assert Lives.of(RunDir.of(store.results_folder, KEYS[0]), "local", time.time()) == Lives()


def test_a_worker_that_outlives_its_pool_keeps_its_run(store: Store) -> None:
    launched(store, {KEYS[0]: 0})
    run = make_run(store.results_folder, [started(1e9), train(5)])
    with run.lock():
        refresh(store)
        assert (states(store)[0], held_by(store)[0]) == (State.RUNNING, "one")
    refresh(store)
    assert (states(store)[0], held_by(store)[0]) == (State.INTERRUPTED, None)


def test_a_pool_on_another_machine_lives_as_long_as_its_heart_beats(store: Store) -> None:
    folder = launched(store, {KEYS[0]: 0}, host="elsewhere")
    refresh(store)
    assert held_by(store)[0] == "one"
    past = time.time() - 2 * settle.SILENT_SECONDS
    os.utime(folder.heartbeat, (past, past))
    refresh(store)
    assert (states(store)[0], held_by(store)[0]) == (State.PLANNED, None)


def test_a_deleted_launch_folder_frees_its_runs(store: Store) -> None:
    folder = launched(store, {KEYS[0]: 0})
    shutil.rmtree(folder.path)
    refresh(store)
    assert (states(store)[0], held_by(store)[0]) == (State.PLANNED, None)
    assert store.open_launches() == []


def test_calling_off(store: Store) -> None:
    folder = launched(store, dict.fromkeys(KEYS[:2], 0))
    make_run(store.results_folder, [started(1e9), train(5)], seed=1)
    with folder.lock():
        refresh(store)
        assert cancel(store, KEYS[:3]) == []
        refresh(store)
        assert states(store) == [State.CANCELLED, State.RUNNING, State.CANCELLED, State.PLANNED]
        make_run(store.results_folder, [started(1e9), train(5), interrupted(2e9)], seed=1)
        refresh(store)
    assert states(store)[1] is State.CANCELLED
    refresh(store)
    assert store.open_launches() == []


# SLURM


def test_tasks_that_live_keep_their_runs(store: Store, slurm: Slurm) -> None:
    launched(store, {key: task for task, key in enumerate(KEYS)}, "slurm", jobs=("7",))
    make_run(store.results_folder, [by("slurm 7_1", started(1e9)), interrupted(2e9)], seed=1)
    make_run(store.results_folder, [by("slurm 7_2", started(1e9)), train(5)], seed=2)
    make_run(store.results_folder, [by("slurm 7_3", started(1e9)), train(5)], seed=3)
    slurm.live = {
        ("7", 0): TaskStatus("PENDING", reason="Priority"),
        ("7", 1): TaskStatus("PENDING", reason="BeginTime"),
        ("7", 2): TaskStatus("PENDING", reason="BeginTime"),
        ("7", 3): TaskStatus("RUNNING", "n1"),
    }
    assert refresh(store) == []
    assert states(store) == [State.QUEUED, State.QUEUED, State.QUEUED, State.RUNNING]
    assert held_by(store) == ["one"] * 4
    assert slurm.asked == 1


@pytest.mark.parametrize(
    ("slurm_state", "attempts", "state", "failure"),
    [
        ("TIMEOUT", 1, State.INTERRUPTED, None),
        ("TIMEOUT", 3, State.FAILED, FailureKind.TIMEOUT),
        ("NODE_FAIL", 2, State.INTERRUPTED, None),
        ("NODE_FAIL", 3, State.FAILED, FailureKind.NODE_LOST),
        ("BOOT_FAIL", 0, State.PLANNED, None),
        ("OUT_OF_MEMORY", 1, State.FAILED, FailureKind.OUT_OF_MEMORY),
        ("CANCELLED", 1, State.CANCELLED, None),
        ("CANCELLED", 0, State.CANCELLED, None),
        ("FAILED", 1, State.INTERRUPTED, None),
        ("FAILED", 3, State.FAILED, FailureKind.KILLED),
        ("COMPLETED", 0, State.PLANNED, None),
        ("COMPLETED", 3, State.FAILED, FailureKind.KILLED),
    ],
)
def test_how_slurm_ended_a_task(
    store: Store, slurm: Slurm, slurm_state: str, attempts: int, state: State, failure: FailureKind | None
) -> None:
    launched(store, {KEYS[0]: 0}, "slurm", jobs=("7",))
    lives = [by("slurm 7_0", started(float(number), attempt=number + 1)) for number in range(attempts)]
    make_run(store.results_folder, lives)
    slurm.past = {("7", 0): TaskStatus(slurm_state, "n1", "0:0")}
    refresh(store)
    run = store.run(KEYS[0])
    assert (run.state, run.failure) == (state, failure)
    assert store.open_launches() == []
    if failure:
        assert f"7_0 on n1: {slurm_state}" in run.message


def test_a_task_that_ended_before_its_first_word(store: Store, slurm: Slurm) -> None:
    folder = launched(store, {KEYS[0]: 0, KEYS[1]: 1}, "slurm", jobs=("7",))
    (folder.slurm / "7_0.out").write_text("python: not found\n")
    slurm.past = {("7", 0): TaskStatus("FAILED", "n1", "127:0"), ("7", 1): TaskStatus("FAILED", "n1", "0:9")}
    refresh(store)
    assert states(store)[:2] == [State.FAILED, State.PLANNED]
    assert store.run(KEYS[0]).failure is FailureKind.ERROR
    assert "python: not found" in store.run(KEYS[0]).message


def test_a_task_that_said_its_time_was_up(store: Store, slurm: Slurm) -> None:
    folder = launched(store, {KEYS[0]: 0}, "slurm", jobs=("7",), attempts=1)
    make_run(store.results_folder, [by("slurm 7_0", started(1e9)), interrupted(2e9)])
    (folder.slurm / "time_is_up_0").touch()
    slurm.past = {("7", 0): TaskStatus("FAILED", "n1", "1:0")}
    refresh(store)
    assert store.run(KEYS[0]).failure is FailureKind.TIMEOUT


def test_where_slurm_does_not_answer_nothing_is_declared_dead(
    store: Store, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(store, {KEYS[0]: 0, KEYS[1]: 1}, "slurm", jobs=("7",))
    make_run(store.results_folder, [by("slurm 7_0", started(1e9)), train(5)])
    make_run(store.results_folder, [by("slurm 7_1", started(1e9)), finished(2e9)], seed=1)

    def fails(names: list[str], since: float) -> Queue:
        raise ProveError("SLURM's `squeue` failed: Unable to contact slurm controller")

    monkeypatch.setattr(slurm_fates, "query", fails)
    [note] = refresh(store)
    assert "Unable to contact" in note
    assert states(store)[:2] == [State.RUNNING, State.FINISHED]
    assert held_by(store)[:2] == ["one", None]
    assert len(store.open_launches()) == 1


def test_a_cluster_without_accounts(store: Store, slurm: Slurm) -> None:
    launched(store, {KEYS[0]: 0}, "slurm", jobs=("7",))
    make_run(store.results_folder, [by("slurm 7_0", started(1e9)), train(5)])
    slurm.past = None
    slurm.live = {("7", 1): TaskStatus("RUNNING")}
    refresh(store)
    assert states(store)[0] is State.INTERRUPTED


def test_others_jobs_may_be_hidden(store: Store, slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    launched(store, {KEYS[0]: 0}, "slurm", jobs=("7",))
    monkeypatch.setattr("getpass.getuser", lambda: "a colleague")
    refresh(store)
    assert held_by(store)[0] == "one"
    monkeypatch.undo()
    monkeypatch.setattr(slurm_fates, "query", slurm.query)
    refresh(store)
    assert (states(store)[0], held_by(store)[0]) == (State.PLANNED, None)


def test_jobs_that_nobody_noted_are_found_by_name(store: Store, slurm: Slurm) -> None:
    folder = launched(store, {KEYS[0]: 0, KEYS[1]: 1000}, "slurm")
    (folder.slurm / "arrays.json").write_text("[0, 1000]")
    slurm.live = {
        ("101", 0): TaskStatus("PENDING", name="prove-one"),
        ("99", 0): TaskStatus("RUNNING", name="prove-one"),
        ("50", 0): TaskStatus("RUNNING", name="prove-two"),
    }
    refresh(store)
    [row] = store.open_launches()
    assert row.slurm_jobs == ("99", "101")
    assert held_by(store)[:2] == ["one", "one"]


@pytest.mark.parametrize("age", [0.0, 1e4, -1e4])
def test_a_launch_that_was_never_submitted(store: Store, slurm: Slurm, age: float) -> None:
    """A clock that was set back makes a launch of the future: it is not waited for either."""
    launched(store, {KEYS[0]: 0}, "slurm", created_at=time.time() - age)
    refresh(store)
    assert held_by(store)[0] == ("one" if age == 0.0 else None)


def test_a_launch_that_is_being_submitted_is_left_alone(store: Store, slurm: Slurm) -> None:
    folder = launched(store, {KEYS[0]: 0}, "slurm")
    with folder.lock():
        refresh(store)
        assert held_by(store)[0] == "one"


def test_jobs_of_a_deleted_launch_folder_are_cancelled(store: Store, slurm: Slurm) -> None:
    folder = launched(store, {KEYS[0]: 0}, "slurm", jobs=("7",))
    slurm.live = {("7", 0): TaskStatus("RUNNING", "n1")}
    shutil.rmtree(folder.path)
    [note] = refresh(store)
    assert "folder is gone" in note
    assert slurm.cancelled == [("7_0",)]
    assert (states(store)[0], held_by(store)[0]) == (State.PLANNED, None)
    slurm.live = {}
    refresh(store)
    assert store.open_launches() == []


def test_calling_off_takes_whole_tasks_out_of_the_queue(store: Store, slurm: Slurm) -> None:
    folder = launched(store, {KEYS[0]: 0, KEYS[1]: 0, KEYS[2]: 1, KEYS[3]: 2}, "slurm", jobs=("7", "8"))
    (folder.slurm / "arrays.json").write_text("[0, 2]")
    slurm.live = {("7", 0): TaskStatus("PENDING"), ("7", 1): TaskStatus("PENDING"), ("8", 0): TaskStatus("PENDING")}
    assert cancel(store, [KEYS[0], KEYS[2], KEYS[3]]) == []
    assert slurm.cancelled == [("--state=PENDING", "7_[1]", "8_[0]")]
    refresh(store)
    assert states(store) == [State.CANCELLED, State.QUEUED, State.CANCELLED, State.CANCELLED]


def test_tasks_that_are_held_back_are_mentioned(store: Store, slurm: Slurm) -> None:
    launched(store, {KEYS[0]: 0}, "slurm", jobs=("7",))
    slurm.live = {("7", 0): TaskStatus("PENDING", reason="launch failed requeued held")}
    [note] = refresh(store)
    assert "scontrol release 7" in note


def test_what_waits_for_nothing_leaves_the_queue(store: Store, slurm: Slurm) -> None:
    launched(store, {KEYS[0]: 0}, "slurm", jobs=("7",))
    make_run(store.results_folder, [by("slurm 7_0", started(1e9)), finished(2e9)])
    slurm.live = {("7", 0): TaskStatus("PENDING", reason="BeginTime")}
    refresh(store)
    assert slurm.cancelled == [("--state=PENDING", "7")]


def test_a_finished_run_stays_finished_whatever_slurm_says(store: Store, slurm: Slurm) -> None:
    launched(store, {KEYS[0]: 0}, "slurm", jobs=("7",))
    make_run(store.results_folder, [by("slurm 7_0", started(1e9)), finished(2e9)])
    slurm.past = {("7", 0): TaskStatus("OUT_OF_MEMORY", "n1", "0:125")}
    refresh(store)
    assert states(store)[0] is State.FINISHED
