"""Workers that train nothing, for tests of who starts and follows them: each does what its seed's plan says.

A plan is a file ``plan.json`` beside the launch folders, ``{seed or "default": {...}}``:

    steps, seconds     how many iterations, and how long each takes
    waits              a file beside the plan without which it does not finish
    die                attempts that end with kill -9 at an iteration: {"1": 2}
    fail               failure kind that each attempt reports
    failures           failure kinds of the first attempts, in turn
    deaf               SIGTERM is ignored
    leaves             a process of its own goes on when it is gone
    silent             exit code with which it ends before its first word
    peak_memory_mib    what its train events say
    full               the disk has no room for its checkpoint
    data               fingerprints of what it was trained on
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from prove.errors import ProveError
from prove.rundir import RunDir, read_json, write_json
from prove.spec.event import DISK_FULL
from prove.training.recorder import Recorder


def plan_of(run: RunDir) -> dict[str, Any]:
    plans = json.loads((run.path.parent.parent / "plan.json").read_text())
    return {"steps": 3, "seconds": 0.0, **plans.get("default", {}), **plans.get(str(read_json(run.job)["seed"]), {})}


def main(arguments: list[str]) -> int:
    """Pretends to train the job of a run folder; a checkpoint is an empty file, written after each iteration."""
    run = RunDir(Path(arguments[0]))
    try:
        plan, launch = plan_of(run), read_json(run.launch)
        if "silent" in plan:
            print("this worker can't start", file=sys.stderr)
            return int(plan["silent"])
        with run.lock(), Recorder(run) as recorder:
            log = os.open(run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            return train(run, recorder, plan, launch)
    except ProveError as error:
        print(error, file=sys.stderr)
        return 2


def train(run: RunDir, recorder: Recorder, plan: dict[str, Any], launch: dict[str, Any]) -> int:
    asked = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if plan.get("deaf") else stop)
    begun = max(run.saved_iterations(), default=0)
    recorder.emit("started", host="here", pid=os.getpid(), launcher=launch["launcher"], device="cpu",
                  resumed_from=begun, max_iters=plan["steps"])  # fmt: skip
    if "data" in plan:
        write_json(run.env, {"data_fingerprint": plan["data"]})
    if plan.get("leaves"):
        subprocess.Popen(["sleep", "600"])
    if plan.get("full"):
        recorder.emit("interrupted", reason=DISK_FULL, iteration=begun)
        return 130
    kind = plan.get("fail")
    failures = plan.get("failures", [])
    if recorder.attempt <= len(failures):
        kind = failures[recorder.attempt - 1]
    if kind:
        recorder.emit("failed", failure=kind, message="as planned", advice="", iteration=begun)
        return 1
    for iteration in range(begun + 1, plan["steps"] + 1):
        time.sleep(plan["seconds"])
        recorder.emit("train", iteration=iteration, lr=0.1, loss=1 / iteration, terms={}, weights={},
                      seconds_per_iteration=plan["seconds"],
                      peak_memory_mib=plan.get("peak_memory_mib", 10.0))  # fmt: skip
        run.checkpoint(iteration).touch()
        if plan.get("die", {}).get(str(recorder.attempt)) == iteration:
            os.kill(os.getpid(), signal.SIGKILL)
        if asked:
            recorder.emit("interrupted", reason=f"signal {asked[0]}", iteration=iteration)
            return 130
    while "waits" in plan and not (run.path.parent.parent / plan["waits"]).exists():
        time.sleep(0.05)
        if asked:
            recorder.emit("interrupted", reason=f"signal {asked[0]}", iteration=plan["steps"])
            return 130
    result = {"iteration": plan["steps"], "metrics": {"mIoU": 12.5}}
    recorder.emit("finished", iteration=plan["steps"], reason="max_iters", last=result, best=result,
                  train_seconds=1.0, peak_memory_mib=10.0)  # fmt: skip
    return 0
