"""The made-up batch on which the wiring proof turns the numbers of a set criterion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from prove.losses.set_criterion import CriterionSettings, SetCriterion


class Head:
    """A set criterion, as a head calls it."""

    def __init__(self, num_classes: int, settings: CriterionSettings) -> None:
        self.num_classes = num_classes
        self.set_criterion = SetCriterion(num_classes, settings)

    def criterion(self, cls: Any, masks: Any, labels: Tensor) -> dict[str, Tensor]:
        return {name: 0.5 * value for name, value in self.set_criterion(cls, masks, labels).terms.items()}


SETTINGS = [
    {},
    {"cls": "focal"},
    {"points": "random"},
    {"points": "full"},
    {"deep_supervision": False},
    {"deep_weight": 0.5},
    {"no_object": 0.05},
    {"mask_weight": 0.0},
    {"num_points": 1},
    {"class_weight": 0.1, "dice_weight": 20.0},
]


@pytest.mark.parametrize("changed", SETTINGS, ids=str)
@pytest.mark.parametrize(("classes", "layers"), [(1, 3), (2, 1), (5, 4), (11, 3), (19, 10), (150, 2)])
def test_no_number_changes_the_matching(classes: int, layers: int, changed: dict[str, Any]) -> None:
    """Else doubling a weight would not double what it weighs."""
    from prove.training import registered  # noqa: F401 - before anything of the stack
    from prove.training.wiring_criterion import knob_problems, made_up

    settings = CriterionSettings(**{"num_points": 100, **changed})
    batch = made_up(classes, layers, torch.device("cpu"))
    assert knob_problems(Head(classes, settings), "head", settings, 0.5, batch) == []


def test_the_batch_has_what_a_proof_needs() -> None:
    from prove.training import registered  # noqa: F401
    from prove.training.wiring_criterion import made_up

    batch = made_up(11, 3, torch.device("cpu"))
    kinds = [set(image.unique().tolist()) for image in batch.labels]
    assert len(kinds[0]) > len(kinds[1]) > 2
    assert all(255 in each for each in kinds)
    assert [tuple(each.shape) for each in batch.cls_scores] == [(2, 8, 12)] * 3
    again = made_up(11, 3, torch.device("cpu"))
    assert all(torch.equal(one, other) for one, other in zip(batch.flat, again.flat, strict=True))
    assert not torch.equal(batch.mask_preds[0], batch.mask_preds[1])
