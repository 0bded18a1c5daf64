"""Runs many jobs on few slots, one process each; ``python -m prove.launch.pool LAUNCH_DIR`` does it on its own."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from prove.errors import ProveError
from prove.launch.folder import Assignment, LaunchDir
from prove.launch.lines import Lines
from prove.launch.loop import Pool, Show
from prove.launch.slots import Slot, machine_for, slots
from prove.launch.timing import TIMING, Timing
from prove.launch.view import PoolOutcome

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals that stop a pool."""


def run_pool(
    launch: LaunchDir,
    assignments: Sequence[Assignment],
    places: Sequence[Slot],
    *,
    launcher: str,
    task: int = 0,
    show: Show | None = None,
    timing: Timing = TIMING,
) -> PoolOutcome:
    """Do the runs of a launch, or of one of its tasks, on these slots; whoever calls holds the launch's lock.

    A run whose worker was killed goes on from its checkpoint, behind the others, until it was started as often as the
    launch allows. A run that another process trains is waited for. A signal stops the pool: its workers checkpoint and
    stop; a second SIGINT ends them. In the launch folder the heartbeat is touched, and word is left of the runs that
    could not start or died too often; the database is not opened.

    Args:
        launcher: what the runs' records say of who started them.
        task: the launch's task that these runs are.
        show: is called a few times a second, and must be quick.
    """
    pool = Pool(launch, assignments, places, launcher, task, show or (lambda view: None), timing)
    with _hearing(pool.stop):
        return pool.run()


def run_launch(launch: LaunchDir, assignments: Sequence[Assignment], *, show: Show | None = None) -> PoolOutcome:
    """Do the runs of a local launch on this machine, on as many slots as it has or its options want.

    Raises:
        ProveError: the slots can't be had.
    """
    places = local_slots(launch.read().options, assignments)
    return run_pool(launch, assignments, places, launcher="local", show=show)


@contextmanager
def _hearing(stop: Callable[[int], None]) -> Iterator[None]:
    """Inside, the signals of `STOPPING` call ``stop``; only the main thread can hear them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def heard(number: int, frame: FrameType | None) -> None:
        stop(number)

    # What is ignored stays ignored: `nohup` says so of SIGHUP, a shell of SIGINT for what it starts in the background.
    wanted = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, heard) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def local_slots(options: Mapping[str, Any], assignments: Sequence[Assignment]) -> tuple[Slot, ...]:
    """Places on this machine for the runs of a local launch, as its options ``jobs, per_gpu, threads`` want them.

    Raises:
        ProveError: they can't be had, or a run is to train on CUDA and no GPU is here.
    """
    per_gpu = options.get("per_gpu")
    workers = max((int(each.placement["num_workers"]) for each in assignments), default=0)
    machine = machine_for(each.device for each in assignments)
    if not machine.gpus and any(each.device == "cuda" for each in assignments):
        raise ProveError(
            "--device cuda, but no CUDA device is visible here.", hint="`prove doctor` says what this machine has."
        )
    return slots(
        machine,
        len(assignments),
        jobs=options.get("jobs"),
        per_gpu=per_gpu if per_gpu in (None, "auto") else int(per_gpu),
        threads=options.get("threads"),
        workers=workers,
    )


def check_slots(options: Mapping[str, Any], assignments: Sequence[Assignment]) -> None:
    """Refuse a local launch that could not run here, before anything is claimed for it or detached.

    Raises:
        ProveError: as `local_slots`.
    """
    if assignments:
        local_slots(options, assignments)


@contextmanager
def _locked(launch: LaunchDir, inherited: int | None) -> Iterator[None]:
    """Hold the launch's lock: the one that was inherited, or one's own."""
    if inherited is None:
        with launch.lock():
            yield
    else:
        os.set_inheritable(inherited, False)  # workers that outlive this process don't hold it
        yield


def main(arguments: list[str] | None = None) -> int:
    """Do the runs of a local launch, and say in plain lines what happens.

    Returns:
        0 all is done, 1 a run failed, 2 the request was wrong, 130 stopped.
    """
    parser = argparse.ArgumentParser(prog="python -m prove.launch.pool", description="Does the runs of a launch.")
    parser.add_argument("launch", type=Path, metavar="LAUNCH_DIR")
    parser.add_argument("--lock", type=int, metavar="FD", help="inherited descriptor that holds the launch's lock")
    asked = parser.parse_args(arguments)
    launch = LaunchDir(asked.launch.resolve())
    try:
        launch.read()  # a folder that is not there is not for the lock to find out
        with _locked(launch, asked.lock):
            outcome = run_launch(launch, launch.assignments(0), show=Lines(partial(print, flush=True)))
    except ProveError as error:
        print(error, file=sys.stderr)
        return 2
    for key, why in {**outcome.failed, **outcome.not_started}.items():
        print(f"{key}: {why}", flush=True)
    if outcome.signal:
        print(f"stopped by {outcome.signal}", flush=True)
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main())
