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
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from prove.cli.execute import execute, set_aside, settle_restart
from prove.cli.progress import Progress
from prove.cli.request import Plan, Planner, RunRequest, plan
from prove.cli.run import carry_out
from prove.data.manifest import fingerprint
from prove.errors import ProveError
from prove.rundir import RunDir, write_json
from prove.spec.event import State
from prove.store import RunRow, Store
from tests.journal import encoded, failed, finished, interrupted, started

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


SAYING = """
import sys
path, events, complaint = sys.argv[1:]
if events:
    open(path, "a").write(events)
sys.stderr.write(complaint)
"""


def worker_that(monkeypatch: pytest.MonkeyPatch, *reports: dict, stderr: str = "") -> None:
    """Instead of a worker that trains: one that reports these events, writes on stderr and ends."""

    def start(run: RunDir) -> subprocess.Popen[bytes]:
        said = [str(run.events), encoded(list(reports)).decode(), stderr]
        return subprocess.Popen([sys.executable, "-c", SAYING, *said], stderr=subprocess.PIPE)

    monkeypatch.setattr("prove.cli.execute.start_worker", start)


def tiny_plan(camvid: Path) -> Plan:
    return plan(
        RunRequest(
            dataset="CamVid", data_root=str(camvid), model="fcn_tiny", max_iters=40, crop_size="64x64", device="cpu"
        )
    )


def finish(chosen: Plan, results: Path) -> RunDir:
    """The folder of a job that was trained to its end, on its dataset as it is now."""
    run = RunDir.of(results, chosen.job.key)
    run.create()
    write_json(run.job, chosen.job.to_dict())
    dataset = chosen.dataset
    write_json(run.env, {"data_fingerprint": {"train": fingerprint(dataset.train), "val": fingerprint(dataset.val)}})
    run.checkpoint(40).write_bytes(b"weights")
    run.confusion.write_bytes(b"counts")
    run.events.write_bytes(encoded([started(), finished()]))
    return run


def again(chosen: Plan, results: Path, *, restart: bool) -> RunRow:
    return execute(chosen, results, restart=restart, progress=Progress(40, quiet=True))


def state_of(run: RunDir, results: Path) -> State:
    with Store.open(results) as store:
        store.refresh()
        return store.run(run.key).state


def trained_files(run: RunDir) -> set[str]:
    """What training made, by name below the run folder."""
    made = [*run.path.glob("checkpoints/*"), *run.path.glob("replaced-*"), run.confusion, run.env]
    return {str(path.relative_to(run.path)) for path in made if path.exists()}


ALL_FILES = {"checkpoints/iter_40.pth", "confusion.npz", "env.json"}


