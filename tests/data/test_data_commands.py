from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from data_samples import camvid
from PIL import Image
from typer.testing import CliRunner

from prove.catalog.label_spaces import CAMVID11
from prove.cli.data import app
from prove.errors import ProveError


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_list() -> None:
    code, text = run("list")
    assert code == 0
    assert len(text.splitlines()) == 9
    assert "MapillaryVistas   66 classes" in text
    rows = json.loads(run("list", "--json")[1])
    assert [row["root_variable"] for row in rows if row["name"] == "IDD-AW"] == ["PROVE_IDD_AW_ROOT"]


def test_check(tmp_path: Path) -> None:
    root = camvid(tmp_path)
    assert run("check", "CamVid", "--data-root", str(root)) == (
        0, f"CamVid: train 3, val 2 images, no faults ({root})\n",
    )  # fmt: skip
    (root / "trainannot" / "0001TP_006690.png").unlink()
    (root / "val" / "0001TP_006690.png").write_text("")
    code, text = run("check", "CamVid", "--data-root", str(root))
    assert code == 2
    assert [line.split(":")[2].strip() for line in text.splitlines()[:2]] == ["missing_label", "unreadable_image"]
    assert text.splitlines()[-1] == f"CamVid: train 3, val 2 images, 2 errors, 0 warnings ({root})"
    code, text = run("check", "CamVid", "--data-root", str(root), "--json")
    assert (code, json.loads(text)["errors"]) == (2, 2)


def test_several_datasets_have_no_one_root(tmp_path: Path) -> None:
    drawn = "SynthStreet(height=64, width=64, train=1, val=1)"
    flags = (f"multi_CamVid+{drawn}", "--data-root", f"CamVid={camvid(tmp_path)}")
    code, text = run("check", *flags)
    assert code == 0
    assert re.search(r", (no faults|0 errors, \d+ warnings)$", text.splitlines()[-1])
    assert json.loads(run("check", *flags, "--json")[1])["root"] is None
    assert run("stats", *flags)[1].splitlines()[0] == f"multi_CamVid+{drawn} (joint)"
    assert json.loads(run("stats", *flags, "--json")[1])["root"] is None


def test_map_takes_every_dataset(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        f"name: Own\nclasses: [{', '.join(CAMVID11.classes)}]\n"
        "train: {images: a, labels: b}\nval: {images: c, labels: d}\n"
    )
    expected = run("map", "CamVid", "union42", "--json")
    assert expected[0] == 0
    assert run("map", str(tmp_path / "own.yaml"), "union42", "--json") == expected
    street = run("map", "cityscapes19", "union42", "--json")
    for text in ("SynthStreet(height=64)", "CamVid@cityscapes19", "multi_ACDC+CamVid"):
        assert run("map", text, "union42", "--json") == street
    with pytest.raises(ProveError, match="Unknown label space or dataset 'CamVit'"):
        run("map", "CamVit")
    with pytest.raises(ProveError, match="Unknown dataset 'CamVit'"):
        run("map", "CamVit@union42")
    (tmp_path / "yard.yaml").write_text(
        "name: Yard\nclasses: [ground, tree]\ntrain: {images: a, labels: b}\nval: {images: c, labels: d}\n"
    )
    with pytest.raises(ProveError, match=r"No map leads from the 2 classes of .*yard\.yaml"):
        run("map", str(tmp_path / "yard.yaml"), "union42")


def test_stats(tmp_path: Path) -> None:
    code, text = run("stats", "CamVid", "--data-root", str(camvid(tmp_path)), "--json")
    assert code == 0
    train = json.loads(text)["splits"]["train"]
    assert train["conditions"] == {"day": 2, "dusk": 1}
    assert sum(row["percent"] for row in train["classes"].values()) == pytest.approx(100)
    assert train["ignored_percent"] == pytest.approx(100 / 12)
    code, text = run("stats", "CamVid", "--data-root", str(tmp_path))
    assert "train: 3 images (day 2, dusk 1), 8.3% of pixels ignored" in text


def test_make_synthstreet(tmp_path: Path) -> None:
    arguments = ("make", "synthstreet", "--size", "64x96", "--train", "2", "--val", "1", "--seed", "5")
    out, sheet = tmp_path / "new" / "s", tmp_path / "sheet.png"
    code, text = run(*arguments, "--out", str(out), "--contact-sheet", str(sheet), "--json")
    assert code == 0
    assert json.loads(text) == {
        "dataset": "SynthStreet", "root": str(out), "height": 64, "width": 96, "train": 2, "val": 1, "seed": 5,
    }  # fmt: skip
    assert len(list(out.rglob("*.png"))) == 6
    with Image.open(sheet) as image:
        assert image.size == (7 * 96, 6 * 64)
    with pytest.raises(ProveError, match="exists and is not an empty folder"):
        run(*arguments, "--out", str(out))
    with pytest.raises(ProveError, match="--size is '64'"):
        run("make", "synthstreet", "--size", "64")


def test_imports_are_light() -> None:
    code = (
        "import sys, prove.cli.data; print([m for m in ('torch', 'numpy', 'cv2', 'PIL', 'yaml') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
