from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_samples import camvid, write_image, write_label

from prove.data.check import check
from prove.data.labels import read_label
from prove.data.manifest import fingerprint
from prove.data.source import open_dataset, resolve_dataset
from prove.errors import ProveError

# name, layout, image, label, raw label value → train id, id, condition
LAYOUTS = [
    (
        "Cityscapes",
        "original",
        "leftImg8bit/{train}/aachen/a_0_leftImg8bit.png",
        "gtFine/{train}/aachen/a_0_gtFine_labelIds.png",
        26,
        13,
        "aachen/a_0",
        "all",
    ),
    (
        "Cityscapes",
        "original",
        "leftImg8bit/{train}/aachen/a_0_leftImg8bit.png",
        "gtFine/{train}/aachen/a_0_gtFine_labelTrainIds.png",
        13,
        13,
        "aachen/a_0",
        "all",
    ),
    (
        "Cityscapes",
        "stratified",
        "{study}/images/Cityscapes/foggy/a_leftImg8bit.png",
        "{study}/labels/Cityscapes/foggy/a_leftImg8bit.png",
        26,
        13,
        "foggy/a",
        "foggy",
    ),
    (
        "ACDC",
        "original",
        "rgb_anon/fog/{train}/GOPR1/f_1_rgb_anon.png",
        "gt/fog/{train}/GOPR1/f_1_gt_labelTrainIds.png",
        3,
        3,
        "fog/GOPR1/f_1",
        "foggy",
    ),
    (
        "ACDC",
        "original",
        "rgb_anon/night/{train}/GOPR1/f_1_rgb_anon.png",
        "gt/night/{train}/GOPR1/f_1_gt_labelIds.png",
        24,
        11,
        "night/GOPR1/f_1",
        "night",
    ),
    (
        "ACDC",
        "stratified",
        "{study}/images/ACDC/snowy/f_rgb_anon.png",
        "{study}/labels/ACDC/snowy/f_rgb_anon.png",
        24,
        11,
        "snowy/f",
        "snowy",
    ),
    (
        "ACDC",
        "stratified",
        "{study}/images/ACDC/rainy/f_rgb_anon.png",
        "{study}/labels/ACDC/rainy/f_gt_labelIds.png",
        24,
        11,
        "rainy/f",
        "rainy",
    ),
    (
        "BDD10k",
        "original",
        "bdd100k/images/10k/{train}/0a-1.jpg",
        "bdd100k/labels/sem_seg/masks/{train}/0a-1.png",
        18,
        18,
        "0a-1",
        "all",
    ),
    ("BDD10k", "seg", "seg/images/{train}/0a-1.jpg", "seg/labels/{train}/0a-1_train_id.png", 18, 18, "0a-1", "all"),
    (
        "BDD10k",
        "stratified",
        "{study}/images/BDD10k/clear_day/0a-1.jpg",
        "{study}/labels/BDD10k/clear_day/0a-1.png",
        18,
        18,
        "clear_day/0a-1",
        "clear_day",
    ),
    (
        "IDD-AW",
        "original",
        "IDDAW/{train}/LOWLIGHT/rgb/12/3_rgb.png",
        "IDDAW/{train}/LOWLIGHT/gtSeg/12/3_mask_csTrainIds.png",
        17,
        17,
        "LOWLIGHT/12/3",
        "night",
    ),
    (
        "IDD-AW",
        "stratified",
        "{study}/images/IDD-AW/night/3_rgb.png",
        "{study}/labels/IDD-AW/night/3_rgb.png",
        17,
        17,
        "night/3",
        "night",
    ),
    ("MapillaryVistas", "original", "{vistas}/images/abc.jpg", "{vistas}/v1.2/labels/abc.png", 65, 65, "abc", "all"),
    ("MapillaryVistas", "original-v1.1", "{vistas}/images/abc.jpg", "{vistas}/labels/abc.png", 13, 13, "abc", "all"),
    (
        "MapillaryVistas",
        "stratified",
        "{study}/images/MapillaryVistas/dawn_dusk/abc.jpg",
        "{study}/labels/MapillaryVistas/dawn_dusk/abc.png",
        13,
        13,
        "dawn_dusk/abc",
        "dawn_dusk",
    ),
    ("OUTSIDE15k", "original", "images/{vistas}/abc.jpg", "annotations/{vistas}/abc.png", 23, 23, "abc", "all"),
    (
        "OUTSIDE15k",
        "stratified",
        "{study}/images/OUTSIDE15k/cloudy/abc.jpg",
        "{study}/labels/OUTSIDE15k/cloudy/abc.png",
        23,
        23,
        "cloudy/abc",
        "cloudy",
    ),
    (
        "ADE20K",
        "original",
        "ADEChallengeData2016/images/{vistas}/ADE_00000001.jpg",
        "ADEChallengeData2016/annotations/{vistas}/ADE_00000001.png",
        13,
        12,
        "ADE_00000001",
        "all",
    ),
]
SPLITS = (
    {"train": "train", "study": "train", "vistas": "training"},
    {"train": "val", "study": "test", "vistas": "validation"},
)


