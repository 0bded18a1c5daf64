"""With every form of its criterion, a mask-classification model can learn two images by heart."""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CAMVID = os.environ.get("PROVE_CAMVID_ROOT")
MODELS = ("mask2former_tiny", "dinov3_tiny_mask2former")
OBJECTIVES = (
    "m2f({few})",
    "m2f(cls=focal, {few})",
    "m2f(points=random, {few})",
    "m2f(points=full, {few})",
    "m2f(deep_supervision=false, {few})",
    "m2f(deep_weight=0.5, {few})",
    "m2f(no_object=0.05, {few})",
    "m2f({few}) + 0.3*lovasz",
)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from prove.training import registered  # noqa: F401 - before anything of the stack

    return importlib.import_module("overfit_masks")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("index", "objective"), list(enumerate(OBJECTIVES)), ids=[each.format(few="") for each in OBJECTIVES]
)
def test_two_images_are_learnt_by_heart(benchmark: Any, index: int, objective: str) -> None:
    """On CamVid where it is there; the two models take turns. The benchmark trains longer, and each on all."""
    from prove.training.stack import quiet_known_warnings

    model = MODELS[index % 2]
    with warnings.catch_warnings():
        quiet_known_warnings()
        found = benchmark.overfit(
            model, objective.format(few="num_points=512"), data_root=Path(CAMVID) if CAMVID else None, crop=(64, 64),
            iterations=60, lr=3e-3,
        )  # fmt: skip
    assert found.proved
    name, left = found.least
    assert left < 0.9, name
    assert all(found.fell_to(part) < 0.85 for part in ("loss_cls", "loss_mask", "loss_dice"))
    assert found.miou > 4 * found.one_class
    assert found.predicted[0] >= 3
    assert found.queries > 0.2


def test_the_best_of_one_class_everywhere(benchmark: Any) -> None:
    """What a model that has learnt nothing reaches, by hand."""
    import torch

    truth = torch.tensor([[[0, 0, 0, 1], [2, 2, 255, 255]]])
    assert benchmark.mean_iou(torch.zeros_like(truth), truth, [0, 1, 2]) == pytest.approx(100 * (3 / 6) / 3)
    assert benchmark.mean_iou(truth, truth, [0, 1, 2]) == 100.0
    guess = torch.tensor([[[0, 0, 1, 1], [2, 2, 0, 1]]])
    assert benchmark.mean_iou(guess, truth, [0, 1, 2]) == pytest.approx(100 * (2 / 3 + 1 / 2 + 1) / 3)
