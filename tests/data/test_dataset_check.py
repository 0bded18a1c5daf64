from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_samples import camvid, write_image, write_label
from PIL import Image

from prove.data.check import CheckReport, check
from prove.data.source import Dataset, open_dataset, resolve_dataset
from prove.data.stats import label_statistics, pixel_counts
from prove.errors import ProveError

IMAGE, LABEL = "train/0006R0_f00930.png", "trainannot/0006R0_f00930.png"


def opened(root: Path) -> Dataset:
    return open_dataset(resolve_dataset("CamVid"), root=root)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def sixteen_bit(path: Path) -> None:
    values = np.zeros((6, 8), dtype=np.uint16)
    values[2, 5] = 259
    Image.fromarray(values).save(path)


def rgba(path: Path) -> None:
    Image.open(path).convert("RGBA").save(path)


def grey(path: Path) -> None:
    Image.open(path).convert("L").save(path)


def rotated(path: Path) -> None:
    image = Image.open(path)
    image.load()
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)


FAULTS: dict[str, tuple[Callable[[Path], object], str, str, str, str]] = {
    # what is done to which file: severity, kind, part of the message
    "no label": (Path.unlink, LABEL, "error", "missing_label", "has no label"),
    "no image": (Path.unlink, IMAGE, "error", "missing_image", "has no image"),
    "truncated image": (truncate, IMAGE, "error", "unreadable_image", "is damaged"),
    "truncated label": (truncate, LABEL, "error", "unreadable_label", "is damaged"),
    "empty image": (lambda p: p.write_bytes(b""), IMAGE, "error", "unreadable_image", "is not an image (empty)"),
    "text as label": (lambda p: p.write_text("x"), LABEL, "error", "unreadable_label", "is not an image"),
    "label 259": (sixteen_bit, LABEL, "error", "out_of_range_label", "value 259 at row 2, column 5"),
    "label 12": (lambda p: write_label(p, 12), LABEL, "error", "out_of_range_label", "value 12 at row 0, column 0, 48"),
    "label too small": (lambda p: write_label(p, 0, 3, 4), LABEL, "error", "size_mismatch", "is 4x3, its image 8x6"),
    "image turned": (lambda p: write_image(p, 8, 6), IMAGE, "error", "size_mismatch", "is 8x6, its image 6x8"),
    "image with alpha": (rgba, IMAGE, "warning", "odd_image_mode", "alpha channel, which is dropped"),
    "grey image": (grey, IMAGE, "warning", "grey_image", "three equal channels"),
    "EXIF": (rotated, IMAGE, "warning", "rotated_image", "asks viewers to rotate"),
    "all void": (lambda p: write_label(p, 11), LABEL, "warning", "all_ignored", "no pixel to train on"),
    "second format": (lambda p: write_image(p.with_suffix(".jpg")), IMAGE, "error", "duplicate_id", "2 images have"),
    "other format": (lambda p: write_image(p.with_suffix(".bmp")), IMAGE, "warning", "unused_image", "is not used"),
    "label left over": (lambda p: write_label(p.with_name("z.png"), 1), LABEL, "error", "missing_image", "z.png has"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "file", "severity", "kind", "message"), FAULTS.values(), ids=FAULTS)
def test_fault_is_found_and_only_it(
    tmp_path: Path, spoil: Callable[[Path], object], file: str, severity: str, kind: str, message: str
) -> None:
    spoil(camvid(tmp_path) / file)
    report = check(opened(tmp_path))
    (finding,) = report.findings
    assert (finding.severity, finding.kind, finding.split) == (severity, kind, "train")
    assert message in finding.message
    assert str(tmp_path) in finding.message or kind == "duplicate_id"
    if severity == "error":
        with pytest.raises(ProveError, match=r"CamVid in .* has 1 errors"):
            report.raise_if_bad()
    else:
        report.raise_if_bad()


