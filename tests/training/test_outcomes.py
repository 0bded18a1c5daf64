"""How runs end: finished, stopped early, diverged, refused; and what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_runs import Runs, events

from prove.metrics import summarize_arrays

IMPATIENT: dict[str, Any] = {
    "early_stop": True,
    "patience": 2,
    "min_delta": 5.0,
    "max_iters": 50,
    "eval_interval": 1,
    "lr": 1e-12,
}
"""A rate too small to learn anything, and little patience."""


def test_the_record_of_a_finished_run(runs: Runs) -> None:
    run = runs.make(aux_loss="dice", max_iters=3, eval_interval=2)
    assert runs.train(run) == 0, run.log.read_text()
    kinds = [event["kind"] for event in events(run)]
    assert kinds[:4] == ["started", "environment", "wired", "grads"]
    assert kinds[-1] == "finished"
    assert [event["iteration"] for event in events(run, "validated")] == [2, 3]  # the last iteration always is
    finished = events(run, "finished")[0]
    with np.load(run.confusion) as arrays:
        again = summarize_arrays(arrays)
        assert list(arrays["ids"]) == ["0001TP_000001", "0016E5_000000", "0016E5_000002"]
        assert arrays["confusion"].shape == (3, 11, 11)
    assert finished["last"]["metrics"]["mIoU"] == pytest.approx(again.metrics["mIoU"], abs=1e-12)
    assert set(finished["last"]["conditions"]) == {"day", "dusk"}
    assert finished["reason"] == "max_iters"
    environment = json.loads(run.env.read_text())
    assert environment["data_fingerprint"]["train"] != environment["data_fingerprint"]["val"]
    assert environment["torch_threads"] == 1
    log = run.log.read_text()
    assert "wiring proved" in log
    assert "iteration 3/3  loss" in log
    assert "aux.loss_dice" in log
    assert all(term["decode.loss_dice"] > 0 for term in (event["terms"] for event in events(run, "train")))


def test_early_stopping_stops(runs: Runs) -> None:
    """With a rate too small to learn anything, patience runs out long before the last iteration."""
    run = runs.make(**IMPATIENT, monitor="val/mIoU")
    assert runs.train(run) == 0, run.log.read_text()
    finished = events(run, "finished")[0]
    assert finished["reason"] == "early_stop"
    assert finished["iteration"] == 3  # the first validation sets the mark, two more do not pass it


def test_divergence_names_terms_and_iteration(runs: Runs) -> None:
    run = runs.make(aux_loss="focal", lr=1e30, max_iters=8, eval_interval=8)
    assert runs.train(run) == 1
    last = events(run)[-1]
    assert (last["kind"], last["failure"]) == ("failed", "diverged"), run.log.read_text()
    assert "loss_ce" in last["message"]
    assert f"iteration {last['iteration']}" in last["message"]
    assert 2 <= last["iteration"] <= 8
    assert not events(run, "finished")


def test_data_spoilt_after_the_check_is_bad_data(runs: Runs, camvid: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(camvid, copy)
    run = runs.make(data_root=str(copy))
    label = next((copy / "trainannot").iterdir())
    values = np.array(Image.open(label))
    values[5, 7] = 200
    Image.fromarray(values).save(label)
    assert runs.train(run) == 1
    last = events(run)[-1]
    assert last["failure"] == "bad_data"
    assert label.name in last["message"]
    assert "200" in last["message"]


def test_two_workers_never_train_one_run(runs: Runs) -> None:
    run = runs.make()
    with run.lock():
        assert run.is_held()
        assert runs.train(run) == 2
    assert not run.events.exists()


def test_a_resumed_early_stop_remembers(runs: Runs) -> None:
    """Its count is in the checkpoint: interrupted after two validations, it stops at the third."""
    run = runs.make(**IMPATIENT)

    def before() -> None:
        import os
        import signal

        from prove.training.session import Session

        after = Session.after_validation

        def killed(self: Any, runner: Any, metrics: Any) -> None:
            after(self, runner, metrics)
            if runner.iter == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        Session.after_validation = killed  # type: ignore[method-assign]

    assert runs.train(run, before) == -9
    assert runs.train(run) == 0, run.log.read_text()
    assert [event["iteration"] for event in events(run, "validated")] == [1, 2, 3]
    assert events(run, "finished")[0]["reason"] == "early_stop"


def test_no_room_left_is_told_from_other_failures() -> None:
    """Written to a device that is always full, by torch and by Python."""
    import torch

    from prove.training.failures import is_disk_full

    with open("/dev/full", "wb", buffering=0) as full:
        with pytest.raises((RuntimeError, OSError)) as of_torch:
            torch.save({"weights": torch.zeros(1000)}, full)
        with pytest.raises(OSError, match="No space left") as of_python:
            full.write(b"x")
    assert is_disk_full(of_torch.value)
    assert is_disk_full(of_python.value)
    wrapped = RuntimeError("the checkpoint can't be written")
    wrapped.__cause__ = of_python.value
    assert is_disk_full(wrapped)
    cut_short = "[enforce fail at inline_container.cc:671] . unexpected pos 17588544 vs 17588436"
    assert is_disk_full(RuntimeError(cut_short))  # as torch said it on a full file system
    assert not is_disk_full(RuntimeError("size mismatch"))
    assert not is_disk_full(PermissionError(13, "Permission denied"))
