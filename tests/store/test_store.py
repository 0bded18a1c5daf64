from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import prove
from prove.errors import ProveError
from prove.spec import METRICS, Job
from prove.spec.event import State
from prove.store import Store
from tests.journal import finished, make_job, make_run, started, whole_life


def test_registering_twice_is_one_run(tmp_path: Path) -> None:
    job = make_job()
    with Store.open(tmp_path) as store:
        first = store.upsert(job, "ce + 0.3*focal")
        again = store.upsert(job, "ce + 0.3*focal(gamma=2)")
        assert (first.key, first.state, first.attempts) == (job.key, State.PLANNED, 0)
        assert again.created_at == first.created_at
        assert [run.loss for run in store.runs()] == ["ce + 0.3*focal(gamma=2)"]
        assert again.job == job


def test_a_stream_of_jobs_is_registered_whole_or_not_at_all(tmp_path: Path) -> None:
    def stream(last: int) -> Iterator[tuple[Job, str]]:
        for seed in range(last):
            yield make_job(seed), "ce"
        raise ProveError("seed 4711 is not a seed")

    with Store.open(tmp_path) as store:
        with pytest.raises(ProveError, match="4711"):
            store.register(stream(2500), "ablation")
        assert (store.counts(), store.experiments()) == ({}, [])
        store.register(((make_job(seed), "ce") for seed in range(2500)), "ablation")
        store.register(((make_job(seed), "ce") for seed in range(2600)), "ablation")
        assert store.counts("ablation") == {State.PLANNED: 2600}
        run = store.run(make_job(17).key)
        assert (run.seed, run.dataset, run.model, run.job) == (17, "SynthStreet", "fcn_tiny", make_job(17))


def test_registering_again_keeps_the_outcome(tmp_path: Path) -> None:
    make_run(tmp_path, whole_life())
    with Store.open(tmp_path) as store:
        store.refresh()
        before = store.run(make_job().key)
        after = store.upsert(make_job(), before.loss)
        assert after == before


def test_a_run_by_the_beginning_of_its_key(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        for seed in range(300):
            store.register([(make_job(seed), "ce")])
        keys = [run.key for run in store.runs()]
        assert len(set(keys)) == 300
        key = keys[0]
        assert store.run(key[:8].upper()).key == key
        with pytest.raises(ProveError, match="too short"):
            store.run(key[:3])
        store.connection.execute(
            "UPDATE runs SET key = :new WHERE key = :old", {"new": key[:8] + "ffff", "old": keys[1]}
        )
        with pytest.raises(ProveError, match="several runs") as caught:
            store.run(key[:8])
        assert key in caught.value.message
        assert key[:8] + "ffff" in caught.value.message
        for nonsense in ("zzzz", "' OR 1=1 --", "____", "%%%%"):
            with pytest.raises(ProveError, match="no run"):
                store.run(nonsense)


def test_no_run_in_an_empty_store(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, pytest.raises(ProveError, match="has no runs yet"):
        store.run("abcd")


def test_counts_and_experiments(tmp_path: Path) -> None:
    make_run(tmp_path, [started(), finished()], seed=0)
    make_run(tmp_path, [started(host="elsewhere")], seed=1)
    with Store.open(tmp_path) as store:
        store.refresh()
        for seed in (1, 2):
            store.upsert(make_job(seed), "ce", experiment="aux_weight")
            store.upsert(make_job(seed), "ce", experiment="aux_weight")
        assert store.counts() == {State.PLANNED: 1, State.RUNNING: 1, State.FINISHED: 1}
        assert store.counts("aux_weight") == {State.PLANNED: 1, State.RUNNING: 1}
        assert {run.seed for run in store.runs("aux_weight")} == {1, 2}
        assert [run.seed for run in store.runs(states=[State.FINISHED])] == [0]
        assert len(store.runs(limit=2)) == 2
        with pytest.raises(ProveError, match="Unknown experiment 'aux_wait'") as caught:
            store.runs("aux_wait")
        assert "'aux_weight'" in caught.value.hint


def test_a_frame_has_a_row_per_run(tmp_path: Path) -> None:
    make_run(tmp_path, whole_life(), seed=0)
    with Store.open(tmp_path) as store:
        store.upsert(make_job(1), "ce")
    frame = prove.load(tmp_path).set_index("seed").sort_index()
    assert frame["state"].tolist() == ["finished", "planned"]
    assert frame.loc[0, list(METRICS)].tolist() == [40.0 + index for index in range(7)]
    assert frame.loc[1, list(METRICS)].isna().all()
    assert frame.loc[0, "finished_at"] == pd.Timestamp("2023-11-14 22:14:10", tz="UTC")
    assert frame.loc[0, "key"] == make_job(0).key


def test_a_frame_says_which_runs_repeat_each_other(tmp_path: Path) -> None:
    short = make_job(0, max_iters=20)
    with Store.open(tmp_path) as store:
        for job in (make_job(0), make_job(1), short, make_job(0, train=replace(short.train, lr=0.5))):
            store.upsert(job, "ce")
    frame = prove.load(tmp_path).set_index("key")
    configs = frame.groupby("config").size()
    assert sorted(configs) == [1, 1, 2]
    assert frame.loc[make_job(0).key, "config"] == frame.loc[make_job(1).key, "config"]
    assert frame.loc[short.key, ["batch_size", "crop_size", "lr"]].tolist() == [2, "64x64", 0.01]


def test_a_frame_of_nothing_is_an_error_and_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(ProveError, match="no runs"):
        prove.load(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_the_database_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "results", whole_life())
    monkeypatch.setenv("PROVE_DB", f"sqlite:///{tmp_path / 'shared' / 'lab.db'}")
    with Store.open(tmp_path / "results") as store:
        store.refresh()
        assert store.counts() == {State.FINISHED: 1}
    assert (tmp_path / "shared" / "lab.db").exists()
    assert not (tmp_path / "results" / "prove.db").exists()
    # Runs of another folder on the same database are neither lost nor judged from here.
    with Store.open(tmp_path / "elsewhere") as store:
        store.refresh()
        assert store.counts() == {State.FINISHED: 1}


def test_find_takes_whole_keys_only(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        row = store.upsert(make_job(), "ce")
        assert store.find(row.key) == store.run(row.key)
        assert store.find(row.key[:6]) is None
        assert store.find(make_job(seed=1).key) is None
