"""`prove data manifest`: which image each generated one was made from, and what is wrong with a list that says so."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from data_samples import camvid, write_image
from typer.testing import CliRunner

from prove.cli.data import app
from prove.data.compose import compose
from prove.data.source import open_dataset, resolve_dataset
from prove.errors import ProveError
from prove.spec.recipe import Recipe

FIRST, SECOND, THIRD = "0001TP_006690", "0006R0_f00930", "0016E5_00390"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three training images, two for validation, which have the names of the first two."""
    return camvid(tmp_path / "camvid")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "gen" / "cut"


def manifest(folder: Path, root: Path, *flags: str, dataset: str = "CamVid") -> tuple[int, str]:
    arguments = ["manifest", str(folder), "--dataset", dataset, "--data-root", str(root), *flags]
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def written(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return [(row["gen_path"], row["original_path"], row["target_domain"]) for row in csv.DictReader(file)]


def test_images_are_tied_to_originals_of_their_name(folder: Path, root: Path) -> None:
    write_image(folder / "night" / f"{FIRST}.jpg")
    write_image(folder / "night" / f"{THIRD}.png")
    write_image(folder / "foggy" / "epoch_200" / f"{SECOND}.png")
    code, text = manifest(folder, root)
    assert code == 0, text
    assert written(folder) == [
        (f"foggy/epoch_200/{SECOND}.png", f"train/{SECOND}.png", "foggy"),
        (f"night/{FIRST}.jpg", f"train/{FIRST}.png", "night"),
        (f"night/{THIRD}.png", f"train/{THIRD}.png", "night"),
    ]
    assert text.splitlines() == [
        f"{folder}/manifest.csv written: 3 images from 3 of 3 training images of CamVid (foggy 1, night 2), no faults",
        f'train on them: prove run --dataset "CamVid" --strategy gen_cut --gen-root {folder.parent}',
    ]
    dataset = open_dataset(resolve_dataset("CamVid"), root=root)
    assert len(compose(dataset, Recipe("gen_cut", None, 0.0), generated_root=folder.parent).train) == 3


def test_what_a_generator_adds_to_names(folder: Path, root: Path) -> None:
    write_image(folder / "night" / f"{FIRST}_fake_B.png")
    code, text = manifest(folder, root)
    assert code == 2
    assert f"no training image of CamVid is called {FIRST}_fake_B. If the generator added '_fake_B'" in text
    assert not (folder / "manifest.csv").exists()
    assert manifest(folder, root, "--suffix", "_fake_B")[0] == 0
    assert written(folder) == [(f"night/{FIRST}_fake_B.png", f"train/{FIRST}.png", "night")]
    code, text = manifest(folder, root, "--suffix=_real", "--force")
    assert (code, "does not end in '_real'" in text) == (2, True)


@pytest.fixture
def by_folder(tmp_path: Path) -> tuple[Path, Path]:
    """A dataset whose images have the same names in each condition's folder, and its definition."""
    root = tmp_path / "yard"
    for split, number in (("train", 1), ("train", 2), ("val", 3)):
        for condition in ("day", "dusk"):
            write_image(root / split / "images" / condition / f"{number}.png")
            write_image(root / split / "labels" / condition / f"{number}.png")
    definition = tmp_path / "yard.yaml"
    definition.write_text(
        "name: Yard\nroot: yard\nclasses: [ground]\ncondition: folder\n"
        "train: {images: train/images, labels: train/labels}\nval: {images: val/images, labels: val/labels}\n"
    )
    return root, definition


def test_equal_names_need_their_folder(folder: Path, by_folder: tuple[Path, Path]) -> None:
    root, definition = by_folder
    write_image(folder / "night" / "1.png")
    code, text = manifest(folder, root, dataset=str(definition))
    assert code == 2
    assert f"could be made from {root}/train/images/day/1.png or {root}/train/images/dusk/1.png; --original DIR" in text
    found = manifest(folder, root, "--original", "train/images/dusk", "--json", dataset=str(definition))
    assert written(folder) == [("night/1.png", "train/images/dusk/1.png", "night")]
    assert json.loads(found[1])["written"] is True
    (folder / "night" / "1.png").rename(folder / "night" / "only.png")
    write_image(folder / "night" / "day" / "1.png")
    (folder / "night" / "only.png").unlink()
    manifest(folder, root, "--force", dataset=str(definition))
    assert written(folder) == [("night/day/1.png", "train/images/day/1.png", "night")]


def test_an_image_made_from_validation_is_refused(folder: Path, by_folder: tuple[Path, Path]) -> None:
    root, definition = by_folder
    write_image(folder / "night" / "day" / "3.png")
    code, text = manifest(folder, root, dataset=str(definition))
    assert code == 2
    assert "was made from a validation image" in text
    assert "1 of 1 images have no clear original; nothing is written" in text


def test_a_name_of_validation_is_not_taken_for_another_folder_s(folder: Path, by_folder: tuple[Path, Path]) -> None:
    """day/4 is a validation image; that dusk/4 is a training image makes it no original."""
    root, definition = by_folder
    for split, condition in (("val", "day"), ("train", "dusk")):
        for kind in ("images", "labels"):
            write_image(root / split / kind / condition / "4.png", seed=len(split))
    write_image(folder / "night" / "day" / "4.png", seed=9)
    code, text = manifest(folder, root, dataset=str(definition))
    assert code == 2
    assert "was made from a validation image" in text
    assert not (folder / "manifest.csv").exists()


def test_a_manifest_is_not_written_over(folder: Path, root: Path) -> None:
    write_image(folder / "night" / f"{FIRST}.png")
    manifest(folder, root)
    with pytest.raises(ProveError, match=r"manifest\.csv exists"):
        manifest(folder, root)
    with pytest.raises(ProveError, match="--check writes nothing"):
        manifest(folder, root, "--check", "--force")


def test_check_lists_every_fault(folder: Path, root: Path) -> None:
    for name in (FIRST, SECOND, THIRD):
        write_image(folder / "night" / f"{name}.png")
    manifest(folder, root)
    (folder / "night" / f"{FIRST}.png").unlink()
    (folder / "night" / f"{SECOND}.png").write_bytes(b"")
    write_image(folder / "night" / f"{THIRD}.png", 3, 4)
    code, text = manifest(folder, root, "--check")
    assert code == 2
    lines = text.splitlines()
    assert lines[0].startswith("error: line 2: gen_path: ")
    assert lines[1].startswith("error: unreadable_image: ")
    assert lines[2].startswith("warning: resized_image: ")
    assert lines[3].endswith("3 images from 2 of 3 training images of CamVid (night 2), 2 errors")
    code, text = manifest(folder, root, "--check", "--json")
    document = json.loads(text)
    assert (code, document["ok"], document["images"], document["originals"]) == (2, False, 3, 2)
    assert [fault["kind"] for fault in document["faults"]] == ["missing_image"]
    assert [each["kind"] for each in document["findings"]] == ["unreadable_image", "resized_image"]


def test_images_lie_in_folders_of_their_target(folder: Path, root: Path) -> None:
    with pytest.raises(ProveError, match="is no folder"):
        manifest(folder, root)
    folder.mkdir(parents=True)
    with pytest.raises(ProveError, match="No image there"):
        manifest(folder, root)
    write_image(folder / f"{FIRST}.png")
    with pytest.raises(ProveError, match=r"1 images lie in .*cut itself"):
        manifest(folder, root)


@pytest.mark.parametrize(("name", "message"), [("random_noise", "is built in"), ("a b", "can't be the name"),
                                              ("a+std_cutmix", "can't be the name")])  # fmt: skip
def test_a_folder_that_no_strategy_could_name(name: str, message: str, tmp_path: Path, root: Path) -> None:
    write_image(tmp_path / name / "night" / f"{FIRST}.png")
    with pytest.raises(ProveError, match=message):
        manifest(tmp_path / name, root)
