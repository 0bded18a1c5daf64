"""Writers of tiny datasets, one call per pair of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image


def write_image(path: Path, height: int = 6, width: int = 8, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_label(path: Path, values: npt.ArrayLike | int = 0, height: int = 6, width: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full((height, width), values, dtype=np.uint8) if np.isscalar(values) else np.asarray(values)
    Image.fromarray(array).save(path)
    return path


def camvid(root: Path, train: int = 3, val: int = 2, image_suffix: str = ".png") -> Path:
    """A CamVid-shaped folder in which every class occurs."""
    names = ["0001TP_006690", "0006R0_f00930", "0016E5_00390", "0016E5_00420", "0016E5_00450"]
    for split, count in (("train", train), ("val", val)):
        for k in range(count):
            write_image(root / split / f"{names[k]}{image_suffix}", seed=k if split == "train" else 100 + k)
            label = np.resize(np.arange(12, dtype=np.uint8), (6, 8))
            write_label(root / f"{split}annot" / f"{names[k]}.png", label)
    return root
