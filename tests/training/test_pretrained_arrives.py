"""A run that says "pretrained" starts from those weights, or does not start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_runs import TINY, Runs, events

from prove.cli.execute import prepare
from prove.cli.request import RunRequest, plan, with_weights
from prove.errors import ProveError
from prove.rundir import RunDir
from prove.training.pretrained import check_arrived
from prove.training.worker import require_own_weights

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


def run_from(runs: Runs, monkeypatch: pytest.MonkeyPatch, cache: Path, widths: int) -> RunDir:
    monkeypatch.setenv("PROVE_CACHE", str(cache))
    (cache / "weights").mkdir(parents=True)
    torch.save({"state_dict": backbone(widths), "meta": {}}, cache / "weights" / URL)
    changes: dict[str, Any] = {
        "model": "segformer_mit-b0",
        "data_root": str(runs.camvid),
        "max_iters": 1,
        "eval_interval": 1,
    }
    chosen = with_weights(plan(RunRequest(**{**TINY, **changes, "lr": 1e-12})))
    run = RunDir.of(runs.results / "a", chosen.job.key)
    run.create()
    prepare(run, chosen)
    return run


@pytest.mark.filterwarnings("ignore")
def test_the_weights_arrive(runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = run_from(runs, monkeypatch, tmp_path / "cache", 32)
    assert runs.train(run) == 0, run.log.read_text()
    trained = torch.load(run.checkpoint(1), weights_only=True)["state_dict"]
    for name, value in backbone(32).items():
        torch.testing.assert_close(trained[f"backbone.{name}"], value, atol=1e-9, rtol=1e-6)
    assert len(json.loads(run.env.read_text())["weights_sha256"]) == 64


@pytest.mark.filterwarnings("ignore")
def test_weights_of_another_backbone_are_refused(runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MMEngine alone would train from random weights and call it pretrained."""
    run = run_from(runs, monkeypatch, tmp_path / "cache", 16)
    assert runs.train(run) == 1
    last = events(run)[-1]
    assert last["kind"] == "failed"
    assert "arrived in the model" in last["message"]
    assert not events(run, "train")


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_is_none_is_refused_by_name(runs: Runs, tmp_path: Path) -> None:
    file = tmp_path / "junk.pth"
    file.write_bytes(b"e" * 99)
    changes: dict[str, Any] = {"model": "segformer_mit-b0", "weights": str(file), "max_iters": 1, "eval_interval": 1}
    chosen = plan(RunRequest(**{**TINY, "data_root": str(runs.camvid), **changes}))
    run = RunDir.of(runs.results / "junk", chosen.job.key)
    run.create()
    prepare(run, with_weights(chosen))
    assert runs.train(run) == 1
    assert "junk.pth can't be read: it is not a file that torch.save wrote" in events(run)[-1]["message"]


class Model(nn.Module):
    """A backbone of a stem and a trunk, ten times as large."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 80))


def test_a_small_file_does_not_fill_a_big_backbone(tmp_path: Path) -> None:
    """Every number of the file arrives, but nine tenths of the backbone stay random."""
    torch.manual_seed(0)
    model, file = Model(), tmp_path / "weights.pth"
    torch.save({"state_dict": model.backbone[0].state_dict()}, file)
    with pytest.raises(ProveError, match=r"they fill only 9% of its backbone: they are for a smaller one"):
        check_arrived(model, file)
    torch.save({"state_dict": model.backbone[1].state_dict()}, file)
    check_arrived(model, file)
    torch.save({**model.backbone[1].state_dict(), "head": torch.rand(2000)}, file)
    with pytest.raises(ProveError, match=r"Only 26% of the pretrained weights .* arrived in the model"):
        check_arrived(model, file)
    torch.save({"state_dict": model.backbone[0].state_dict()}, file)
    check_arrived(nn.Sequential(model.backbone), file)  # a model without a `backbone`: the file is all there is to ask


def test_the_checkpoint_of_a_whole_model_is_called_that(tmp_path: Path) -> None:
    """Where it does not fit. Its tensors by themselves do fill the backbone, beside a state of the optimiser."""
    torch.manual_seed(0)
    model, file = Model(), tmp_path / "best.pth"
    state = {**model.state_dict(), "decode_head.conv.weight": torch.rand(2000)}
    for content in (state, {"state_dict": state, "optimizer": {"state": {0: {"exp_avg": torch.rand(9)}}}}):
        torch.save(content, file)
        with pytest.raises(ProveError, match=r'best\.pth is the checkpoint of a whole model.* called "backbone\.…"'):
            check_arrived(model, file)
    torch.save({f"backbone.{name}": value for name, value in model.backbone.state_dict().items()}, file)
    check_arrived(model, file)  # some backbones take their part from such a file: what arrived, arrived


class Note:
    """Something that is pickled beside the weights."""


def test_what_can_not_be_read_says_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "junk.pth"
    file.write_bytes(b"e" * 99)
    with pytest.raises(ProveError, match=r"it is not a file that torch\.save wrote, or it is damaged"):
        check_arrived(Model(), file)
    torch.save({"state_dict": {"weight": torch.rand(3)}, "meta": Note()}, file)
    with pytest.raises(ProveError, match=r"beside tensors it holds a pickled \S*Note, and PROVE executes nothing"):
        check_arrived(Model(), file)


def test_weights_that_have_changed_since_the_job_was_made_are_refused(runs: Runs, tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    torch.save({"state_dict": backbone(32)}, file)
    changes: dict[str, Any] = {"model": "segformer_mit-b0", "weights": str(file), "max_iters": 1, "eval_interval": 1}
    chosen = plan(RunRequest(**{**TINY, "data_root": str(runs.camvid), **changes}))
    require_own_weights(chosen.job, chosen.placement)
    torch.save({"state_dict": backbone(64)}, file)
    with pytest.raises(ProveError, match="no longer the file of weights"):
        require_own_weights(chosen.job, chosen.placement)
    file.unlink()
    with pytest.raises(ProveError, match="no longer the file of weights"):
        require_own_weights(chosen.job, chosen.placement)
