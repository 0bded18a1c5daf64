"""Finds out what has become of launched runs, from their events and from what still lives; nothing is guessed.

A run that a launch has claimed is settled when the task that was to do it is over: finished and failed runs have said
so themselves, of the others the launcher says why their worker is gone. While a task lives, or nobody can say whether
it does, its runs stay claimed.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prove.errors import ProveError
from prove.launch.fates import Fate, Fates, LocalFates, is_gone, seems_held
from prove.launch.folder import LaunchDir
from prove.launch.lives import Lives
from prove.launch.outcomes import read_outcomes
from prove.launch.regain import take_back
from prove.rundir import RunDir
from prove.spec.event import FailureKind, State
from prove.store.claims import Claim, LaunchRow, Settlement
from prove.store.clock import file_system_time
from prove.store.fold import MALFORMED

if TYPE_CHECKING:
    from prove.store import Store

SEEN_SECONDS = 5.0
"""After which a living pool has surely seen that a run was called off."""


def refresh(store: Store) -> list[str]:
    """Bring the database up to date: what the runs report, what has become of launches. Safe at any time, by anyone.

    Every command that reads states calls it first. Without open launches it costs two queries and a listing more than
    `Store.refresh`. In a database that several results folders share, launches of the others are left alone.

    Returns:
        What the user should know, such as that SLURM does not answer.
    """
    store.ingest()
    own = store.is_own
    if own:
        take_back(store)
    launches = [row for row in store.open_launches() if _can_be_settled(store, row, own)]
    notes = _settle_launches(store, launches) if launches else []
    store.reconcile()
    return notes


def _can_be_settled(store: Store, row: LaunchRow, own: bool) -> bool:
    """Whether what a launch's folder says, or that it is gone, can be known from here."""
    folder = LaunchDir.of(store.results_folder, row.id)
    return os.path.lexists(folder.path) or (own and is_gone(folder))


def cancel(store: Store, keys: Iterable[str]) -> list[str]:
    """Call off runs: one that waits is not started, one that runs writes a checkpoint and stops.

    The states change with the next `refresh`. Runs that nobody has claimed change at once.

    Returns:
        What the user should know.
    """
    wanted = set(keys)
    store.reset(wanted, State.CANCELLED)
    claims = [claim for claim in store.claims() if claim.key in wanted]  # after it: also what was claimed meanwhile
    elsewhere: set[str] = set()
    for claim in claims:
        try:
            LaunchDir.of(store.results_folder, claim.launch).call_off(claim.key)
        except OSError:  # the folder is gone: the launch is over, `refresh` frees its runs; or not to be seen from here
            elsewhere.add(claim.launch)
    freed = store.states(claim.key for claim in claims)  # meanwhile, by who did not see yet that it is called off
    store.reset((key for key, found in freed.items() if found in _LEFT_UNDONE), State.CANCELLED)
    with_slurm = {row.id: row for row in store.open_launches() if row.launcher == "slurm"}
    touched = {claim.launch for claim in claims if claim.launch in with_slurm} - elsewhere
    notes = []
    if elsewhere and not store.is_own:
        names = ", ".join(sorted(elsewhere))
        notes = [f"Runs of another results folder are called off there: nothing was done about launch {names}."]
    if not touched:
        return notes
    from prove.launch.slurm_fates import withdraw

    try:
        withdraw([(with_slurm[each], _all_called_off(store, each)) for each in touched], store.results_folder)
    except ProveError as error:
        notes.append(f"{error.message} The runs are called off; their jobs end as soon as they start.")
    return notes


_LEFT_UNDONE = ((State.PLANNED, None), (State.INTERRUPTED, None))
"""State and launch of a run that was given up."""


def _all_called_off(store: Store, launch_id: str) -> set[int]:
    """Tasks of a launch with nothing left to do but what was called off."""
    called_off = LaunchDir.of(store.results_folder, launch_id).called_off()
    by_task = defaultdict(list)
    for claim in store.claims(launch_id):
        by_task[claim.task].append(claim.key in called_off)
    return {task for task, off in by_task.items() if all(off)}


def _settle_launches(store: Store, launches: Sequence[LaunchRow]) -> list[str]:
    notes: list[str] = []
    fates = {row.id: LocalFates(row, store.results_folder) for row in launches if row.launcher != "slurm"}
    with_slurm = [row for row in launches if row.launcher == "slurm"]
    everyone: dict[str, Fates] = dict(fates)
    if with_slurm:
        from prove.launch.slurm_fates import slurm_fates

        found, notes = slurm_fates(store, with_slurm)
        everyone |= found
    by_launch = defaultdict(list)
    for claim in store.claims():
        by_launch[claim.launch].append(claim)
    settlements = [
        settlement
        for row in launches
        for settlement in judge(row, by_launch[row.id], everyone[row.id], LaunchDir.of(store.results_folder, row.id))
    ]
    store.settle(settlements)
    left = {claim.launch for claim in store.claims()}
    for row in launches:
        if row.id not in left:
            notes += _close(store, row, everyone[row.id])
    return notes


