"""Predictions side by side: which image by rule, what is right and wrong in it, and what may be missing."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prove.report.figures import pictures
from prove.report.figures.picture import Picture, Undrawn
from prove.report.figures.prediction_maps import disagree
from prove.report.figures.predictions import against, colored
from tests.report.studies import SimulatedStudy, simulate
from tests.report.test_figure_layout import problems

PALETTE = np.array([[128, 64, 128], [70, 130, 180], [220, 20, 60]], np.uint8)
TRUTH = np.array([[0, 0, 1, 1], [0, 2, 2, 255]], np.uint8)
LOSSES = {"ce": 0.0, "ce + 0.3*focal": 1.0}


def keep(study: SimulatedStudy, run: Any, predicted: Mapping[str, Any], root: Path, truth: Any = TRUTH) -> Path:
    """Write what a worker keeps of a run's predictions."""
    folder = study.folder(run)
    folder.path.mkdir(parents=True, exist_ok=True)
    arrays = {f"predicted_{at}": np.asarray(each, np.uint8) for at, each in enumerate(predicted.values())}
    arrays |= {f"truth_{at}": np.asarray(truth, np.uint8) for at in range(len(predicted))}
    np.savez_compressed(
        folder.predictions, ids=np.array(list(predicted)), conditions=np.array(["night"] * len(predicted)),
        paths=np.array([f"val/{name}.png" for name in predicted]), classes=np.array(["road", "sky", "rider"]),
        palette=PALETTE, **arrays,
    )  # fmt: skip
    folder.env.write_text(json.dumps({"data_root": str(root)}))
    return folder.predictions


def changed(pixels: int) -> np.ndarray:
    """The truth with so many pixels from the left and the top wrong."""
    made = np.where(TRUTH == 255, 0, TRUTH).astype(np.uint8)
    flat = made.reshape(-1)
    flat[:pixels] = (flat[:pixels] + 1) % 3
    return made


@pytest.fixture
def study(tmp_path: Path) -> SimulatedStudy:
    """Four images on which the two losses differ in 1, 5, 3 and 2 pixels; the image files are there."""
    made = simulate(LOSSES, results=tmp_path / "results", seeds=2)
    (tmp_path / "data/val").mkdir(parents=True)
    for name in "abcd":
        Image.new("RGB", (8, 4), (10, 200, 30)).save(tmp_path / f"data/val/{name}.png")
    for run in made.runs:
        wrong = dict.fromkeys("abcd", 0) if run.loss == "ce" else {"a": 1, "b": 5, "c": 3, "d": 2}
        keep(made, run, {name: changed(count) for name, count in wrong.items()}, tmp_path / "data")
    return made


def picture(study: SimulatedStudy) -> Picture:
    made = pictures(study, which=["predictions"])
    assert len(made) == 1
    assert isinstance(made[0], Picture), made[0]
    return made[0]


def reason(study: SimulatedStudy) -> str:
    made = pictures(study, which=["predictions"])[0]
    assert isinstance(made, Undrawn)
    return made.reason


def test_the_image_of_median_disagreement_is_drawn(study: SimulatedStudy) -> None:
    made = picture(study)
    assert {row["image"] for row in made.data} == {"d"}  # 1 < 2 < 3 < 5: the lower of the two in the middle
    assert "chosen by rule" in made.caption
    assert f"{100 * 2 / 7:.1f}%" in made.caption
    assert {row["seed"] for row in made.data} == {0}
    assert not problems(made.figure)


def test_data_count_the_labelled_pixels(study: SimulatedStudy) -> None:
    baseline, focal = picture(study).data
    assert (baseline["labelled_pixels"], baseline["wrong_pixels"], baseline["mended_pixels"]) == (7, 0, None)
    assert (focal["wrong_pixels"], focal["mended_pixels"], focal["broken_pixels"]) == (2, 0, 2)


def test_mended_broken_and_otherwise_are_told_apart() -> None:
    truth = np.array([[0, 0, 0, 0, 0, 255]], np.uint8)
    baseline = np.array([[0, 0, 1, 1, 1, 1]], np.uint8)
    predicted = np.array([[0, 1, 0, 1, 2, 2]], np.uint8)
    mended, broken, otherwise = (each[0].tolist() for each in against(truth, baseline, predicted))
    assert mended == [False, False, True, False, False, False]
    assert broken == [False, True, False, False, False, False]
    assert otherwise == [False, False, False, False, True, False]


