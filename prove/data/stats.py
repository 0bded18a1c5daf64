"""How many pixels each class has: for `class_weight: auto` and `prove data stats`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from prove.data.cache import recall, remember, stat_key
from prove.data.labels import read_label
from prove.data.manifest import WORKERS, Manifest, Sample

Counts = npt.NDArray[np.int64]


def pixel_counts(manifest: Manifest) -> Counts:
    """Pixels of each class over a split's labels, at their stored size; ignored pixels aren't counted.

    Counted once, then remembered until a label file changes.

    Returns:
        int64 [C].

    Raises:
        ProveError: a label can't be read.
    """
    return label_statistics(manifest)[0]


def label_statistics(manifest: Manifest) -> tuple[Counts, Counts, int]:
    """Per class: pixels, and images that have any; and the number of ignored pixels.

    Returns:
        int64 [C], int64 [C], int.

    Raises:
        ProveError: a label can't be read.
    """
    num_classes = manifest.label_space.num_classes
    key = _key(manifest)
    known = recall("pixel_counts", key)
    if known is not None:
        table = np.array(known, dtype=np.int64).reshape(-1, num_classes + 1)
    else:
        with ThreadPoolExecutor(WORKERS) as pool:
            rows = list(pool.map(lambda sample: count_label(manifest, sample), manifest.samples))
        table = remember_counts(manifest, rows)
    return table[0, :-1], table[1, :-1], int(table[0, -1])


def count_label(manifest: Manifest, sample: Sample) -> Counts:
    """Pixels of each class in one label, and of ignored ones at the end.

    Returns:
        int64 [C + 1].
    """
    return count_pixels(
        read_label(sample.label, manifest.encoding, manifest.label_space), manifest.label_space.num_classes
    )


def count_pixels(label: npt.NDArray[np.uint8], num_classes: int) -> Counts:
    """Count train ids [H, W]; what isn't a class is ignored, and counted at the end. Returns int64 [C + 1]."""
    histogram = np.bincount(label.ravel(), minlength=256)
    return np.append(histogram[:num_classes], histogram[num_classes:].sum()).astype(np.int64)


def remember_counts(manifest: Manifest, rows: list[Counts]) -> Counts:
    """Sum per-label counts over a split and keep them. Returns int64 [2, C + 1]: pixels, images with any."""
    stacked = np.array(rows, dtype=np.int64).reshape(-1, manifest.label_space.num_classes + 1)
    table = np.stack([stacked.sum(axis=0), (stacked > 0).sum(axis=0)])
    remember("pixel_counts", _key(manifest), table.tolist())
    return table


def _key(manifest: Manifest) -> str:
    return stat_key(
        (sample.label for sample in manifest),
        "pixel_counts-1",
        str(manifest.encoding.canonical()),
        str(manifest.label_space.num_classes),
    )
