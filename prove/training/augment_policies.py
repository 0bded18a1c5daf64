"""Which operations AutoAugment and RandAugment put on an image: the tables of the papers, and the draws from them.

The tables are torchvision's, number for number. All draws come from NumPy's global generator, which is seeded for each
sample (`prove.training.seeding.seed_augmentation`); torchvision's own classes draw from torch's, and know no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np


@dataclass(frozen=True)
class Operation:
    """One operation and its strength in units of its kind: degrees, pixels, factors, bits; 0 where it has none."""

    name: str
    magnitude: float = 0.0


@dataclass(frozen=True)
class Scale:
    """How strong an operation is.

    Attributes:
        of: strength at a level in [0, 1] for an image of this height and width; None where there is but one.
        signed: whether it goes in both directions.
    """

    of: Callable[[float, int, int], float] | None = None
    signed: bool = False


def _up_to(most: float) -> Callable[[float, int, int], float]:
    return lambda level, height, width: most * level


SCALES: Final[Mapping[str, Scale]] = {
    "Identity": Scale(),
    "ShearX": Scale(_up_to(0.3), signed=True),
    "ShearY": Scale(_up_to(0.3), signed=True),
    "TranslateX": Scale(lambda level, height, width: 150.0 / 331.0 * width * level, signed=True),
    "TranslateY": Scale(lambda level, height, width: 150.0 / 331.0 * height * level, signed=True),
    "Rotate": Scale(_up_to(30.0), signed=True),
    "Brightness": Scale(_up_to(0.9), signed=True),
    "Color": Scale(_up_to(0.9), signed=True),
    "Contrast": Scale(_up_to(0.9), signed=True),
    "Sharpness": Scale(_up_to(0.9), signed=True),
    "Posterize": Scale(lambda level, height, width: round(8 - 4 * level)),
    "Solarize": Scale(lambda level, height, width: 1.0 - level),
    "AutoContrast": Scale(),
    "Equalize": Scale(),
    "Invert": Scale(),
}
"""Every operation of the two papers."""

GEOMETRIC: Final = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
"""The operations that move pixels: the label goes with them."""

RANDAUGMENT: Final = tuple(name for name in SCALES if name != "Invert")
RANDAUGMENT_TOP: Final = 30
"""Magnitudes of RandAugment are 0 to this."""

AUTOAUGMENT_TOP: Final = 9
"""Magnitudes of AutoAugment are 0 to this."""

SubPolicy = tuple[tuple[str, float, int], tuple[str, float, int]]

IMAGENET: Final[tuple[SubPolicy, ...]] = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)
"""AutoAugment's policy for ImageNet: pairs of (operation, probability, magnitude)."""


def auto_augment(height: int, width: int) -> list[Operation]:
    """The operations that AutoAugment draws for an image of this size: one sub-policy, each part with its probability.

    Cubuk 2019 (arXiv:1805.09501), table 9.
    """
    drawn = IMAGENET[np.random.randint(len(IMAGENET))]
    return [
        _drawn(name, level / AUTOAUGMENT_TOP, height, width)
        for name, probability, level in drawn
        if np.random.random() < probability
    ]


def rand_augment(count: int, magnitude: int, height: int, width: int) -> list[Operation]:
    """The operations that RandAugment draws for an image of this size: any ``count``, all at one magnitude.

    Cubuk 2020 (arXiv:1909.13719), with torchvision's ranges.

    Args:
        magnitude: 0 to 30.
    """
    names = [RANDAUGMENT[np.random.randint(len(RANDAUGMENT))] for _ in range(count)]
    return [_drawn(name, magnitude / RANDAUGMENT_TOP, height, width) for name in names]


def _drawn(name: str, level: float, height: int, width: int) -> Operation:
    scale = SCALES[name]
    if scale.of is None:
        return Operation(name)
    sign = -1.0 if scale.signed and np.random.random() < 0.5 else 1.0
    return Operation(name, sign * scale.of(level, height, width))
