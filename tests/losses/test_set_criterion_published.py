"""The set criterion against MMDetection's and Hugging Face's, on the same inputs and the same random points."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from set_criterion_batches import IGNORE, gradients, predictions, scene

from benchmarks.set_criterion_peers import hugging_face_criterion, mmseg_criterion
from prove.losses import SetCriterion
from prove.losses.set_criterion import Points
from prove.losses.set_criterion.points import LossPoints

POINTS = 112
CLASSES, QUERIES, IMAGES, LAYERS = 19, 12, 2, 3

PUBLISHED = {
    "mmseg": (
        mmseg_criterion,
        ("mmdet.models.dense_heads.mask2former_head", "mmdet.models.utils.point_sample"),
        list(range(LAYERS)),
    ),
    "hugging_face": (
        hugging_face_criterion,
        ("transformers.models.mask2former.modeling_mask2former",),
        [LAYERS - 1, *range(LAYERS - 1)],
    ),
}
"""What makes the criterion, the modules where it draws points, and the order of the layers for which it does."""


class Recording:
    """Stands in for the module ``torch`` of a published criterion, and keeps what it draws."""

    def __init__(self) -> None:
        self.drawn: list[torch.Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def rand(self, *shape: Any, **options: Any) -> torch.Tensor:
        self.drawn.append(torch.rand(*shape, **options))
        return self.drawn[-1]

    def points(self, order: list[int]) -> Points:
        """For each layer it drew one set of points per image, then candidates, then random points."""
        matching: dict[int, torch.Tensor] = {}
        loss: dict[int, LossPoints] = {}
        drawn = iter(self.drawn)
        for layer in order:
            matching[layer] = torch.cat([next(drawn) for _ in range(IMAGES)])
            loss[layer] = LossPoints(next(drawn), next(drawn))
        assert next(drawn, None) is None
        layers = sorted(order)
        return Points(torch.stack([matching[layer] for layer in layers]), tuple(loss[layer] for layer in layers))


def published(name: str, cls: Any, masks: Any, labels: Any, patch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Points]:
    """Its losses, and the points that it drew."""
    make, modules, order = PUBLISHED[name]
    criterion = make(CLASSES, cls[0].shape[1], POINTS)
    recording = Recording()
    for module in modules:
        patch.setattr(importlib.import_module(module), "torch", recording)
    return criterion(cls, masks, labels), recording.points(order)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("seed", range(3))
def test_values_and_gradients_are_those_published(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = scene(IMAGES, CLASSES, (48, 64), seed=seed)
    cls, masks = predictions(LAYERS, IMAGES, QUERIES, CLASSES, (12, 16), seed=seed, labels=labels)
    theirs, points = published(name, cls, masks, labels, monkeypatch)
    expected = gradients(sum(theirs.values()), cls + masks)
    ours = SetCriterion(CLASSES, num_points=POINTS)(cls, masks, labels, points=points)
    assert len(theirs) == 3 * LAYERS
    assert ours.terms.keys() == theirs.keys()
    for part, value in theirs.items():
        torch.testing.assert_close(ours.terms[part], value, rtol=1e-5, atol=1e-6)
    for own, other in zip(gradients(ours.total, cls + masks), expected, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_image_without_a_class_beside_a_class_of_one_pixel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MMDetection counts an image without a mask as one mask, so its mask losses are M / (M + 1) of the paper's."""
    labels = scene(IMAGES, CLASSES, (48, 64), seed=5)
    labels[1] = IGNORE
    labels[0, 20, 30] = next(c for c in range(CLASSES) if c not in labels)
    cls, masks = predictions(LAYERS, IMAGES, QUERIES, CLASSES, (12, 16), seed=5, labels=labels)
    theirs, points = published(name, cls, masks, labels, monkeypatch)
    ours = SetCriterion(CLASSES, num_points=POINTS)(cls, masks, labels, points=points)
    matched = len(ours.assignments[0][0].queries)
    assert matched == len(labels[0].unique()) - 1 > 3
    share = matched / (matched + 1) if name == "mmseg" else 1.0
    for part, value in theirs.items():
        expected = value if part.endswith("cls") else value / share
        torch.testing.assert_close(ours.terms[part], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PUBLISHED)
def test_more_classes_than_queries(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hugging Face divides by all 10 classes of the two images, though only 6 masks are matched."""
    labels = scene(IMAGES, CLASSES, (48, 64))
    cls, masks = predictions(LAYERS, IMAGES, 3, CLASSES, (12, 16), labels=labels)
    theirs, points = published(name, cls, masks, labels, monkeypatch)
    ours = SetCriterion(CLASSES, num_points=POINTS)(cls, masks, labels, points=points)
    for part, value in theirs.items():
        expected = value * 10 / 6 if name == "hugging_face" and not part.endswith("cls") else value
        torch.testing.assert_close(ours.terms[part], expected, rtol=1e-5, atol=1e-6)
