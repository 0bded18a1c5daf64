"""Runs that are wanted, handed to a launcher: what `prove sweep` and `prove retry` share."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prove.cli.live import Live
from prove.errors import ProveError, unknown
from prove.launch.settle import refresh
from prove.launch.start import UNSTARTED, Opened, Request, opened, start_in_background
from prove.spec.event import State

if TYPE_CHECKING:
    from prove.cli.sweeping import Prepared
    from prove.launch.view import PoolOutcome
    from prove.store import Store

LauncherOption = Annotated[str | None, typer.Option("--launcher", help="local or slurm.  [default: local]")]
JobsOption = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Runs at a time, without GPUs.")]
PerGpuOption = Annotated[
    str | None, typer.Option("--per-gpu", metavar="N|auto", help="Runs that share a GPU; auto: as memory allows.")
]
AttemptsOption = Annotated[
    int | None, typer.Option("--max-attempts", min=1, help="Starts of a run before it counts as failed.  [default: 3]")
]
DetachOption = Annotated[bool, typer.Option("--detach", help="Go on in the background, also after logout.")]
SlurmOption = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm", metavar="NAME=VALUE", help="Option of SLURM: partition, gpus, time, ...; docs/slurm.md has all."
    ),
]

LOCAL = ("jobs", "per_gpu", "threads")
"""Keys of a launch section that the local launcher reads."""

COMMON = ("launcher", "max_attempts")


@dataclass(frozen=True)
class How:
    """How runs are to be launched.

    Attributes:
        options: the launcher's own, validated, plain data.
    """

    launcher: str = "local"
    options: Mapping[str, Any] = field(default_factory=dict)
    pack: int = 0
    max_attempts: int = 3
    detach: bool = False


@dataclass(frozen=True)
class Launched:
    """What a launch has come to.

    Attributes:
        launch: its id; None when there was nothing to launch.
        runs: how many it got.
        elsewhere: how many of those that were wanted another launch has.
        slurm_jobs: the array jobs; empty for the local launcher.
        outcome: of a pool that has worked here.
        pid: of a pool that works in the background.
    """

    launch: str | None
    runs: int = 0
    elsewhere: int = 0
    slurm_jobs: tuple[str, ...] = ()
    outcome: PoolOutcome | None = None
    pid: int | None = None


def how_to_launch(section: Mapping[str, Any], flags: Mapping[str, Any], slurm: Sequence[str] | None) -> How:
    """The launch section of an experiment with what the command line says in its place.

    Args:
        flags: of `LOCAL` and `COMMON`, and ``detach``; None where one was not given.
        slurm: ``name=value`` texts.

    Raises:
        ProveError: an unknown key or launcher, a value out of range, flags that contradict each other.
    """
    from prove.launch.slurm_options import SlurmOptions

    given = {name: value for name, value in flags.items() if value is not None and name != "detach"}
    merged = {**section, **given}
    known = (*COMMON, *LOCAL, *SlurmOptions.__dataclass_fields__, "profile")
    for key in section:
        if key not in known:
            raise _at(section, key, unknown("key", key, known, where="in launch"))
    launcher = str(merged.get("launcher", "slurm" if slurm else "local"))
    if launcher not in ("local", "slurm"):
        raise _at(section, "launcher", unknown("launcher", launcher, ("local", "slurm")))
    attempts = merged.get("max_attempts", 3)
    if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
        raise _at(section, "max_attempts", ProveError(f"max_attempts is {attempts!r}, not an integer >= 1."))
    if launcher == "local":
        if slurm:
            raise ProveError("--slurm belongs to --launcher slurm.", hint="Add --launcher slurm, or leave it out.")
        options = {key: merged[key] for key in LOCAL if merged.get(key) is not None}
        _check_local(section, options)
        return How("local", options, 0, attempts, bool(flags.get("detach")))
    if flags.get("detach"):
        raise ProveError("--detach is for the local launcher: SLURM's runs go on by themselves.", hint="Leave it out.")
    for name in ("jobs", "per_gpu"):
        if flags.get(name) is not None:
            raise ProveError(
                f"--{name.replace('_', '-')} is for the local launcher.", hint="SLURM packs runs with --slurm pack=K."
            )
    asked = {key: value for key, value in section.items() if key not in ("launcher", *LOCAL)}
    asked |= dict(_pair(text) for text in slurm or ())
    if "max_attempts" in given:
        asked["max_attempts"] = attempts
    chosen = SlurmOptions.from_mapping(asked, "in launch")
    return How("slurm", chosen.to_dict(), chosen.pack, chosen.max_attempts)


def _at(section: Mapping[str, Any], key: str, error: ProveError) -> ProveError:
    """The error with the place of the key in its file, where the section knows it."""
    place = getattr(section, "places", {}).get(key)
    return ProveError(f"{place}: {error.message}", hint=error.hint) if place else error


def _check_local(section: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if name == "per_gpu" and (value == "auto" or (isinstance(value, str) and value.isdigit() and int(value) >= 1)):
            continue
        if not is_count:
            expected = "an integer >= 1 or auto" if name == "per_gpu" else "an integer >= 1"
            raise _at(section, name, ProveError(f"{name} is {value!r}, not {expected}."))


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip() or not value.strip():
        raise ProveError(f"--slurm {text!r} is no option.", hint="Write NAME=VALUE, such as --slurm partition=gpu.")
    return name.strip(), value.strip()


def gets_gpus(how: How) -> bool:
    """Whether runs that are launched like this can expect GPUs: the nodes', or this machine's."""
    if how.launcher == "slurm":
        return how.options.get("gpus") not in (None, "0")
    from prove.cli.request import gpu_is_present

    return gpu_is_present()


def launch(
    store: Store,
    prepared: Prepared,
    how: How,
    names: Mapping[str, str],
    *,
    experiment: str | None,
    states: Collection[State] = UNSTARTED,
    quiet: bool,
) -> Launched:
    """Claim runs and start them: locally until they are done, in the background, or as SLURM arrays.

    Args:
        names: what to call each run, by key.
        states: states in which a run is taken on.

    Raises:
        ProveError: they can't be launched; nothing is left claimed.
    """
    if how.launcher == "local":
        from prove.launch.pool import check_slots

        check_slots(how.options, prepared.assignments)
    request = Request(how.launcher, how.options, how.pack, how.max_attempts, experiment)
    result = Launched(None, elsewhere=len(prepared.assignments))
    if prepared.assignments:
        with opened(store, prepared.assignments, prepared.files, request, states) as begun:
            elsewhere = len(prepared.assignments) - len(begun.assignments)
            result = Launched(begun.launch.id, len(begun.assignments), elsewhere)
            if begun.assignments:
                result = _start(store, begun, how, names, result, quiet)
    refresh(store)
    return result


def _start(store: Store, begun: Opened, how: How, names: Mapping[str, str], result: Launched, quiet: bool) -> Launched:
    if how.launcher == "slurm":
        from prove.launch.slurm import submit
        from prove.launch.slurm_options import SlurmOptions

        jobs = submit(begun.folder, begun.tasks, SlurmOptions.from_dict(how.options))
        store.submitted(begun.launch.id, jobs)
        return dataclasses.replace(result, slurm_jobs=tuple(jobs))
    if how.detach:
        return dataclasses.replace(result, pid=start_in_background(begun))
    from prove.launch.pool import run_launch

    mine = {each.key: names.get(each.key, "") for each in begun.assignments}
    with Live(mine, quiet=quiet) as live:
        outcome = run_launch(begun.folder, begun.assignments, show=live.show)
    return dataclasses.replace(result, outcome=outcome)


def exit_code(done: Launched, counts: Mapping[State, int]) -> int:
    """0 done, or handed on; 1 a run failed; 130 stopped by a signal.

    Args:
        counts: of the runs that were asked for, by state.
    """
    if done.outcome is not None and done.outcome.interrupted:
        return 130
    failed = done.outcome is not None and (done.outcome.failed or done.outcome.not_started)
    return 1 if counts.get(State.FAILED) or failed else 0
