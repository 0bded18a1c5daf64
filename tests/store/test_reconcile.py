"""Runs whose worker ended without a word, on a machine whose locks may not be seen from here."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prove.rundir import RunDir
from prove.spec.event import FailureKind, State
from prove.store import Store
from prove.store.claims import Settlement
from prove.store.reconcile import SILENT_SECONDS
from tests.journal import encoded, finished, interrupted, make_job, make_run, started, train
from tests.store.store_samples import a_launch

KEY = make_job().key


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as store:
        yield store


def silent(run: RunDir, seconds: float = 2 * SILENT_SECONDS) -> None:
    then = time.time() - seconds
    os.utime(run.events, (then, then))


def append(run: RunDir, *events: dict) -> None:
    with open(run.events, "ab") as file:
        file.write(encoded(list(events)))


@pytest.mark.parametrize("begun", [[started(host="node7"), train(5)], [train(5)]])
def test_another_machines_run_is_given_up_after_an_hour_without_a_word(store: Store, begun: list) -> None:
    run = make_run(store.results_folder, begun)
    store.refresh()
    silent(run, SILENT_SECONDS / 2)
    store.refresh()
    assert store.run(KEY).state is State.RUNNING
    silent(run)
    with run.lock():
        store.refresh()
        assert store.run(KEY).state is State.RUNNING
    store.refresh()
    where = "node7" if len(begun) == 2 else "its machine"
    message = f"No word from {where} for an hour, and no launch has it."
    assert (store.run(KEY).state, store.run(KEY).message) == (State.INTERRUPTED, message)
    [attempt] = store.attempts(KEY)
    assert (attempt.ending, attempt.reason) == ("interrupted", message)
    append(run, train(6))
    store.refresh()
    assert store.run(KEY).state is State.RUNNING
    append(run, finished())
    store.refresh()
    assert store.run(KEY).state is State.FINISHED


def test_a_claimed_run_is_never_given_up_for_its_silence(store: Store) -> None:
    run = make_run(store.results_folder)
    store.register([(make_job(), "ce")])
    store.claim(a_launch(), {KEY: 0}, [State.PLANNED])
    append(run, started(host="node7"), train(5))
    silent(run)
    store.refresh()
    assert store.run(KEY).state is State.RUNNING
    store.close_launch("one")
    store.refresh()
    assert store.run(KEY).state is State.INTERRUPTED


def test_where_the_time_cannot_be_known_nothing_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(store.results_folder, [started(host="node7"), train(5)])
    silent(run)

    def fails(folder: Path) -> float:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("prove.store.reconcile.file_system_time", fails)
        store.refresh()
        assert store.run(KEY).state is State.RUNNING
    store.refresh()
    assert store.run(KEY).state is State.INTERRUPTED


def test_where_locks_do_not_work_nothing_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(store.results_folder, [started(), train(5)])
    with run.lock():
        pass

    def fails(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", fails)
        store.refresh()
        assert store.run(KEY).state is State.RUNNING
    store.refresh()
    assert store.run(KEY).state is State.INTERRUPTED


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_what_comes_late_does_not_set_a_settled_run_running(store: Store, state: State) -> None:
    run = make_run(store.results_folder)
    store.register([(make_job(), "ce")])
    store.claim(a_launch(), {KEY: 0}, [State.PLANNED])
    append(run, started(host="node7"), train(5))
    store.ingest()
    failure = FailureKind.NODE_LOST if state is State.FAILED else None
    store.settle([Settlement(KEY, "one", state, failure, "n1 is down")])
    for late in (train(6), interrupted()):
        append(run, late)
        store.refresh()
        row, [attempt] = store.run(KEY), store.attempts(KEY)
        assert (row.state, row.failure, row.message) == (state, failure, "n1 is down")
        assert attempt.ending == "interrupted"
    append(run, started(60.0, attempt=2, host="node7"), train(7, attempt=2))
    store.refresh()
    assert store.run(KEY).state is State.RUNNING
    append(run, finished(attempt=2))
    store.refresh()
    assert store.run(KEY).state is State.FINISHED
