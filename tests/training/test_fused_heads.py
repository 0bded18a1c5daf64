"""Heads that evaluate their terms together, against MMSegmentation's own way of evaluating them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import TINY, Runs

from prove.build.job_config import build_config
from prove.cli.request import RunRequest, plan
from prove.training.stack import load_stack

load_stack()

from mmengine.structures import PixelData  # noqa: E402
from mmseg.models.decode_heads import FCNHead  # noqa: E402
from mmseg.models.decode_heads.decode_head import BaseDecodeHead  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402
from torch import nn  # noqa: E402

from prove.training import fused_heads  # noqa: E402
from prove.training.fused_heads import fuse_heads  # noqa: E402
from prove.training.objective import ProveTerm  # noqa: E402
from prove.training.session import proof_batch  # noqa: E402

OBJECTIVE = ("ce(label_smoothing=0.1)", "0.3*focal", "0.5*lovasz", "0.2*dice", "0.1*boundary", "0.4*hausdorff")


def head(terms: tuple[str, ...] = OBJECTIVE, align_corners: bool = False) -> Any:
    names = [f"loss_{i}" for i in range(len(terms))]
    losses = [{"type": "ProveTerm", "term": t, "loss_name": n} for t, n in zip(terms, names, strict=True)]
    return FCNHead(
        num_convs=0, concat_input=False, in_channels=4, channels=4, num_classes=5, loss_decode=losses,
        align_corners=align_corners,
    )  # fmt: skip


def samples(labels: torch.Tensor) -> list[SegDataSample]:
    found = []
    for each in labels:
        sample = SegDataSample()
        sample.gt_sem_seg = PixelData(data=each[None])
        found.append(sample)
    return found


def made_up() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (2, 8, 10), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels[:, :5, :7] = 255
    return torch.randn(2, 5, 8, 10, generator=generator, dtype=torch.float64), labels


@pytest.mark.filterwarnings("ignore:When align_corners=True")  # of MMSegmentation's resize
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_fused_head_has_the_losses_and_gradients_of_the_stock_one(align_corners: bool, monkeypatch: Any) -> None:
    logits, labels = made_up()
    stock, fused = head(align_corners=align_corners), head(align_corners=align_corners)
    fuse_heads(nn.ModuleList([fused]))
    ours = logits.clone().requires_grad_()
    found = fused.loss_by_feat(ours, samples(labels))
    monkeypatch.setenv("PROVE_LOSSES", "torch")
    theirs = logits.clone().requires_grad_()
    expected = stock.loss_by_feat(theirs, samples(labels))
    assert set(found) == set(expected) - {"acc_seg"}
    for name, value in found.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-10)
    sum(found.values()).backward()
    sum(value for name, value in expected.items() if name != "acc_seg").backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-13)


def test_a_head_with_another_loss_is_left_alone() -> None:
    mixed = head()
    mixed.loss_decode.append(nn.Identity())
    patched = head()
    patched.loss_decode[0].forward = lambda *args, **kwargs: torch.zeros(())
    fuse_heads(nn.ModuleList([mixed]))
    assert mixed.loss_by_feat.__func__ is BaseDecodeHead.loss_by_feat
    fuse_heads(nn.ModuleList([patched]))
    assert patched.loss_by_feat.__func__ is BaseDecodeHead.loss_by_feat


def test_a_loss_that_is_changed_later_is_honoured() -> None:
    logits, labels = made_up()
    fused = head(("ce", "0.3*focal"))
    fuse_heads(nn.ModuleList([fused]))
    before = fused.loss_by_feat(logits, samples(labels))
    fused.loss_decode[1].register_forward_hook(lambda module, inputs, output: output * 7)
    after = fused.loss_by_feat(logits, samples(labels))
    assert after["loss_1"].item() == pytest.approx(7 * before["loss_1"].item())


@pytest.mark.parametrize("change", ["hook on the term", "value of the term", "backward hook", "sampler", "one name"])
def test_whatever_is_changed_later_is_honoured(change: str) -> None:
    fused = head(("ce", "0.3*focal"))
    fuse_heads(nn.ModuleList([fused]))
    assert fused_heads.terms_of(fused)
    loss = fused.loss_decode[1]
    if change == "hook on the term":
        loss.term.register_forward_hook(lambda module, inputs, output: output * 7)
    elif change == "value of the term":
        loss.term.value = lambda pixels: pixels.logits.sum()
    elif change == "backward hook":
        loss.register_full_backward_hook(lambda module, grads, outputs: None)
    elif change == "sampler":
        fused.sampler = object()
    else:
        loss.loss_name = "loss_0"
    assert not fused_heads.terms_of(fused)


def test_two_terms_of_one_name_are_added_up() -> None:
    logits, labels = made_up()
    fused = head(("ce", "0.3*focal"))
    stock = fused.loss_by_feat(torch.nn.functional.interpolate(logits, scale_factor=4), samples(labels))
    expected = sum(stock[name].item() for name in ("loss_0", "loss_1"))
    fuse_heads(nn.ModuleList([fused]))
    fused.loss_decode[1].loss_name = "loss_0"
    found = fused.loss_by_feat(torch.nn.functional.interpolate(logits, scale_factor=4), samples(labels))
    assert found["loss_0"].item() == pytest.approx(expected)


def test_a_term_of_weight_0_is_not_evaluated(monkeypatch: Any) -> None:
    logits, labels = made_up()
    fused = head(("ce", "constant(0.3, start=0.5)*hausdorff"))
    fuse_heads(nn.ModuleList([fused]))
    monkeypatch.setattr("prove.losses.hausdorff.Hausdorff.value", None)
    leaf = logits.requires_grad_()
    found = fused.loss_by_feat(leaf, samples(labels))
    assert found["loss_1"] == 0
    assert (torch.autograd.grad(found["loss_1"], leaf)[0] == 0).all()
    fused.loss_decode[1].set_progress(0.6)
    with pytest.raises(TypeError):
        fused.loss_by_feat(leaf, samples(labels))


def test_another_ignore_index_is_refused() -> None:
    logits, labels = made_up()
    fused = head()
    fuse_heads(nn.ModuleList([fused]))
    fused.ignore_index = -100
    with pytest.raises(ValueError, match="built to ignore 255"):
        fused.loss_by_feat(logits, samples(labels))


def test_distance_maps_come_from_the_data_workers(runs: Runs, monkeypatch: Any) -> None:
    from mmseg.registry import DATASETS

    import prove.training.registered  # noqa: F401
    from prove.losses.distance_maps import distance_maps

    chosen = plan(RunRequest(**{**TINY, "data_root": str(runs.camvid), "loss": "ce + 0.01*distance"}))
    config = build_config(chosen.job, chosen.dataset, chosen.placement).config
    dataset = DATASETS.build(config.train_dataloader.dataset)
    item = dataset[(0, 0)]["data_samples"]
    labels = item.gt_sem_seg.data.squeeze(0)
    expected = distance_maps(labels.numpy(), 11, ignore_index=255)
    assert torch.equal(item.gt_distance_maps.data, torch.from_numpy(expected))

    distant = head(("distance",))
    fuse_heads(nn.ModuleList([distant]))
    logits, _ = made_up()
    small = torch.randint(0, 5, (1, 32, 40), generator=torch.Generator().manual_seed(1))
    given = samples(small)
    computed = distant.loss_by_feat(logits[:1], given)["loss_0"]
    maps = torch.from_numpy(distance_maps(small[0].numpy(), 5, ignore_index=255))
    given[0].gt_distance_maps = PixelData(data=maps)
    monkeypatch.setattr("prove.losses.distance.distance_maps", None)  # not computed again
    assert distant.loss_by_feat(logits[:1], given)["loss_0"].item() == pytest.approx(computed.item(), rel=1e-6)


def test_maps_of_labels_that_the_proof_changes_are_dropped() -> None:
    class OneItem:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, place: Any) -> Any:
            sample = samples(torch.zeros(1, 8, 8, dtype=torch.long))[0]
            sample.gt_distance_maps = PixelData(data=torch.ones(5, 8, 8))
            return {"inputs": torch.zeros(3, 8, 8), "data_samples": sample}

    batch, planted = proof_batch(OneItem(), 1)
    assert planted
    assert "gt_distance_maps" not in batch["data_samples"][0]


def test_a_run_records_how_its_terms_are_computed(runs: Runs, tmp_path: Path) -> None:
    run = runs.make(loss="ce + 0.3*lovasz + 0.01*distance", crop_size="160x160")
    assert runs.train(run) == 0, run.log.read_text()
    evidence = json.loads(run.evidence.read_text())
    for each in evidence["heads"]:
        how = {term["term"]: term["method"] for term in each["terms"]}
        assert how["ce"] == "fused"
        assert how["distance"] == "on its own"
        assert re.fullmatch(r"fused, (sorted|binned \(relative error <= \d\.\de-\d\d\))", how["lovasz"])


def test_terms_are_registered_with_mmsegmentation() -> None:
    from mmseg.registry import MODELS

    built = MODELS.build({"type": "ProveTerm", "term": "0.3*tversky(beta=0.8)", "loss_name": "loss_tversky"})
    assert isinstance(built, ProveTerm)
    logits, labels = made_up()
    full = nn.functional.interpolate(logits, size=labels.shape[1:])
    assert built(full, labels, ignore_index=255) > 0


def test_a_gradient_that_is_not_a_number_has_no_direction() -> None:
    from prove.training.wiring_checks import direction_problems

    right = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert not direction_problems("head", 0.5, 0.5 * right, right)
    assert direction_problems("head", 0.5, torch.tensor([float("nan"), 1.0], dtype=torch.float64), right)