def _close(store: Store, row: LaunchRow, fates: Fates) -> list[str]:
    """End a launch that holds no run any more, as far as that can be done now."""
    folder = LaunchDir.of(store.results_folder, row.id)
    if seems_held(folder):
        return []  # its command has only begun, or has nothing to do and will end
    if not fates.over():
        return fates.withdraw()
    with suppress(OSError):  # gone, or its disk is full
        folder.close()
    store.close_launch(row.id)
    return []


def judge(row: LaunchRow, claims: Sequence[Claim], fates: Fates, folder: LaunchDir) -> Iterator[Settlement]:
    """What has become of the runs that a launch holds; those of which nothing is new are left out."""
    called_off = folder.called_off()
    seen = _seen_off(folder, called_off.intersection(claim.key for claim in claims))
    sizes = Counter(claim.task for claim in claims)
    ended: dict[int, list[tuple[Claim, Lives]]] = defaultdict(list)
    for claim in claims:
        fate = fates.of(claim.task)
        if _has_ended(claim, fate):
            yield Settlement(claim.key, row.id, None)
            continue
        run = RunDir.of(folder.results, claim.key)
        if fate.alive:
            if settlement := _while_alive(claim, fate, called_off, seen, run):
                yield settlement
        elif fate.alive is False and not seems_held(run):
            lives = Lives.of(run, fates.launcher(claim.task), row.created_at)
            ended[claim.task].append((claim, lives))
    for task, runs in ended.items():
        fate = fates.of(task)
        outcomes = _outcomes(folder, task)
        spoke = len(runs) < sizes[task] or any(lives.attempts for _, lives in runs)
        last_words = "" if spoke or outcomes else fates.last_words(task)
        for claim, lives in runs:
            if claim.key in called_off:
                yield Settlement(claim.key, row.id, State.CANCELLED)
            else:
                yield _when_over(row, claim, fate, lives, last_words, outcomes.get(claim.key))


def _has_ended(claim: Claim, fate: Fate) -> bool:
    """Whether the run's own events have said its end; a living pool may try alone what had too little memory."""
    if claim.state is State.FAILED and claim.failure is FailureKind.OUT_OF_MEMORY:
        return fate.alive is False
    return claim.state in (State.FINISHED, State.FAILED, State.CANCELLED)


def _seen_off(folder: LaunchDir, called_off: Collection[str]) -> set[str]:
    """The runs of which a living pool has surely seen that they are called off, and starts them no more."""
    try:
        before = file_system_time(folder.path) - SEEN_SECONDS if called_off else 0.0
        return {key for key in called_off if os.stat(folder.path / "cancelled" / key).st_mtime < before}
    except OSError:
        return set()  # it can't be known


def _outcomes(folder: LaunchDir, task: int) -> dict[str, tuple[FailureKind, str]]:
    """Why runs of a task could not start or died too often, as its pool noted."""
    noted: dict[str, Any] = read_outcomes(folder.outcome(task))
    with suppress(*MALFORMED):  # not of this PROVE
        return {key: (FailureKind(each["kind"]), str(each["message"])) for key, each in noted.items()}
    return {}


def _while_alive(
    claim: Claim, fate: Fate, called_off: Collection[str], seen: Collection[str], run: RunDir
) -> Settlement | None:
    running = claim.state is State.RUNNING and not fate.waiting
    if claim.key in called_off:
        may_start = claim.key not in seen and not fate.waiting
        return None if running or may_start or seems_held(run) else Settlement(claim.key, claim.launch, State.CANCELLED)
    if claim.state is State.FAILED:
        return None
    if claim.state is State.QUEUED or running:
        return None
    return Settlement(claim.key, claim.launch, State.QUEUED)


def _when_over(
    row: LaunchRow,
    claim: Claim,
    fate: Fate,
    lives: Lives,
    last_words: str,
    outcome: tuple[FailureKind, str] | None,
) -> Settlement:
    """The settlement of a run whose task is over and whose events have not said how it ended.

    Args:
        last_words: what the task printed, when none of its runs has reported anything and its pool has noted nothing.
        outcome: what its pool noted of the run.
    """
    if fate.cancelled:
        return Settlement(claim.key, row.id, State.CANCELLED, message=fate.why)
    if outcome is not None:
        return Settlement(claim.key, row.id, State.FAILED, *outcome)
    if fate.at_once:
        return Settlement(claim.key, row.id, State.FAILED, fate.kind, fate.why)
    stopped_by_hand = row.launcher == "local" and lives.ending == "interrupted"
    if lives.attempts >= row.max_attempts and not stopped_by_hand:
        times = "once" if lives.attempts == 1 else f"{lives.attempts} times"
        return Settlement(claim.key, row.id, State.FAILED, fate.kind, f"{fate.why} It was started {times}.")
    if last_words and lives.attempts == 0:
        message = f"The worker ended before its first word. {fate.why}\n{last_words}"
        return Settlement(claim.key, row.id, State.FAILED, FailureKind.ERROR, message)
    if claim.state is State.INTERRUPTED:
        return Settlement(claim.key, row.id, None)  # its own event says why
    state = State.INTERRUPTED if claim.attempts else State.PLANNED
    return Settlement(claim.key, row.id, state, message=fate.why if claim.attempts else "")