def test_all_faults_at_once_are_all_listed(tmp_path: Path) -> None:
    root = camvid(tmp_path, train=5, val=3)
    names = sorted(path.name for path in (root / "train").iterdir())
    (root / "trainannot" / names[0]).unlink()
    truncate(root / "train" / names[1])
    sixteen_bit(root / "trainannot" / names[2])
    write_label(root / "trainannot" / names[3], 0, 3, 4)
    (root / "val" / "0001TP_006690.png").unlink()
    report = check(opened(root))
    assert sorted(f.kind for f in report.errors) == [
        "missing_image", "missing_label", "out_of_range_label", "size_mismatch", "unreadable_image",
    ]  # fmt: skip
    assert report.total == f"CamVid: train 5, val 2 images, 5 errors, 0 warnings ({root})"
    with pytest.raises(ProveError) as error:
        report.raise_if_bad()
    assert all(finding.message in str(error.value) for finding in report.errors)


def test_absent_class_and_empty_split(tmp_path: Path) -> None:
    root = camvid(tmp_path, val=0)
    for path in (root / "trainannot").iterdir():
        label = np.resize(np.arange(10, dtype=np.uint8), (6, 8))
        write_label(path, label)
    (root / "val").mkdir()
    (root / "valannot").mkdir()
    report = check(opened(root))
    assert [(f.severity, f.kind, f.split, f.where) for f in report.findings] == [
        ("error", "empty_split", "val", "val"),
        ("warning", "absent_class", "train", "bicyclist"),
    ]


def test_image_in_both_splits(tmp_path: Path) -> None:
    root = camvid(tmp_path)
    (root / "val" / "0001TP_006690.png").unlink()
    (root / "val" / "0001TP_006690.png").symlink_to(root / "train" / "0001TP_006690.png")
    (finding,) = check(opened(root)).errors
    assert finding.kind == "shared_image"


def test_answer_is_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = camvid(tmp_path)
    calls: list[Path] = []
    from prove.data import check as module

    original = module.read_label
    monkeypatch.setattr(module, "read_label", lambda path, *rest: calls.append(path) or original(path, *rest))
    first = check(opened(root))
    assert len(calls) == 5
    assert check(opened(root)) == first
    assert len(calls) == 5
    (root / LABEL).unlink()
    assert [f.kind for f in check(opened(root)).errors] == ["missing_label"]


def test_only_the_split_that_was_asked_for(tmp_path: Path) -> None:
    truncate(camvid(tmp_path) / IMAGE)
    assert check(opened(tmp_path), splits=["val"]).findings == ()


def test_pixel_counts_are_those_of_the_labels(tmp_path: Path) -> None:
    dataset = opened(camvid(tmp_path))
    labels = np.stack([np.asarray(Image.open(sample.label)) for sample in dataset.train])
    expected = [int((labels == k).sum()) for k in range(11)]
    assert pixel_counts(dataset.train).tolist() == expected
    counted = label_statistics(dataset.train)
    pixels, images, ignored = counted.pixels, counted.images, counted.ignored
    assert (pixels.tolist(), ignored) == (expected, int((labels == 11).sum()))
    assert images.tolist() == [3] * 11
    write_label(dataset.train.samples[0].label, 0)
    assert pixel_counts(dataset.train)[0] == expected[0] + 48 - int((labels[0] == 0).sum())


def test_pixels_around_a_class_are_those_of_its_images(tmp_path: Path) -> None:
    """The denominator of median frequency (Eigen & Fergus 2015): only images that hold the class."""
    dataset = opened(camvid(tmp_path))
    write_label(dataset.train.samples[0].label, 0)
    labels = [np.asarray(Image.open(sample.label)) for sample in dataset.train]
    expected = [sum(int((label != 11).sum()) for label in labels if (label == k).any()) for k in range(11)]
    assert label_statistics(dataset.train).pixels_around.tolist() == expected
    assert len(set(expected)) > 1


def test_check_leaves_the_counts_that_stats_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = opened(camvid(tmp_path))
    check(dataset)
    counted = pixel_counts(dataset.val)
    monkeypatch.setattr("prove.data.stats.read_label", None)
    assert counted.tolist() == pixel_counts(dataset.val).tolist()
    assert pixel_counts(dataset.train).sum() > 0


def test_report_as_json_types(tmp_path: Path) -> None:
    truncate(camvid(tmp_path) / IMAGE)
    report: CheckReport = check(opened(tmp_path))
    document = report.to_dict()
    assert (document["ok"], document["errors"], document["images"]) == (False, 1, {"train": 3, "val": 2})
    assert document["findings"][0]["where"] == str(tmp_path / IMAGE)
