"""Runs of a tiny model, each in a process forked from one that has imported the stack."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prove.cli.execute import prepare
from prove.cli.request import RunRequest, plan
from prove.rundir import RunDir

TINY = {"dataset": "CamVid", "model": "fcn_tiny", "batch_size": 2, "crop_size": "64x64", "device": "cpu", "threads": 1,
        "max_iters": 2, "eval_interval": 2, "early_stop": False}  # fmt: skip


class Runs:
    """Makes run folders of tiny jobs and trains them."""

    def __init__(self, camvid: Path, results: Path) -> None:
        self.camvid = camvid
        self.results = results

    def make(self, results: str = "a", **changes: Any) -> RunDir:
        chosen = plan(RunRequest(**{**TINY, "data_root": str(self.camvid), **changes}))
        run = RunDir.of(self.results / results, chosen.job.key)
        run.create()
        prepare(run, chosen)
        return run

    def start(self, run: RunDir, before: Callable[[], None] = lambda: None) -> int:
        """Fork a worker; ``before`` runs in it first. Returns its process id."""
        from prove.training import registered  # noqa: F401 - imported here, once, for every fork
        from prove.training.__main__ import main

        child = os.fork()
        if child:
            return child
        code = 70
        try:
            warnings.simplefilter("default")
            signal.signal(signal.SIGINT, signal.default_int_handler)
            before()
            code = main([str(run.path)])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def train(self, run: RunDir, before: Callable[[], None] = lambda: None) -> int:
        """Train to the end; returns the worker's exit code (negative: the signal that killed it)."""
        return os.waitstatus_to_exitcode(os.waitpid(self.start(run, before), 0)[1])


def events(run: RunDir, kind: str | None = None) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in run.events.read_text().splitlines()] if run.events.exists() else []
    return [event for event in found if kind in (None, event["kind"])]


def wait_for(run: RunDir, kind: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if run.events.exists() and f'"kind":"{kind}"' in run.events.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"no {kind} event within {seconds} s:\n{run.log.read_text() if run.log.exists() else ''}")
