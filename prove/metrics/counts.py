"""Counts of images as data: what an evaluation keeps, and the arrays it is kept as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prove.errors import ProveError

Counts = NDArray[np.int64]

METRIC_VERSION = 1
"""Raised whenever the same predictions would give other counts: results of two versions are not comparable."""


@dataclass(frozen=True, eq=False)
class BoundaryCounts:
    """Pixels at class boundaries, per class: int64 ``[C]``, or ``[..., C]`` stacked.

    Bands (boundary IoU) are the pixels of a class near its contour; contours (boundary F1) are one pixel wide.
    `prove.metrics.boundary` defines both.
    """

    band_intersection: Counts
    """in both bands"""
    band_predicted: Counts
    """in the band of the prediction"""
    band_labelled: Counts
    """in the band of the labels"""
    contour_predicted: Counts
    """on the predicted contour"""
    contour_predicted_matched: Counts
    """of these, those with a labelled contour within the tolerance"""
    contour_labelled: Counts
    """on the labelled contour"""
    contour_labelled_matched: Counts
    """of these, those with a predicted contour within the tolerance"""


BOUNDARY_FIELDS = tuple(field.name for field in fields(BoundaryCounts))


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """Everything that is counted on one image.

    Attributes:
        confusion: int64 ``[C, C]``, rows are labels.
        boundary: per class.
        calibration: float64 ``[3, bins]``: pixels, sum of confidences, correct pixels.
    """

    confusion: Counts
    boundary: BoundaryCounts
    calibration: NDArray[np.float64]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The counts by name, as they stand (with a leading image axis) in the kept file."""
        boundary = {f"boundary_{name}": getattr(self.boundary, name) for name in BOUNDARY_FIELDS}
        return {"confusion": self.confusion, **boundary, "calibration": self.calibration}


COUNT_ARRAYS = ("confusion", *(f"boundary_{name}" for name in BOUNDARY_FIELDS), "calibration")


def stack_counts(
    counts: Sequence[ImageCounts], ids: Sequence[str], conditions: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The counts of N images as arrays for ``numpy.savez_compressed``; nothing in them needs pickle.

    Args:
        counts: one per image, all with the same number of classes and bins.
        ids: one per image, without duplicates.
        conditions: one per image; "" where the dataset knows none.

    Returns:
        ``metric_version`` (a scalar), ``ids`` and ``conditions`` ``[N]``, ``confusion [N, C, C]``,
        ``boundary_* [N, C]`` and ``calibration [N, 3, bins]``.

    Raises:
        ProveError: no images, lengths that differ, a duplicate id, or counts of different shapes.
    """
    if not counts:
        raise ProveError("No image was counted.", hint="Check that the evaluated split has images.")
    if not len(counts) == len(ids) == len(conditions):
        raise ProveError(
            f"{len(counts)} counts, {len(ids)} ids and {len(conditions)} conditions do not belong together."
        )
    if len(set(ids)) != len(ids):
        twice = next(name for i, name in enumerate(ids) if name in ids[:i])
        raise ProveError(f"Image id {twice!r} occurs twice: an image would count double.")
    arrays = [image.to_arrays() for image in counts]
    for name in COUNT_ARRAYS:
        shapes = [image[name].shape for image in arrays]
        odd = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
        if odd is not None:
            raise ProveError(
                f"{name} of image {ids[odd]!r} has shape {list(shapes[odd])}, "
                f"that of {ids[0]!r} has {list(shapes[0])}: number of classes or bins differ."
            )
    return {
        "metric_version": np.array(METRIC_VERSION),
        "ids": np.array(ids, dtype=np.str_),
        "conditions": np.array(conditions, dtype=np.str_),
        **{name: np.stack([image[name] for image in arrays]) for name in COUNT_ARRAYS},
    }


def check_arrays(arrays: Mapping[str, NDArray[Any]], counts: Sequence[str] = COUNT_ARRAYS) -> None:
    """Raise a ProveError unless these are the arrays of `stack_counts`, of this version, for the same N images.

    Args:
        counts: which of the `COUNT_ARRAYS` are needed; the others may be absent.
    """
    missing = [name for name in ("metric_version", "ids", "conditions", *counts) if name not in arrays]
    if missing:
        raise ProveError(f"The kept counts lack {', '.join(missing)}.", hint="Evaluate the checkpoint again.")
    version = int(arrays["metric_version"])
    if version != METRIC_VERSION:
        raise ProveError(
            f"The kept counts are of metric version {version}, this is version {METRIC_VERSION}.",
            hint="Evaluate the checkpoint again, or use the version of PROVE that wrote them.",
        )
    images = len(arrays["ids"])
    odd = [name for name in ("conditions", *counts) if len(arrays[name]) != images]
    if odd:
        raise ProveError(f"The kept counts hold {images} ids but {len(arrays[odd[0]])} images in {odd[0]}.")
