"""A run that says "pretrained" starts from those weights, or does not start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from training_runs import Runs, events

from prove.rundir import RunDir

URL = "mit_b0_20220624-7e0fe6dd.pth"


def backbone(widths: int) -> dict[str, torch.Tensor]:
    """Weights of a MiT of the given width, as the published file holds them."""
    from prove.build.configs import load, shipped
    from prove.catalog.models import MODELS
    from prove.training import registered  # noqa: F401

    config = load(shipped(MODELS.get("segformer_mit-b0").config)).model.backbone
    config.update(embed_dims=widths, init_cfg=None)
    from mmseg.registry import MODELS as BACKBONES

    torch.manual_seed(3)
    return dict(BACKBONES.build(config).state_dict())


def with_weights(runs: Runs, monkeypatch: pytest.MonkeyPatch, cache: Path, widths: int) -> RunDir:
    monkeypatch.setenv("PROVE_CACHE", str(cache))
    (cache / "weights").mkdir(parents=True)
    torch.save({"state_dict": backbone(widths), "meta": {}}, cache / "weights" / URL)
    return runs.make(model="segformer_mit-b0", pretrained=True, max_iters=1, eval_interval=1, lr=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_the_weights_arrive(runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = with_weights(runs, monkeypatch, tmp_path / "cache", 32)
    assert runs.train(run) == 0, run.log.read_text()
    trained = torch.load(run.checkpoint(1), weights_only=True)["state_dict"]
    for name, value in backbone(32).items():
        torch.testing.assert_close(trained[f"backbone.{name}"], value, atol=1e-9, rtol=1e-6)
    assert len(json.loads(run.env.read_text())["weights_sha256"]) == 64


@pytest.mark.filterwarnings("ignore")
def test_weights_of_another_backbone_are_refused(runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MMEngine alone would train from random weights and call it pretrained."""
    run = with_weights(runs, monkeypatch, tmp_path / "cache", 16)
    assert runs.train(run) == 1
    last = events(run)[-1]
    assert last["kind"] == "failed"
    assert "arrived in the model" in last["message"]
    assert not events(run, "train")
