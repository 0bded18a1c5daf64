"""Whatever is killed, lost or deleted on a real SLURM: each run is finished exactly once, or failed as it should."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import pytest
from launches import events
from slurm_cluster import Cluster, until
from slurm_sweeps import LONG, WAITING, Sweep

from prove.cli.request import RunRequest, plan
from prove.launch import slurm
from prove.launch.folder import LaunchDir
from prove.launch.settle import refresh
from prove.launch.slurm import submit
from prove.launch.slurm_options import SlurmOptions
from prove.spec.event import FailureKind, State
from prove.store import Store


def test_a_worker_that_is_killed_goes_on(store: Store) -> None:
    sweep = Sweep(store, {"default": {"steps": 5, "die": {"1": 2}}})
    sweep.assert_finished_once()
    assert len(events(sweep.run(), "started")) == 2


def test_a_worker_that_is_killed_each_time_fails(store: Store) -> None:
    sweep = Sweep(store, {"default": {"steps": 9, "die": {"1": 2, "2": 4}}}, attempts=2)
    sweep.until_states(State.FAILED)
    run = store.run(sweep.keys[0])
    assert run.failure is FailureKind.KILLED
    assert "started 2 times" in run.message
    sweep.until_closed()


def test_a_task_that_is_killed_is_taken_on_by_the_next_sweep(store: Store) -> None:
    sweep = Sweep(store, LONG)
    sweep.until_starts(1)
    [pid] = sweep.task_pids()
    os.kill(pid, signal.SIGKILL)
    sweep.until_states(State.INTERRUPTED)
    sweep.until_closed()
    sweep.assert_sound()
    again = Sweep(store, {"default": {"steps": 5}})
    again.assert_finished_once()
    assert events(again.run(), "started")[1]["resumed_from"] > 0


def test_a_task_that_never_speaks_fails_with_what_it_printed(store: Store) -> None:
    sweep = Sweep(store, {}, runs=2, python="/nowhere/python")
    sweep.until_states(State.FAILED)
    run = store.run(sweep.keys[1])
    assert run.failure is FailureKind.ERROR
    assert "ended before its first word" in run.message
    assert "/nowhere/python" in run.message
    sweep.until_closed()


def test_a_node_set_down(cluster: Cluster, store: Store) -> None:
    sweep = Sweep(store, WAITING)
    sweep.until_starts(1)
    node = cluster.ask("squeue", "-h", "-o", "%N")
    cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        sweep.until_starts(2)
        sweep.let_finish()
        sweep.assert_finished_once()
    finally:
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], capture_output=True)
    assert len(events(sweep.run(), "started")) == 2


def test_a_slurmd_that_is_killed_and_comes_back(cluster: Cluster, store: Store) -> None:
    sweep = Sweep(store, {"default": {"steps": 60, "seconds": 0.1}})
    sweep.until_starts(1)
    node = cluster.ask("squeue", "-h", "-o", "%N")
    cluster.kill(node)
    cluster.start(node)
    sweep.assert_finished_once()
    assert len(events(sweep.run(), "started")) == 1


def test_a_lost_node_whose_worker_lives_on(cluster: Cluster, store: Store) -> None:
    """SLURM starts the task anew elsewhere; the run folder's lock lets no two workers train one run."""
    sweep = Sweep(store, WAITING)
    sweep.until_starts(1)
    node = cluster.ask("squeue", "-h", "-o", "%N")
    cluster.kill(node)
    try:
        until(lambda: cluster.ask("squeue", "-h", "-o", "%N") not in ("", node), sweep.said, 120)
        sweep.let_finish()
        sweep.until_states(State.FINISHED)
    finally:
        cluster.start(node)
    sweep.assert_finished_once()
    assert len(events(sweep.run(), "started")) == 1


def test_a_slurmctld_that_is_killed_and_comes_back(cluster: Cluster, store: Store) -> None:
    sweep = Sweep(store, WAITING)
    sweep.until_starts(1)
    began, saved = time.time(), cluster.path / "state/job_state"
    until(lambda: saved.exists() and saved.stat().st_mtime > began, "slurmctld has noted what runs")
    cluster.kill("slurmctld")
    try:
        [note] = refresh(store)
    finally:
        cluster.start("slurmctld")
    assert "last known" in note
    assert sweep.store.states(sweep.keys)[sweep.keys[0]] == (State.RUNNING, sweep.folder.id)
    sweep.let_finish()
    sweep.assert_finished_once()
    assert len(events(sweep.run(), "started")) == 1


