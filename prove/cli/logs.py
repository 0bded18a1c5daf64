"""`prove logs`: what a worker wrote."""

from __future__ import annotations

import sys
import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from prove.cli.options import RESULTS, JsonOption, ResultsOption, notes, print_json
from prove.errors import ProveError
from prove.launch.settle import refresh
from prove.rundir import RunDir
from prove.spec.event import State
from prove.store import RunRow, Store

POLL_SECONDS = 0.5

MOVING = (State.PLANNED, State.QUEUED, State.RUNNING)


def logs(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A run's key, or its first characters.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines from the end.")] = 50,
    results: ResultsOption = RESULTS,
    json_output: JsonOption = False,
) -> None:
    """Show the end of a run's log, and follow it."""
    if follow and json_output:
        raise ProveError("--follow and --json exclude each other.", hint="Leave one of them out.")
    with Store.open_existing(results) as store:
        refresh(store)
        run = store.run(key)
        path = RunDir.of(results, run.key).log
        position, tail = _tail(path, lines)
        if json_output:
            print_json({"key": run.key, "state": run.state, "log": str(path), "lines": tail})
            return
        for line in tail:
            sys.stdout.write(line + "\n")
        if not path.exists() and not follow:
            notes().print(f"{run.key} is {run.state} and has not written a log.")
        if follow:
            _follow(store, run, path, position)


def _follow(store: Store, run: RunRow, path: Path, position: int) -> None:
    while True:
        ended = run.state not in MOVING  # before reading: what is read afterwards is all there will be
        position = _copy(path, position)
        if ended:
            notes().print(f"{run.key} is {run.state}{f': {run.message}' if run.message else ''}")
            return
        time.sleep(POLL_SECONDS)
        refresh(store)
        run = store.run(run.key)


def _tail(path: Path, count: int) -> tuple[int, list[str]]:
    """Where the file ends now, and its last lines."""
    try:
        with open(path, "rb") as file:
            last = deque(file, maxlen=count)
            return file.tell(), [line.decode("utf-8", "replace").rstrip("\r\n") for line in last]
    except FileNotFoundError:
        return 0, []


def _copy(path: Path, position: int) -> int:
    """Copy what the file holds after a position to stdout; where it ends now."""
    try:
        with open(path, "rb") as file:
            file.seek(position)
            sys.stdout.write(file.read().decode("utf-8", "replace"))
            sys.stdout.flush()
            return file.tell()
    except FileNotFoundError:
        return position
