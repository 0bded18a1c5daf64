"""What becomes of launched runs: from events, from what lives, and from what SLURM says of the rest."""

from __future__ import annotations

import errno
import fcntl
import json
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
from journal import encoded, failed, finished, interrupted, make_job, make_run, started, train

from prove.errors import ProveError
from prove.launch import fates, settle, slurm_fates
from prove.launch.folder import Assignment, Launch, LaunchDir
from prove.launch.lives import Lives
from prove.launch.queue import Element, Queue, TaskStatus
from prove.launch.settle import cancel, refresh
from prove.rundir import RunDir, write_json
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
    folder.create(Launch(**fields, user=user, max_attempts=attempts), assigned(tasks), {})
    folder.slurm.mkdir()
    return folder


def assigned(tasks: dict[str, int]) -> list[list[Assignment]]:
    jobs = {job.key: job for job in map(make_job, range(4))}
    return [
        [Assignment(key, jobs[key].to_dict(), {}) for key, each in tasks.items() if each == number]
        for number in range(1 + max(tasks.values()))
    ]


def long_ago(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


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
    past = time.time() - 2 * fates.SILENT_SECONDS
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
        # The pool may not have looked yet, and start the first one.
        assert states(store) == [State.QUEUED, State.RUNNING, State.CANCELLED, State.PLANNED]
        for key in KEYS[:2]:
            long_ago(folder.path / "cancelled" / key, 2 * settle.SEEN_SECONDS)
        run = make_run(store.results_folder)
        with run.lock():  # the pool was quicker: a worker has it, and will stop
            refresh(store)
            assert states(store)[0] is State.QUEUED
        refresh(store)
        assert states(store) == [State.CANCELLED, State.RUNNING, State.CANCELLED, State.PLANNED]
        make_run(store.results_folder, [started(1e9), train(5), interrupted(2e9)], seed=1)
        refresh(store)
    assert states(store)[1] is State.CANCELLED
    refresh(store)
    assert store.open_launches() == []


def test_what_was_called_off_is_cancelled_though_its_pool_is_gone(store: Store) -> None:
    launched(store, dict.fromkeys(KEYS, 0))
    make_run(store.results_folder, [started(1e9), train(5)], seed=1)
    make_run(store.results_folder, [started(1e9), interrupted(2e9)], seed=2)
    make_run(store.results_folder, [started(1e9), finished(2e9)], seed=3)
    cancel(store, KEYS)
    refresh(store)
    assert states(store) == [State.CANCELLED, State.CANCELLED, State.CANCELLED, State.FINISHED]
    with open(RunDir.of(store.results_folder, KEYS[1]).events, "ab") as file:
        file.write(encoded([interrupted(2e9)]))
    refresh(store)
    assert states(store)[1] is State.CANCELLED


def test_calling_off_what_is_claimed_at_the_same_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real, folders = store.reset, []

    def reset(keys: Any, to: State) -> int:
        if not folders:
            folders.append(launched(store, {KEYS[0]: 0}))
        return real(keys, to)

    monkeypatch.setattr(store, "reset", reset)
    cancel(store, KEYS[:2])
    assert folders[0].called_off() == {KEYS[0]}
    assert states(store)[:2] == [State.QUEUED, State.CANCELLED]


def test_calling_off_what_is_given_up_at_the_same_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    launched(store, dict.fromkeys(KEYS[:2], 0))
    make_run(store.results_folder, [started(1e9), failed(2e9)], seed=1)
    real = store.claims

    def claims(launch: str | None = None) -> list[Any]:
        found = real(launch)
        with Store.open(store.results_folder) as other:  # before the run is called off on disk
            other.refresh()
            other.close_launch("one")
        return found

    monkeypatch.setattr(store, "claims", claims)
    cancel(store, KEYS[:2])
    assert states(store)[:2] == [State.CANCELLED, State.FAILED]


def test_what_had_too_little_memory_is_its_living_pools_to_try_again(store: Store) -> None:
    folder = launched(store, dict.fromkeys(KEYS[:2], 0))
    make_run(store.results_folder, [started(1e9), {**failed(2e9), "failure": "out_of_memory"}], seed=0)
    make_run(store.results_folder, [started(1e9), failed(2e9)], seed=1)
    with folder.lock():
        refresh(store)
        assert (states(store)[0], held_by(store)[:2]) == (State.FAILED, ["one", None])
    refresh(store)
    assert (states(store)[0], held_by(store)[0]) == (State.FAILED, None)


def test_what_its_pool_has_noted_of_a_run(store: Store) -> None:
    folder = launched(store, dict.fromkeys(KEYS, 0))
    make_run(store.results_folder, [started(1e9), train(5)], seed=1)
    make_run(store.results_folder, [started(1e9), finished(2e9)], seed=2)
    noted = {
        KEYS[0]: {"kind": "error", "message": "no such module"},
        KEYS[1]: {"kind": "killed", "message": "too often"},
        KEYS[2]: {"kind": "killed", "message": "not so"},
    }
    folder.outcome(0).parent.mkdir()
    write_json(folder.outcome(0), noted)
    with folder.lock():
        refresh(store)
        assert states(store) == [State.QUEUED, State.RUNNING, State.FINISHED, State.QUEUED]
    refresh(store)
    assert states(store) == [State.FAILED, State.FAILED, State.FINISHED, State.PLANNED]
    first, second = store.run(KEYS[0]), store.run(KEYS[1])
    assert (first.failure, first.message) == (FailureKind.ERROR, "no such module")
    assert (second.failure, second.message) == (FailureKind.KILLED, "too often")


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"kind": "bored", "message": ""}}'])
def test_a_note_that_cannot_be_read_is_none(store: Store, text: str) -> None:
    folder = launched(store, {KEYS[0]: 0})
    folder.outcome(0).parent.mkdir()
    folder.outcome(0).write_text(text)
    refresh(store)
    assert states(store)[0] is State.PLANNED