def test_disagreement_leaves_out_what_is_not_labelled() -> None:
    truth = np.array([[0, 0, 255, 255]], np.uint8)
    one, other = np.array([[0, 0, 0, 0]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8)
    assert disagree(truth, [one, other]) == 0.5
    assert disagree(np.full((1, 4), 255, np.uint8), [one, other]) == 0.0


def test_labels_have_the_palettes_colours() -> None:
    assert colored(TRUTH, PALETTE)[0, 2].tolist() == [70, 130, 180]
    assert colored(TRUTH, PALETTE)[1, 3].tolist() == [0, 0, 0]


def test_embedded_pictures_keep_their_colours(study: SimulatedStudy) -> None:
    sources = re.findall(r'href="data:image/\w+;base64,([^"]+)"', picture(study).svg)
    assert len(sources) == 7  # image, labels; each loss: its prediction, what is wrong; focal against the baseline
    found = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB")) for each in sources]
    assert np.array_equal(found[1], colored(TRUTH, PALETTE))
    assert np.abs(found[0].astype(int) - [10, 200, 30]).max() < 8


def test_the_seed_at_which_most_losses_have_predictions_is_taken(study: SimulatedStudy) -> None:
    study.folder(study.blocks[0].runs["ce", 0]).predictions.unlink()
    made = picture(study)
    assert {row["seed"] for row in made.data} == {1}
    assert [row["loss"] for row in made.data] == list(LOSSES)


def test_a_loss_without_predictions_is_named(study: SimulatedStudy) -> None:
    for seed in (0, 1):
        study.folder(study.blocks[0].runs["ce + 0.3*focal", seed]).predictions.unlink()
    made = picture(study)
    assert "Without predictions at this seed: ce + 0.3*focal." in made.caption
    assert [row["loss"] for row in made.data] == ["ce"]


def test_an_image_that_is_gone_leaves_a_note(study: SimulatedStudy, tmp_path: Path) -> None:
    (tmp_path / "data/val/d.png").unlink()
    made = picture(study)
    assert any("not on this machine" in text.get_text() for axes in made.figure.axes for text in axes.texts)
    assert "on this machine" in made.svg


@pytest.mark.parametrize("path", ["/etc/hostname", "../../secret.png", "val/../../x.png", ""])
def test_a_path_never_leaves_the_data_folder(study: SimulatedStudy, tmp_path: Path, path: str) -> None:
    Image.new("RGB", (8, 4)).save(tmp_path / "x.png")
    (tmp_path / "data/val/d.png").unlink()
    for run in study.runs:
        file = study.folder(run).predictions
        with np.load(file) as kept:
            arrays = dict(kept)
        np.savez(file, **arrays | {"paths": np.array([path] * 4)})
    figure = picture(study).figure
    assert any("not on this machine" in text.get_text() for axes in figure.axes for text in axes.texts)


@pytest.mark.parametrize("damage", ["cut", "text", "sizes", "missing", "pickle"])
def test_files_that_can_not_be_read_are_left_out(study: SimulatedStudy, damage: str) -> None:
    for run in study.runs:
        file = study.folder(run).predictions
        with np.load(file) as kept:
            arrays = dict(kept)
        if damage == "cut":
            file.write_bytes(file.read_bytes()[:200])
        elif damage == "text":
            file.write_text("not an archive")
        else:
            arrays |= {"predicted_0": np.zeros((3, 3), np.uint8)} if damage == "sizes" else {}
            arrays |= {"ids": np.array([{}] * 4, object)} if damage == "pickle" else {}
            arrays.pop("truth_1") if damage == "missing" else None
            np.savez(file, **arrays)
    assert "No run has kept predictions" in reason(study)


def test_other_labels_of_the_same_image_are_not_compared(study: SimulatedStudy, tmp_path: Path) -> None:
    for run in study.runs:
        if run.loss == "ce":
            keep(study, run, {name: changed(0) for name in "abcd"}, tmp_path / "data", truth=np.zeros((2, 4)))
    assert isinstance(pictures(study, which=["predictions"])[0], Undrawn)


def test_twenty_losses_are_cut_to_a_page_and_the_data_have_all(tmp_path: Path) -> None:
    study = simulate({"ce": 0.0} | {f"ce + 0.{i}*focal": 1.0 for i in range(1, 20)}, results=tmp_path, seeds=1)
    tall = np.zeros((60, 20), np.uint8)
    for run in study.runs:
        keep(study, run, {"a": tall}, tmp_path, truth=tall)
    made = picture(study)
    assert len(made.data) == 20
    assert "8 of 20 losses" in made.caption
    assert made.figure.get_figheight() <= 9.0
    assert not problems(made.figure)
