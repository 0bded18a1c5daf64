"""The store on a real PostgreSQL server."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy

from prove.errors import ProveError
from prove.spec.event import FailureKind, State
from prove.store import Resampled, Settlement, Store, schema
from prove.store.tables import metadata
from tests.journal import encoded, event, finished, interrupted, make_job, make_run, started, train, whole_life
from tests.store.postgres_server import binaries, running
from tests.store.store_samples import CHUNKED, a_launch, claim_together, ingest_together, ingested, rows

pytestmark = pytest.mark.skipif(
    binaries() is None, reason="no PostgreSQL server here: on Debian, `apt-get install postgresql`"
)

_numbers = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture
def database(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty database, which $PROVE_DB names."""
    name = f"lab{next(_numbers)}"
    engine = sqlalchemy.create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as link:
        link.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    monkeypatch.setenv("PROVE_DB", f"{server}/{name}")
    return f"{server}/{name}"


def planned(store: Store, number: int) -> list[str]:
    store.register(((make_job(seed), "ce") for seed in range(number)), "ablation")
    return [make_job(seed).key for seed in range(number)]


def test_the_same_rows_as_with_sqlite(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, CHUNKED, 0)
    make_run(tmp_path, [started(), finished()], 1)
    make_run(tmp_path, [started(), train(5), interrupted()], 2)
    there = ingested(tmp_path)
    assert there == ingested(tmp_path)
    assert not (tmp_path / "prove.db").exists()
    monkeypatch.delenv("PROVE_DB")
    assert ingested(tmp_path) == there
    assert len(there["problems"]) == 3


def test_events_bit_by_bit_and_written_anew(tmp_path: Path, database: str) -> None:
    run = make_run(tmp_path, whole_life()[:6])
    with Store.open(tmp_path) as store:
        store.refresh()
        with open(run.events, "ab") as file:
            file.write(encoded(whole_life()[6:]))
        store.refresh()
        bitwise = rows(store)
        run.events.write_bytes(encoded([started(100.0), train(3)]))
        store.refresh()
        assert len(store.curve(run.key)) == 1
        assert store.results(run.key) == []
        run.events.write_bytes(encoded(whole_life()))
        store.refresh()
        assert rows(store) == bitwise