def test_a_lock_that_is_held_outlives_the_heartbeat(store: Store) -> None:
    folder = launched(store, {KEYS[0]: 0}, host="elsewhere")
    long_ago(folder.heartbeat, 2 * fates.SILENT_SECONDS)
    with folder.lock():
        refresh(store)
        assert held_by(store)[0] == "one"


def test_where_no_lock_can_be_looked_at_nothing_is_declared_dead(
    store: Store, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = launched(store, {KEYS[0]: 0})
    (folder.path / "lock").touch()
    make_run(store.results_folder, [started(1e9), train(5)], seed=0)
    with make_run(store.results_folder, [started(1e9), train(5)], seed=1).lock():
        pass  # a run of nobody's, whose lock is there

    def fails(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", fails)
        assert refresh(store) == []
        assert (states(store)[:2], held_by(store)[0]) == ([State.RUNNING, State.RUNNING], "one")
    refresh(store)
    assert states(store)[:2] == [State.INTERRUPTED, State.INTERRUPTED]


def test_a_results_folder_that_is_away_settles_nothing(store: Store) -> None:
    folder = launched(store, {KEYS[0]: 0})
    folder.path.parent.rename(store.results_folder / "unmounted")
    refresh(store)
    assert held_by(store)[0] == "one"


# A database of several results folders


@pytest.mark.parametrize("launcher", ["local", "slurm"])
def test_launches_of_another_results_folder_are_left_alone(tmp_path: Path, slurm: Slurm, launcher: str) -> None:
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    slurm.live = {("7", 0): TaskStatus("RUNNING", "n1", name="prove-one")}
    with Store.open(tmp_path / "a", url) as a, Store.open(tmp_path / "b", url) as b:
        a.register((make_job(seed), "ce") for seed in range(4))
        folder = launched(a, {KEYS[0]: 0}, launcher, jobs=("7",) if launcher == "slurm" else None)
        (tmp_path / "b" / "launches").mkdir(parents=True)
        with folder.lock():
            assert refresh(b) == []
            [note] = cancel(b, KEYS[:1])
            assert "one" in note
            assert (states(a)[0], held_by(a)[0]) == (State.QUEUED, "one")
            assert slurm.cancelled == []
            assert slurm.asked == 0
        slurm.live = {}
        slurm.past = {("7", 0): TaskStatus("COMPLETED", "n1", "0:0")}
        refresh(b)
        assert held_by(a)[0] == "one"
        refresh(a)
        assert (states(a)[0], held_by(a)[0]) == (State.PLANNED, None)


# A database that was deleted


def rebuilt(store: Store) -> Store:
    store.close()
    for file in store.results_folder.glob("prove.db*"):
        file.unlink()
    return Store.open(store.results_folder)


def test_a_living_launch_is_taken_back_into_a_new_database(store: Store) -> None:
    folder = launched(store, dict.fromkeys(KEYS, 0))
    make_run(store.results_folder, [started(1e9), train(5)], seed=1)
    make_run(store.results_folder, [started(1e9), finished(2e9)], seed=2)
    make_run(store.results_folder, [started(1e9), interrupted(2e9)], seed=3)
    with folder.lock(), rebuilt(store) as again:
        refresh(again)
        assert states(again) == [State.QUEUED, State.RUNNING, State.FINISHED, State.QUEUED]
        assert held_by(again) == ["one", "one", None, "one"]
        before = again.runs(), again.open_launches()
        refresh(again)
        assert (again.runs(), again.open_launches()) == before
    with Store.open(store.results_folder) as again:
        refresh(again)
        assert states(again) == [State.PLANNED, State.INTERRUPTED, State.FINISHED, State.INTERRUPTED]
        assert again.open_launches() == []


def test_jobs_of_a_launch_that_is_taken_back_are_found_by_name(store: Store, slurm: Slurm) -> None:
    launched(store, {KEYS[0]: 0, KEYS[1]: 1}, "slurm", jobs=("7",))
    slurm.live = {("7", each): TaskStatus("PENDING", name="prove-one") for each in range(2)}
    with rebuilt(store) as again:
        refresh(again)
        assert [each.slurm_jobs for each in again.open_launches()] == [("7",)]
        assert [(claim.key, claim.task, claim.state) for claim in again.claims()] == [
            (KEYS[0], 0, State.QUEUED),
            (KEYS[1], 1, State.QUEUED),
        ]


def test_closed_and_unfinished_launch_folders_are_not_taken_back(store: Store) -> None:
    folder = launched(store, {KEYS[0]: 0})
    folder.close()
    LaunchDir.of(store.results_folder, "begun").begin()
    strange = LaunchDir.of(store.results_folder, "strange")
    strange.begin()
    strange.record.write_text(json.dumps({"of": "another version"}))
    with rebuilt(store) as again:
        refresh(again)
        assert again.runs() == []
        assert again.open_launches() == []
        assert again.launch_ids() == {"one"}  # so that nobody has to look there again


def test_a_shared_database_takes_no_launches_back(tmp_path: Path, store: Store) -> None:
    launched(store, {KEYS[0]: 0})
    with Store.open(store.results_folder, f"sqlite:///{tmp_path / 'lab.db'}") as other:
        refresh(other)
        assert other.launch_ids() == set()


# SLURM


def test_a_submission_that_ends_while_slurm_answers(
    store: Store, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = launched(store, {key: task for task, key in enumerate(KEYS)}, "slurm")
    (folder.slurm / "arrays.json").write_text("[0, 2]")
    first = {("7", each): TaskStatus("PENDING", name="prove-one") for each in range(2)}
    second = {("8", each): TaskStatus("PENDING", name="prove-one") for each in range(2)}
    submission = folder.lock()
    submission.__enter__()

    def query(names: list[str], since: float) -> Queue:
        store.submitted("one", ["7", "8"])  # after this answer
        submission.__exit__(None, None, None)
        return Queue(first, {})

    monkeypatch.setattr(slurm_fates, "query", query)
    refresh(store)
    assert held_by(store) == ["one"] * 4
    monkeypatch.setattr(slurm_fates, "query", slurm.query)
    slurm.live = first | second
    refresh(store)
    assert held_by(store) == ["one"] * 4
    assert [row.slurm_jobs for row in store.open_launches()] == [("7", "8")]


def test_jobs_that_were_noted_are_not_replaced_by_those_that_are_found(
    store: Store, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(store, {KEYS[0]: 0, KEYS[1]: 1}, "slurm")
    slurm.live = {("7", 0): TaskStatus("PENDING", name="prove-one")}
    real = store.found_jobs

    def found_jobs(launch: str, jobs: Any) -> None:
        store.submitted("one", ["7", "8"])
        real(launch, jobs)

    monkeypatch.setattr(store, "found_jobs", found_jobs)
    refresh(store)
    assert [row.slurm_jobs for row in store.open_launches()] == [("7", "8")]


@pytest.mark.parametrize(("age", "holder"), [(0.0, "one"), (1e4, None)])
def test_what_only_the_accounts_know_is_lost_unless_it_is_new(
    store: Store, slurm: Slurm, age: float, holder: str | None
) -> None:
    launched(store, {KEYS[0]: 0}, "slurm", jobs=("7",), created_at=time.time() - age)
    slurm.past = {("7", 0): TaskStatus("PENDING", name="prove-one")}
    refresh(store)
    assert held_by(store)[0] == holder


def test_nothing_is_closed_while_a_task_lives(store: Store, slurm: Slurm) -> None:
    folder = launched(store, {KEYS[0]: 0}, "slurm", jobs=("7",))
    make_run(store.results_folder, [by("slurm 7_0", started(1e9)), finished(2e9)])
    slurm.live = {("7", 0): TaskStatus("RUNNING", "n1")}
    refresh(store)
    assert held_by(store)[0] is None
    assert not folder.is_closed
    slurm.live = {}
    refresh(store)
    assert folder.is_closed
    assert store.open_launches() == []


def test_what_a_pack_noted_is_said_instead_of_its_last_words(store: Store, slurm: Slurm) -> None:
    folder = launched(store, {KEYS[0]: 0, KEYS[1]: 0}, "slurm", jobs=("7",))
    (folder.slurm / "7_0.out").write_text("1 failed\n")
    folder.outcome(0).parent.mkdir()
    write_json(folder.outcome(0), {KEYS[0]: {"kind": "error", "message": "no such module"}})
    slurm.past = {("7", 0): TaskStatus("FAILED", "n1", "1:0")}
    refresh(store)
    assert states(store)[:2] == [State.FAILED, State.PLANNED]
    assert store.run(KEYS[0]).message == "no such module"


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
