"""What goes wrong around the database: other writers, kills, full disks. Nothing is lost and nothing is half there."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from prove.errors import ProveError
from prove.spec.event import State
from prove.store import Store
from prove.store.sqlite import SqliteConnection
from tests.journal import encoded, make_job, make_run, train, whole_life
from tests.store.store_samples import ingested, rows, run_python

MANY = [*whole_life()[:-2], *(train(i, attempt=2) for i in range(41, 341)), *whole_life()[-2:]]
RUNS = 20


def make_runs(results: Path) -> None:
    for seed in range(RUNS):
        make_run(results, MANY, seed)


def integrity(results: Path) -> list:
    with closing(sqlite3.connect(results / "prove.db")) as link:
        return link.execute("PRAGMA integrity_check").fetchall()


LOCKING = """
    import sqlite3, sys
    with sqlite3.connect(sys.argv[1], isolation_level=None) as link:
        link.execute("BEGIN IMMEDIATE")
        print("locked", flush=True)
        sys.stdin.readline()
        link.execute("ROLLBACK")
"""


def test_a_database_that_another_process_locks(tmp_path: Path) -> None:
    run = make_run(tmp_path, MANY[:5])
    with Store.open(tmp_path) as store:
        store.refresh()
    before = ingested(tmp_path)
    run.events.write_bytes(encoded(MANY))
    with run_python(LOCKING, tmp_path / "prove.db") as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with Store.open(tmp_path, patience_seconds=0.05) as store:
            with pytest.raises(ProveError, match="locked by another process"):
                store.refresh()
            with pytest.raises(ProveError, match="locked by another process"):
                store.register([(make_job(7), "ce")])
            assert rows(store) == before  # reading goes on, and sees nothing half done
        other.communicate("done\n", timeout=60)
    with Store.open(tmp_path) as store:
        assert store.ingest() == len(MANY) - 5
        assert store.run(run.key).state is State.FINISHED


DYING = """
    import os, signal, sys
    from pathlib import Path
    from prove.store import Store, ingest, writing
    ingest.BATCH, writing.FULL = 7, 1  # three transactions, written run by run
    left, real = int(sys.argv[2]), writing.Writing.flush
    def flush(self):
        global left
        real(self)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    writing.Writing.flush = flush
    with Store.open(Path(sys.argv[1])) as store:
        store.ingest()
"""


@pytest.mark.parametrize("flushes", [1, 10, 20])
def test_an_ingester_that_is_killed_inside_a_transaction(tmp_path: Path, flushes: int) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    make_runs(together)
    make_runs(alone)
    with run_python(DYING, together, flushes) as ingester:
        assert ingester.wait(timeout=60) == -signal.SIGKILL
    with Store.open(together) as store:
        done = store.connection.query("SELECT COUNT(*) FROM ingest")[0][0]
        assert done == {1: 0, 10: 7, 20: 14}[flushes]  # whole transactions, or nothing of them
        assert store.ingest() == (RUNS - done) * len(MANY)
    assert integrity(together) == [("ok",)]
    found, expected = ingested(together), ingested(alone)
    assert sorted(found.pop("runs"), key=lambda run: run["key"]) == sorted(
        expected.pop("runs"), key=lambda run: run["key"]
    )
    assert found == expected


def test_a_database_that_can_grow_no_more(tmp_path: Path) -> None:
    make_runs(tmp_path / "results")
    make_runs(tmp_path / "other")
    with Store.open(tmp_path / "results") as store:
        assert isinstance(store.connection, SqliteConnection)
        pages = store.connection.query("PRAGMA page_count")[0][0]
        store.connection.query(f"PRAGMA max_page_count = {pages + 20}")
        with pytest.raises(ProveError, match="is full") as caught:
            store.refresh()
        assert "no result is lost" in caught.value.hint
        assert store.counts() == {}
    assert integrity(tmp_path / "results") == [("ok",)]
    assert ingested(tmp_path / "results") == ingested(tmp_path / "other")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1.5 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk can only be mounted as root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("room", [300_000, 40_000, 0])
def test_a_disk_that_is_full(tmp_path: Path, small_disk: Path, room: int) -> None:
    make_runs(tmp_path / "other")
    (small_disk / "runs").symlink_to(tmp_path / "other" / "runs")
    Store.open(small_disk).close()
    free = os.statvfs(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - room))
    with pytest.raises(ProveError, match=r"The disk that holds .* is full"), Store.open(small_disk) as store:
        store.refresh()
    ballast.unlink()
    assert integrity(small_disk) == [("ok",)]
    with Store.open(small_disk) as store:
        store.refresh()
    assert integrity(small_disk) == [("ok",)]
    assert ingested(small_disk) == ingested(tmp_path / "other")
