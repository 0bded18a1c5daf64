from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_samples import write_image, write_label

from prove.data.check import check
from prove.data.labels import read_label
from prove.data.source import Dataset, open_dataset, resolve_dataset
from prove.errors import ProveError

MINIMAL = """\
name: Yard
train: {images: train/images, labels: train/labels}
val: {images: val/images, labels: val/labels}
classes: [ground, tree, shed]
"""


def yard(root: Path, text: str = MINIMAL, **labels: object) -> Path:
    for split in ("train", "val"):
        for k in range(2):
            write_image(root / split / "images" / f"day_{k}.png", seed=k)
            write_label(root / split / "labels" / f"day_{k}.png", np.resize(np.array([0, 1, 2], np.uint8), (6, 8)))
    (root / "yard.yaml").write_text(text)
    return root / "yard.yaml"


def opened(file: Path) -> Dataset:
    return open_dataset(resolve_dataset(str(file)))


def test_minimal_file(tmp_path: Path) -> None:
    dataset = opened(yard(tmp_path))
    assert [s.id for s in dataset.train] == ["day_0", "day_1"]
    assert dataset.definition.label_space.classes == ("ground", "tree", "shed")
    assert len(set(dataset.definition.label_space.palette)) == 3
    assert check(dataset).findings == ()


def test_identity_knows_no_path(tmp_path: Path) -> None:
    first = resolve_dataset(str(yard(tmp_path / "a"))).canonical()
    second = resolve_dataset(str(yard(tmp_path / "b", f"# moved\n{MINIMAL}root: ../a\n"))).canonical()
    assert first == second
    assert str(tmp_path) not in str(first)
    changed = resolve_dataset(str(yard(tmp_path / "c", MINIMAL.replace("shed", "barn")))).canonical()
    assert changed != first


def test_wildcards_suffixes_conditions_and_encoding(tmp_path: Path) -> None:
    raw = np.resize(np.array([0, 1, 2, 9], dtype=np.uint8), (6, 8))
    for split in ("train", "val"):
        for when in ("day", "night"):
            write_image(tmp_path / "data" / split / when / "left" / "a_cam.jpg")
            write_image(tmp_path / "data" / split / when / "right" / "a_cam.jpg")
            write_label(tmp_path / "data" / f"{split}_gt" / when / "left" / "a_gt.png", raw)
    text = """\
name: Yard
root: data
image_suffix: _cam.jpg
label_suffix: _gt.png
train: {images: "train/*/left/*.jpg", labels: train_gt}
val: {images: "val/*/left/*.jpg", labels: val_gt}
classes: [tree, shed]
encoding: {0: ignore, 1: tree, 2: 1, 9: shed}
condition: ^(day|night)/
crop: [64, 96]
"""
    (tmp_path / "yard.yml").write_text(text)
    dataset = opened(tmp_path / "yard.yml")
    assert {s.id: s.condition for s in dataset.train} == {"day/left/a": "day", "night/left/a": "night"}
    manifest = dataset.train
    label = read_label(manifest.samples[0].label, manifest.encoding, manifest.label_space)
    assert label[0, :4].tolist() == [255, 0, 1, 1]
    assert dataset.definition.default_crop == (64, 96)
    assert check(dataset).findings == ()


@pytest.mark.parametrize(
    ("lines", "raw", "expected"),
    [
        ("encoding: {offset: -1}", [0, 1, 2, 3], [255, 0, 1, 2]),
        ("encoding: {offset: 5}", [0, 0, 0, 0], None),
        ("encoding: {offset: -2}\nignore_index: 77", [0, 1, 2, 77], [255, 255, 0, 255]),
        ("ignore_index: 3", [0, 1, 2, 3], [0, 1, 2, 255]),
        ("", [0, 1, 2, 255], [0, 1, 2, 255]),
        ("encoding: {255: shed, 0: ground, 1: tree}", [0, 1, 255, 255], [0, 1, 2, 2]),
    ],
)
def test_encodings(tmp_path: Path, lines: str, raw: list[int], expected: list[int] | None) -> None:
    file = yard(tmp_path, MINIMAL + lines)
    if expected is None:
        with pytest.raises(ProveError, match=r"line 5: encoding: -5 can't stand in a label file"):
            opened(file)
        return
    manifest = opened(file).train
    write_label(manifest.samples[0].label, np.array([raw], dtype=np.uint8))
    assert read_label(manifest.samples[0].label, manifest.encoding, manifest.label_space).tolist() == [expected]


