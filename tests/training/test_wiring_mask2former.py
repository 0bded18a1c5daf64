"""The wiring proof of a mask-classification head against sabotage."""

from __future__ import annotations

import copy
import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_wiring import edit_built_model
from torch import nn
from training_runs import TINY, Runs, events

from prove.build.configs import shipped
from prove.build.job_config import build_config
from prove.cli.request import RunRequest, plan
from prove.losses.set_criterion import SetCriterion

PARTS = ("loss_cls", "loss_mask", "loss_dice")

SMALL = """
_base_ = ['{base}']
model = dict(
    backbone=dict(depth=18, base_channels=8, stem_channels=8, init_cfg=None),
    decode_head=dict(
        in_channels=[8, 16, 32, 64], feat_channels=32, out_channels=32, num_queries=12,
        pixel_decoder=dict(
            encoder=dict(num_layers=1, layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=32, num_heads=4), ffn_cfg=dict(embed_dims=32, feedforward_channels=32))),
            positional_encoding=dict(num_feats=16)),
        positional_encoding=dict(num_feats=16),
        transformer_decoder=dict(num_layers=2, layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=32, num_heads=4), cross_attn_cfg=dict(embed_dims=32, num_heads=4),
            ffn_cfg=dict(embed_dims=32, feedforward_channels=32)))))
"""


FEW = "num_points=512"
"""Enough for masks of 16 x 16, and quick."""


def small_model(folder: Path) -> str:
    """A Mask2Former of a few thousand weights, as a config file."""
    base = shipped("mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py")
    path = folder / "mask2former_small.py"
    path.write_text(SMALL.format(base=base))
    return str(path)


@pytest.fixture
def small(tmp_path: Path) -> str:
    return small_model(tmp_path)


def drop_term(model: Any) -> None:
    model.decode_head.semantic_terms = nn.ModuleList()


def detach_map(model: Any) -> None:
    losses = model.decode_head.semantic_losses
    model.decode_head.semantic_losses = lambda cls, masks, labels: losses(cls.detach(), masks.detach(), labels)


def reverse(model: Any) -> None:
    term = model.decode_head.semantic_terms[0]
    forward = term.forward

    def turned(*args: Any, **kwargs: Any) -> Any:
        value = forward(*args, **kwargs)
        return 2 * value.detach() - value

    term.forward = turned


def ignore_weight(model: Any) -> None:
    model.decode_head.semantic_terms[0].loss_weight = 1.0


def ignore_index_lost(model: Any) -> None:
    model.decode_head.ignore_index = -100


def gradient_without_term(model: Any) -> None:
    parse = model.parse_losses

    def stealthy(losses: Any) -> Any:
        total, entries = parse(losses)
        name = next(name for name in entries if "semantic" in name)
        return total - entries[name] + entries[name].detach(), entries

    model.parse_losses = stealthy


def criterion_weight(model: Any) -> None:
    model.decode_head.loss_weight = 3.0


def criterion_ignores_its_weight(model: Any) -> None:
    head = model.decode_head
    head.criterion = lambda *args: head.set_criterion(*args).terms


def with_settings(**changed: Any) -> Callable[[Any], None]:
    """The criterion is another than the term says."""

    def edit(model: Any) -> None:
        own = model.decode_head.set_criterion
        model.decode_head.set_criterion = SetCriterion(own.num_classes, own.settings.changed(changed))

    edit.__name__ = "_".join(f"{name}_{value}" for name, value in changed.items())
    return edit


def edit_criterion(change: Callable[..., Any]) -> Callable[[Any], None]:
    """The criterion is what ``change`` makes of it; it is called with it, scores, masks and labels."""

    def edit(model: Any) -> None:
        head = model.decode_head
        head.criterion = functools.partial(change, head.criterion)

    edit.__name__ = change.__name__
    return edit


