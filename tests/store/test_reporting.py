"""What reports read and keep beside the runs."""

import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from prove.errors import ProveError
from prove.rundir import RunDir, write_json
from prove.spec.event import State
from prove.store import Described, Resampled, Store, schema
from prove.store.merge import export_runs, import_runs
from tests.journal import START, encoded, event, finished, interrupted, make_job, make_run, started, train, whole_life

FACTS = {"data_train": "aa", "code": "bb", "packages": {"torch": "2.11"}, "resumed": False}

ENV = {
    "prove": "0.1.0",
    "code_sha256": "c0de",
    "prove_git": {"commit": "f00", "dirty": True},
    "python": "3.11.7",
    "packages": {"torch": "2.11.0", "numpy": "2.4.0"},
    "device": "NVIDIA H100",
    "placement": {"source": "SynthStreet", "cuda": True},
    "weights_sha256": None,
    "data_fingerprint": {"train": "7a", "val": "0b"},
}
"""As the first PROVE wrote it."""


def surroundings(attempt: int = 1, **changes: Any) -> dict[str, Any]:
    return event("environment", 0.5, attempt, environment=FACTS | changes)


def grads(iteration: int, share: float = 0.7, attempt: int = 1) -> dict[str, Any]:
    term = {"loss_share": share, "gradient_share": share, "cosine": None}
    return event("grads", float(iteration), attempt, iteration=iteration, heads={"decode_head": {"ce": term}})


def run_id(store: Store, run: RunDir) -> int:
    return int(store.connection.query("SELECT id FROM runs WHERE key = :key", {"key": run.key})[0][0])


def recorded(store: Store) -> list[tuple[str]]:
    return [json.loads(payload) for (payload,) in store.connection.query("SELECT payload FROM environments")]


def test_the_environment_of_the_latest_attempt_is_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path, [started(), surroundings(), train(5), interrupted()])
    with Store.open(tmp_path) as store:
        store.refresh()
        assert {key: json.loads(said) for key, said in store.environments().items()} == {run_id(store, run): FACTS}
        assert recorded(store) == [FACTS]
        second = [started(30.0, attempt=2, resumed_from=5), surroundings(2, resumed=True), finished(attempt=2)]
        with open(run.events, "ab") as file:
            file.write(encoded(second))
        store.refresh()
        assert recorded(store) == [FACTS | {"resumed": True}]
        assert store.run(run.key).state is State.FINISHED


def test_equal_facts_are_equal_texts(tmp_path: Path) -> None:
    make_run(tmp_path, [started(), surroundings()], 0)
    backwards = dict(reversed(list(FACTS.items())))
    make_run(tmp_path, [started(), event("environment", environment=backwards)], 1)
    with Store.open(tmp_path) as store:
        store.refresh()
        assert len(set(store.environments().values())) == 1
        assert len(store.environments()) == 2


def test_a_fresh_attempt_voids_the_environment(tmp_path: Path) -> None:
    run = make_run(tmp_path, [started(), surroundings(), finished()])
    with Store.open(tmp_path) as store:
        store.refresh()
        with open(run.events, "ab") as file:
            file.write(encoded([started(100.0, attempt=2)]))
        store.refresh()
        assert (recorded(store), store.environments()) == ([], {})


def test_an_environment_that_is_none_is_a_problem(tmp_path: Path) -> None:
    run = make_run(tmp_path, [started(), event("environment", environment=7), surroundings(), train(5)])
    with Store.open(tmp_path) as store:
        store.refresh()
        assert len(store.problems(run.key)) == 1
        assert recorded(store) == [FACTS]


def test_old_runs_are_read_from_their_folders_once(tmp_path: Path) -> None:
    new = make_run(tmp_path, [started(), surroundings(), finished()], 0)
    old = make_run(tmp_path, [started(), interrupted(), started(60.0, 2, resumed_from=5), finished(attempt=2)], 1)
    without = make_run(tmp_path, [started(), finished()], 2)
    torn = make_run(tmp_path, [started(), finished()], 3)
    for run in (new, old):
        write_json(run.env, ENV)
    torn.env.write_text('{"prove": ')
    with Store.open(tmp_path) as store:
        store.register([(make_job(4), "ce")])
        store.register([(make_job(1), "ce")], "ablation")
        store.refresh()
        found = store.environments()
        assert found.keys() == {run_id(store, new), run_id(store, old)}
        assert json.loads(found[run_id(store, new)]) == FACTS
        expected = {
            "data_train": "7a",
            "data_val": "0b",
            "weights_sha256": None,
            "metric_version": 1,
            "code": "c0de",
            "code_sha256": "c0de",
            "prove": "0.1.0",
            "dirty": True,
            "packages": {"torch": "2.11.0", "numpy": "2.4.0"},
            "python": "3.11.7",
            "device": "NVIDIA H100",
            "device_kind": "cuda",
            "amp": make_job().train.amp,
            "batch_size_per_device": 2,
            "deterministic": None,
            "resumed": True,
        }
        assert json.loads(found[run_id(store, old)]) == expected
        old.env.unlink()
        assert store.environments() == found
        assert store.environments("ablation") == {run_id(store, old): found[run_id(store, old)]}
        with pytest.raises(ProveError, match="Unknown experiment"):
            store.environments("ablatoin")
        assert without.env.exists() is False