@pytest.mark.parametrize(
    ("name", "layout", "image", "label", "raw", "train_id", "sample_id", "condition"),
    LAYOUTS,
    ids=[f"{row[0]}-{row[1]}-{k}" for k, row in enumerate(LAYOUTS)],
)
def test_layout_is_recognised(
    tmp_path: Path,
    name: str,
    layout: str,
    image: str,
    label: str,
    raw: int,
    train_id: int,
    sample_id: str,
    condition: str,
) -> None:
    for split in SPLITS:
        write_image(tmp_path / image.format(**split))
        write_label(tmp_path / label.format(**split), raw)
    dataset = open_dataset(resolve_dataset(name), root=tmp_path)
    assert dataset.layout.name == layout
    for manifest in dataset.splits:
        (sample,) = manifest
        assert (sample.id, sample.condition) == (sample_id, condition)
        assert (read_label(sample.label, manifest.encoding, manifest.label_space) == train_id).all()
    assert not check(dataset).errors


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_camvid_conditions_follow_the_sequence(tmp_path: Path, suffix: str) -> None:
    dataset = open_dataset(resolve_dataset("CamVid"), root=camvid(tmp_path, image_suffix=suffix))
    assert {s.id: s.condition for s in dataset.train} == {
        "0001TP_006690": "dusk", "0006R0_f00930": "day", "0016E5_00390": "day",
    }  # fmt: skip
    assert check(dataset).findings == ()


@pytest.mark.skipif("PROVE_CAMVID_ROOT" not in os.environ, reason="PROVE_CAMVID_ROOT names no copy of CamVid")
def test_real_camvid() -> None:
    dataset = open_dataset(resolve_dataset("CamVid"))
    assert (len(dataset.train), len(dataset.val)) == (367, 101)
    assert sum(sample.condition == "dusk" for sample in dataset.train) == 62
    assert dataset.val.conditions == ("day",)
    assert check(dataset).findings == ()


