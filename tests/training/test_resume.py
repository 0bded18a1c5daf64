"""Killed with -9 and resumed, a run ends bit for bit where an undisturbed one does."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import Runs, events, wait_for

from prove.rundir import RunDir

JOB: dict[str, Any] = {"aux_loss": "lovasz", "max_iters": 6, "eval_interval": 2, "early_stop": True, "patience": 9}


def outcome(run: RunDir) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Weights, optimiser state, metrics by iteration, and kept counts."""
    state = torch.load(run.checkpoint(6), weights_only=True)
    validated = {e["iteration"]: (e["metrics"], e["classes"], e["conditions"]) for e in events(run, "validated")}
    with np.load(run.confusion) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    return state["state_dict"], state["optimizer"], validated, kept


def assert_identical(run: RunDir, undisturbed: RunDir) -> None:
    mine, theirs = outcome(run), outcome(undisturbed)
    assert mine[0].keys() == theirs[0].keys()
    assert all(torch.equal(value, theirs[0][name]) for name, value in mine[0].items())
    assert str(mine[1]) == str(theirs[1])
    assert mine[2] == theirs[2]
    assert all(np.array_equal(value, theirs[3][name]) for name, value in mine[3].items())
    ends = [events(r, "finished")[-1] for r in (run, undisturbed)]
    assert ends[0]["last"] == ends[1]["last"]
    assert ends[0]["best"] == ends[1]["best"]


@pytest.fixture(scope="module")
def undisturbed(camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    runs = Runs(camvid, tmp_path_factory.mktemp("undisturbed"))
    run = runs.make(**JOB)
    assert runs.train(run) == 0, run.log.read_text()
    return run


def kill_after(runs: Runs, run: RunDir, kind: str) -> None:
    child = runs.start(run)
    wait_for(run, kind)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["wired", "train", "validated", "checkpoint"])
def test_kill_9_and_resume_is_bit_identical(runs: Runs, undisturbed: RunDir, kind: str) -> None:
    run = runs.make("killed", **JOB)
    kill_after(runs, run, kind)
    assert not events(run, "finished")
    assert not run.is_held()
    assert runs.train(run) == 0, run.log.read_text()
    assert_identical(run, undisturbed)


def test_resumed_with_data_workers_is_bit_identical(runs: Runs, undisturbed: RunDir) -> None:
    """Who loads the images changes nothing; the key does not know of it either."""
    run = runs.make("workers", workers=2, **JOB)
    assert run.key == undisturbed.key
    kill_after(runs, run, "checkpoint")
    assert runs.train(run) == 0, run.log.read_text()
    assert events(run, "started")[-1]["resumed_from"] >= 2
    assert_identical(run, undisturbed)
    assert [event["environment"]["resumed"] for event in events(run, "environment")] == [False, True]
    assert events(run, "grads")[-1]["heads"] == events(undisturbed, "grads")[-1]["heads"]
    with np.load(run.predictions) as mine, np.load(undisturbed.predictions) as theirs:
        assert all(np.array_equal(mine[name], theirs[name]) for name in theirs.files)


def test_killed_before_it_could_say_finished(runs: Runs, undisturbed: RunDir) -> None:
    run = runs.make("late", **JOB)

    def before() -> None:
        from prove.training.session import Session

        Session.finish = lambda self, runner: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]

    assert runs.train(run, before) == -signal.SIGKILL
    assert not events(run, "finished")
    assert runs.train(run) == 0, run.log.read_text()
    assert_identical(run, undisturbed)
    assert len(events(run, "train")) <= 6


def test_killed_between_iteration_and_validation(runs: Runs, undisturbed: RunDir) -> None:
    """SIGTERM writes a checkpoint of an iteration whose validation is due but has not happened: it still will."""
    run = runs.make("term", **JOB)

    def before() -> None:
        from prove.training.session import Session

        emit = Session.after_iteration

        def term_at_four(self: Any, runner: Any, outputs: Any) -> None:
            emit(self, runner, outputs)
            if runner.iter == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        Session.after_iteration = term_at_four  # type: ignore[method-assign]

    assert runs.train(run, before) == 130
    last = events(run)[-1]
    assert (last["kind"], last["iteration"], last["reason"]) == ("interrupted", 3, "signal SIGTERM")
    assert runs.train(run) == 0, run.log.read_text()
    assert events(run, "started")[-1]["resumed_from"] == 3
    assert_identical(run, undisturbed)


def test_a_truncated_checkpoint_is_passed_over(runs: Runs, undisturbed: RunDir) -> None:
    run = runs.make("torn", **JOB)

    def before() -> None:
        from prove.training.session import Session

        Session.finish = lambda self, runner: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]

    assert runs.train(run, before) == -signal.SIGKILL
    assert run.saved_iterations() == [6, 4]
    data = run.checkpoint(6).read_bytes()
    run.checkpoint(6).write_bytes(data[: len(data) // 2])
    assert runs.train(run) == 0, run.log.read_text()
    assert events(run, "started")[-1]["resumed_from"] == 4
    assert_identical(run, undisturbed)


def test_checkpoints_execute_nothing(undisturbed: RunDir) -> None:
    """They load with torch's restricted unpickler, without a single extra allowed type."""
    for path in (undisturbed.checkpoint(6), undisturbed.checkpoint(4), undisturbed.best_checkpoint):
        state = torch.load(path, weights_only=True)
        assert state["prove"]["job"] == undisturbed.key
    assert undisturbed.saved_iterations() == [6, 4]
    best = torch.load(undisturbed.best_checkpoint, weights_only=True)
    assert best["iteration"] == events(undisturbed, "finished")[-1]["best"]["iteration"]
