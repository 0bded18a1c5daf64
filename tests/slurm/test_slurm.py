"""Launches on a real SLURM: what is submitted, refused, called off, preempted and stopped at its time limit."""

from __future__ import annotations

from typing import Any

import pytest
from launches import events
from slurm_cluster import Cluster, until
from slurm_sweeps import LONG, Sweep

from prove.errors import ProveError
from prove.launch.settle import cancel
from prove.launch.slurm import max_array_size
from prove.spec.event import FailureKind, State
from prove.store import Store


def test_a_sweep_runs_to_its_end(store: Store) -> None:
    sweep = Sweep(store, {}, runs=6, gpus=1, time="5", parallel=4)
    assert len(sweep.jobs) == 1
    sweep.assert_finished_once()
    started = events(sweep.run(5), "started")
    assert [event["launcher"] for event in started] == [f"slurm {sweep.jobs[0]}_5"]


def test_a_pack_runs_one_after_the_other(store: Store) -> None:
    sweep = Sweep(store, {}, runs=5, pack=3)
    sweep.assert_finished_once()
    assert {events(sweep.run(index), "started")[0]["launcher"] for index in range(5)} == {
        f"slurm {sweep.jobs[0]}_0",
        f"slurm {sweep.jobs[0]}_1",
    }
    ends = [events(sweep.run(index), "finished")[0]["time"] for index in range(3)]
    starts = [events(sweep.run(index), "started")[0]["time"] for index in range(3)]
    assert starts[1] >= ends[0]
    assert starts[2] >= ends[1]


def test_a_pack_runs_side_by_side(store: Store) -> None:
    sweep = Sweep(store, {"default": {"steps": 40, "seconds": 0.1}}, runs=2, pack=2, pack_mode="parallel", cpus=2)
    sweep.assert_finished_once()
    starts = [events(sweep.run(index), "started")[0]["time"] for index in range(2)]
    ends = [events(sweep.run(index), "finished")[0]["time"] for index in range(2)]
    assert max(starts) < min(ends)


def test_a_thousand_runs_are_one_submission(store: Store) -> None:
    sweep = Sweep(store, LONG, runs=1000, parallel=1)
    assert len(sweep.jobs) == 1
    until(lambda: State.RUNNING in sweep.states(), "the first runs")
    cancel(store, sweep.keys)
    sweep.until_states(State.CANCELLED)
    sweep.until_closed()
    sweep.assert_sound()


