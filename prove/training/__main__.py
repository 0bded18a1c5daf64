"""``python -m prove.training RUN_DIR``: the worker process of one run."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

import prove
from prove.errors import ProveError
from prove.provenance import code_when_loaded
from prove.rundir import RunDir, read_json
from prove.spec.event import FailureKind
from prove.training.recorder import Recorder


def main(arguments: list[str]) -> int:
    """Train the job of the named run folder.

    Returns:
        0 finished, 1 failed, 2 the request was wrong, 130 interrupted.
    """
    if len(arguments) != 1:
        print("usage: python -m prove.training RUN_DIR", file=sys.stderr)
        return 2
    run = RunDir(Path(arguments[0]).resolve())
    try:
        launch = read_json(run.launch)
        with run.lock():
            _prepare(launch)
            code_when_loaded(Path(prove.__file__).parent)
            with Recorder(run) as recorder:
                _log_to(run)
                signal.signal(signal.SIGTERM, _interrupt)
                try:
                    from prove.training.worker import attempt
                except KeyboardInterrupt:
                    recorder.emit("interrupted", reason="interrupted while starting", iteration=0)
                    return 130
                except Exception as error:  # the stack may be broken in any way: the run's record says how
                    traceback.print_exc()
                    kind = FailureKind.ERROR
                    recorder.emit(
                        "failed",
                        failure=kind,
                        message=f"{type(error).__name__}: {error}",
                        advice=kind.advice,
                        iteration=0,
                    )
                    return 1
                return attempt(run, recorder)
    except ProveError as error:
        print(error, file=sys.stderr)
        return 2


def _prepare(launch: dict[str, object]) -> None:
    """What must be in place before torch is imported."""
    placement = launch["placement"]
    assert isinstance(placement, dict)
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # no checkpoint or backbone executes pickled code
    os.environ["OMP_NUM_THREADS"] = str(placement["threads"])
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if not placement["cuda"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Until training listens for signals itself, SIGTERM is what Ctrl-C is."""
    raise KeyboardInterrupt(f"signal {signal.Signals(number).name}")


def _log_to(run: RunDir) -> None:
    """From here on, whatever anyone prints goes to the run's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = sys.stderr = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115 - till the end


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
