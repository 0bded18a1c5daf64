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
from prove.catalog.strategies import GENERATED, resolve_strategy
from prove.catalog.user_terms import terms_of
from prove.cli.own_terms import require_sound
from prove.cli.progress import Progress
from prove.cli.request import Plan, with_weights
from prove.data.check import check
from prove.data.manifest import fingerprint
from prove.errors import ProveError
from prove.launch.prepare import prepare as write_run
from prove.launch.settle import refresh
from prove.launch.worker import events_since, follow, start_worker
from prove.rundir import RunDir, hold, read_json
from prove.spec.event import State
from prove.store import Store

if TYPE_CHECKING:
    from prove.store import RunRow

EXIT_CODES = {State.FINISHED: 0, State.INTERRUPTED: 130}
"""All other states in which a worker can end are failures: 1."""

ENDED = (State.FINISHED, State.FAILED, State.INTERRUPTED)
"""States in which a worker can end."""


ASIDE = "replaced-"
"""Folder for what a restart replaces, until its worker has started; the size of the events at that time follows."""


def execute(plan: Plan, results: Path, *, restart: bool, progress: Progress) -> RunRow:
    """Train one job and record it; a finished one is not trained again unless ``restart``.

    Raises:
        ProveError: the data has faults, or is not what the finished run was trained on; the code of a term can't be
            used, the weights can't be had, the folder can't be written, another process trains the job, or the worker
            never got as far as its first word.
    """
    images = sum(len(split) for split in plan.dataset.splits)
    progress.note(f"checking {images} images of {plan.job.dataset_name} (only what has changed is read)")
    report = check(plan.dataset)
    report.raise_if_bad()
    if resized := sum(finding.kind == "resized_image" for finding in report.warnings):
        progress.note(f"{resized} generated images are resized to the size of their labels")
    run = RunDir.of(results, plan.job.key)
    settle_restart(run)
    done = finished_row(plan, results)
    if done is not None and not restart:
        require_same_data(plan, run)
        progress.note(f"Run {done.key} is finished already; --restart trains it again.")
        return done
    require_sound(terms_of(plan.job.loss))
    plan = with_weights(plan)
    run.create()
    if run.is_held():
        raise ProveError(
            f"Run {run.key} is being trained by another process.", hint=f"Follow it with `prove logs {run.key} -f`."
        )
    with Store.open(results) as store:
        refresh(store)
        claimed = store.upsert(plan.job, short(plan.job.loss)).launch
        if claimed is not None:
            raise ProveError(
                f"Run {run.key} is in the hands of launch {claimed}, which will start it.",
                hint=f"Follow it with `prove watch`, or take it back with `prove cancel {run.key}`.",
            )
        if restart:
            set_aside(run)
        prepare(run, plan)
        before = _size(run.events)
        complaint = train(run, progress)
        settle_restart(run)
        refresh(store)
        row = store.run(run.key)
    if not events_since(run, before) or row.state not in ENDED:
        kept = f"Nothing has changed: the run is {row.state} as before." if row.state in ENDED else ""
        raise ProveError(f"The worker of {row.key} could not start: {complaint or 'it said nothing'}", hint=kept)
    if complaint and row.state is State.INTERRUPTED:
        progress.note(f"run {row.key}: {complaint}")
    return row


def finished_row(plan: Plan, results: Path) -> RunRow | None:
    """The record of a job that is finished already, or None; where nothing is recorded, nothing is created."""
    if Store.holds_nothing(results):
        return None
    with Store.open(results) as store:
        refresh(store)
        row = store.find(plan.job.key)
        if row is None or row.state is not State.FINISHED:
            return None
        return store.upsert(plan.job, short(plan.job.loss))


