"""What a strategy does to images on the way to a model, as parts of an MMSegmentation config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prove.catalog.strategies import Strategy

META_KEYS = (
    "sample_id",
    "condition",
    "img_path",
    "ori_shape",
    "img_shape",
    "pad_shape",
    "scale_factor",
    "flip",
    "flip_direction",
)
"""What a data sample says of its image."""


def training_pipeline(strategy: Strategy, crop_size: tuple[int, int]) -> list[dict[str, Any]]:
    """The transforms of one training image, from its file to the model.

    The frame comes first, then the change of the part that it leaves: as AutoAugment and RandAugment were trained and
    as MMSegmentation's own configs place photometric distortion.

    Args:
        crop_size: height and width in pixels.
    """
    steps: list[dict[str, Any]] = []
    for stage in ("frame", "change"):
        entry = strategy.part(stage)
        for step in entry.steps if entry is not None else ():
            steps.append({**step, "crop_size": crop_size} if step["type"] == "RandomCrop" else dict(step))
    return [{"type": "LoadSample"}, *steps, _packed()]


def validation_pipeline() -> list[dict[str, Any]]:
    """The transforms of one validation image: it is as it is on disk."""
    return [{"type": "LoadSample"}, _packed()]


def _packed() -> dict[str, Any]:
    return {"type": "PackSegInputs", "meta_keys": META_KEYS}


def mix_options(
    strategy: Strategy, crop_size: tuple[int, int], preprocessor: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The option ``mix`` of the training loop; empty where no batch is mixed.

    Args:
        crop_size: images that are smaller are padded to it before they are mixed.
        preprocessor: the model's ``data_preprocessor``. What it would pad an image with later is what it is padded
            with here, in the colours of the file.
    """
    entry = strategy.part("mix")
    if entry is None:
        return {}
    return {"mix": {**entry.mix, "size": crop_size, "fill": _padding(preprocessor or {})}}


def pastes_labels(strategy: Strategy) -> bool:
    """Whether the labels of a batch are others than those of its images."""
    entry = strategy.part("mix")
    return entry is not None and entry.mix["type"] == "CutMix"


def _padding(preprocessor: Mapping[str, Any]) -> tuple[float, ...]:
    """The colour, blue, green and red in [0, 255], that becomes the preprocessor's ``pad_val`` when it normalises."""
    mean, std = preprocessor.get("mean"), preprocessor.get("std")
    value = float(preprocessor.get("pad_val") or 0.0)
    if mean is None or std is None:
        return (value, value, value)
    colour = tuple(float(m) + value * float(s) for m, s in zip(mean, std, strict=True))
    colour = colour if len(colour) == 3 else colour * 3
    return colour[::-1] if preprocessor.get("bgr_to_rgb") or preprocessor.get("rgb_to_bgr") else colour