@edit_criterion
def without_deep_supervision(criterion: Any, *args: Any) -> Any:
    return {name: value for name, value in criterion(*args).items() if not name.startswith("d")}


@edit_criterion
def layers_detached(criterion: Any, cls: Any, masks: Any, labels: Any) -> Any:
    cut = [each.detach() for each in cls[:-1]], [each.detach() for each in masks[:-1]]
    return criterion([*cut[0], cls[-1]], [*cut[1], masks[-1]], labels)


@edit_criterion
def layers_swapped(criterion: Any, cls: Any, masks: Any, labels: Any) -> Any:
    return criterion(cls[::-1], masks[::-1], labels)


@edit_criterion
def first_layers_swapped(criterion: Any, cls: Any, masks: Any, labels: Any) -> Any:
    order = [1, 0, *range(2, len(cls))]
    return criterion([cls[i] for i in order], [masks[i] for i in order], labels)


@edit_criterion
def a_layer_dropped(criterion: Any, cls: Any, masks: Any, labels: Any) -> Any:
    return criterion(cls[1:], masks[1:], labels)


@edit_criterion
def a_layer_twice(criterion: Any, cls: Any, masks: Any, labels: Any) -> Any:
    return criterion([cls[0], cls[0], *cls[2:]], [masks[0], masks[0], *masks[2:]], labels)


@edit_criterion
def masks_detached(criterion: Any, cls: Any, masks: Any, labels: Any) -> Any:
    return criterion(cls, [each.detach() for each in masks], labels)


@edit_criterion
def other_labels(criterion: Any, cls: Any, masks: Any, labels: Any) -> Any:
    return criterion(cls, masks, labels.roll(8, dims=-1))


@edit_criterion
def ignored_are_a_class(criterion: Any, cls: Any, masks: Any, labels: Any) -> Any:
    return criterion(cls, masks, torch.where(labels == 255, 0, labels))


@edit_criterion
def losses_averaged_over_layers(criterion: Any, *args: Any) -> Any:
    losses = criterion(*args)
    means = {part: sum(v for k, v in losses.items() if k.endswith(part)) / 3 for part in PARTS}
    return {name: means[name.split(".")[-1]] for name in losses}


@edit_criterion
def right_in_float64_alone(criterion: Any, cls: Any, masks: Any, labels: Any) -> Any:
    """The proof's own evaluation is sound, the training step is not."""
    losses = criterion(cls, masks, labels)
    return losses if cls[0].dtype == torch.float64 else {**losses, "loss_dice": 1.02 * losses["loss_dice"]}


@edit_criterion
def right_the_second_time(criterion: Any, *args: Any) -> Any:
    losses = criterion(*args)
    seen.append(1)
    return losses if len(seen) > 1 else {**losses, "d0.loss_cls": losses["loss_cls"], "loss_cls": losses["d0.loss_cls"]}


seen: list[int] = []


def frozen_criterion(model: Any) -> None:
    """Whatever its numbers become, it stays as it was built."""
    head = model.decode_head
    built, own = head.set_criterion, head.criterion

    def frozen(*args: Any) -> Any:
        now, head.set_criterion = head.set_criterion, built
        try:
            return own(*args)
        finally:
            head.set_criterion = now

    head.criterion = frozen


SABOTAGE = [
    drop_term, detach_map, reverse, ignore_weight, ignore_index_lost, gradient_without_term, criterion_weight,
    criterion_ignores_its_weight, with_settings(mask_weight=0.0), with_settings(dice_weight=1.0),
    with_settings(class_weight=1.0), with_settings(no_object=1.0), with_settings(cls="focal"),
    with_settings(points="random"), with_settings(points="full"), with_settings(deep_weight=0.5),
    with_settings(deep_supervision=False), with_settings(num_points=500), with_settings(oversample_ratio=1.0),
    with_settings(importance_sample_ratio=0.5), without_deep_supervision, layers_detached, layers_swapped,
    first_layers_swapped, a_layer_dropped, a_layer_twice, masks_detached, other_labels, ignored_are_a_class,
    losses_averaged_over_layers, right_in_float64_alone, right_the_second_time, frozen_criterion,
]  # fmt: skip


