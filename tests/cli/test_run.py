"""`prove run`, `config`, `losses check` and `unified_training.py` as a user calls them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
TINY = ["--model", "fcn_tiny", "--dataset", "CamVid", "--batch-size", "2", "--crop-size", "64x64", "--threads", "1",
        "--device", "cpu", "--no-early-stop"]  # fmt: skip


def prove(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "prove"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def test_a_run_its_table_and_its_record(camvid: Path, tmp_path: Path) -> None:
    arguments = ["run", *TINY, "--data-root", str(camvid), "--aux-loss", "lovasz", "--max-iters", "2"]
    done = prove(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mIoU" in done.stdout
    assert "bicyclist" in done.stdout
    assert "wiring proved" in done.stderr
    assert "OneDL" not in done.stdout + done.stderr
    assert "Warning" not in done.stdout + done.stderr

    again = prove(*arguments, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert document["state"] == "finished"
    assert len(document["attempts"]) == 1  # finished: not trained a second time
    assert document["loss"] == "ce + 0.3*lovasz"
    run = tmp_path / "results" / "runs" / document["key"]
    with np.load(run / "confusion.npz") as arrays:
        counts = arrays["confusion"].sum(axis=0)
    iou = np.diag(counts) / (counts.sum(0) + counts.sum(1) - np.diag(counts))
    assert document["mIoU"] == pytest.approx(100 * iou[counts.sum(1) > 0].mean())
    assert document["aAcc"] == pytest.approx(100 * np.trace(counts) / counts.sum())

    shown = prove("show", document["key"][:6], "--json", cwd=tmp_path)
    assert json.loads(shown.stdout)["mIoU"] == document["mIoU"]
    status = json.loads(prove("status", "--json", cwd=tmp_path).stdout)
    assert status["counts"]["finished"] == 1

    fresh = prove(*arguments, "--restart", "--json", cwd=tmp_path)
    redone = json.loads(fresh.stdout)
    assert (len(redone["attempts"]), redone["mIoU"]) == (2, document["mIoU"])


def test_ctrl_c_checkpoints_and_the_same_command_continues(camvid: Path, tmp_path: Path) -> None:
    arguments = ["run", *TINY, "--data-root", str(camvid), "--max-iters", "60", "--eval-interval", "60", "--json"]
    command = [str(Path(sys.executable).parent / "prove"), *arguments]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not any('"kind":"train"' in path.read_text() for path in tmp_path.glob("results/runs/*/events.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    first = json.loads(out)
    assert first["state"] == "interrupted"
    assert 1 <= first["iteration"] < 60
    done = prove(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    finished = json.loads(done.stdout)
    assert (finished["key"], finished["state"], finished["iteration"]) == (first["key"], "finished", 60)
    shown = json.loads(prove("show", first["key"], "--json", cwd=tmp_path).stdout)
    assert [attempt["resumed_from"] for attempt in shown["attempts"]] == [0, first["iteration"]]


def test_a_failed_run_exits_1(camvid: Path, tmp_path: Path) -> None:
    failed = prove("run", *TINY, "--data-root", str(camvid), "--lr", "1e30", "--max-iters", "8", cwd=tmp_path)
    assert failed.returncode == 1
    assert "diverged" in failed.stderr
    assert "loss_ce" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert json.loads(prove("status", "--json", cwd=tmp_path).stdout)["counts"]["failed"] == 1


WRONG = {
    "model": (["--model", "fcn_tyni"], ["fcn_tyni", "fcn_tiny"]),
    "dataset": (["--dataset", "CamVod"], ["CamVod", "CamVid"]),
    "strategy": (["--strategy", "baselin"], ["baselin", "baseline"]),
    "loss": (["--loss", "ce + 0.3*lovas"], ["lovas", "column 10", "lovasz"]),
    "aux loss": (["--aux-loss", "focl"], ["focl", "focal"]),
    "parameter": (["--loss", "ce + focal(gama=2)"], ["gama", "gamma", "^"]),
    "syntax": (["--loss", "ce + * focal"], ["column 6", "^"]),
    "both": (["--loss", "ce", "--aux-loss", "focal"], ["--loss", "--aux-loss"]),
    "iterations": (["--max-iters", "0"], ["max_iters", "0"]),
    "batch": (["--batch-size", "0"], ["batch_size", "0"]),
    "pooling": (["--model", "pspnet_r50", "--batch-size", "1"], ["pspnet_r50", "batch_size 1"]),
    "interval": (["--max-iters", "5", "--eval-interval", "6"], ["eval_interval", "6"]),
    "crop": (["--crop-size", "8x8"], ["crop_size", "8x8"]),
    "crop text": (["--crop-size", "big"], ["big", "512x512"]),
    "rate": (["--lr", "nan"], ["lr", "nan"]),
    "monitor": (["--monitor", "mIuO"], ["mIuO", "mIoU"]),
    "stop": (["--min-delta", "0"], ["min_delta"]),
    "seed": (["--seed", "-1"], ["seed", "-1"]),
    "file": (["--model", "nowhere.py"], ["nowhere.py"]),
    "criterion": (["--loss", "m2f"], ["m2f", "segformer_mit-b0"]),
    "weights": ([], ["pretrained", "--no-pretrained"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests_exit_2_and_write_nothing(
    name: str, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from prove.cli import app

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.chdir(tmp_path)
    flags, expected = WRONG[name]
    pretrained = [] if name == "weights" else ["--no-pretrained"]
    where = [] if "--dataset" in flags else ["--dataset", "CamVid", "--data-root", str(camvid)]
    outcome = CliRunner().invoke(app, ["run", *where, *pretrained, *flags])
    assert outcome.exit_code == 2, outcome.output
    message = outcome.stderr
    assert all(text in message for text in expected), message
    assert "Traceback" not in message
    assert outcome.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_faulty_data_is_refused_before_anything_is_written(camvid: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(camvid, copy)
    name = sorted((copy / "train").iterdir())[0].name
    (copy / "trainannot" / name).unlink()
    Image.new("L", (9, 9)).save(copy / "valannot" / sorted((copy / "val").iterdir())[0].name)
    refused = prove("run", *TINY, "--data-root", str(copy), cwd=tmp_path)
    assert refused.returncode == 2
    assert "2 errors" in refused.stderr
    assert name in refused.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_results(camvid: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    refused = prove("run", *TINY, "--data-root", str(camvid), "--results", "closed", cwd=tmp_path)
    assert refused.returncode == 2
    assert "can't be written" in refused.stderr


def test_results_that_are_a_file(camvid: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("not a folder")
    refused = prove("run", *TINY, "--data-root", str(camvid), "--results", "taken", cwd=tmp_path)
    assert refused.returncode == 2
    assert "can't be written" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_losses_check_proves(tmp_path: Path) -> None:
    small = ["--dataset", "SynthStreet(height=64, width=128, train=2, val=1)", "--crop-size", "64x64"]
    done = prove("losses", "check", "ce + 0.3*dice", *small, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    evidence = json.loads(done.stdout)
    assert evidence["ok"]
    assert evidence["objective"] == "ce + 0.3*dice"
    assert list(tmp_path.iterdir()) == []


def test_config_and_the_study_s_script_agree(camvid: Path, tmp_path: Path) -> None:
    flags = ["--dataset", "CamVid", "--data-root", str(camvid), "--model", "fcn_tiny", "--aux-loss", "focal"]
    shown = prove("config", *flags, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "0.3*focal" in shown.stdout
    script = subprocess.run(
        [sys.executable, str(ROOT / "unified_training.py"), *flags, "--config-only"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert script.stdout == shown.stdout
    difference = prove("config", *flags, "--diff", cwd=tmp_path).stdout
    assert any(line.startswith("-") and "CrossEntropyLoss" in line for line in difference.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_the_study_s_script_refuses_like_prove(tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, str(ROOT / "unified_training.py"), "--dataset", "CamVod", "--model", "fcn_tiny"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "CamVid" in refused.stderr


def test_doctor_has_no_complaint_here(tmp_path: Path) -> None:
    done = prove("doctor", "--json", cwd=tmp_path)
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["training stack"]["ok"], findings["training stack"]
    assert findings["mmcv operators"]["found"].startswith(("PROVE's own", "compiled"))
