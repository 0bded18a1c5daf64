"""Real trainings in a pool: what a fork of a warm process trains is, bit for bit, what a process of its own does."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from launches import QUICK, TWO, assert_nobody_left, events, make_launch, meanwhile, run_of, wait_until

from prove.cli.execute import prepare
from prove.cli.request import Plan, RunRequest, plan
from prove.launch.folder import Assignment
from prove.launch.pool import run_pool
from prove.launch.worker import start_worker
from prove.rundir import RunDir

TINY = RunRequest(dataset="SynthStreet", model="fcn_tiny", aux_loss="lovasz", max_iters=6, eval_interval=2,
                  batch_size=2, crop_size="64x64", val_images=2, early_stop=False, device="cpu", threads=1)  # fmt: skip


def alone(results: Path, chosen: Plan) -> RunDir:
    """Trained as `prove run` does it, in a process of its own."""
    run = RunDir.of(results, chosen.job.key)
    run.create()
    prepare(run, chosen)
    worker = start_worker(run)
    assert worker.wait() == 0, run.log.read_text()
    assert worker.stderr is not None
    worker.stderr.close()
    return run


PRELOAD = """
import os, sys, torch
def asked(): raise AssertionError("CUDA was touched before the fork")
torch._C._cuda_getDeviceCount = torch._C._cuda_init = asked
import prove.training.preloaded
assert not torch.cuda.is_initialized()
assert os.environ["CUDA_VISIBLE_DEVICES"] == "0" and "PYTORCH_NVML_BASED_CUDA_CHECK" not in os.environ
print(len(os.listdir("/proc/self/task")), all(name in sys.modules for name in ("mmseg", "prove.training.worker")))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.slow
def test_what_is_imported_before_the_fork_starts_no_thread_and_leaves_cuda_alone() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0"}
    done = subprocess.run([sys.executable, "-c", PRELOAD], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "1 True\n", done.stderr


@pytest.mark.slow
def test_killed_or_not_a_forked_run_is_what_it_is_alone(results: Path) -> None:
    plans = [plan(dataclasses.replace(TINY, seed=seed)) for seed in range(2)]
    runs = [
        Assignment(each.job.key, each.job.to_dict(), {**dataclasses.asdict(each.placement), "threads": 7})
        for each in plans
    ]
    folder = make_launch(results, runs, {}, worker="prove.training.preloaded:main")
    victim = run_of(folder, runs[0])

    def kill_one() -> None:
        wait_until(lambda: events(victim, "checkpoint"), "a checkpoint", seconds=300)
        os.kill(events(victim, "started")[0]["pid"], signal.SIGKILL)

    with meanwhile(kill_one):
        outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert sorted(outcome.finished) == sorted(each.key for each in runs), outcome
    assert [event["resumed_from"] > 0 for event in events(victim, "started")] == [False, True]
    for chosen, each in zip(plans, runs, strict=True):
        mine, theirs = run_of(folder, each), alone(results / "alone", chosen)
        weights = [torch.load(run.checkpoint(6), weights_only=True)["state_dict"] for run in (mine, theirs)]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
        ends = [events(run, "finished") for run in (mine, theirs)]
        assert [len(end) for end in ends] == [1, 1]
        assert ends[0][0]["last"] == ends[1][0]["last"]
    assert_nobody_left(folder)