class Built:
    """A small model with its plan and a batch, as they stand before the wiring proof."""

    def __init__(self, camvid: Path, model: str, loss: str) -> None:
        from prove.training import registered  # noqa: F401 - before anything of the stack

        from mmseg.registry import DATASETS, MODELS  # isort: skip
        from prove.training.session import proof_batch  # isort: skip

        request = {**TINY, "data_root": str(camvid), "model": model, "loss": loss, "pretrained": False}
        chosen = plan(RunRequest(**request))
        built = build_config(chosen.job, chosen.dataset, chosen.placement, model_file=Path(model))
        torch.manual_seed(0)
        self.model, self.heads = MODELS.build(built.config.model), built.heads
        self.batch, self.planted = proof_batch(DATASETS.build(built.config.train_dataloader.dataset), 2)

    def proof(self, edit: Callable[[Any], None] = lambda model: None) -> Any:
        """What the proof shows of an edited copy."""
        from prove.training.stack import quiet_known_warnings
        from prove.training.wiring import prove_wiring

        model = copy.deepcopy(self.model)
        edit(model)
        with warnings.catch_warnings():
            quiet_known_warnings()
            return prove_wiring(model, self.batch, self.heads, objective="", class_weight=None)


@pytest.fixture(scope="module")
def build(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    path = small_model(tmp_path_factory.mktemp("small"))
    return functools.cache(lambda loss: Built(camvid, path, loss))


@pytest.mark.parametrize("edit", SABOTAGE, ids=lambda edit: edit.__name__)
def test_sabotage_is_a_wiring_problem(build: Callable[[str], Built], edit: Callable[[Any], None]) -> None:
    seen.clear()
    assert build(f"0.5*m2f({FEW}) + 0.3*dice").proof(edit).problems


@pytest.mark.parametrize(
    ("asked", "trained"),
    [
        ("cls=focal", {"cls": "ce"}),
        ("points=full", {"points": "random"}),
        ("points=full", {"points": "uncertain"}),
        ("points=random", {"points": "uncertain"}),
        ("deep_supervision=false", {"deep_supervision": True}),
        ("deep_supervision=false", {"deep_supervision": True, "deep_weight": 0.0}),
        ("deep_weight=0.5", {"deep_weight": 1.0}),
        ("no_object=0.05", {"no_object": 0.1}),
    ],
    ids=str,
)
def test_the_published_criterion_in_place_of_a_variant_is_a_wiring_problem(
    build: Callable[[str], Built], asked: str, trained: dict[str, Any]
) -> None:
    found = build(f"m2f({asked}, {FEW})")
    assert found.proof().problems == ()
    assert found.proof(with_settings(**trained)).problems


OBJECTIVES = {
    "m2f": "",
    "m2f(cls=focal)": "cls=focal, ",
    "m2f(points=random)": "points=random, ",
    "m2f(points=full)": "points=full, ",
    "m2f(deep_supervision=false)": "deep_supervision=false, ",
    "m2f(deep_weight=0.5)": "deep_weight=0.5, ",
    "m2f(no_object=0.05)": "no_object=0.05, ",
    "m2f(mask_weight=0)": "mask_weight=0, ",
}


@pytest.mark.parametrize("aux", ["", " + 0.3*lovasz"], ids=["alone", "lovasz"])
@pytest.mark.parametrize("params", OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_every_criterion_is_proved_layer_by_layer(build: Callable[[str], Built], params: str, aux: str) -> None:
    evidence = build(f"m2f({params}{FEW}){aux}").proof()
    assert evidence.problems == ()
    assert evidence.total == pytest.approx(evidence.formula, rel=1e-5)
    criterion = evidence.heads[0].terms[0]
    assert criterion.contribution == pytest.approx(criterion.reference_value, rel=1e-5)
    assert (criterion.doubling, criterion.ignored_gradient) == (2.0, None)
    assert [part.part for part in criterion.parts] == list(PARTS)
    assert {len(part.layers) for part in criterion.parts} == {1 if "deep_supervision" in params else 3}
    assert sum(part.contribution for part in criterion.parts) == pytest.approx(criterion.contribution, rel=1e-5)
    if "deep_weight=0.5" in params:  # the last layer, which counts in full, is the last one told of
        assert all(1.5 * part.layers[0] < part.layers[2] > 1.5 * part.layers[1] for part in criterion.parts)
    assert sum(part.gradient_share for part in criterion.parts) == pytest.approx(1.0)
    assert all(
        (part.contribution > 0) != ("mask_weight=0" in params) or part.part != "loss_mask" for part in criterion.parts
    )
    assert json.loads(json.dumps(evidence.to_dict()))["heads"][0]["replaced"].count("Loss") == 3


def test_a_criterion_that_comes_in_late_is_proved(build: Callable[[str], Built]) -> None:
    """Its weight is 0 at the start: there it adds nothing and moves nothing, and at the end it is seen at its full."""
    evidence = build(f"linear(0->1, start=0.2)*m2f({FEW}) + dice").proof()
    assert evidence.problems == ()
    criterion = evidence.heads[0].terms[0]
    assert (criterion.term, criterion.progress, criterion.weight) == ("m2f", 1.0, 1.0)
    assert criterion.contribution > 1


def test_what_is_not_deeply_supervised_gets_no_gradient(build: Callable[[str], Built]) -> None:
    """By the head itself, in a training step: exactly zero before the last layer, and not there."""
    head = build(f"m2f(deep_supervision=false, {FEW})").model.decode_head
    cls = [torch.randn(2, 12, 12, requires_grad=True) for _ in range(3)]
    masks = [torch.randn(2, 12, 16, 16, requires_grad=True) for _ in range(3)]
    labels = torch.randint(0, 11, (2, 64, 64))
    losses = head.losses_for(cls, masks, labels)
    assert losses.keys() == set(PARTS)
    sum(losses.values()).backward()
    assert [each.grad is None or not each.grad.any() for each in (*cls, *masks)] == [True, True, False] * 2


@pytest.mark.parametrize("edit", [with_settings(no_object=1.0), drop_term], ids=lambda edit: edit.__name__)
def test_sabotage_fails_as_wiring(runs: Runs, small: str, edit: Callable[[Any], None]) -> None:
    run = runs.make(model=small, pretrained=False, loss=f"0.5*m2f({FEW}) + 0.3*dice")
    assert runs.train(run, edit_built_model(edit)) == 1, run.log.read_text()
    last = events(run)[-1]
    assert (last["kind"], last["failure"]) == ("failed", "wiring"), run.log.read_text()
    assert not events(run, "train")


@pytest.mark.parametrize("aux", ["focal", "lovasz", "boundary", "dice", "ce(ohem, min_kept=50)", "0.5->0.1*focal"])
def test_every_term_is_proved_beside_the_criterion(runs: Runs, small: str, aux: str) -> None:
    text = aux if "->" in aux else f"0.3*{aux}"
    run = runs.make(model=small, pretrained=False, loss=f"m2f({FEW}) + {text}")
    assert runs.train(run) == 0, run.log.read_text()
    evidence = json.loads(run.evidence.read_text())
    assert evidence["ok"]
    assert evidence["total"] == pytest.approx(evidence["formula"], rel=1e-4)
    criterion, term = evidence["heads"][0]["terms"]
    assert (criterion["term"], criterion["ignored_gradient"]) == ("m2f", None)
    assert term["ignored_gradient"] == 0.0
    assert term["gradient_norm"] > 0
    assert term["value"] == pytest.approx(term["reference_value"], rel=1e-3)