@pytest.mark.parametrize("written", [[1], "text", {"placement": 3}, {"data_fingerprint": "x", "placement": {}}])
def test_an_environment_of_something_else_is_left_out(tmp_path: Path, written: Any) -> None:
    run = make_run(tmp_path, [started(), finished()])
    write_json(run.env, written)
    with Store.open(tmp_path) as store:
        store.refresh()
        assert store.environments() == {}


def test_gradient_shares_are_a_curve_of_their_own(tmp_path: Path) -> None:
    first = [started(), grads(0, 0.5), train(5), grads(10), train(15), grads(20, 0.9), interrupted()]
    run = make_run(tmp_path, first)
    with Store.open(tmp_path) as store:
        store.refresh()
        assert store.run(run.key).iteration == 20
        with open(run.events, "ab") as file:
            file.write(encoded([started(30.0, 2, resumed_from=10), grads(10, 0.7, 2), grads(20, 0.8, 2)]))
        store.refresh()
        curve = store.curve(run.key, "grads")
        shares = [(point.iteration, point.values["heads"]["decode_head"]["ce"]["loss_share"]) for point in curve]
        assert shares == [(0, 0.5), (10, 0.7), (20, 0.8)]
        assert all(point.values.keys() == {"heads"} for point in curve)
        assert [point.iteration for point in store.curve(run.key, "train")] == [5]


def test_an_experiment_s_report_is_what_was_said_last(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        assert store.study("ablation") is None
        store.remember_study("ablation", {"baseline": "ce"}, "Does focal help?")
        store.remember_study("other", {}, "")
        store.remember_study("ablation", {"baseline": "ohem", "smallest_effect": 0.5}, "Wer prüft's?")
        assert store.study("ablation") == Described({"baseline": "ohem", "smallest_effect": 0.5}, "Wer prüft's?")
        assert store.study("other") == ({}, "")


def replicated(store: Store, run: RunDir, payload: bytes = b"\x00\xff\n" * 40) -> dict[int, Resampled]:
    found = {run_id(store, run): Resampled(store.run(run.key).finished_at or 0.0, payload)}
    store.save_replicates("last", "overall", "mIoU", found)
    return found


def kept(store: Store, *runs: RunDir) -> dict[int, Resampled]:
    return store.replicates("last", "overall", "mIoU", [run_id(store, run) for run in runs])


def test_replicates_come_back_as_they_were_kept(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, whole_life(), seed) for seed in range(3)]
    with Store.open(tmp_path) as store:
        store.refresh()
        found = replicated(store, runs[0]) | replicated(store, runs[1], bytes(range(256)) * 300)
        assert kept(store, *runs) == found
        assert kept(store, runs[2]) == {}
        ids = [run_id(store, run) for run in runs]
        for what in (("best", "overall", "mIoU"), ("last", "class", "mIoU"), ("last", "overall", "aAcc")):
            assert store.replicates(*what, ids) == {}
        again = replicated(store, runs[0], b"anew")
        assert kept(store, *runs) == found | again


def test_replicates_of_another_result_are_not_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path, whole_life())
    with Store.open(tmp_path) as store:
        store.refresh()
        number = run_id(store, run)
        store.save_replicates("last", "overall", "mIoU", {number: Resampled(START, b"x"), 4711: Resampled(START, b"x")})
        assert store.replicates("last", "overall", "mIoU", [number, 4711]) == {}


@pytest.mark.parametrize("what", ["started", "finished anew", "folder deleted", "events anew", "run deleted"])
def test_what_voids_replicates(tmp_path: Path, what: str) -> None:
    run, other = make_run(tmp_path, [started(), surroundings(), *whole_life()[1:]]), make_run(tmp_path, whole_life(), 1)
    with Store.open(tmp_path) as store:
        store.refresh()
        replicated(store, run)
        beside = replicated(store, other)
        if what == "folder deleted":
            shutil.rmtree(run.path)
        elif what == "events anew":
            run.events.write_bytes(encoded([started(7.0)]))
        elif what == "run deleted":
            store.connection.execute("DELETE FROM runs WHERE key = :key", {"key": run.key})
        else:
            more = [started(100.0, attempt=3, resumed_from=40), finished(120.0, attempt=3)]
            with open(run.events, "ab") as file:
                file.write(encoded(more if what == "finished anew" else more[:1]))
        store.ingest()
        assert store.connection.query("SELECT COUNT(*) FROM replicates") == [(1,)]
        assert kept(store, other) == beside
        left = [] if what in ("folder deleted", "events anew") else [FACTS]
        assert recorded(store) == left