def require_same_data(plan: Plan, run: RunDir) -> None:
    """Refuse to answer with a result of other images or labels than those that were asked for.

    Raises:
        ProveError: they differ, or the run folder no longer says what it was trained on.
    """
    ways_out = "Train on these with --restart, which replaces that run, or beside it with another --results DIR."
    before = trained_on(run)
    if before is None:
        raise ProveError(
            f"Run {run.key} is finished, but {run.env} no longer says what images and labels it was trained on.",
            hint=ways_out,
        )
    now = {"train": fingerprint(plan.dataset.train), "val": fingerprint(plan.dataset.val)}
    changed = [split for split, value in now.items() if before.get(split) != value]
    if changed:
        generated = resolve_strategy(plan.job.strategy).generated if "train" in changed else None
        raise ProveError(
            f"Run {run.key} was trained on other images or labels under the same name: the {' and '.join(changed)} "
            f"split of {plan.job.dataset_name} differs from the one in {plan.dataset.root}"
            + (f", or the images of {GENERATED}{generated} from those there are now." if generated else "."),
            hint=ways_out,
        )


def trained_on(run: RunDir) -> dict[str, str] | None:
    """Fingerprints of the images and labels that a run was trained and validated on, by split; None if it can't say."""
    found = read_json(run.env).get("data_fingerprint") if run.env.exists() else None
    return found if isinstance(found, dict) else None


def prepare(run: RunDir, plan: Plan, *, proof_only: bool = False) -> None:
    """Write what the worker reads.

    Args:
        proof_only: prove the wiring and train nothing.
    """
    write_run(
        run,
        plan.job.to_dict(),
        dataclasses.asdict(plan.placement),
        model_config=None if plan.model_config is None else plan.model_config.encode(),
        terms={term.name: (term.text.encode(), term.python) for term in terms_of(plan.job.loss)},
        proof_only=proof_only,
    )


def set_aside(run: RunDir) -> None:
    """Put what earlier attempts made out of a restart's sight; what they reported stays in the events.

    Raises:
        ProveError: another process holds the folder.
    """
    with run.lock():
        _settle_asides(run)
        aside = run.path / f"{ASIDE}{_size(run.events)}"
        aside.mkdir()
        made = (run.checkpoints, run.confusion, run.best_confusion, run.predictions, run.best_predictions)
        for path in (*made, run.evidence, run.env, run.evaluations):
            if path.exists():
                path.rename(aside / path.name)
        run.checkpoints.mkdir()


def settle_restart(run: RunDir) -> None:
    """Drop what a restart set aside if its worker has started since; otherwise put it back.

    Left for the next time while a worker holds the folder. Also after a kill between the two, a finished run has its
    files again.
    """
    if any(run.path.glob(f"{ASIDE}*")):
        with hold(run.worker_lock) as held:
            if held is not None:
                _settle_asides(run)


def _settle_asides(run: RunDir) -> None:
    """`settle_restart`, by the one who holds the folder."""
    for aside in sorted(run.path.glob(f"{ASIDE}*")):
        start = int(aside.name.removeprefix(ASIDE))
        if not any(event["kind"] == "started" for event in events_since(run, start)):
            for path in sorted(aside.iterdir()):
                target = run.path / path.name
                if target.is_dir():
                    shutil.rmtree(target)
                path.replace(target)
        shutil.rmtree(aside)


def train(run: RunDir, progress: Progress) -> str:
    """Start the worker and show its events; Ctrl-C asks it to checkpoint and stop, a second one ends it.

    Returns:
        How it ended, if that was not of its own accord: the signal that killed it, what it wrote before its log was
        open. Empty otherwise.
    """
    start = _size(run.events)
    worker = start_worker(run)
    with progress, _passing_signals_to(worker):
        for event in follow(run, worker, start):
            progress.show(event)
    assert worker.stderr is not None
    with worker.stderr:
        complaint = worker.stderr.read().decode(errors="replace").strip()
    if worker.returncode < 0:
        killer = signal.Signals(-worker.returncode).name
        hint = (
            "; where memory runs out, the system does that: use a smaller --batch-size" if killer == "SIGKILL" else ""
        )
        complaint = f"its worker was killed by {killer}{hint}. {complaint}".strip()
    return complaint


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


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
