"""Runs of one seed are paired: equal initial weights, equal batches, equal dropout, whatever the objective."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import Runs

from prove.training.seeding import mix


def trace(target: Path) -> Any:
    """In the worker: write down the initial weights, every batch, and what torch would draw after each seeding."""

    def before() -> None:
        from prove.training.runner import ProveTrainLoop

        run_iter = ProveTrainLoop.run_iter

        def traced(self: Any, batch: Any) -> None:
            digest = hashlib.sha256()
            if self._iter == 0:
                for value in self.runner.model.state_dict().values():
                    digest.update(value.numpy().tobytes())
            for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
                digest.update(image.numpy().tobytes())
                digest.update(sample.gt_sem_seg.data.numpy().tobytes())
            digest.update(torch.get_rng_state().numpy().tobytes())
            with open(target, "a") as file:
                file.write(digest.hexdigest() + "\n")
            run_iter(self, batch)

        ProveTrainLoop.run_iter = traced

    return before


@pytest.fixture
def traces(runs: Runs, tmp_path: Path) -> Any:
    def run(name: str, **changes: Any) -> list[str]:
        folder = runs.make(name, max_iters=4, eval_interval=2, **changes)
        assert runs.train(folder, trace(tmp_path / f"{name}.trace")) == 0, folder.log.read_text()
        return (tmp_path / f"{name}.trace").read_text().split()

    return run


def test_objectives_of_one_seed_see_the_same(traces: Any) -> None:
    plain = traces("ce")
    assert len(set(plain)) == 4
    assert traces("lovasz", aux_loss="lovasz") == plain
    assert traces("ohem", loss="ce(ohem, min_kept=10) + 0.5->0.1*dice") == plain


def test_another_seed_sees_something_else(traces: Any) -> None:
    assert not set(traces("zero", seed=0)) & set(traces("one", seed=1))


def test_seeds_do_not_collide() -> None:
    """A sum of seed and index would: seed 0, worker 1 and seed 1, worker 0 shared a stream."""
    seeds = {mix("augmentation", seed, position) for seed in range(50) for position in range(200)}
    assert len(seeds) == 50 * 200
