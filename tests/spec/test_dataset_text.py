"""How datasets are written, also in experiment files."""

from __future__ import annotations

from pathlib import Path

import pytest

from prove.spec.dataset_text import DatasetText, Part
from prove.spec.experiment import read_experiment


@pytest.mark.parametrize(
    ("text", "parts", "space"),
    [
        ("CamVid", [("CamVid", "")], ""),
        (" CamVid@union42 ", [("CamVid", "")], "union42"),
        ("/data/a@b/own.yaml", [("/data/a@b/own.yaml", "")], ""),
        ("own.yaml@union42", [("own.yaml", "")], "union42"),
        ("multi_ACDC+CamVid", [("ACDC", ""), ("CamVid", "")], ""),
        ("multi_2*ACDC+0.5*SynthStreet(seed=1)@union42", [("ACDC", "2"), ("SynthStreet(seed=1)", "0.5")], "union42"),
        ("multi_ACDC@union42+CamVid", [("ACDC@union42", ""), ("CamVid", "")], ""),
        ("multi_*ACDC+", [("*ACDC", ""), ("", "")], ""),
        ("CamVid@", [("CamVid@", "")], ""),
    ],
)
def test_a_text_is_taken_apart(text: str, parts: list[tuple[str, str]], space: str) -> None:
    read = DatasetText.read(text)
    assert [(part.name, part.weight) for part in read.parts] == parts
    assert read.space == space
    assert str(read) == text.strip()


def test_paths_are_changed_and_names_are_not() -> None:
    read = DatasetText.read("multi_3*a/own.yaml+CamVid@union42").with_files(lambda path: f"/root/{path}")
    assert str(read) == "multi_3*/root/a/own.yaml+CamVid@union42"
    assert read.parts[1] == Part("CamVid")


def test_an_experiment_file_names_files_and_folders_of_several_datasets(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(
        "name: x\n"
        "matrix:\n"
        "  dataset: ['multi_CamVid+2*sub/own.yaml', CamVid@cityscapes19, ACDC]\n"
        "  model: [fcn_tiny]\n"
        "train: {data_root: {CamVid: camvid, ACDC: /data/acdc}}\n"
    )
    cells = list(read_experiment(file).cells())
    assert [(cell["dataset"], cell.get("data_root")) for cell in cells] == [
        (f"multi_CamVid+2*{tmp_path}/sub/own.yaml", f"CamVid={tmp_path}/camvid"),
        ("CamVid@cityscapes19", f"{tmp_path}/camvid"),
        ("ACDC", "/data/acdc"),
    ]
