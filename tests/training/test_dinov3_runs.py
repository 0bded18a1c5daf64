"""DINOv3 models as runs: proved, trained, validated on images whose sides don't divide by 16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ade20k import write_ade20k
from safetensors.torch import load_file, save_file
from test_wiring import edit_built_model
from torch import Tensor
from training_runs import TINY, Runs, events

from prove.build.configs import shipped
from prove.cli.execute import prepare
from prove.cli.request import RunRequest, plan, with_weights
from prove.rundir import RunDir, read_json
from prove.training import registered  # noqa: F401 - brings up the stack
from prove.training.dinov3 import DINOv3Backbone
from prove.training.runner import load_checkpoint

MINE = """
_base_ = [{base!r}]
model = dict(
    backbone=dict(size="tiny", init_cfg=dict(checkpoint={weights!r})),
    decode_head=dict(in_channels=64, channels=64),
)
"""


@pytest.fixture
def ade20k(tmp_path: Path) -> Path:
    return write_ade20k(tmp_path / "ade20k")


def finished(runs: Runs, run: RunDir) -> tuple[Any, dict[str, Tensor]]:
    """Train to the end; the proof's evidence and the last weights."""
    assert runs.train(run) == 0, run.log.read_text()
    assert events(run)[-1]["kind"] == "finished"
    return read_json(run.evidence), load_checkpoint(run.checkpoint(2))["state_dict"]


@pytest.mark.parametrize("model", ["dinov3_tiny_linear", "dinov3_tiny_mask2former"])
@pytest.mark.parametrize("dataset", ["CamVid", "ADE20K"])
def test_a_dinov3_is_proved_and_trained(model: str, dataset: str, runs: Runs, ade20k: Path) -> None:
    """On CamVid's 72 rows, no multiple of 16, and on the 150 classes of ADE20K."""
    root = {} if dataset == "CamVid" else {"dataset": dataset, "data_root": str(ade20k)}
    run = runs.make(model=model, loss="ce + 0.3*lovasz", **root)
    evidence, weights = finished(runs, run)
    assert evidence["ok"]
    (head,) = evidence["heads"]
    assert [term["term"] for term in head["terms"]] == ["m2f" if "mask2former" in model else "ce", "lovasz"]
    classes = {"CamVid": 11, "ADE20K": 150}[dataset]
    if "mask2former" in model:
        assert weights["decode_head.cls_embed.weight"].shape == (classes + 1, 32)
    else:
        assert weights["decode_head.conv_seg.weight"].shape == (classes, 64, 1, 1)
    assert len(events(run, "validated")[-1]["classes"]) == classes


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights for the size "tiny", each number far from what it starts with, in a file as the hub has them."""
    torch.manual_seed(11)
    vit = DINOv3Backbone(size="tiny").vit
    file = tmp_path / "vit_tiny.safetensors"
    save_file({name: value + 0.05 * torch.randn_like(value) for name, value in vit.state_dict().items()}, file)
    return file


def from_file(runs: Runs, tmp_path: Path, weights: Path, *, frozen: bool) -> RunDir:
    config = tmp_path / "mine.py"
    base = shipped(f"prove/dinov3{'_frozen' if frozen else ''}_linear.py")
    config.write_text(MINE.format(base=str(base), weights=str(weights)))
    changes: dict[str, Any] = {"model": str(config), "data_root": str(runs.camvid), "lr": 0.01}
    chosen = with_weights(plan(RunRequest(**{**TINY, **changes})))
    run = RunDir.of(runs.results / "a", chosen.job.key)
    run.create()
    prepare(run, chosen)
    return run


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_backbone_keeps_its_pretrained_weights_bit_by_bit(
    frozen: bool, runs: Runs, tmp_path: Path, weights: Path
) -> None:
    """Also through weight decay; one that is not frozen moves, every tensor of it."""
    run = from_file(runs, tmp_path, weights, frozen=frozen)
    evidence, trained = finished(runs, run)
    assert evidence["ok"]
    same = [torch.equal(trained[f"backbone.vit.{name}"], value) for name, value in load_file(weights).items()]
    assert all(same) if frozen else not any(same)
    assert float(trained["decode_head.conv_seg.bias"].abs().max()) > 0
    held = load_checkpoint(run.checkpoint(2))["optimizer"]["param_groups"]
    assert sum(len(group["params"]) for group in held) == 4 + (0 if frozen else len(same))


def test_weights_of_another_size_stop_the_run(runs: Runs, tmp_path: Path, weights: Path) -> None:
    state = load_file(weights)
    save_file({name: value for name, value in state.items() if not name.startswith("blocks.3.")}, weights)
    run = from_file(runs, tmp_path, weights, frozen=True)
    assert runs.train(run) == 1
    last = events(run)[-1]
    assert last["kind"] == "failed"
    assert "do not fit this DINOv3: it has no blocks.3." in last["message"]
    assert not events(run, "train")


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_a_pyramid_that_is_not_trained_on_a_frozen_backbone_fails_as_wiring(runs: Runs) -> None:
    """Nothing else would show it: a frozen backbone gets no gradient anyway."""

    def edit(model: Any) -> None:
        model.backbone.requires_grad_(False)
        forward = model.neck.forward
        model.neck.forward = lambda maps: tuple(level.detach() for level in forward(maps))

    run = runs.make(model="dinov3_tiny_mask2former", loss="m2f(num_points=200)", pretrained=False)
    assert runs.train(run, edit_built_model(edit)) == 1
    last = events(run)[-1]
    assert last["failure"] == "wiring"
    assert "no loss moves the neck" in last["message"]
