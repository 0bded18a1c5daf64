"""The worker of `benchmarks/pool.py`: a run that only says that it has started and finished."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from prove.rundir import RunDir
from prove.training.recorder import Recorder


def main(arguments: list[str]) -> int:
    run = RunDir(Path(arguments[0]))
    with run.lock(), Recorder(run) as recorder:
        sys.stdout = open(run.log, "a", encoding="utf-8")  # noqa: SIM115 - till the end
        recorder.emit(
            "started", host="here", pid=os.getpid(), launcher="local", device="cpu", resumed_from=0, max_iters=1
        )
        recorder.emit("finished", iteration=1, reason="max_iters", last=None, best=None, train_seconds=0.0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
