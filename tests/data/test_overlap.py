from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from data_samples import camvid
from PIL import Image

from prove.data.overlap import shared_images
from prove.data.source import open_dataset, resolve_dataset


def test_the_same_file_and_copies_of_it_are_found_and_nothing_else(tmp_path: Path) -> None:
    first = open_dataset(resolve_dataset("CamVid"), root=camvid(tmp_path / "a", train=3, val=2))
    assert [sample.id for sample in shared_images(first.train, first.train.samples[:2])] == [
        "0001TP_006690",
        "0006R0_f00930",
    ]
    other = camvid(tmp_path / "b", train=1, val=4)
    shutil.copy(tmp_path / "a/train/0016E5_00390.png", other / "val/0016E5_00420.png")  # another name
    twin = other / "val/0006R0_f00930.png"
    twin.unlink()
    twin.symlink_to(tmp_path / "a/train/0001TP_006690.png")
    changed = np.asarray(Image.open(tmp_path / "a/train/0006R0_f00930.png")).copy()
    changed[0, 0] ^= 255
    uncompressed = tmp_path / "a/train/0006R0_f00930.png"
    Image.fromarray(changed ^ 255).save(uncompressed, compress_level=0)
    Image.fromarray(changed).save(other / "val/0016E5_00390.png", compress_level=0)  # as many bytes, other pixels
    Image.open(tmp_path / "a/train/0001TP_006690.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        other / "val/0001TP_006690.png", compress_level=0
    )
    assert uncompressed.stat().st_size == (other / "val/0016E5_00390.png").stat().st_size
    second = open_dataset(resolve_dataset("CamVid"), root=other)
    assert [sample.id for sample in shared_images(first.train, second.val)] == ["0006R0_f00930", "0016E5_00420"]
