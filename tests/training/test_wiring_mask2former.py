"""The wiring proof of a mask-classification head against sabotage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_wiring import edit_built_model
from torch import nn
from training_runs import Runs, events

from prove.build.configs import shipped

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
            ffn_cfg=dict(embed_dims=32, feedforward_channels=32))),
        train_cfg=dict(num_points=256)))
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A Mask2Former of a few thousand weights, as a config file."""
    base = shipped("mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py")
    path = tmp_path / "mask2former_small.py"
    path.write_text(SMALL.format(base=base))
    return str(path)


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
    head.criterion = lambda *args: head.loss_by_feat(*args)


def part_without_weight(model: Any) -> None:
    model.decode_head.loss_mask.loss_weight = 0.0


def part_with_another_weight(model: Any) -> None:
    model.decode_head.loss_dice.loss_weight = 1.0


def without_deep_supervision(model: Any) -> None:
    criterion = model.decode_head.criterion
    model.decode_head.criterion = lambda *args: {k: v for k, v in criterion(*args).items() if not k.startswith("d")}


def layers_detached(model: Any) -> None:
    head = model.decode_head
    criterion = head.criterion

    def shallow(cls: Any, masks: Any, *rest: Any) -> Any:
        cut = [each.detach() for each in cls[:-1]], [each.detach() for each in masks[:-1]]
        return criterion([*cut[0], cls[-1]], [*cut[1], masks[-1]], *rest)

    head.criterion = shallow


SABOTAGE = [
    drop_term, detach_map, reverse, ignore_weight, ignore_index_lost, gradient_without_term, criterion_weight,
    criterion_ignores_its_weight, part_without_weight, part_with_another_weight, without_deep_supervision,
    layers_detached,
]  # fmt: skip


@pytest.mark.parametrize("edit", SABOTAGE, ids=lambda edit: edit.__name__)
def test_sabotage_fails_as_wiring(runs: Runs, small: str, edit: Callable[[Any], None]) -> None:
    run = runs.make(model=small, pretrained=False, loss="0.5*m2f + 0.3*dice")
    assert runs.train(run, edit_built_model(edit)) == 1, run.log.read_text()
    last = events(run)[-1]
    assert (last["kind"], last["failure"]) == ("failed", "wiring"), run.log.read_text()
    assert not events(run, "train")


@pytest.mark.parametrize("aux", ["focal", "lovasz", "boundary", "dice", "ce(ohem, min_kept=50)", "0.5->0.1*focal"])
def test_every_term_is_proved_beside_the_criterion(runs: Runs, small: str, aux: str) -> None:
    text = aux if "->" in aux else f"0.3*{aux}"
    run = runs.make(model=small, pretrained=False, loss=f"m2f + {text}")
    assert runs.train(run) == 0, run.log.read_text()
    evidence = json.loads(run.evidence.read_text())
    assert evidence["ok"]
    assert evidence["total"] == pytest.approx(evidence["formula"], rel=1e-4)
    criterion, term = evidence["heads"][0]["terms"]
    assert (criterion["term"], criterion["ignored_gradient"]) == ("m2f", None)
    assert term["ignored_gradient"] == 0.0
    assert term["gradient_norm"] > 0
    assert term["value"] == pytest.approx(term["reference_value"], rel=1e-3)