def test_ids_are_sorted_and_fingerprints_do_not_depend_on_the_place(tmp_path: Path) -> None:
    first = open_dataset(resolve_dataset("CamVid"), root=camvid(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b")
    second = open_dataset(resolve_dataset("CamVid"), root=tmp_path / "elsewhere" / "b")
    assert [s.id for s in first.train] == sorted(s.id for s in first.train)
    assert fingerprint(first.train) == fingerprint(second.train) != fingerprint(first.val)


@pytest.mark.parametrize("change", ["image", "label", "rename", "remove"])
def test_fingerprint_changes_with_content(tmp_path: Path, change: str) -> None:
    root = camvid(tmp_path)
    before = fingerprint(open_dataset(resolve_dataset("CamVid"), root=root).train)
    image, label = root / "train" / "0001TP_006690.png", root / "trainannot" / "0001TP_006690.png"
    if change == "image":
        write_image(image, seed=99)
    elif change == "label":
        write_label(label, np.full((6, 8), 3, dtype=np.uint8))
    elif change == "rename":
        image.rename(image.with_name("0001TP_1.png"))
        label.rename(label.with_name("0001TP_1.png"))
    else:
        image.unlink()
        label.unlink()
    assert fingerprint(open_dataset(resolve_dataset("CamVid"), root=root).train) != before


def test_no_layout_fits(tmp_path: Path) -> None:
    with pytest.raises(ProveError, match=r"none of its layouts.*\n.*segnet: .*trainannot"):
        open_dataset(resolve_dataset("CamVid"), root=tmp_path)


def test_several_layouts_fit(tmp_path: Path) -> None:
    for image, label in (LAYOUTS[7][2:4], LAYOUTS[9][2:4]):
        write_image(tmp_path / image.format(**SPLITS[0]))
        write_label(tmp_path / label.format(**SPLITS[0]))
    with pytest.raises(ProveError, match=r"fits several layouts: original .* and stratified"):
        open_dataset(resolve_dataset("BDD10k"), root=tmp_path)
    assert open_dataset(resolve_dataset("BDD10k"), root=tmp_path, layout="stratified").layout.name == "stratified"


class TestRoots:
    def test_precedence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
        definition = resolve_dataset("CamVid")
        with pytest.raises(ProveError, match="Where is CamVid") as error:
            open_dataset(definition)
        for way in (
            "--data-root",
            "PROVE_CAMVID_ROOT",
            "PROVE_DATA_ROOT",
            str(own_cache / "config.yaml"),
            "data_roots",
        ):
            assert way in str(error.value)
        places = {name: camvid(tmp_path / name / "CamVid") for name in ("config", "common", "own", "flag")}
        (own_cache / "config.yaml").write_text(f"data_roots:\n  CamVid: {places['config']}\n")
        assert open_dataset(definition).root == places["config"]
        monkeypatch.setenv("PROVE_DATA_ROOT", str(tmp_path / "common"))
        assert open_dataset(definition).root == places["common"]
        monkeypatch.setenv("PROVE_CAMVID_ROOT", str(places["own"]))
        assert open_dataset(definition).root == places["own"]
        assert open_dataset(definition, root=places["flag"]).root == places["flag"]

    @pytest.fixture(autouse=True)
    def without_camvid(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PROVE_CAMVID_ROOT", raising=False)

    def test_variable_of_a_name_with_a_hyphen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROVE_IDD_AW_ROOT", str(tmp_path / "absent"))
        with pytest.raises(ProveError, match=r"\$PROVE_IDD_AW_ROOT names .*absent, which does not exist"):
            open_dataset(resolve_dataset("IDD-AW"))

    def test_data_root_in_the_studys_layout(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for split in SPLITS:
            write_image(tmp_path / LAYOUTS[9][2].format(**split))
            write_label(tmp_path / LAYOUTS[9][3].format(**split))
        monkeypatch.setenv("PROVE_DATA_ROOT", str(tmp_path))
        assert open_dataset(resolve_dataset("BDD10k")).layout.name == "stratified"

    @pytest.mark.parametrize("text", ["data_roots: [a]", "- a", "data_roots: {CamVid: 3}", "a: [", "data_roots: x"])
    def test_malformed_config(self, own_cache: Path, text: str) -> None:
        (own_cache / "config.yaml").write_text(text)
        with pytest.raises(ProveError, match=r"config\.yaml"):
            open_dataset(resolve_dataset("CamVid"))


class TestNames:
    def test_unknown_name_suggests(self) -> None:
        with pytest.raises(ProveError, match="Did you mean 'CamVid'"):
            resolve_dataset("Camvid")

    def test_parameters(self) -> None:
        definition = resolve_dataset(" SynthStreet( height=128,width=256 , seed=3 )")
        assert definition.name == "SynthStreet(height=128, width=256, seed=3)"
        assert definition.canonical() == {
            "dataset": "SynthStreet", "version": 1, "height": 128, "width": 256, "train": 98, "val": 28, "seed": 3,
        }  # fmt: skip
        assert resolve_dataset(definition.name) == definition
        assert resolve_dataset("SynthStreet(seed=0)") == resolve_dataset("SynthStreet")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("SynthStreet(heigth=3)", "Unknown parameter 'heigth'.*\n.*'height'"),
            ("SynthStreet(seed=1.5)", "seed must be a whole number, not '1.5'"),
            ("SynthStreet(seed=1, seed=2)", "seed stands twice"),
            ("SynthStreet(height=8)", "height is 8, but must be 64 to 2048"),
            ("SynthStreet(seed=1", "Malformed dataset"),
            ("CamVid(seed=1)", "CamVid takes no parameters"),
        ],
    )
    def test_malformed(self, text: str, message: str) -> None:
        with pytest.raises(ProveError, match=message):
            resolve_dataset(text)
