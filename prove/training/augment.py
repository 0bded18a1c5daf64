"""AutoAugment and RandAugment for images that have a label for every pixel.

The operations are torchvision's, on Pillow images: single-threaded integer arithmetic, so that a data worker and the
training process get the same pixels. Where pixels move, the label moves with them: nearest neighbour, and `IGNORE`
where nothing was.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from prove.training.augment_policies import GEOMETRIC, SCALES, Operation, auto_augment, rand_augment

IGNORE = 255
GREY = (128, 128, 128)
"""What an image is filled with where an operation leaves nothing, as in the authors' code."""

UInt8 = npt.NDArray[np.uint8]


def apply(image: UInt8, label: UInt8, operations: list[Operation]) -> tuple[UInt8, UInt8]:
    """Put operations on an image and its label, one after the other.

    Args:
        image: [H, W, 3] BGR; label: [H, W], 255 is ignored.

    Returns:
        New arrays of the same shapes.
    """
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
    truth = Image.fromarray(label)
    for operation in operations:
        if operation.name in GEOMETRIC:
            picture = _moved(picture, operation, InterpolationMode.BILINEAR, list(GREY))
            truth = _moved(truth, operation, InterpolationMode.NEAREST, [IGNORE])
        else:
            picture = _coloured(picture, operation)
    return np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]), np.array(truth)


def _moved(
    picture: Image.Image, operation: Operation, interpolation: InterpolationMode, fill: list[int]
) -> Image.Image:
    size = operation.magnitude
    if operation.name == "Rotate":
        return cast(Image.Image, F.rotate(picture, size, interpolation=interpolation, fill=cast(Any, fill)))
    # A shear of the papers is (1, size, 0, 0, 1, 0) about the upper left corner; torchvision takes its angle.
    angle = math.degrees(math.atan(size))
    shear = {"ShearX": [angle, 0.0], "ShearY": [0.0, angle]}.get(operation.name, [0.0, 0.0])
    translate = {"TranslateX": [int(size), 0], "TranslateY": [0, int(size)]}.get(operation.name, [0, 0])
    centre = [0.0, 0.0] if operation.name.startswith("Shear") else None
    moved = F.affine(
        picture, angle=0.0, translate=cast(Any, translate), scale=1.0, shear=shear, interpolation=interpolation,
        fill=cast(Any, fill), center=centre,
    )  # fmt: skip
    return cast(Image.Image, moved)


def _coloured(picture: Image.Image, operation: Operation) -> Image.Image:
    size = operation.magnitude
    match operation.name:
        case "Identity":
            return picture
        case "Brightness":
            changed = F.adjust_brightness(picture, 1.0 + size)
        case "Color":
            changed = F.adjust_saturation(picture, 1.0 + size)
        case "Contrast":
            changed = F.adjust_contrast(picture, 1.0 + size)
        case "Sharpness":
            changed = F.adjust_sharpness(picture, 1.0 + size)
        case "Posterize":
            changed = F.posterize(picture, int(size))
        case "Solarize":
            changed = F.solarize(picture, 255.0 * size)
        case "AutoContrast":
            changed = F.autocontrast(picture)
        case "Equalize":
            changed = F.equalize(picture)
        case "Invert":
            changed = F.invert(picture)
        case _:
            raise ValueError(f"no operation {operation.name!r}; there are {', '.join(SCALES)}")
    return cast(Image.Image, changed)


@TRANSFORMS.register_module()
class AutoAugmentWithLabels(BaseTransform):  # type: ignore[misc]
    """`auto_augment` on an image and its label."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        results["img"], results["gt_seg_map"] = apply(
            results["img"], results["gt_seg_map"], auto_augment(*results["img"].shape[:2])
        )
        return results


@TRANSFORMS.register_module()
class RandAugmentWithLabels(BaseTransform):  # type: ignore[misc]
    """`rand_augment` on an image and its label.

    Args:
        count: operations per image.
        magnitude: of all of them, 0 to 30.
    """

    def __init__(self, count: int, magnitude: int) -> None:
        self.count = count
        self.magnitude = magnitude

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        operations = rand_augment(self.count, self.magnitude, *results["img"].shape[:2])
        results["img"], results["gt_seg_map"] = apply(results["img"], results["gt_seg_map"], operations)
        return results
