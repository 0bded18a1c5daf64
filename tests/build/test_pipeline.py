"""What a strategy puts into a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prove.build.job_config import build_config
from prove.cli.request import RunRequest, plan
from prove.errors import ProveError


@pytest.fixture
def config_of(camvid: Path) -> Any:
    def of(strategy: str, **flags: Any) -> Any:
        settings = {"dataset": "CamVid", "data_root": str(camvid), "model": "fcn_tiny", "pretrained": False,
                    "device": "cpu", "threads": 1, "batch_size": 2, "crop_size": "64x96", "max_iters": 2}  # fmt: skip
        chosen = plan(RunRequest(**{**settings, **flags, "strategy": strategy}))
        return build_config(chosen.job, chosen.dataset, chosen.placement).config

    return of


PACKED = {
    "type": "PackSegInputs",
    "meta_keys": (
        "sample_id", "condition", "img_path", "ori_shape", "img_shape", "pad_shape", "scale_factor", "flip",
        "flip_direction",
    ),
}  # fmt: skip


def steps(config: Any) -> list[dict[str, Any]]:
    return [dict(step) for step in config.train_dataloader.dataset.pipeline]


def test_the_baseline_is_what_it_was_before_there_were_strategies(config_of: Any) -> None:
    config = config_of("baseline")
    assert steps(config) == [
        {"type": "LoadSample"},
        {"type": "RandomScale", "low": 0.5, "high": 2.0},
        {"type": "RandomCrop", "crop_size": (64, 96), "cat_max_ratio": 0.75},
        {"type": "RandomFlip", "prob": 0.5},
        PACKED,
    ]
    assert dict(config.train_cfg) == {"type": "ProveTrainLoop", "max_iters": 2, "val_interval": 2}
    assert "recipe" not in config.train_dataloader.dataset


def test_minimal_is_a_crop_and_a_flip(config_of: Any) -> None:
    assert steps(config_of("std_minimal"))[1:-1] == [
        {"type": "RandomCrop", "crop_size": (64, 96)},
        {"type": "RandomFlip", "prob": 0.5},
    ]


@pytest.mark.parametrize(
    ("strategy", "step"),
    [
        ("std_photometric_distort", {"type": "PhotoMetricDistortion"}),
        ("std_autoaugment", {"type": "AutoAugmentWithLabels"}),
        ("std_randaugment", {"type": "RandAugmentWithLabels", "count": 2, "magnitude": 9}),
    ],
)
def test_a_change_comes_after_the_frame(config_of: Any, strategy: str, step: dict[str, Any]) -> None:
    baseline, changed = steps(config_of("baseline")), steps(config_of(strategy))
    assert changed == [*baseline[:-1], step, PACKED]
    minimal = steps(config_of(f"std_minimal+{strategy}"))
    assert minimal[-2] == step
    assert minimal[1]["type"] == "RandomCrop"


@pytest.mark.parametrize(
    ("strategy", "kind", "alpha"), [("std_cutmix", "CutMix", 1.0), ("std_mixup+std_minimal", "MixUp", 0.2)]
)
def test_a_mix_is_the_training_loops(config_of: Any, strategy: str, kind: str, alpha: float) -> None:
    config = config_of(strategy)
    mean = config.model.data_preprocessor.mean
    assert dict(config.train_cfg.mix) == {
        "type": kind, "alpha": alpha, "size": (64, 96), "fill": tuple(mean[::-1])
    }  # fmt: skip


def test_validation_is_the_same_under_every_strategy(config_of: Any) -> None:
    plain, changed = config_of("baseline"), config_of("std_minimal+std_randaugment+std_mixup")
    assert plain.val_dataloader == changed.val_dataloader
    assert [step["type"] for step in plain.val_dataloader.dataset.pipeline] == ["LoadSample", "PackSegInputs"]


def test_distances_of_pasted_labels_are_not_computed_before_they_are_pasted(config_of: Any) -> None:
    def loaded(strategy: str) -> bool:
        return bool(config_of(strategy, loss="ce + 0.1*distance").train_dataloader.dataset.get("distance_maps"))

    assert [loaded(name) for name in ("baseline", "std_mixup", "std_cutmix")] == [True, True, False]


def test_a_batch_of_one_is_refused_when_it_is_planned(config_of: Any) -> None:
    with pytest.raises(ProveError, match="std_cutmix mixes the images of a batch"):
        config_of("std_cutmix", batch_size=1)
