"""Runs under the standard strategies: paired by seed, whoever loads the images, and resumed bit for bit."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import Runs, events, wait_for

from prove.rundir import RunDir

TOGETHER = (
    "std_minimal+std_photometric_distort+std_cutmix", "std_autoaugment+std_mixup", "std_minimal+std_randaugment",
)  # fmt: skip
"""Every standard strategy is in one of them."""


def trace(target: Path) -> Any:
    """In the worker: write down every batch as the model gets it, with all its labels."""

    def before() -> None:
        from prove.training.runner import ProveTrainLoop

        run_iter = ProveTrainLoop.run_iter

        def traced(self: Any, batch: Any) -> None:
            digest = hashlib.sha256()
            for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
                digest.update(image.numpy().tobytes())
                for name in ("gt_sem_seg", "gt_second_sem_seg"):
                    if name in sample:
                        digest.update(getattr(sample, name).data.numpy().tobytes())
                digest.update(str(sample.metainfo.get("mix_share")).encode())
            with open(target, "a") as file:
                file.write(digest.hexdigest() + "\n")
            run_iter(self, batch)

        ProveTrainLoop.run_iter = traced

    return before


@pytest.fixture
def traces(runs: Runs, tmp_path: Path) -> Any:
    def run(name: str, **changes: Any) -> list[str]:
        folder = runs.make(name, max_iters=4, eval_interval=4, **changes)
        assert runs.train(folder, trace(tmp_path / f"{name}.trace")) == 0, folder.log.read_text()
        return (tmp_path / f"{name}.trace").read_text().split()

    return run


@pytest.mark.parametrize("strategy", TOGETHER)
def test_objectives_of_one_seed_see_the_same_batches(traces: Any, strategy: str) -> None:
    plain = traces("ce", strategy=strategy)
    assert len(set(plain)) == 4
    assert traces("other", strategy=strategy, loss="ce(ohem, min_kept=10) + 0.5->0.1*dice", workers=2) == plain


JOB: dict[str, Any] = {"aux_loss": "lovasz", "max_iters": 6, "eval_interval": 2}


def weights(run: RunDir) -> dict[str, Any]:
    state = torch.load(run.checkpoint(6), weights_only=True)
    with np.load(run.confusion) as arrays:
        return {**state["state_dict"], "counts": torch.from_numpy(arrays["confusion"])}


@pytest.mark.parametrize("strategy", ["std_randaugment+std_cutmix", "std_mixup"])
def test_killed_and_resumed_it_ends_bit_for_bit_the_same(runs: Runs, strategy: str) -> None:
    undisturbed = runs.make("undisturbed", strategy=strategy, **JOB)
    assert runs.train(undisturbed) == 0, undisturbed.log.read_text()
    run = runs.make("killed", strategy=strategy, workers=2, **JOB)
    child = runs.start(run)
    wait_for(run, "checkpoint")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not events(run, "finished")
    assert runs.train(run) == 0, run.log.read_text()
    assert events(run, "started")[-1]["resumed_from"] >= 2
    mine, theirs = weights(run), weights(undisturbed)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    assert events(run, "finished")[-1]["last"] == events(undisturbed, "finished")[-1]["last"]
    shares = [event["heads"] for event in events(run, "grads")]
    assert shares[-1] == events(undisturbed, "grads")[-1]["heads"]


def test_a_strategy_is_part_of_what_a_job_is(runs: Runs) -> None:
    keys = {runs.make(strategy=name).key for name in ("baseline", "std_cutmix", "std_mixup", "std_minimal")}
    assert len(keys) == 4
    assert runs.make(strategy="std_mixup+std_minimal").key == runs.make(strategy="std_minimal+std_mixup").key
