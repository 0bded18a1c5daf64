"""``python -m prove.launch.task LAUNCH_DIR``: one element of a SLURM array, which does the runs of one task.

When it is told to stop (SIGUSR1: the time limit is near; SIGTERM: preempted, requeued or cancelled), its workers
checkpoint and stop. What is then left to do is done by the same element, put back into the queue: by SLURM where that
has taken the allocation away, by `scontrol requeue` from here where it has not.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from prove.errors import ProveError
from prove.launch.folder import Assignment, Launch, LaunchDir
from prove.launch.lives import Lives
from prove.launch.pool import run_pool
from prove.launch.slots import Slot, machine_for, slots
from prove.launch.slurm import ask
from prove.launch.slurm_options import SlurmOptions
from prove.rundir import RunDir

WARNING = signal.SIGUSR1
"""What SLURM sends before the time limit."""

GAVE_UP = 1
"""Exit code: something is left undone."""

REQUEUE_TRIES = 6
"""How often SLURM is asked to take the task back, ten seconds apart: its controller may be restarting."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what one task has to do; 0 when nothing is left of it, or when it is in the queue again."""
    parser = argparse.ArgumentParser(prog="python -m prove.launch.task")
    parser.add_argument("launch", type=Path)
    parser.add_argument("--offset", type=int, default=0, help="number of the array's first task")
    asked = parser.parse_args(arguments)
    try:
        return perform(LaunchDir(asked.launch), asked.offset, os.environ)
    except ProveError as error:
        print(error, file=sys.stderr)
        return 2


def perform(folder: LaunchDir, offset: int, environment: Mapping[str, str]) -> int:
    """Do the runs of the element that the environment names, then see to what is left.

    Raises:
        ProveError: this is no SLURM array, or the launch folder is not complete.
    """
    try:
        job, index = environment["SLURM_ARRAY_JOB_ID"], int(environment["SLURM_ARRAY_TASK_ID"])
    except KeyError:
        raise ProveError(
            "This is not an element of a SLURM array.", hint="Use `prove sweep --launcher slurm`."
        ) from None
    if folder.is_closed:
        print(f"Launch {folder.id} is closed: nothing to do.")
        return 0
    number = offset + index
    launch, element = folder.read(), f"{job}_{index}"
    options = SlurmOptions.from_dict(launch.options)
    assignments = folder.assignments(number)
    launcher = f"slurm {element}"
    todo = left(folder, launch, assignments, launcher)
    print(f"{element}: task {number} of launch {folder.id}, {len(todo)} runs to do", flush=True)
    if not todo:
        return 0
    time_is_up(folder, number).unlink(missing_ok=True)
    warned = listen_for_warning()
    outcome = run_pool(folder, todo, places(options, todo, environment), launcher=launcher, task=number)
    if warned.is_set():
        time_is_up(folder, number).touch()
    todo = left(folder, launch, todo, launcher)
    restarts = int(environment.get("SLURM_RESTART_COUNT", "0"))
    print(f"{element}: {len(outcome.finished)} finished, {len(todo)} left to do", outcome.signal, flush=True)
    if not todo or not outcome.signal or folder.is_closed:
        return GAVE_UP if outcome.failed or outcome.not_started or outcome.interrupted else 0
    if not options.requeue or restarts + 1 >= launch.max_attempts * len(assignments):
        return GAVE_UP
    return requeue(element)


def time_is_up(folder: LaunchDir, number: int) -> Path:
    """Is there when a task was stopped for its time limit."""
    return folder.slurm / f"time_is_up_{number}"


def listen_for_warning() -> threading.Event:
    """From now on, stop the pool when the time limit is near; the event says whether that was so.

    SLURM sends the warning to every process of the step, also to those that would die of it. So it is blocked, here
    and in all that is started from here, and waited for.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {WARNING})
    warned = threading.Event()

    def wait() -> None:
        signal.sigwait({WARNING})
        warned.set()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
    return warned


def left(folder: LaunchDir, launch: Launch, assignments: Sequence[Assignment], launcher: str) -> list[Assignment]:
    """Those that this launch has not finished, failed, called off, or started as often as it may."""
    called_off = folder.called_off()
    todo = []
    for each in assignments:
        lives = Lives.of(RunDir.of(folder.results, each.key), launcher, launch.created_at)
        if each.key not in called_off and not lives.concluded and lives.attempts < launch.max_attempts:
            todo.append(each)
    return todo


def places(options: SlurmOptions, todo: Sequence[Assignment], environment: Mapping[str, str]) -> tuple[Slot, ...]:
    """Where the runs of this allocation go: one after the other, or side by side, sharing its GPUs and cores.

    Raises:
        ProveError: GPUs were asked for, and none is here.
    """
    machine = machine_for(each.device for each in todo)
    if options.gpus not in (None, "0") and not machine.gpus and any(each.device != "cpu" for each in todo):
        raise ProveError(
            f"This task has asked SLURM for gpus={options.gpus}, but sees none: it would train on the CPU.",
            hint="Look at the cluster's GRES, or train on the CPU on purpose with --device cpu.",
        )
    if cores := environment.get("SLURM_CPUS_PER_TASK"):
        machine = replace(machine, cores=int(cores))
    side_by_side = options.pack if options.pack_mode == "parallel" else 1
    jobs = max(1, min(side_by_side, len(todo)))
    per_gpu = -(-jobs // len(machine.gpus)) if machine.gpus else None
    workers = max(int(each.placement.get("num_workers", 0)) for each in todo)
    return slots(machine, len(todo), jobs=jobs, per_gpu=per_gpu, workers=workers)


def requeue(element: str) -> int:
    """Put this element back into the queue, unless SLURM itself is ending it: then it is not ours to say."""
    for attempt in range(REQUEUE_TRIES):
        if attempt:
            time.sleep(10)
        try:
            if (state := ask("squeue", "-h", "-j", element, "-o", "%T").strip()) != "RUNNING":
                print(f"{element}: SLURM ends it ({state or 'it is gone'})", flush=True)
                return GAVE_UP
            ask("scontrol", "requeue", element)
        except ProveError as error:
            print(f"{element}: {error}", file=sys.stderr, flush=True)
        else:
            print(f"{element}: back into the queue", flush=True)
            return 0
    return GAVE_UP


if __name__ == "__main__":
    sys.exit(main())
