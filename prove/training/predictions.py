"""What a model predicts on a few validation images, kept for pictures: ``predictions.npz``.

``ids``, ``conditions`` and ``paths`` ``[n]`` (paths of the images relative to the data root), ``classes`` ``[C]``,
``palette`` uint8 ``[C, 3]``, ``iteration``; and of each image i ``predicted_i`` and ``truth_i``, uint8 ``[h, w]`` class
indices, 255 ignored, reduced to `LONGER_SIDE`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGES = 4
"""Most images that are kept: evenly spaced in the validation set, the same for all runs that use it."""

LONGER_SIDE = 640
"""Most pixels of a side of a kept label map."""

Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Picture:
    """One validation image, its labels and what is predicted; label maps uint8 ``[H, W]``, 255 ignored."""

    id: str
    condition: str
    image: Path
    predicted: Labels
    truth: Labels


def reduced(labels: Labels) -> Labels:
    """A label map whose longer side has at most `LONGER_SIDE` pixels: the nearest pixel of each, none is mixed."""
    height, width = labels.shape
    factor = min(1.0, LONGER_SIDE / max(height, width))
    rows, columns = (
        ((np.arange(max(1, round(size * factor))) + 0.5) * size / max(1, round(size * factor))).astype(np.intp)
        for size in (height, width)
    )
    return labels[np.ix_(rows, columns)]


def encoded(
    pictures: Sequence[Picture],
    *,
    root: Path,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    iteration: int,
) -> bytes:
    """The file of these images.

    Args:
        root: folder of the dataset.
    """
    arrays: dict[str, Any] = {
        "ids": np.array([each.id for each in pictures], dtype=np.str_),
        "conditions": np.array([each.condition for each in pictures], dtype=np.str_),
        "paths": np.array([Path(os.path.relpath(each.image, root)).as_posix() for each in pictures], dtype=np.str_),
        "classes": np.array(classes, dtype=np.str_),
        "palette": np.array(palette, dtype=np.uint8).reshape(-1, 3),
        "iteration": np.array(iteration),
    }
    for index, each in enumerate(pictures):
        arrays |= {f"predicted_{index}": reduced(each.predicted), f"truth_{index}": reduced(each.truth)}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()