def test_more_runs_than_an_array_may_have(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prove.launch.slurm.max_array_size", lambda: 3)
    sweep = Sweep(store, {}, runs=7)
    assert len(sweep.jobs) == 3
    sweep.assert_finished_once()
    assert events(sweep.run(6), "started")[0]["launcher"] == f"slurm {sweep.jobs[2]}_0"


def test_the_clusters_array_size_is_read(cluster: Cluster) -> None:
    assert max_array_size() == 1001


@pytest.mark.parametrize(
    ("options", "words", "hint"),
    [
        ({"partition": "nope"}, "Invalid partition", "partition: nope"),
        ({"account": "nope"}, "Invalid account", "account: nope"),
        ({"qos": "nope"}, "Invalid qos", "qos: nope"),
        ({"memory": "999G"}, "Memory specification", "memory: 999G"),
        ({"gpus": 9}, "node configuration", "gpus: 9"),
        ({"constraint": "nope"}, "Invalid feature", "constraint: nope"),
        ({"directives": {"nope": 1}}, "unrecognized option", "directives"),
    ],
)
def test_a_refusal_is_told_in_slurms_words(
    store: Store, options: dict[str, Any], words: str, hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ProveError) as caught:
        Sweep(store, {}, runs=2, **options)
    assert words in caught.value.message
    assert hint in caught.value.hint
    assert capfd.readouterr().err == ""
    assert store.claims() == []
    assert store.open_launches() == []


def test_scontrol_requeue(cluster: Cluster, store: Store) -> None:
    sweep = Sweep(store, {"default": {"steps": 60, "seconds": 0.1}})
    sweep.until_starts(1)
    cluster.ask("scontrol", "requeue", f"{sweep.jobs[0]}_0")
    until(lambda: sweep.states() == [State.QUEUED], "it waits again")
    assert store.states(sweep.keys)[sweep.keys[0]][1] == sweep.folder.id
    sweep.assert_finished_once()
    assert [event["reason"] for event in events(sweep.run(), "interrupted")] == ["signal SIGTERM"]
    assert events(sweep.run(), "started")[1]["resumed_from"] > 0


def test_scancel_of_what_runs_and_of_what_waits(cluster: Cluster, store: Store) -> None:
    sweep = Sweep(store, LONG, runs=3, parallel=1)
    sweep.until_starts(1)
    cluster.ask("scancel", f"{sweep.jobs[0]}_2")
    cluster.ask("scancel", f"{sweep.jobs[0]}_0")
    until(lambda: [sweep.states()[index] for index in (0, 2)] == [State.CANCELLED] * 2, "both are cancelled")
    cluster.ask("scancel", sweep.jobs[0])
    sweep.until_states(State.CANCELLED)
    sweep.until_closed()
    sweep.assert_sound()


def test_prove_cancel_of_one_of_a_pack(store: Store) -> None:
    sweep = Sweep(store, {"1": LONG["default"]}, runs=3, pack=3)
    sweep.until_starts(1, index=1)
    assert cancel(store, [sweep.keys[1]]) == []
    until(lambda: sweep.states() == [State.FINISHED, State.CANCELLED, State.FINISHED], "the others finish")
    sweep.until_closed()


def test_preemption(cluster: Cluster, store: Store) -> None:
    sweep = Sweep(store, {"default": {"steps": 60, "seconds": 0.1}})
    sweep.until_starts(1)
    cluster.ask("sbatch", "-p", "high", "-N4", "--exclusive", "-t1", "-o/dev/null", "--wrap", "sleep 1")
    until(lambda: len(events(sweep.run(), "interrupted")) == 1, "it is told to stop")
    sweep.assert_finished_once()
    assert len(events(sweep.run(), "started")) == 2


def test_preemption_with_time_to_checkpoint(cluster: Cluster, store: Store) -> None:
    """Within the grace time the task requeues itself: SLURM would only end it later."""
    cluster.ask("scontrol", "update", "partitionname=main", "gracetime=60")
    try:
        sweep = Sweep(store, {"default": {"steps": 60, "seconds": 0.1}})
        sweep.until_starts(1)
        cluster.ask("sbatch", "-p", "high", "-N4", "--exclusive", "-t1", "-o/dev/null", "--wrap", "sleep 1")
        until(lambda: "back into the queue" in sweep.said(), "it goes back by itself", 50)
        sweep.assert_finished_once()
    finally:
        cluster.ask("scontrol", "update", "partitionname=main", "gracetime=0")
    assert len(events(sweep.run(), "started")) == 2


def test_the_warning_before_the_time_limit(store: Store) -> None:
    sweep = Sweep(store, {"default": {"steps": 700, "seconds": 0.1}}, attempts=1, time="1", signal_seconds=50)
    sweep.until_states(State.FAILED)
    run = store.run(sweep.keys[0])
    assert run.failure is FailureKind.TIMEOUT
    assert [event["reason"] for event in events(sweep.run(), "interrupted")] == ["signal SIGTERM"]
    assert "time limit" in run.message
    sweep.until_closed()
    sweep.assert_sound()


def test_time_outs_resume_until_the_attempts_are_used_up(cluster: Cluster, store: Store) -> None:
    sweep = Sweep(store, LONG, attempts=2)
    for count in (1, 2):
        sweep.until_starts(count)
        # what SLURM does at signal_seconds before the limit, without the wait
        cluster.ask("scancel", "--signal=USR1", f"{sweep.jobs[0]}_0")
        until(lambda count=count: len(events(sweep.run(), "interrupted")) == count, "it stops")  # type: ignore[misc]
    sweep.until_states(State.FAILED)
    run = store.run(sweep.keys[0])
    assert run.failure is FailureKind.TIMEOUT
    assert "started 2 times" in run.message
    sweep.until_closed()
    sweep.assert_sound()


def test_two_sweeps_share_the_work(store: Store) -> None:
    first = Sweep(store, {"default": {"steps": 10, "seconds": 0.1}}, runs=3)
    second = Sweep(store, {"default": {"steps": 10, "seconds": 0.1}}, runs=5)
    assert first.taken == first.keys
    assert second.taken == second.keys[3:]
    second.assert_finished_once()
