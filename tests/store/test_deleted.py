"""Run folders that somebody deletes."""

import shutil
from pathlib import Path

import pytest

from prove.spec.event import State
from prove.store import LaunchRow, Store
from prove.store.deleted import MESSAGE
from tests.journal import finished, interrupted, make_job, make_run, started, train, whole_life


def outcome(store: Store, key: str) -> tuple:
    return store.results(key), store.attempts(key), store.curve(key), store.evidence(key)


def test_a_run_whose_folder_is_deleted_is_planned_again(tmp_path: Path) -> None:
    gone, kept = make_run(tmp_path, whole_life(), 0), make_run(tmp_path, whole_life(), 1)
    with Store.open(tmp_path) as store:
        store.register([(make_job(seed), "ce") for seed in range(3)], "ablation")
        store.refresh()
        before = outcome(store, gone.key)
        shutil.rmtree(gone.path)
        store.refresh()
        row = store.run(gone.key)
        assert (row.state, row.message, row.attempts, row.iteration) == (State.PLANNED, MESSAGE, 0, 0)
        assert set(row.metrics.values()) == {None}
        assert (row.best_mIoU, row.train_seconds, row.started_at, row.finished_at) == (None, None, None, None)
        assert outcome(store, gone.key) == ([], [], [], None)
        assert outcome(store, kept.key) == before
        assert store.counts("ablation") == {State.PLANNED: 2, State.FINISHED: 1}
        store.refresh()
        assert store.run(gone.key) == row


def test_a_folder_that_comes_back_is_read_again(tmp_path: Path) -> None:
    run = make_run(tmp_path, whole_life())
    with Store.open(tmp_path) as store:
        store.refresh()
        before, row = outcome(store, run.key), store.run(run.key)
        run.path.rename(tmp_path / "elsewhere")
        store.refresh()
        assert store.run(run.key).state is State.PLANNED
        (tmp_path / "elsewhere").rename(run.path)
        store.refresh()
        assert (outcome(store, run.key), store.run(run.key)) == (before, row)


def test_a_new_folder_after_a_deleted_one_starts_from_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, whole_life())
    with Store.open(tmp_path) as store:
        store.refresh()
        shutil.rmtree(run.path)
        store.refresh()
        make_run(tmp_path, [started(100.0), train(5)])
        store.ingest()
        row = store.run(run.key)
        assert (row.state, row.message, row.attempts, row.iteration) == (State.RUNNING, "", 1, 5)
        assert len(store.curve(run.key)) == 1


def test_a_deleted_run_that_a_launch_holds_stays_its_own(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with Store.open(tmp_path) as store:
        store.register([(make_job(), "ce")])
        launch = LaunchRow("one", "local", "node1", 77, "anna", None, 0.0, 3)
        store.claim(launch, {run.key: 2}, [State.PLANNED])
        make_run(tmp_path, [started(), finished()])
        store.ingest()
        shutil.rmtree(run.path)
        store.ingest()
        (claim,) = store.claims()
        assert (claim.state, claim.task, claim.attempts) == (State.QUEUED, 2, 0)


def test_a_cancelled_run_without_a_folder_stays_cancelled(tmp_path: Path) -> None:
    run = make_run(tmp_path, [started(), interrupted()])
    with Store.open(tmp_path) as store:
        store.refresh()
        store.reset([run.key], State.CANCELLED)
        shutil.rmtree(run.path)
        store.refresh()
        assert store.run(run.key).state is State.CANCELLED


@pytest.mark.parametrize("left", ["nothing", "a dangling link"])
def test_a_file_system_that_is_away_deletes_nothing(tmp_path: Path, left: str) -> None:
    run = make_run(tmp_path, whole_life())
    with Store.open(tmp_path) as store:
        store.refresh()
        if left == "nothing":
            run.path.parent.rename(tmp_path / "unmounted")
        else:
            run.path.rename(tmp_path / "archived")
            run.path.symlink_to(tmp_path / "unmounted")
        store.refresh()
        assert store.run(run.key).state is State.FINISHED


def test_events_alone_that_are_gone_leave_the_record(tmp_path: Path) -> None:
    run = make_run(tmp_path, whole_life())
    with Store.open(tmp_path) as store:
        store.refresh()
        run.events.unlink()
        store.refresh()
        assert store.run(run.key).state is State.FINISHED


def test_a_shared_database_is_not_told_what_is_missing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "here", whole_life())
    (tmp_path / "there" / "runs").mkdir(parents=True)
    monkeypatch.setenv("PROVE_DB", f"sqlite:///{tmp_path / 'lab.db'}")
    for results in ("here", "there"):
        with Store.open(tmp_path / results) as store:
            store.refresh()
            assert store.run(run.key).state is State.FINISHED
    shutil.rmtree(run.path)
    with Store.open(tmp_path / "here") as store:
        store.refresh()
        assert store.run(run.key).state is State.FINISHED


def test_a_folder_without_a_job_and_without_events_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "runs" / "0123456789ab").mkdir(parents=True)
    with Store.open(tmp_path) as store:
        store.refresh()
        assert (store.runs(), store.problems()) == ([], [])