def test_a_slurmctld_that_forgets_a_job_that_runs(
    cluster: Cluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before it has saved its state, it ends what it does not know, or starts it a second time."""
    sweep = Sweep(store, {"default": {"steps": 60, "seconds": 0.1}})
    sweep.until_starts(1)
    cluster.kill("slurmctld")
    cluster.start("slurmctld")
    until(cluster.usable, "slurmctld answers")
    monkeypatch.setattr("prove.launch.slurm_fates.GRACE_SECONDS", 0.0)

    def decided(sweep: Sweep) -> bool:
        if any("scontrol release" in note for note in refresh(store)):  # it holds what it has started twice
            cluster.ask("scontrol", "release", sweep.jobs[0])
        return sweep.states()[0] in (State.FINISHED, State.INTERRUPTED, State.PLANNED)

    until(lambda: decided(sweep), lambda: f"it is known what became of it: {sweep.said()}")
    if sweep.states() != [State.FINISHED]:
        sweep.until_closed()
        cluster.heal()
        again = Sweep(store, {})
        until(lambda: decided(again), lambda: f"the next sweep finishes it: {again.said()}")
    assert len(events(sweep.run(), "finished")) == 1
    assert sweep.states() == [State.FINISHED]


def test_an_accounting_that_is_away(cluster: Cluster, store: Store) -> None:
    sweep = Sweep(store, {})
    cluster.kill("slurmdbd")
    try:
        until(lambda: len(events(sweep.run(), "finished")) == 1, "it finishes")
        assert refresh(store)
    finally:
        cluster.start("slurmdbd")
    sweep.assert_finished_once()


def test_death_between_sbatch_and_the_database(store: Store) -> None:
    sweep = Sweep(store, {}, runs=3, submits=False)
    submit(sweep.folder, 3, sweep.options)
    sweep.assert_finished_once()


def test_death_between_the_claim_and_sbatch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep(store, {}, runs=3, submits=False)
    assert sweep.states() == [State.QUEUED] * 3
    monkeypatch.setattr("prove.launch.slurm_fates.GRACE_SECONDS", 0.0)
    assert sweep.states() == [State.PLANNED] * 3
    sweep.until_closed()
    Sweep(store, {}, runs=3).assert_finished_once()


def test_death_between_two_arrays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep(store, {}, runs=4, submits=False)
    monkeypatch.setattr("prove.launch.slurm.max_array_size", lambda: 2)
    first = slurm._submit_array

    def dies(launch: LaunchDir, offset: int, elements: int, options: SlurmOptions) -> str:
        if offset:
            raise KeyboardInterrupt
        return first(launch, offset, elements, options)

    monkeypatch.setattr("prove.launch.slurm._submit_array", dies)
    with pytest.raises(KeyboardInterrupt):
        submit(sweep.folder, 4, sweep.options)
    assert sweep.states()[2:] == [State.QUEUED] * 2
    monkeypatch.setattr("prove.launch.slurm_fates.GRACE_SECONDS", 0.0)
    until(lambda: sweep.states() == [State.FINISHED] * 2 + [State.PLANNED] * 2, "what was submitted is done")
    sweep.until_closed()


def test_a_deleted_launch_folder(store: Store) -> None:
    sweep = Sweep(store, LONG, runs=2, parallel=1)
    sweep.until_starts(1)
    shutil.rmtree(sweep.folder.path)
    sweep.until_closed()
    sweep.assert_sound()
    Sweep(store, {}, runs=2).assert_finished_once()


def test_a_deleted_run_folder(store: Store) -> None:
    sweep = Sweep(store, {"default": {"steps": 30, "seconds": 0.1}})
    sweep.until_starts(1)
    shutil.rmtree(sweep.run().path)
    until(lambda: not sweep.task_pids(), "the task ends")
    refresh(store)
    sweep.until_closed()
    assert sweep.states()[0] is not State.RUNNING
    if sweep.states() != [State.FINISHED]:
        Sweep(store, {}).assert_finished_once()


@pytest.mark.slow
def test_a_real_training_is_requeued(cluster: Cluster, store: Store) -> None:
    request = RunRequest(dataset="SynthStreet", model="fcn_tiny", max_iters=40, eval_interval=10, batch_size=2,
                         crop_size="64x64", val_images=2, early_stop=False, device="cpu", threads=1)  # fmt: skip
    sweep = Sweep(store, {}, trains=plan(request))
    until(lambda: events(sweep.run(), "checkpoint"), lambda: f"a checkpoint: {sweep.said()}", 180)
    cluster.ask("scontrol", "requeue", f"{sweep.jobs[0]}_0")
    until(lambda: sweep.states() == [State.FINISHED], lambda: f"it finishes: {sweep.said()}", 180)
    assert [event["resumed_from"] > 0 for event in events(sweep.run(), "started")] == [False, True]
    sweep.assert_finished_once()