def test_the_tables_are_those_of_the_description_and_upgrades_end_there(tmp_path: Path, database: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def difference() -> list:
        engine = sqlalchemy.create_engine(database)
        try:
            with engine.connect() as link:
                return compare_metadata(MigrationContext.configure(link, opts={"compare_type": True}), metadata)
        finally:
            engine.dispose()

    schema.migrate(database, schema.REVISIONS[0])
    with pytest.raises(ProveError, match="prove db upgrade"):
        Store.open(tmp_path)
    assert difference() != []
    assert schema.upgrade(database, 1.0) == (schema.REVISIONS[0], None)
    assert difference() == []
    assert schema.upgrade(database, 1.0) == (schema.HEAD, None)


def test_a_fresh_database_gets_the_same_tables(tmp_path: Path, database: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    Store.open(tmp_path).close()
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as link:
        context = MigrationContext.configure(link, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == schema.HEAD
    engine.dispose()


def test_what_reports_keep(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = event("environment", 0.5, environment={"code": "ab", "packages": {"torch": "2"}})
    run = make_run(tmp_path, [started(), facts, finished()], 0)
    make_run(tmp_path, [started(), finished()], 1)
    payload = bytes(range(256)) * 20
    with Store.open(tmp_path) as store:
        store.refresh()
        ((run_id, said),) = store.environments().items()
        assert json.loads(said) == facts["environment"]
        at = store.run(run.key).finished_at
        assert at is not None
        for _ in range(2):
            store.save_replicates("last", "class", "IoU", {run_id: Resampled(at, payload), 99: Resampled(at, b"x")})
            assert store.replicates("last", "class", "IoU", [run_id, 99]) == {run_id: (at, payload)}
        store.save_replicates("last", "class", "IoU", {run_id: Resampled(at - 1, b"of another result")})
        assert store.replicates("last", "class", "IoU", [run_id]) == {run_id: (at, payload)}
        for text in ("Does it help?", "Hilft's? 100 %"):
            store.remember_study("ablation", {"baseline": "ce"}, text)
        assert store.study("ablation") == ({"baseline": "ce"}, text)
        with open(run.events, "ab") as file:
            file.write(encoded([started(100.0, attempt=2)]))
        store.refresh()
        assert store.environments() == store.replicates("last", "class", "IoU", [run_id]) == {}


def test_claims_and_how_they_end(tmp_path: Path, database: str) -> None:
    free = (State.PLANNED, State.INTERRUPTED, State.FAILED)
    with Store.open(tmp_path) as store:
        keys = planned(store, 1200)
        assert store.claim(a_launch("one"), dict.fromkeys(keys[:800], 0), free) == set(keys[:800])
        assert store.claim(a_launch("two"), dict.fromkeys(keys, 1), free) == set(keys[800:])
        assert len(store.states(keys)) == 1200
        assert {launch.id for launch in store.open_launches()} == {"one", "two"}
        store.submitted("two", ["17"])
        assert [launch.slurm_jobs for launch in store.open_launches() if launch.id == "two"] == [("17",)]
        make_run(tmp_path, [started(host="n1"), train(5)], 0)
        make_run(tmp_path, [started(host="n1"), finished()], 1)
        store.refresh()
        settlements = [
            Settlement(keys[0], "one", State.FAILED, FailureKind.TIMEOUT, "Its time was up."),
            Settlement(keys[1], "one", State.FAILED, FailureKind.KILLED, "It was killed."),
            Settlement(keys[2], "one", State.QUEUED),
            Settlement(keys[900], "one", State.PLANNED),
        ]
        assert store.settle(settlements) == 3
        first, second = store.run(keys[0]), store.run(keys[1])
        assert (first.state, first.failure, first.launch) == (State.FAILED, FailureKind.TIMEOUT, None)
        assert (second.state, second.failure, second.launch) == (State.FINISHED, None, None)
        assert store.attempts(keys[0])[0].ending == "interrupted"
        assert len(store.claims("one")) == 798
        store.close_launch("one")
        assert len(store.claims()) == 400
        assert store.reset(keys, State.CANCELLED) == 799
        assert store.counts("ablation") == {State.QUEUED: 400, State.FINISHED: 1, State.CANCELLED: 799}


def test_those_who_claim_at_the_same_time_share_without_overlap(tmp_path: Path, database: str) -> None:
    chooser = random.Random(5)
    with Store.open(tmp_path) as store:
        keys = planned(store, 40)
        claim_together(store, [[chooser.sample(keys, 25) for _ in range(2)] for _ in range(15)])


def test_ingesters_at_the_same_time(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [started(), *(train(i) for i in range(1, 50)), *whole_life()[1:]]
    for seed in range(8):
        make_run(tmp_path, many, seed)
    # They also race to create the tables.
    assert sum(ingest_together(tmp_path, 3)) == 8 * len(many)
    together = ingested(tmp_path)
    monkeypatch.delenv("PROVE_DB")
    assert ingested(tmp_path) == together


def test_status_and_info_of_a_shared_database(tmp_path: Path, database: str) -> None:
    make_run(tmp_path, whole_life())
    command = [sys.executable, "-m", "prove.cli"]
    status = subprocess.run(
        [*command, "status", "--json", "--results", tmp_path], capture_output=True, text=True, check=True
    )
    answer = json.loads(status.stdout)
    assert answer["counts"]["finished"] == 1
    assert answer["runs"][0]["mIoU"] == 40.0
    info = subprocess.run(
        [*command, "db", "info", "--json", "--results", tmp_path], capture_output=True, text=True, check=True
    )
    facts = json.loads(info.stdout)
    assert facts["database"] == database
    assert facts["rows"]["runs"] == 1
    assert facts["rows"]["launches"] == 0


def test_a_server_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVE_DB", "postgresql+psycopg://prove:s3cret@127.0.0.1:1/lab")
    with pytest.raises(ProveError, match="can't be used") as caught:
        Store.open(tmp_path)
    assert "s3cret" not in str(caught.value)
    assert "server is up" in caught.value.hint


def test_a_connection_that_is_cut_loses_nothing(tmp_path: Path, database: str) -> None:
    run = make_run(tmp_path, whole_life())
    with Store.open(tmp_path) as store:
        (own,) = store.connection.query("SELECT pg_backend_pid()")[0]
        with Store.open(tmp_path) as other:
            other.connection.execute("SELECT pg_terminate_backend(:pid)", {"pid": own})
        with pytest.raises(ProveError, match="can't be used"):
            store.refresh()
    with Store.open(tmp_path) as store:
        store.refresh()
        assert store.run(run.key).state is State.FINISHED
    assert os.environ["PROVE_DB"] == database