def test_a_restart_that_never_starts_is_an_error_and_loses_nothing(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tiny_plan(camvid)
    run = finish(chosen, tmp_path)
    worker_that(monkeypatch, stderr="No module named torch")
    with pytest.raises(ProveError, match="could not start: No module named torch") as caught:
        again(chosen, tmp_path, restart=True)
    assert "finished as before" in str(caught.value.hint)
    assert state_of(run, tmp_path) is State.FINISHED
    assert trained_files(run) == ALL_FILES
    assert run.checkpoint(40).read_bytes() == b"weights"


def test_a_first_run_that_never_starts_is_an_error(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker_that(monkeypatch, stderr="Illegal instruction")
    with pytest.raises(ProveError, match="could not start: Illegal instruction"):
        again(tiny_plan(camvid), tmp_path, restart=False)


@pytest.mark.parametrize(
    ("reports", "state", "files"),
    [
        ([failed(60, attempt=2, iteration=0)], State.FAILED, ALL_FILES),
        ([interrupted(60, attempt=2, iteration=0)], State.INTERRUPTED, ALL_FILES),
        ([started(60, attempt=2), failed(61, attempt=2)], State.FAILED, set()),
        ([started(60, attempt=2)], State.INTERRUPTED, set()),  # killed: the store concludes it
    ],
)
def test_a_restart_that_fails_is_not_finished(
    reports: list[dict], state: State, files: set[str], camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tiny_plan(camvid)
    run = finish(chosen, tmp_path)
    worker_that(monkeypatch, *reports)
    row = again(chosen, tmp_path, restart=True)
    assert (row.state, row.attempts, row.metrics["mIoU"]) == (state, 2, None)
    assert trained_files(run) == files


def test_a_second_failure_before_the_start_is_a_failure_too(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = tiny_plan(camvid)
    run = finish(chosen, tmp_path)
    with open(run.events, "ab") as file:
        file.write(encoded([failed(60, attempt=2)]))
    worker_that(monkeypatch, failed(70, attempt=2))
    row = again(chosen, tmp_path, restart=False)
    assert (row.state, row.finished_at) == (State.FAILED, failed(70)["time"])


def test_a_restart_that_was_killed_before_its_worker_started_gives_the_files_back(camvid: Path, tmp_path: Path) -> None:
    chosen = tiny_plan(camvid)
    run = finish(chosen, tmp_path)
    set_aside(run)
    assert not ALL_FILES & trained_files(run)
    assert again(chosen, tmp_path, restart=False).state is State.FINISHED
    assert trained_files(run) == ALL_FILES


def test_a_finished_run_answers_for_its_own_data_only(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    chosen = tiny_plan(camvid)
    run = finish(chosen, results)
    same, other = (Path(shutil.copytree(camvid, tmp_path / name)) for name in ("same", "other"))
    assert again(tiny_plan(same), results, restart=False).state is State.FINISHED

    label = sorted((other / "valannot").iterdir())[0]
    pixels = np.array(Image.open(label))
    pixels[0, 0] = 1 - pixels[0, 0]
    Image.fromarray(pixels).save(label)
    changed = tiny_plan(other)
    assert changed.job.key == run.key
    with pytest.raises(ProveError, match="the val split of CamVid differs") as caught:
        again(changed, results, restart=False)
    assert "--restart" in str(caught.value.hint)
    assert str(other) in caught.value.message

    run.env.unlink()
    with pytest.raises(ProveError, match="no longer says"):
        again(chosen, results, restart=False)
    worker_that(monkeypatch, started(60, attempt=2), finished(70, attempt=2))
    assert again(changed, results, restart=True).attempts == 2


def test_only_a_run_that_will_train_needs_weights(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(_: Plan) -> Plan:
        raise ProveError("no weights")

    monkeypatch.setattr("prove.cli.execute.with_weights", offline)
    chosen = tiny_plan(camvid)
    results = tmp_path / "results"
    with pytest.raises(ProveError, match="no weights"):
        again(chosen, results, restart=False)
    assert not results.exists()
    finish(chosen, results)
    assert again(chosen, results, restart=False).state is State.FINISHED
    with pytest.raises(ProveError, match="no weights"):
        again(chosen, results, restart=True)
    assert trained_files(RunDir.of(results, chosen.job.key)) == ALL_FILES


@pytest.mark.parametrize("restart", [True, False])
def test_a_run_that_another_process_trains_is_left_alone(
    camvid: Path, tmp_path: Path, restart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker_that(monkeypatch, stderr="there is a second worker")
    chosen = tiny_plan(camvid)
    run = finish(chosen, tmp_path)
    run.events.write_bytes(encoded([started()]))  # its `prove run` may be gone, the worker lives on
    with run.lock(), pytest.raises(ProveError, match="being trained by another process"):
        again(chosen, tmp_path, restart=restart)
    assert trained_files(run) == ALL_FILES


def test_a_restart_takes_nothing_from_under_a_worker(camvid: Path, tmp_path: Path) -> None:
    run = finish(tiny_plan(camvid), tmp_path)
    with run.lock(), pytest.raises(ProveError, match="being trained by another process"):
        set_aside(run)
    assert trained_files(run) == ALL_FILES
    set_aside(run)
    made = trained_files(run)
    with run.lock():
        settle_restart(run)  # left to the one who holds the folder
    assert trained_files(run) == made
    set_aside(run)  # a second restart before the first one's worker has started
    assert trained_files(run) == made
    settle_restart(run)
    assert trained_files(run) == ALL_FILES


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
    "aux weight": (["--aux-weight", "0.5"], ["--aux-weight", "--aux-loss"]),
    "class weights": (["--loss", "ce(class_weight=[1,2])"], ["class_weight has 2 numbers", "11 classes"]),
    "alphas": (["--loss", "ce + focal(alpha=[1,2])"], ["alpha has 2 numbers", "11 classes"]),
    "classes": (["--loss", "ce + lovasz(classes=[50])"], ["classes 0 to 10"]),
    "val images": (["--val-images", "1000"], ["--val-images 1000", "3 validation images"]),
    "never": (["--loss", "ce + constant(0.3, start=0.95)*dice", "--max-iters", "10"], ["dice", "10"]),
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
    assert "is a file" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_losses_check_proves(tmp_path: Path) -> None:
    small = ["--dataset", "SynthStreet(height=64, width=128, train=2, val=1)", "--crop-size", "64x64"]
    done = prove("losses", "check", "ce + 0.3*dice", *small, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    evidence = json.loads(done.stdout)
    assert evidence["ok"]
    assert evidence["objective"] == "ce + 0.3*dice"
    assert list(tmp_path.iterdir()) == []


def test_losses_check_takes_what_its_hint_names(tmp_path: Path) -> None:
    check = ["losses", "check", "ce", "--strategy", "gen_dark", "--crop-size", "64x64"]
    refused = prove(*check, cwd=tmp_path)
    assert refused.returncode == 2
    assert "--gen-root DIR" in refused.stderr
    (tmp_path / "made").mkdir()
    refused = prove(*check, "--gen-root", "made", "--real-gen-ratio", "0.25", cwd=tmp_path)
    assert refused.returncode == 2
    assert "made (from --gen-root) has no dark/manifest.csv" in refused.stderr


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ("0.3*lovasz", "m2f + 0.3*lovasz"),
        ("ce(ohem)", "m2f + ce(ohem=true)"),
        ("0.5*ce", "m2f + 0.5*ce"),
        ("ce + 0.3*lovasz", None),
        ("m2f(cls=focal)", None),
        (None, None),
    ],
)
def test_a_criterion_that_nobody_asked_for_is_said_to_stay(asked: str | None, kept: str | None) -> None:
    for model in ("mask2former_tiny", "fcn_tiny"):
        if model == "fcn_tiny" and "m2f" in str(asked):
            continue
        planner = Planner()
        for seed in (0, 1):
            planner.job(RunRequest(model=model, loss=asked, seed=seed))
        if kept is None or model == "fcn_tiny":
            assert planner.remarks == []
        else:
            (remark,) = planner.remarks
            assert remark.startswith("mask2former_tiny keeps its set criterion")
            assert f"the objective is {kept}." in remark


def test_the_kept_criterion_is_said_before_a_run_and_in_a_dry_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"model": "mask2former_tiny", "loss": "0.3*lovasz", "device": "cpu"}
    monkeypatch.setattr("prove.cli.execute.execute", Mock(side_effect=ProveError("stop here")))
    with pytest.raises(ProveError, match="stop here"):
        carry_out(RunRequest(**flags), tmp_path / "results")
    assert "the objective is m2f + 0.3*lovasz." in capsys.readouterr().err
    done = prove(
        "sweep", "--model", flags["model"], "--loss", flags["loss"], "--seed", "0..2", "--dry-run", cwd=tmp_path
    )
    assert done.stderr.count("the objective is m2f + 0.3*lovasz.") == 1


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


def test_an_error_is_json_where_json_was_asked_for(tmp_path: Path) -> None:
    refused = prove("run", "--model", "fcn_tyni", "--json", cwd=tmp_path)
    assert refused.returncode == 2
    document = json.loads(refused.stdout)
    assert "fcn_tyni" in document["error"]
    assert "fcn_tiny" in document["hint"]


def test_a_results_file_is_not_an_empty_results_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("not a folder")
    refused = prove("status", "--results", "taken", cwd=tmp_path)
    assert refused.returncode == 2
    assert "is a file" in refused.stderr


def test_a_killed_worker_is_named(camvid: Path, tmp_path: Path) -> None:
    """kill -9 of the worker, as by a system short of memory: the user is told, and can continue."""
    arguments = ["run", *TINY, "--data-root", str(camvid), "--max-iters", "500", "--eval-interval", "500"]
    command = [str(Path(sys.executable).parent / "prove"), *arguments]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (events := list(tmp_path.glob("results/runs/*/events.jsonl"))) or '"train"' not in events[0].read_text():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.kill(json.loads(events[0].read_text().splitlines()[0])["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "killed by SIGKILL" in err
    assert "--batch-size" in err
