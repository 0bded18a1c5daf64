"""`prove cancel` and `prove retry`."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from prove.cli.launching import (
    AttemptsOption,
    DetachOption,
    JobsOption,
    LauncherOption,
    PerGpuOption,
    SlurmOption,
    exit_code,
    how_to_launch,
    launch,
)
from prove.cli.options import RESULTS, JsonOption, ResultsOption, notes, print_json
from prove.cli.selection import AllOption, ExperimentOption, KeysArgument, WhereOption, select
from prove.errors import ProveError, unknown
from prove.spec.event import FailureKind, State
from prove.store import Store

RESTARTABLE = (State.FAILED, State.CANCELLED)


def cancel(
    keys: KeysArgument = None,
    experiment: ExperimentOption = None,
    where: WhereOption = None,
    everything: AllOption = False,
    results: ResultsOption = RESULTS,
    json_output: JsonOption = False,
) -> None:
    """Call off runs: waiting ones don't start, running ones stop.

    A running one writes its checkpoint first. A sweep does not launch them again; `prove retry` does.
    """
    from prove.launch.settle import cancel as call_off
    from prove.launch.settle import refresh

    with Store.open_existing(results) as store:
        refresh(store)
        chosen = select(store, keys, experiment, where, everything)
        moving = [run for run in chosen if run.state not in (State.FINISHED, State.CANCELLED, State.FAILED)]
        lone = [run.key for run in moving if run.state is State.RUNNING and run.launch is None]
        if lone and keys:
            raise ProveError(
                f"{', '.join(lone)} is trained by a `prove run` of its own.", hint="End it there with Ctrl-C."
            )
        said = call_off(store, [run.key for run in moving if run.key not in lone])
        said += refresh(store)
        after = Counter(state.value for state, _ in store.states([run.key for run in moving]).values())
    stopped = after.get(State.CANCELLED.value, 0)
    if json_output:
        print_json({"asked": len(chosen), "cancelled": stopped, "stopping": len(moving) - stopped - len(lone)})
        return
    for line in dict.fromkeys(said):
        notes().print(line)
    rest = len(chosen) - len(moving)
    notes().print(f"{stopped} cancelled" + (f", {rest} had ended before" if rest else ""))
    if len(moving) - stopped - len(lone) > 0:
        stopping = len(moving) - stopped - len(lone)
        notes().print(f"{stopping} called off: in a few seconds those that wait are out, those that run have saved.")
    if lone:
        notes().print(f"{len(lone)} left alone: a `prove run` of its own trains each.")


def retry(
    keys: KeysArgument = None,
    experiment: ExperimentOption = None,
    where: WhereOption = None,
    everything: AllOption = False,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", "-k", help="Only failures of this kind, such as out_of_memory.")
    ] = None,
    launcher: LauncherOption = None,
    jobs: JobsOption = None,
    per_gpu: PerGpuOption = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads per run.")] = None,
    slurm: SlurmOption = None,
    max_attempts: AttemptsOption = None,
    detach: DetachOption = False,
    results: ResultsOption = RESULTS,
    json_output: JsonOption = False,
) -> None:
    """Launch failed and cancelled runs again.

    Each goes on from its checkpoint, if it has one.
    """
    from dataclasses import replace

    from prove.cli.again import of_launch_folders
    from prove.cli.sweeping import Prepared, names_of, of_run_folders
    from prove.launch.settle import refresh
    from prove.rundir import RunDir
    from prove.spec import Job

    for name in kind or ():
        if name not in list(FailureKind):
            raise unknown("kind of failure", name, [each.value for each in FailureKind])
    flags = {
        "launcher": launcher, "jobs": jobs, "per_gpu": per_gpu, "threads": threads, "max_attempts": max_attempts,
        "detach": detach or None,
    }  # fmt: skip
    how = how_to_launch({}, flags, slurm)
    with Store.open_existing(results) as store:
        refresh(store)
        chosen = [
            run
            for run in select(store, keys, experiment, where, everything)
            if run.state in RESTARTABLE and run.launch is None and (not kind or run.failure in kind)
        ]
        begun = [run.key for run in chosen if RunDir.of(results, run.key).launch.exists()]
        prepared = of_run_folders(store, begun)
        if how.launcher == "local" and threads is None and prepared.assignments:
            # With as many threads as before: their number changes bits.
            before = max(int(each.placement["threads"]) for each in prepared.assignments)
            how = replace(how, options={**how.options, "threads": before})
        waiting = of_launch_folders(results, {run.key for run in chosen}.difference(begun))
        prepared = Prepared((*prepared.assignments, *waiting.assignments), {**prepared.files, **waiting.files})
        known = {each.key for each in prepared.assignments}
        unstarted = [run.key for run in chosen if run.key not in known]
        store.reset(unstarted, State.PLANNED)
        names = names_of(Job.from_dict(each.job) for each in prepared.assignments)
        done = launch(store, prepared, how, names, experiment=experiment, states=RESTARTABLE, quiet=json_output)
        counts = Counter(state for state, _ in store.states([run.key for run in chosen]).values())
    code = exit_code(done, counts)
    if json_output:
        print_json(
            {
                "chosen": len(chosen),
                "launch": done.launch,
                "launched": done.runs,
                "planned": len(unstarted),
                "slurm_jobs": list(done.slurm_jobs),
                "counts": {state.value: counts[state] for state in State},
            }
        )
        raise typer.Exit(code)
    if not chosen:
        notes().print("None of these runs has failed or was cancelled.")
    elif done.runs:
        notes().print(", ".join(f"{counts[state]} {state}" for state in State if counts[state]))
    if unstarted:
        notes().print(
            f"{len(unstarted)} were never launched: they are planned again, for the next `prove sweep` that names them."
        )
    raise typer.Exit(code)
