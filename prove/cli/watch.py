"""`prove watch`: the runs as they go on, until nothing moves."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prove.cli.options import RESULTS, JsonOption, ResultsOption, console, notes, print_json
from prove.cli.state import runs_table, show_failures
from prove.launch.lines import duration
from prove.spec.event import State

if TYPE_CHECKING:
    from prove.store import Store

MOVING = (State.QUEUED, State.RUNNING)
"""States that a worker or a launcher is about to change."""

SHORTEST_SECONDS = 2.0
"""Between two looks, at least."""

SLURM_SECONDS = 15.0
"""The same while SLURM has runs: each look asks its controller."""

SHARE = 0.04
"""Of a core, at most, that watching takes: the more there is to read, the rarer it looks."""

SHOWN = 20


def watch(
    experiment: Annotated[str | None, typer.Argument(metavar="EXPERIMENT", help="Only the runs of this one.")] = None,
    results: ResultsOption = RESULTS,
    json_output: JsonOption = False,
) -> None:
    """Follow the runs until none is queued or running.

    With --json, say nothing until then. Ctrl-C ends the watching, not the runs.
    """
    from prove.store import Store

    with Store.open_existing(results) as store:
        try:
            code = _watch(store, experiment, json_output)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    raise typer.Exit(code)


def _watch(store: Store, experiment: str | None, json_output: bool) -> int:
    from prove.launch.settle import refresh
    from prove.store.cells import iterations

    screen = _screen() if not json_output and sys.stdout.isatty() else None
    begun = time.monotonic()
    done_before: int | None = None
    printed: dict[State, int] = {}
    try:
        while True:
            spent = _cpu_seconds()
            refresh(store)
            counts = store.counts(experiment)
            done, left = iterations(store.connection, experiment)
            done_before = done if done_before is None else done_before
            line = _line(counts, done - done_before, left, time.monotonic() - begun)
            if screen is not None:
                screen.update(_page(store, experiment, line), refresh=True)
            elif not json_output and counts != printed:
                console().print(line)
            printed = counts
            if not any(counts.get(state) for state in MOVING):
                break
            spent = _cpu_seconds() - spent
            on_slurm = any(launch.launcher == "slurm" for launch in store.open_launches())
            time.sleep(max(SLURM_SECONDS if on_slurm else SHORTEST_SECONDS, spent / SHARE))
    finally:
        if screen is not None:
            screen.stop()
    return _conclude(store, experiment, printed, json_output)


def _cpu_seconds() -> float:
    """CPU time of this process and of the commands that it has asked, such as `squeue`."""
    return sum(os.times()[:4])


def _line(counts: dict[State, int], done: int, left: int, seconds: float) -> str:
    """How many are in which state, and how long the rest takes at the pace since the watching began.

    Args:
        done, left: iterations since then, and still to do.
    """
    text = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no runs"
    return f"{text}, about {duration(seconds / done * left)} left" if done and left else text


def _screen() -> Any:
    from rich.live import Live

    screen = Live(console=console(), auto_refresh=False)
    screen.start()
    return screen


def _page(store: Store, experiment: str | None, line: str) -> Any:
    from rich.console import Group
    from rich.text import Text

    running = store.runs(experiment, states=(State.RUNNING,), limit=SHOWN)
    return Group(Text(line, style="bold"), runs_table(running))  # type: ignore[arg-type]


def _conclude(store: Store, experiment: str | None, counts: dict[State, int], json_output: bool) -> int:
    failed = store.runs(experiment, states=(State.FAILED,))
    if json_output:
        print_json(
            {
                "counts": {state.value: counts.get(state, 0) for state in State},
                "failed": [{"key": run.key, "failure": run.failure, "message": run.message} for run in failed],
            }
        )
    else:
        show_failures(failed)
        if counts.get(State.INTERRUPTED):
            notes().print(f"{counts[State.INTERRUPTED]} were interrupted: the same sweep again goes on with them.")
    return 1 if failed else 0
