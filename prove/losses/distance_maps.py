"""Exact Euclidean distance maps of labels, in numpy and scipy: data workers compute them without torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage


def distance_maps(
    labels: NDArray[np.integer], num_classes: int, ignore_index: int = 255, dtype: DTypeLike = np.float32
) -> NDArray[np.floating]:
    """The signed distance map of every class of one image, as the `Distance` loss reads it.

    Outside the class the Euclidean distance, in pixels, to its nearest pixel: 1 and more. Inside
    ``-(distance to the nearest pixel outside - 1)``: 0 along the border, negative further in. Ignored pixels are
    outside of every class. A class that is absent from the image, or fills it, has a map of zeros: it has no border.

    Kervadec 2019 (arXiv:1812.07032), as in the authors' code.

    Args:
        labels: [H, W], integers in [0, num_classes) or ``ignore_index``.
        num_classes: C.

    Returns:
        [C, H, W] of that type. Cost: two transforms of the image for each class that it holds.
    """
    maps = np.zeros((num_classes, *labels.shape), dtype=dtype)
    for index in np.unique(labels):
        if index == ignore_index:
            continue
        own = labels == index
        if own.all():
            continue
        maps[index] = np.where(own, 1.0 - _depths(own), ndimage.distance_transform_edt(~own))
    return maps


def border_distances(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The distance of each pixel to the nearest one on the other side of the mask's border, >= 1, as [H, W].

    Zeros for a mask that is empty or the whole image: it has no border.
    """
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    distances: NDArray[np.float64] = _depths(mask) + ndimage.distance_transform_edt(~mask)
    return distances


def _depths(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The distance of each pixel of the mask to the nearest one outside, 0 outside; for a mask with a border."""
    # the nearest pixel outside is never farther out than the ring around the bounding box
    box = tuple(
        slice(max(int(along[0]) - 1, 0), int(along[-1]) + 2)
        for along in (np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0)))
    )
    depths = np.zeros(mask.shape)
    depths[box] = ndimage.distance_transform_edt(mask[box])
    return depths
