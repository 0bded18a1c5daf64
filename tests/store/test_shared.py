"""One database that several results folders share."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from prove.errors import ProveError
from prove.spec.event import State
from prove.store import Store
from prove.store.sqlite import SqliteConnection
from tests.journal import encoded, finished, interrupted, make_job, make_run, started, train
from tests.store.store_samples import a_launch, rows

KEY = make_job().key


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    url = f"sqlite:///{tmp_path / 'lab.db'}"
    with Store.open(tmp_path / "a", url) as a, Store.open(tmp_path / "b", url) as b:
        yield a, b


def test_a_run_stays_that_of_the_folder_that_reported_it_first(stores: tuple[Store, Store]) -> None:
    a, b = stores
    ours = make_run(a.results_folder, [started(), train(5)])
    theirs = make_run(b.results_folder, [started(5.0), interrupted(6.0)])
    make_run(b.results_folder, [started(5.0), interrupted(6.0)], seed=1)
    with ours.lock():
        a.refresh()
        b.refresh()
        assert (a.run(KEY).state, a.run(KEY).iteration) == (State.RUNNING, 5)
        assert a.run(make_job(1).key).state is State.INTERRUPTED
        [problem] = b.problems()
        assert str(a.results_folder) in problem.message
        assert str(b.results_folder) in problem.message
        before = rows(a)
        for store in (b, a, b):
            store.refresh()
            assert rows(store) == before
        with open(ours.events, "ab") as file:
            file.write(encoded([finished()]))
        with open(theirs.events, "ab") as file:
            file.write(encoded([started(7.0, attempt=2)]))
        for store in (b, a, b):
            store.refresh()
        assert a.run(KEY).state is State.FINISHED
        assert [problem.key for problem in a.problems()] == [KEY]


def test_a_run_that_another_folder_reports_running_is_not_settled_here(stores: tuple[Store, Store]) -> None:
    a, b = stores
    events = [started(), train(5)]
    ours, copy = make_run(a.results_folder, events), make_run(b.results_folder, events)
    with ours.lock():
        a.refresh()
        assert not copy.is_held()
        b.refresh()
        assert a.run(KEY).state is State.RUNNING


def test_a_launch_takes_its_runs_into_its_folder(stores: tuple[Store, Store]) -> None:
    a, b = stores
    make_run(a.results_folder, [started(), interrupted()])
    a.refresh()
    (b.results_folder / "launches" / "one").mkdir(parents=True)
    assert b.claim(a_launch(), {KEY: 0}, [State.INTERRUPTED]) == {KEY}
    make_run(b.results_folder, [started(5.0), finished()])
    for store in (a, b, a):
        store.refresh()
    assert b.run(KEY).state is State.FINISHED
    assert len(b.attempts(KEY)) == 1
    [problem] = b.problems()
    assert f"{a.results_folder} are not taken in" in problem.message
    b.close_launch("one")
    b.refresh()
    a.refresh()
    assert b.run(KEY).state is State.FINISHED


def test_the_own_database_of_a_folder_moves_with_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "before", [started(), interrupted()])
    with Store.open(tmp_path / "before") as store:
        store.refresh()
    (tmp_path / "before").rename(tmp_path / "after")
    with open(tmp_path / "after" / "runs" / run.key / "events.jsonl", "ab") as file:
        file.write(encoded([started(60.0, attempt=2), finished(70.0, attempt=2)]))
    with Store.open(tmp_path / "after") as store:
        store.refresh()
        assert (store.run(run.key).state, store.problems()) == (State.FINISHED, [])


def test_a_new_database_that_another_is_writing_is_waited_for(tmp_path: Path) -> None:
    """Setting the journal mode is the one thing for which SQLite itself does not wait."""
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE t (x)")
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.execute, ("COMMIT",))
    release.start()
    opened = SqliteConnection(path, 20.0)
    release.join()
    assert opened.journal_mode == "wal"
    opened.close()
    other.close()


def test_a_new_database_is_not_waited_for_without_end(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ProveError, match="locked by another process"):
            SqliteConnection(path, 0.1)
