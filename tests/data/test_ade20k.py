"""ADE20K's layout, from its folders to the counts of its classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ade20k import HEIGHTS, WIDTHS, write_ade20k
from PIL import Image

from prove.data.check import check
from prove.data.source import open_dataset, resolve_dataset
from prove.data.stats import label_statistics


def test_all_classes_are_counted_and_zero_is_ignored(tmp_path: Path) -> None:
    dataset = open_dataset(resolve_dataset("ADE20K"), root=write_ade20k(tmp_path))
    assert (len(dataset.train), len(dataset.val)) == (5, 2)
    assert [(each.severity, each.kind) for each in check(dataset).findings] == [("warning", "grey_image")] * 2
    counted = label_statistics(dataset.train)
    assert counted.pixels.tolist() == [height * width for height in HEIGHTS for width in WIDTHS[1:]]
    assert counted.ignored == sum(HEIGHTS) * WIDTHS[0]


def test_a_label_above_150_is_found(tmp_path: Path) -> None:
    """Labels of the full ADE20K, or numbered from 0 with 255 to ignore, are another dataset."""
    root = write_ade20k(tmp_path)
    file = root / "ADEChallengeData2016" / "annotations" / "training" / "ADE_train_00000001.png"
    for value in (151, 255):
        label = np.asarray(Image.open(file)).copy()
        label[0, 0] = value
        Image.fromarray(label).save(file)
        (finding,) = check(open_dataset(resolve_dataset("ADE20K"), root=root)).errors
        assert str(value) in str(finding)
        label[0, 0] = 0
