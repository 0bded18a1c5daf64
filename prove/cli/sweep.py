"""`prove sweep`: a matrix of runs, from a file or a line of flags to a finished set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prove.cli.launching import (
    AttemptsOption,
    DetachOption,
    JobsOption,
    LauncherOption,
    PerGpuOption,
    SlurmOption,
    gets_gpus,
    how_to_launch,
    launch,
)
from prove.cli.options import RESULTS, JsonOption, ResultsOption, console, notes, print_json
from prove.cli.own_terms import TermsOption
from prove.errors import ProveError
from prove.launch.lines import duration
from prove.spec.event import State

if TYPE_CHECKING:
    from prove.cli.launching import How, Launched
    from prove.cli.sweeping import Census, Wanted
    from prove.spec.experiment import Experiment
    from prove.store import Store

FileArgument = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="Experiment file (experiments/ has some); or give axes as flags."),
]
AxisText = list[str] | None


def _axis(flag: str, text: str) -> Any:
    return typer.Option(flag, metavar="VALUES", help=text, rich_help_panel="Axes")


def sweep(
    file: FileArgument = None,
    dataset: Annotated[AxisText, _axis("--dataset", "Names or YAML files, separated by commas, like all axes.")] = None,
    model: Annotated[AxisText, _axis("--model", "Names or config files.")] = None,
    strategy: Annotated[AxisText, _axis("--strategy", "What is trained on, how images are changed.")] = None,
    domain_filter: Annotated[AxisText, _axis("--domain-filter", "Conditions to train on: clear_day+cloudy.")] = None,
    real_gen_ratio: Annotated[AxisText, _axis("--real-gen-ratio", "Shares of real images, 0 to 1.")] = None,
    weights: Annotated[AxisText, _axis("--weights", "Files of pretrained backbones of your own.")] = None,
    aux_loss: Annotated[AxisText, _axis("--aux-loss", "Auxiliary losses beside CE: none,focal,lovasz,...")] = None,
    aux_weight: Annotated[AxisText, _axis("--aux-weight", "Weights of --aux-loss.")] = None,
    loss: Annotated[AxisText, _axis("--loss", 'Whole objectives: "ce,ce + 0.3*focal(gamma=2)".')] = None,
    seed: Annotated[AxisText, _axis("--seed", "0..2 is 0,1,2.")] = None,
    max_iters: Annotated[AxisText, _axis("--max-iters", "Optimiser steps.")] = None,
    batch_size: Annotated[AxisText, _axis("--batch-size", "Images per step.")] = None,
    crop_size: Annotated[AxisText, _axis("--crop-size", "HxW.")] = None,
    lr: Annotated[AxisText, _axis("--lr", "Learning rates.")] = None,
    eval_interval: Annotated[AxisText, _axis("--eval-interval", "Iterations between validations.")] = None,
    val_images: Annotated[AxisText, _axis("--val-images", "Images to validate on.")] = None,
    patience: Annotated[AxisText, _axis("--patience", "Validations without a rise.")] = None,
    min_delta: Annotated[AxisText, _axis("--min-delta", "Smallest rise, in points.")] = None,
    monitor: Annotated[AxisText, _axis("--monitor", "Metric that early stopping watches.")] = None,
    early_stop: Annotated[
        bool | None, typer.Option("--early-stop/--no-early-stop", help="Stop when the metric no longer rises.")
    ] = None,
    pretrained: Annotated[
        bool | None, typer.Option("--pretrained/--no-pretrained", help="Start from the pretrained backbone.")
    ] = None,
    amp: Annotated[bool | None, typer.Option("--amp/--no-amp", help="Mixed precision on CUDA.")] = None,
    data_root: Annotated[str | None, typer.Option("--data-root", help="Folder of the dataset.")] = None,
    gen_root: Annotated[str | None, typer.Option("--gen-root", help="Folder of generated images.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.  [default: auto]")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=0, help="Processes that load data, per run.")] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads per run.  [default: the cores, shared out]")
    ] = None,
    terms: TermsOption = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the experiment, with flags.")] = None,
    launcher: LauncherOption = None,
    jobs: JobsOption = None,
    per_gpu: PerGpuOption = None,
    slurm: SlurmOption = None,
    max_attempts: AttemptsOption = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Launch at most this many runs.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the matrix and what it costs; launch nothing.")
    ] = False,
    register_only: Annotated[
        bool, typer.Option("--register-only", help="Record the runs as planned; launch nothing.")
    ] = False,
    detach: DetachOption = False,
    results: ResultsOption = RESULTS,
    json_output: JsonOption = False,
) -> None:
    """Turn a matrix into a finished set of runs.

    Only what is missing is launched: the same command again goes on where the last one stopped. Axes take several
    values, separated by commas; `prove run --help` says what each of them means.
    """
    axes: dict[str, Any] = {
        "dataset": dataset, "model": model, "strategy": strategy, "loss": loss, "aux_loss": aux_loss,
        "aux_weight": aux_weight, "max_iters": max_iters, "batch_size": batch_size, "crop_size": crop_size, "lr": lr,
        "eval_interval": eval_interval, "val_images": val_images, "patience": patience, "min_delta": min_delta,
        "monitor": monitor, "early_stop": early_stop, "pretrained": pretrained, "amp": amp, "data_root": data_root,
        "device": device, "workers": workers, "seed": seed, "domain_filter": domain_filter,
        "real_gen_ratio": real_gen_ratio, "weights": weights, "gen_root": gen_root,
    }  # fmt: skip
    # An axis whose flag is given twice has the values of both.
    axes = {flag: ",".join(value) if isinstance(value, list) else value for flag, value in axes.items()}
    experiment = _experiment(file, axes, name, terms)
    flags: dict[str, Any] = {
        "launcher": launcher, "jobs": jobs, "per_gpu": per_gpu, "threads": threads, "max_attempts": max_attempts,
        "detach": detach or None,
    }  # fmt: skip
    if "threads" in experiment.train:
        flags["threads"] = threads or experiment.train["threads"]
    how = how_to_launch(experiment.launch, flags, slurm)
    if dry_run:
        _dry_run(experiment, results, json_output)
        return
    raise typer.Exit(_sweep(experiment, how, results, register_only, limit, json_output))


def _experiment(
    file: Path | None, flags: Mapping[str, Any], name: str | None, terms: Sequence[Path] | None
) -> Experiment:
    from dataclasses import replace

    from prove.spec.experiment import experiment_of_flags, of_flag, read_experiment
    from prove.spec.settings import SETTINGS

    if file is None:
        return experiment_of_flags(flags, name=name, terms=terms or ())
    given = {
        flag: value for flag, value in {**flags, "name": name, "terms": terms or None}.items() if value is not None
    }
    for flag in given:
        if flag not in SETTINGS or SETTINGS[flag].axis:
            raise ProveError(
                f"{file} says what is swept over, and so does --{flag.replace('_', '-')}.",
                hint=f"Change the file, or write one of your own that begins with `extends: {file}`.",
            )
    return replace(read_experiment(file), over={name: of_flag(name, value) for name, value in given.items()})


def _dry_run(experiment: Experiment, results: Path, json_output: bool) -> None:
    from prove.cli.request import Planner
    from prove.cli.sweeping import empty, jobs, require_known, survey
    from prove.launch.settle import refresh
    from prove.store import Store
    from prove.store.accounting import Rates, rates

    planner = Planner()
    require_known(experiment, planner)
    if Store.holds_nothing(results):
        census, found = survey(jobs(experiment, planner), lambda keys: {}, Rates({}, {}, {}))
        _exhaust(found)
    else:
        with Store.open(results) as store:
            refresh(store)
            census, found = survey(jobs(experiment, planner), store.states, rates(store.connection))
            _exhaust(found)
    if census.total == 0:
        raise empty()
    if json_output:
        print_json(_census_json(experiment, census))
        return
    show_census(experiment, census)
    _say(*planner.remarks)


def _exhaust(found: Any) -> None:
    for _ in found:
        pass


def _sweep(
    experiment: Experiment, how: How, results: Path, register_only: bool, limit: int | None, json_output: bool
) -> int:
    from functools import cache

    from prove.catalog.losses import short
    from prove.cli.request import Planner
    from prove.cli.sweeping import (
        names_of,
        possible_jobs,
        prepare,
        require_data,
        require_known,
        require_same_data,
        survey,
    )  # fmt: skip
    from prove.launch.settle import refresh
    from prove.launch.start import UNSTARTED
    from prove.store import Store
    from prove.store.accounting import rates

    planner = Planner()
    require_known(experiment, planner)
    found = possible_jobs(experiment, planner)  # a mistake is found before anything is written
    new = Store.holds_nothing(results)
    if new and not register_only:
        require_data(found(), lambda keys: {}, planner)
    with Store.open(results) as store:
        said = refresh(store)
        if not new and not register_only:
            require_data(found(), store.states, planner)
        known = rates(store.connection)
        census, surveyed = survey(found(), store.states, known)
        text_of = cache(short)
        store.register(((each.job, text_of(each.job.loss)) for each in surveyed), experiment.name)
        if experiment.name is not None:
            store.remember_study(experiment.name, experiment.report, experiment.description)
        if not json_output:
            _say(*said)
            show_census(experiment, census)
            _say(*planner.remarks)
        if register_only:
            if json_output:
                print_json(_census_json(experiment, census))
            return 0
        missing, finished = _missing(iter(found()), store, UNSTARTED, limit)
        say = (lambda text: None) if json_output else _say
        prepared = prepare(missing, planner, known, say, on_gpus=gets_gpus(how))
        require_same_data(missing, finished, planner, results)
        done = launch(
            store,
            prepared,
            how,
            names_of(each.job for each in missing),
            experiment=experiment.name,
            quiet=json_output,
        )
        return _conclude(store, experiment, found(), census, done, limit, json_output)


def _say(*lines: str) -> None:
    for line in lines:
        notes().print(line)


def _missing(found: Any, store: Store, states: Sequence[State], limit: int | None) -> tuple[list[Wanted], list[Wanted]]:
    """The jobs that nobody has taken on and that are to be started, in the matrix's order; and those that are finished.

    Each is in it once.
    """
    from itertools import islice

    from prove.cli.sweeping import CHUNK

    wanted: dict[str, Wanted] = {}
    finished: dict[str, Wanted] = {}
    while chunk := list(islice(found, CHUNK)):
        known = store.states([each.job.key for each in chunk])
        for each in chunk:
            state, claimed = known[each.job.key]
            if state is State.FINISHED:
                finished[each.job.key] = each
            elif state in states and claimed is None and (limit is None or len(wanted) < limit):
                wanted.setdefault(each.job.key, each)
    return list(wanted.values()), list(finished.values())


def show_census(experiment: Experiment, census: Census) -> None:
    """The matrix as tables, how many runs are in which state, and what the rest will cost."""
    from prove.cli.matrix_view import LETTERS, legend, matrix_tables

    out, counts = console(), census.counts
    out.print(f"{experiment.name or 'sweep'}: {census.total} run{'s' * (census.total != 1)}")
    for title, table in matrix_tables(census.cells):
        out.print("")
        out.print(title, style="bold")
        out.print(table)
    out.print("")
    out.print(f"{', '.join(f'{counts[state]} {state}' for state in LETTERS if counts[state])}  ({legend(counts)})")
    left = census.total - counts[State.FINISHED.value]
    if census.repeated:
        notes().print(f"{census.repeated} cells of the matrix are jobs that other cells are already.")
    if left and census.unknown < left:
        unknown = f", beside {census.unknown} runs unlike any that has finished" if census.unknown else ""
        out.print(f"to do: about {duration(census.seconds)} of training, one run after the other{unknown}")
    elif left:
        out.print("to do: no run like these has finished yet, so their cost is not known")


def _census_json(experiment: Experiment, census: Census) -> dict[str, Any]:
    counts = census.counts
    return {
        "experiment": experiment.name,
        "runs": census.total,
        "counts": {state: counts[state] for state in ("new", *(state.value for state in State))},
        "repeated_cells": census.repeated,
        "expected_hours": None if census.unknown else census.seconds / 3600,
        "runs_of_unknown_cost": census.unknown,
        "matrix": [
            {
                "dataset": group.dataset,
                "model": group.model,
                "strategy": group.strategy,
                "loss": group.loss,
                "counts": dict(states),
            }
            for group, states in census.cells.items()
        ],
    }


def _conclude(
    store: Store,
    experiment: Experiment,
    found: Iterable[Wanted],
    census: Census,
    done: Launched,
    limit: int | None,
    json_output: bool,
) -> int:
    """Say what a launch has come to; the exit code."""
    from collections import Counter

    from prove.cli.launching import exit_code
    from prove.cli.sweeping import CHUNK

    counts: Counter[State] = Counter()
    keys = list(dict.fromkeys(each.job.key for each in found))
    for first in range(0, len(keys), CHUNK):
        counts.update(state for state, _ in store.states(keys[first : first + CHUNK]).values())
    code = exit_code(done, counts)
    if json_output:
        print_json(
            {
                **_census_json(experiment, census),
                "counts": {state.value: counts[state] for state in State},
                "launch": done.launch,
                "launched": done.runs,
                "elsewhere": done.elsewhere,
                "slurm_jobs": list(done.slurm_jobs),
                "pid": done.pid,
            }
        )
        return code
    _say_launched(done, limit)
    summary = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    _say(f"{len(keys)} runs: {summary}")
    again = "" if experiment.name is None else f" --experiment {experiment.name}"
    if counts[State.FAILED] or counts[State.CANCELLED]:
        _say(f"What failed or was cancelled is not launched again by itself: `prove retry{again}` does.")
    if done.outcome is not None and done.outcome.interrupted:
        _say(f"It was stopped by {done.outcome.signal}. The same command goes on where this one stopped.")
    return code


def _say_launched(done: Launched, limit: int | None) -> None:
    if done.elsewhere:
        _say(f"{done.elsewhere} runs are in the hands of another launch; `prove status` shows them.")
    if done.launch is None or done.runs == 0:
        if not done.elsewhere:
            _say("There is nothing to launch.")
        return
    runs = f"{done.runs} runs" + (" (--limit)" if limit == done.runs else "")
    if done.slurm_jobs:
        _say(f"{runs} submitted to SLURM as {', '.join(done.slurm_jobs)}. Follow them with `prove watch`.")
    elif done.pid is not None:
        _say(f"{runs} go on in the background (process {done.pid}, launch {done.launch}). See `prove watch`.")
    elif done.outcome is not None:
        for key, why in {**done.outcome.failed, **done.outcome.not_started}.items():
            _say(f"{key} failed: {why}")