def test_labels_by_color(tmp_path: Path) -> None:
    text = MINIMAL + "palette: [[1, 2, 3], [4, 5, 6], [7, 8, 9]]\nencoding: colors\n"
    manifest = opened(yard(tmp_path, text)).train
    colors = np.array([[[7, 8, 9], [1, 2, 3]]], dtype=np.uint8)
    write_label(manifest.samples[0].label, colors)
    assert read_label(manifest.samples[0].label, manifest.encoding, manifest.label_space).tolist() == [[2, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "clases: [a]", r"yard\.yaml, line 5: Unknown key 'clases' in the dataset.*\n.*'classes'"),
        (MINIMAL.replace("labels: val/labels", "label: val"), r"line 3: Unknown key 'label' in val.*\n.*'labels'"),
        (MINIMAL.replace("name: Yard\n", ""), "'name' is missing"),
        (MINIMAL.replace("Yard", "CamVid"), r"line 1: 'CamVid' is a dataset that PROVE knows"),
        (MINIMAL.replace("[ground, tree, shed]", "3"), "line 4: classes must list the names"),
        (MINIMAL.replace("shed", "tree"), "line 4: classes must be at most 255 different names"),
        (MINIMAL + "name: Again", "line 5: 'name' stands twice"),
        (MINIMAL + "encoding: {0: gruond, 1: tree, 2: shed}", r"line 5: .*'gruond', which is no class.*\n.*'ground'"),
        (MINIMAL + "encoding: {0: ground, 1: tree}", "line 5: encoding never leads to class 'shed'"),
        (MINIMAL + "encoding: cityscapes", r"line 5: Unknown encoding 'cityscapes'"),
        (MINIMAL + "encoding: train_ids", r"line 5: Encoding 'train_ids' has more classes than the 3"),
        (MINIMAL + "encoding: colors", "line 5: encoding: colors needs a palette"),
        (MINIMAL + "ignore_index: 0", "line 5: ignore_index 0 is also the value of a class"),
        (MINIMAL + "palette: [[0, 0, 0]]", "line 5: palette must have one .* for each of the 3 classes, not 1"),
        (MINIMAL + "palette: [[0, 0, 0], [1, 1, 300], [2, 2, 2]]", r"line 5: \[1, 1, 300\] is not a colour"),
        (MINIMAL + "condition: '('", "line 5: condition is not a regular expression"),
        (MINIMAL + "condition: day", "line 5: condition must be 'folder' or"),
        (MINIMAL + "crop: 64", r"line 5: crop must be \[height, width\]"),
        (MINIMAL.replace("train/images", "/abs"), "line 2: images must lie below the root"),
        (MINIMAL + "  - x", r"yard\.yaml, line 5: not valid YAML"),
        (MINIMAL + "crop: !!python/object/apply:os.getcwd []", r"line 5: not valid YAML: could not determine"),
        ("just text", "holds no mapping"),
        ("", "holds no mapping"),
        (MINIMAL.replace("{images: val/images, labels: val/labels}", "val"), "line 3: val must be a mapping"),
    ],
)  # fmt: skip
def test_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ProveError, match=message):
        opened(yard(tmp_path, text))


def test_absent_file_and_absent_root(tmp_path: Path) -> None:
    with pytest.raises(ProveError, match=r"Can't read the dataset file .*gone\.yaml"):
        resolve_dataset(str(tmp_path / "gone.yaml"))
    with pytest.raises(ProveError, match=r"root is .*nowhere, which does not exist"):
        opened(yard(tmp_path, MINIMAL + "root: nowhere"))


def test_condition_that_fits_no_id(tmp_path: Path) -> None:
    with pytest.raises(ProveError, match="no condition can be read from 'day_0'"):
        opened(yard(tmp_path, MINIMAL + "condition: ^(night)_"))
