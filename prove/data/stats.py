"""How many pixels each class has: for `class_weight: auto` and `prove data stats`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from prove.data.cache import recall, remember, stat_key
from prove.data.labels import read_label
from prove.data.manifest import WORKERS, Manifest, Sample
from prove.data.source import Dataset

Counts = npt.NDArray[np.int64]


def pixel_counts(manifest: Manifest) -> Counts:
    """Pixels of each class over a split's labels, at their stored size; ignored pixels aren't counted.

    Counted once, then remembered until a label file changes.

    Returns:
        int64 [C].

    Raises:
        ProveError: a label can't be read.
    """
    return label_statistics(manifest).pixels


@dataclass(frozen=True, eq=False)
class LabelStatistics:
    """What a split's labels hold.

    Attributes:
        pixels: int64 [C], pixels of each class.
        images: int64 [C], images that have any.
        pixels_around: int64 [C], valid pixels of all classes in those images.
        ignored: pixels that belong to no class.
    """

    pixels: Counts
    images: Counts
    pixels_around: Counts
    ignored: int


def label_statistics(manifest: Manifest) -> LabelStatistics:
    """Count a split's labels; remembered until a label file changes.

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
    return LabelStatistics(table[0, :-1], table[1, :-1], table[2, :-1], int(table[0, -1]))


@dataclass(frozen=True)
class EpochFrequencies:
    """How often an epoch shows each class, ignored pixels left out.

    Attributes:
        pixels: [C], pixels of each class over an epoch's images at their stored size, to whole pixels.
        pixels_around: [C], valid pixels of all classes in the images that have any.
    """

    pixels: tuple[int, ...]
    pixels_around: tuple[int, ...]


def epoch_frequencies(dataset: Dataset) -> EpochFrequencies:
    """The class frequencies of one epoch: every sample once, or of each pool as many as the dataset draws, on average.

    Raises:
        ProveError: a label can't be read.
    """
    train = dataset.train
    if not dataset.draws:
        counted = label_statistics(train)
        return EpochFrequencies(tuple(counted.pixels.tolist()), tuple(counted.pixels_around.tolist()))
    pixels = np.zeros(train.label_space.num_classes)
    around = np.zeros(train.label_space.num_classes)
    for name, count in dataset.draws:
        pool = replace(train, samples=tuple(sample for sample in train if sample.pool == name))
        counted = label_statistics(pool)
        pixels += counted.pixels * (count / len(pool))
        around += counted.pixels_around * (count / len(pool))
    return EpochFrequencies(tuple(map(round, pixels.tolist())), tuple(map(round, around.tolist())))


def count_label(manifest: Manifest, sample: Sample) -> Counts:
    """Pixels of each class in one label, and of ignored ones at the end.

    Returns:
        int64 [C + 1].
    """
    return count_pixels(
        read_label(sample.label, manifest.encoding_of(sample), manifest.label_space), manifest.label_space.num_classes
    )


def count_pixels(label: npt.NDArray[np.uint8], num_classes: int) -> Counts:
    """Count train ids [H, W]; what isn't a class is ignored, and counted at the end. Returns int64 [C + 1]."""
    histogram = np.bincount(label.ravel(), minlength=256)
    return np.append(histogram[:num_classes], histogram[num_classes:].sum()).astype(np.int64)


def remember_counts(manifest: Manifest, rows: list[Counts]) -> Counts:
    """Sum per-label counts over a split and keep them. Returns int64 [3, C + 1]: the rows of `LabelStatistics`."""
    stacked = np.array(rows, dtype=np.int64).reshape(-1, manifest.label_space.num_classes + 1)
    valid = stacked[:, :-1].sum(axis=1, keepdims=True)
    table = np.stack([stacked.sum(axis=0), (stacked > 0).sum(axis=0), ((stacked > 0) * valid).sum(axis=0)])
    remember("pixel_counts", _key(manifest), table.tolist())
    return table


def _key(manifest: Manifest) -> str:
    return stat_key(
        (sample.label for sample in manifest),
        "pixel_counts-2",
        manifest.spelling(),
        str(manifest.label_space.num_classes),
    )
