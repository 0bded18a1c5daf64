"""Every model of the study, every objective: proved, trained, and the objective changes what is trained."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_runs import Runs, events

from prove.rundir import RunDir, read_json
from prove.training.runner import load_checkpoint

OBJECTIVES = [
    "ce(class_weight=auto)",
    "ce(class_weight=[1,2,1,1,1,1,1,1,3,1,0.5])",
    "ce(label_smoothing=0.1)",
    "ce(ohem, thresh=0.05, min_kept=500)",
    "ce + 0.3*focal",
    "ce + 0.3*lovasz",
    "ce + 0.3*boundary",
    "ce + 0.3*dice",
    "ce + 0.5->0.1*focal",
    "ce + constant(0.3, start=0.3)*lovasz",
]
STUDY = {
    "deeplabv3plus_r50": "ce + 0.3*boundary",
    "pspnet_r50": "ce(class_weight=auto) + 0.3*dice",
    "segformer_mit-b3": "ce + 0.3*lovasz",
    "segnext_mscan-b": "ce(ohem, thresh=0.05, min_kept=500)",
    "hrnet_hr48": "ce(label_smoothing=0.1) + 0.3*focal",
    "mask2former_swin-b": "ce + 0.3*focal + 0.1*lovasz",
}
"""Each with an objective of its own: the whole table takes half an hour."""


def trained(runs: Runs, folder: str, **changes: Any) -> tuple[RunDir, dict[str, Tensor]]:
    """Train one job to its end; returns its folder and its last weights."""
    run = runs.make(folder, eval_interval=changes["max_iters"], val_images=1, pretrained=False, **changes)
    assert runs.train(run) == 0, run.log.read_text()
    assert events(run)[-1]["kind"] == "finished"
    weights = load_checkpoint(run.checkpoint(changes["max_iters"]))["state_dict"]
    shutil.rmtree(run.checkpoints)  # gigabytes, which pytest would keep
    return run, weights


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference between the weights of two models; batch-norm statistics aside."""
    assert one.keys() == other.keys()
    names = [name for name in one if one[name].is_floating_point() and "running_" not in name]
    return max(float((one[name] - other[name]).abs().max()) for name in names)


@pytest.fixture(scope="module")
def plain(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights after cross-entropy alone."""
    return trained(Runs(camvid, tmp_path_factory.mktemp("plain")), "ce", loss="ce", max_iters=3)[1]


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_every_objective_changes_what_is_trained(loss: str, runs: Runs, plain: dict[str, Tensor]) -> None:
    run, weights = trained(runs, "other", loss=loss, max_iters=3)
    evidence = read_json(run.evidence)
    assert evidence["ok"]
    assert [head["head"] for head in evidence["heads"]] == ["decode_head", "auxiliary_head"]
    assert all(len(head["terms"]) == 1 + loss.count(" + ") for head in evidence["heads"])
    assert distance(weights, plain) > 1e-7


def test_the_same_objective_changes_nothing(runs: Runs, plain: dict[str, Tensor]) -> None:
    """Else the distances above would say nothing."""
    assert distance(trained(runs, "again", loss="ce", max_iters=3)[1], plain) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("model", "loss"), STUDY.items())
def test_the_models_of_the_study(model: str, loss: str, runs: Runs) -> None:
    run, weights = trained(runs, "a", model=model, loss=loss, max_iters=1)
    evidence = read_json(run.evidence)
    assert evidence["ok"]
    found = [[term["term"] for term in head["terms"]] for head in evidence["heads"]]
    if model == "mask2former_swin-b":
        assert found == [["m2f", "focal", "lovasz"]]
        assert "meshgrid" not in run.log.read_text()  # torch warns of it in every run
    else:
        assert len(found) == (2 if model.endswith("r50") else 1)
    _, plain = trained(runs, "b", model=model, loss="ce", max_iters=1)
    assert distance(weights, plain) > 1e-7


STOCK = """
import sys
from mmengine.config import Config
from mmseg.registry import RUNNERS
config = Config.fromfile(sys.argv[1])
config.work_dir = sys.argv[2]
runner = RUNNERS.build(config)
import torch
torch.set_num_threads(1)
runner.train()
torch.save(runner.model.state_dict(), sys.argv[3])
"""
"""What MMSegmentation's ``tools/train.py`` does with a config that names its runner."""


@pytest.mark.slow
def test_the_written_config_stands_alone(runs: Runs, tmp_path: Path) -> None:
    """MMSegmentation's own way to train it ends with the same weights, bit for bit."""
    run, ours = trained(runs, "a", loss="ce + 0.5->0.1*focal", max_iters=4)
    target = tmp_path / "stock.pth"
    outcome = subprocess.run(
        [sys.executable, "-c", STOCK, str(run.config), str(tmp_path / "work"), str(target)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert outcome.returncode == 0, outcome.stderr
    stock = torch.load(target, weights_only=True)
    assert ours.keys() == stock.keys()
    assert all(torch.equal(ours[name], stock[name]) for name in ours)