def test_the_second_tables_become_the_third(tmp_path: Path) -> None:
    """A database of the revision before is upgraded in place, with all that it holds."""
    url = f"sqlite:///{tmp_path / 'prove.db'}"
    make_run(tmp_path, whole_life())
    schema.migrate(url, "0002")
    with closing(sqlite3.connect(tmp_path / "prove.db")) as link, link:
        link.execute(
            "INSERT INTO runs "
            "(key, job, dataset, model, strategy, loss, seed, max_iters, state, created_at, updated_at) "
            "VALUES (?, ?, 'SynthStreet', 'fcn_tiny', 'baseline', 'ce', 0, 40, 'planned', 1.0, 1.0)",
            (make_job().key, make_job().canonical),
        )
        link.execute("INSERT INTO experiments (name, run_id) VALUES ('ablation', 1)")
    with pytest.raises(ProveError, match="revision 0002, this PROVE needs 0003"):
        Store.open(tmp_path)
    assert schema.upgrade(url, 1.0)[0] == "0002"
    with Store.open(tmp_path) as store:
        store.refresh()
        assert store.counts("ablation") == {State.FINISHED: 1}
        (run,) = store.runs()
        assert run.created_at == 1.0
        store.remember_study("ablation", {"metric": "mIoU"}, "")
        assert store.environments() == {}
    assert (tmp_path / "prove.db.revision-0002").exists()


def repacked(source: Path, target: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """An archive with another manifest."""
    with tarfile.open(source) as old, tarfile.open(target, "w:gz") as new:
        for member in old.getmembers():
            file = old.extractfile(member)
            assert file is not None
            content = file.read()
            if member.name == "manifest.json":
                manifest = json.loads(content)
                edit(manifest)
                content = json.dumps(manifest).encode()
                member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return target


def test_what_reports_need_travels(tmp_path: Path) -> None:
    run = make_run(tmp_path / "here", [started(), surroundings(), grads(0), finished()])
    run.predictions.write_bytes(b"pictures")
    run.best_predictions.write_bytes(b"best pictures")
    path = tmp_path / "runs.tar.gz"
    with Store.open(tmp_path / "here") as store:
        for name in ("ablation", "known"):
            store.register([(make_job(), "ce")], name)
            store.remember_study(name, {"baseline": "ce"}, "from there")
        store.remember_study("empty", {}, "has no runs")
        store.refresh()
        replicated(store, run)
        export_runs(store, path)
    with Store.open(tmp_path / "there") as store:
        store.remember_study("known", {}, "from here")
        import_runs(store, path)
        assert recorded(store) == [FACTS]
        assert len(store.curve(run.key, "grads")) == 1
        assert store.study("ablation") == ({"baseline": "ce"}, "from there")
        assert store.study("known") == ({}, "from here")
        assert store.study("empty") is None
        assert kept(store, run) == {}  # they are computed again from the counts
    arrived = RunDir.of(tmp_path / "there", run.key)
    assert (arrived.predictions.read_bytes(), arrived.best_predictions.read_bytes()) == (b"pictures", b"best pictures")

    before = repacked(path, tmp_path / "before.tar.gz", lambda manifest: manifest.pop("studies"))
    with Store.open(tmp_path / "of an earlier PROVE") as store:
        import_runs(store, before)
        assert len(store.runs("ablation")) == 1
        assert store.study("ablation") is None


STRANGE = (
    7,
    ["ablation"],
    {"ablation": "text"},
    {"ablation": {"report": 3, "description": ""}},
    {"ablation": {"report": {}, "description": 3}},
)


@pytest.mark.parametrize("studies", STRANGE)
def test_an_archive_with_a_strange_report_is_refused(tmp_path: Path, studies: Any) -> None:
    make_run(tmp_path / "here", [started(), finished()])
    path = tmp_path / "runs.tar.gz"
    with Store.open(tmp_path / "here") as store:
        store.register([(make_job(), "ce")], "ablation")
        store.refresh()
        export_runs(store, path)
    strange = repacked(path, tmp_path / "strange.tar.gz", lambda manifest: manifest.update(studies=studies))
    with Store.open(tmp_path / "there") as store, pytest.raises(ProveError, match="manifest is not as expected"):
        import_runs(store, strange)
