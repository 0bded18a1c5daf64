"""What an objective makes of a mask-classification model's config."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from prove.build.configs import head_configs, load, shipped
from prove.build.job_config import build_config
from prove.build.model import patch_model
from prove.build.objective import CRITERION, for_model, plan_heads
from prove.catalog.losses import LOSSES, resolve, short
from prove.cli.request import RunRequest, plan
from prove.errors import ProveError
from prove.losses.set_criterion.settings import CriterionSettings
from prove.spec import parse

SHIPPED = "mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py"

OTHER_WEIGHTS = """
_base_ = ['{base}']
model = dict(decode_head=dict(
    loss_cls=dict(loss_weight=1.0, class_weight=[2.0] * 19 + [0.3]), loss_mask=dict(loss_weight=20.0),
    loss_dice=dict(loss_weight=1.0), loss_decode=dict(type='CrossEntropyLoss'),
    train_cfg=dict(num_points=256, assigner=dict(match_costs=[dict(type='mmdet.ClassificationCost', weight=9.0)]))))
"""


def patched(text: str, path: Path | None = None) -> Any:
    """The decode head of a Mask2Former for 11 classes."""
    config = load(path or shipped(SHIPPED))
    expr = for_model(resolve(parse(text)), "mask_classification", "mask2former")
    heads = plan_heads(config.model, expr)
    model = patch_model(
        config.model, heads=heads, num_classes=11, crop_size=(64, 64), class_weight=None, weights=None
    )  # fmt: skip
    return dict(head_configs(model))["decode_head"]


@pytest.mark.parametrize(
    "text",
    [
        "m2f",
        "m2f(cls=focal)",
        "m2f(points=random)",
        "m2f(points=full)",
        "m2f(deep_supervision=false)",
        "m2f(deep_weight=0.5)",
        "linear(0.5->0.1)*m2f(no_object=0.05) + 0.3*lovasz",
    ],
)
def test_the_config_says_what_is_minimised_and_nothing_else(text: str) -> None:
    head = patched(text)
    assert short(parse(head["criterion"])) == text.partition(" + ")[0]
    assert parse(head["criterion"]) == resolve(parse(head["criterion"]))  # complete: no default is left to be changed
    assert [each["term"].partition("(")[0] for each in head["semantic_terms"]] == ["0.3*lovasz"] * (" + " in text)
    assert not {"loss_cls", "loss_mask", "loss_dice", "loss_decode", "train_cfg"} & set(head)


def test_the_objective_decides_whatever_weights_a_config_has(tmp_path: Path) -> None:
    path = tmp_path / "other.py"
    path.write_text(OTHER_WEIGHTS.format(base=shipped(SHIPPED)))
    assert patched("m2f", path) == patched("m2f")
    (head,) = plan_heads(load(path).model, resolve(parse("m2f")))
    assert head.replaced == "mmdet.CrossEntropyLoss+mmdet.CrossEntropyLoss+mmdet.DiceLoss"


def test_the_catalogue_has_the_settings_of_the_criterion() -> None:
    """By name, with the same defaults; the published ones."""
    assert {param.name: param.default for param in LOSSES.get(CRITERION).params} == asdict(CriterionSettings())


@pytest.mark.parametrize(
    ("asked", "minimised"),
    [
        ("ce", "m2f"),
        ("m2f(cls=focal)", "m2f(cls=focal)"),
        ("ce + m2f(cls=focal)", "m2f(cls=focal) + ce"),
        ("0.3*lovasz + m2f(points=full)", "m2f(points=full) + 0.3*lovasz"),
    ],
)
def test_a_criterion_that_is_asked_for_stays(asked: str, minimised: str) -> None:
    assert short(for_model(resolve(parse(asked)), "mask_classification", "mask2former")) == minimised


@pytest.mark.parametrize(
    ("model", "loss", "says"),
    [
        ("fcn_tiny", "m2f(cls=focal)", "fcn_tiny has per-pixel heads"),
        ("mask2former_tiny", "m2f + 0.5*m2f(cls=focal)", "one set criterion"),
        ("mask2former_tiny", "m2f(clss=focal)", "no parameter 'clss'"),
    ],
)
def test_what_can_not_be_is_refused(model: str, loss: str, says: str) -> None:
    with pytest.raises(ProveError, match=says):
        plan(RunRequest(model=model, loss=loss, pretrained=False, device="cpu", max_iters=2, eval_interval=2))


def test_criteria_are_objectives_of_their_own() -> None:
    """Their jobs have keys of their own; what is written out at its default is the same job."""

    def key(loss: str) -> str:
        request = RunRequest(
            dataset="SynthStreet(train=2, val=1)", model="mask2former_tiny", loss=loss, pretrained=False, device="cpu",
            max_iters=2, eval_interval=2,
        )  # fmt: skip
        chosen = plan(request)
        assert build_config(chosen.job, chosen.dataset, chosen.placement).heads[0].terms[0][0] == "m2f"
        return chosen.job.key

    assert key("ce") == key("m2f") == key("m2f(cls=ce, num_points=12544)")
    assert len({key(loss) for loss in ("m2f", "m2f(cls=focal)", "m2f(points=full)", "m2f(no_object=0.05)")}) == 4


def test_a_model_is_the_same_however_often_it_is_planned() -> None:
    """What a catalogue entry changes in its config is not used up."""
    request = RunRequest(
        dataset="SynthStreet(train=2, val=1)", model="dinov3_tiny_mask2former", pretrained=False, device="cpu",
        max_iters=2, eval_interval=2,
    )  # fmt: skip
    chosen = plan(request)
    first, again = (build_config(chosen.job, chosen.dataset, chosen.placement).config.model for _ in range(2))
    assert first == again
    assert "depth" not in first["backbone"]
