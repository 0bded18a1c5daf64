"""A dataset in ADE20K's layout, as unpacking ADEChallengeData2016.zip leaves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"training": 5, "validation": 2}
HEIGHTS = (70, 76, 82, 88, 94)
WIDTHS = (5, *(4,) * 29, 3)
"""Columns of 0 and of the 30 classes in an image: the first has the classes 1 to 30, the second 31 to 60, ..."""


def write_ade20k(root: Path) -> Path:
    """All 150 classes and 0 as strips of `WIDTHS`; images of different `HEIGHTS`, the second of a split grey."""
    for split, count in COUNTS.items():
        for k in range(count):
            values = [0, *range(30 * k + 1, 30 * k + 31)]
            label = np.tile(np.repeat(np.array(values, np.uint8), WIDTHS), (HEIGHTS[k], 1))
            image = np.stack([label, 255 - label, np.full_like(label, 40 * k)], axis=-1)
            for folder in ("images", "annotations"):
                (root / "ADEChallengeData2016" / folder / split).mkdir(parents=True, exist_ok=True)
            name = f"ADE_{'train' if split == 'training' else 'val'}_{k + 1:08}"
            picture = Image.fromarray(image).convert("L") if k == 1 else Image.fromarray(image)
            picture.save(root / "ADEChallengeData2016" / "images" / split / f"{name}.jpg")
            Image.fromarray(label).save(root / "ADEChallengeData2016" / "annotations" / split / f"{name}.png")
    return root
