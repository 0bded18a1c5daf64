"""Mask2Former's head with the criterion of an objective."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_wiring_mask2former import small_model
from training_runs import Runs

from prove.build.configs import load
from prove.build.model import patch_model
from prove.build.objective import plan_heads
from prove.catalog.losses import resolve
from prove.errors import ProveError
from prove.losses import Objective
from prove.losses.set_criterion import CriterionSettings, SetCriterion
from prove.spec import parse

PARTS = ("loss_cls", "loss_mask", "loss_dice")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Builds the head of a small Mask2Former for 11 classes."""
    from prove.training import registered  # noqa: F401 - before anything of the stack

    from mmseg.registry import MODELS  # isort: skip

    config = load(Path(small_model(tmp_path_factory.mktemp("small"))))

    def build(text: str) -> Any:
        heads = plan_heads(config.model, resolve(parse(text)))
        model = patch_model(
            config.model, heads=heads, num_classes=11, crop_size=(64, 64), class_weight=None, weights=None
        )  # fmt: skip
        return MODELS.build(model["decode_head"])

    return build


def outputs(layers: int = 3) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    cls = [torch.randn(2, 12, 12, generator=generator) for _ in range(layers)]
    masks = [torch.randn(2, 12, 16, 16, generator=generator) for _ in range(layers)]
    labels = torch.randint(0, 11, (2, 64, 64), generator=generator)
    labels[:, :9] = 255
    return cls, masks, labels


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("m2f", CriterionSettings()),
        ("m2f(cls=focal, no_object=0.05)", CriterionSettings(cls="focal", no_object=0.05)),
        ("m2f(points=full, dice_weight=0)", CriterionSettings(points="full", dice_weight=0.0)),
        ("m2f(points=random, num_points=99)", CriterionSettings(points="random", num_points=99)),
        ("m2f(deep_supervision=false)", CriterionSettings(deep_supervision=False)),
        ("m2f(deep_weight=0.5)", CriterionSettings(deep_weight=0.5)),
    ],
)
def test_it_minimises_the_criterion_of_the_term(
    head: Callable[[str], Any], text: str, settings: CriterionSettings
) -> None:
    built = head(f"0.5*{text}")
    torch.manual_seed(3)
    found = built.losses_for(*outputs())
    torch.manual_seed(3)
    expected = SetCriterion(11, settings)(*outputs()).terms
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(0.5 * float(value), rel=1e-6)


def test_its_weight_follows_its_schedule_and_the_terms_beside_it_theirs(head: Callable[[str], Any]) -> None:
    from prove.training.objective import semantic_logits, set_progress

    built = head("1->0.2*m2f(num_points=500) + 0.5->0.1*dice")
    cls, masks, labels = outputs()
    logits = semantic_logits(cls[-1], masks[-1], (64, 64))
    dice = Objective("dice")(logits, labels).total
    seen = {}
    for progress in (0.0, 0.5, 1.0):
        set_progress(built, progress)
        torch.manual_seed(0)
        losses = built.losses_for(cls, masks, labels)
        seen[progress] = sum(float(losses[name]) for name in losses if "semantic" not in name)
        assert float(losses["loss_semantic_dice"]) == pytest.approx((0.5 - 0.4 * progress) * float(dice), rel=1e-5)
    assert seen[0.5] == pytest.approx(0.6 * seen[0.0], rel=1e-5)
    assert seen[1.0] == pytest.approx(0.2 * seen[0.0], rel=1e-5)


def test_half_precision_is_computed_in_float32(head: Callable[[str], Any]) -> None:
    """Under autocast, and from outputs that autocast has left in half precision."""
    built = head("m2f(num_points=500) + 0.3*lovasz")
    cls, masks, labels = outputs()
    half = [each.bfloat16() for each in cls], [100 * each.bfloat16() for each in masks]
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = built.losses_for(*half, labels)
    torch.manual_seed(0)
    exact = built.losses_for([each.float() for each in half[0]], [each.float() for each in half[1]], labels)
    assert all(value.dtype == torch.float32 for value in found.values())
    assert all(float(found[name]) == pytest.approx(float(exact[name]), rel=1e-6) for name in exact)


def test_a_criterion_in_its_config_beside_the_terms_is_refused(head: Callable[[str], Any]) -> None:
    """Nothing would read it, and the config would tell a lie."""
    from prove.training.mask2former import SemanticMask2FormerHead

    with pytest.raises(ValueError, match="loss_dice, train_cfg would not be read"):
        SemanticMask2FormerHead("m2f", train_cfg={}, loss_dice={})


def test_outputs_that_are_not_finite_are_a_divergence_and_not_a_mistake(head: Callable[[str], Any]) -> None:
    """In training the matching meets them before any loss is there to be looked at."""
    from prove.spec.event import FailureKind
    from prove.training.failures import describe, kind_of
    from prove.training.guard import NotFinite

    built = head("m2f(num_points=50)")
    cls, masks, labels = outputs()
    masks[1][0, 3] = float("nan")
    with pytest.raises(NotFinite, match="The mask cost is nan in layer 1, image 0") as seen:
        built.losses_for(cls, masks, labels)
    assert kind_of(seen.value) is FailureKind.DIVERGED
    assert "learning rate" in describe(seen.value)
    masks[1][0, 3] = 0.0
    with pytest.raises(ProveError, match="11") as mistake:
        built.losses_for(cls, masks, labels.where(labels != 3, 11))
    assert kind_of(mistake.value) is FailureKind.ERROR


def test_another_ignore_index_is_refused(head: Callable[[str], Any]) -> None:
    built = head("m2f")
    built.ignore_index = 0
    with pytest.raises(ValueError, match="ignores label 0, its criterion 255"):
        built.losses_for(*outputs())


@pytest.mark.slow
def test_the_written_config_of_another_criterion_stands_alone(runs: Runs, tmp_path: Path) -> None:
    """MMSegmentation's own way to train it ends with the same weights, bit for bit, and with others than `m2f`."""
    from prove.training import registered  # noqa: F401 - before anything of the stack

    from test_models import STOCK, distance, trained  # isort: skip

    path = small_model(tmp_path)
    loss = "m2f(cls=focal, num_points=256) + 0.5->0.1*dice"
    run, ours = trained(runs, "a", model=path, loss=loss, max_iters=2)
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
    published = trained(runs, "b", model=path, loss=loss.replace("cls=focal, ", ""), max_iters=2)[1]
    assert distance(ours, published) > 1e-7
