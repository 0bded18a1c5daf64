"""Carry out one plan: check, register, start the worker, follow it to its end."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prove.catalog.losses import short
from prove.cli.progress import Progress
from prove.cli.request import Plan
from prove.data.check import check
from prove.errors import ProveError
from prove.launch import follow, start_worker
from prove.rundir import RunDir, write_atomically, write_json
from prove.spec.event import State
from prove.store import Store

if TYPE_CHECKING:
    from prove.store import RunRow

EXIT_CODES = {State.FINISHED: 0, State.INTERRUPTED: 130}
"""All other states in which a worker can end are failures: 1."""


def execute(plan: Plan, results: Path, *, restart: bool, progress: Progress) -> RunRow:
    """Train one job and record it; a finished one is not trained again unless ``restart``.

    Raises:
        ProveError: the data has faults, the folder can't be written, or another process trains the job.
    """
    images = sum(len(split) for split in plan.dataset.splits)
    progress.note(f"checking {images} images of {plan.job.dataset_name} (only what has changed is read)")
    check(plan.dataset).raise_if_bad()
    run = RunDir.of(results, plan.job.key)
    run.create()
    with Store.open(results) as store:
        store.upsert(plan.job, short(plan.job.loss))
        store.refresh()
        row = store.run(plan.job.key)
        if row.state is State.FINISHED and not restart:
            progress.note(f"Run {row.key} is finished already; --restart trains it again.")
            return row
        if run.is_held():
            raise ProveError(
                f"Run {row.key} is being trained by another process.", hint=f"Follow it with `prove logs {row.key} -f`."
            )
        if restart:
            forget_progress(run)
        prepare(run, plan)
        complain = train(run, progress)
        store.refresh()
        row = store.run(plan.job.key)
    if row.state not in (State.FINISHED, State.FAILED, State.INTERRUPTED):
        raise ProveError(f"The worker of {row.key} could not start: {complain or 'it said nothing'}")
    return row


def prepare(run: RunDir, plan: Plan, *, proof_only: bool = False) -> None:
    """Write what the worker reads.

    Args:
        proof_only: prove the wiring and train nothing.
    """
    write_json(run.job, plan.job.to_dict())
    placement = dataclasses.asdict(plan.placement)
    write_json(run.launch, {"launcher": "local", "placement": placement, "proof_only": proof_only})
    if plan.model_config is not None:
        text = plan.model_config.encode()
        write_atomically(run.model_config, lambda file: file.write(text))


def forget_progress(run: RunDir) -> None:
    """Take away the checkpoints and counts of earlier attempts; what they reported stays in the events."""
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    run.checkpoints.mkdir()
    for path in (run.confusion, run.best_confusion, run.evidence):
        path.unlink(missing_ok=True)


def train(run: RunDir, progress: Progress) -> str:
    """Start the worker and show its events; Ctrl-C asks it to checkpoint and stop, a second one ends it.

    Returns:
        What it wrote before its log was open: nothing, unless it could not start.
    """
    start = run.events.stat().st_size if run.events.exists() else 0
    worker = start_worker(run)
    with progress, _passing_signals_to(worker):
        for event in follow(run, worker, start):
            progress.show(event)
    assert worker.stderr is not None
    return worker.stderr.read().decode(errors="replace").strip()


@contextmanager
def _passing_signals_to(worker: subprocess.Popen[bytes]) -> Iterator[None]:
    def pass_on(number: int, frame: Any) -> None:
        if worker.poll() is None:
            os.kill(worker.pid, number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
