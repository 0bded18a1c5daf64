"""What recording and showing a matrix costs: `prove sweep --register-only`, `--dry-run`, `prove status`, and peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring import MeasurementError, Spread, describe, takes_part
from sweep_folders import MIX, TRAINED, as_objects, fill, filtered_file, matrix_file, registered
from sweep_peers import JOBS, LEFT_OUT, PEERS, Peer, install, version
from sweep_timing import (
    EMPTY_APP,
    Cost,
    Limit,
    Section,
    Turn,
    beyond,
    column,
    cost,
    mean,
    peak_mib,
    progress,
    prove,
    ratio,
    raw,
    seconds,
)

REGISTER_SECONDS = {10_000: 2.0, 100_000: 20.0}
"""Asked of expanding and recording, by the number of jobs."""

STATUS_SECONDS = {10_000: 0.5, 100_000: 1.5}
"""Asked of `prove status` beyond an empty Typer app, by the number of runs."""

CONSTANT = 1.5
"""How much more memory a matrix of any size may need than its filtered cells alone."""

PEER_ROUNDS = 3

BARE = """
import json, sqlite3
jobs = json.load(open("jobs.json"))
database = sqlite3.connect("bare.db")
database.execute("CREATE TABLE runs (key TEXT PRIMARY KEY, dataset TEXT, model TEXT, loss TEXT, seed INT, job TEXT)")
with database:
    database.executemany("INSERT INTO runs VALUES (:key, :dataset, :model, :loss, :seed, :job)", jobs)
"""

FIRST, AGAIN, DRY, FLOOR = "sweep --register-only", "the same again", "sweep --dry-run, all known", "bare sqlite3"
STATUS, MATRIX, AS_JSON, NOTHING_NEW = "status", "status EXPERIMENT", "status --json", "sweep, nothing is left to do"
EMPTY = "an empty Typer app"


@dataclass(frozen=True)
class Installed:
    """A peer and where its programs are."""

    peer: Peer
    programs: Path
    version: str

    @property
    def title(self) -> str:
        return f"{self.peer.name} [{self.version}]"

    def run(self, line: Sequence[str], folder: Path) -> Cost:
        return cost(self.peer.command(line, self.programs), folder=folder)


def install_all(names: Sequence[str], folder: Path) -> tuple[list[Installed], list[str]]:
    """The peers of these names that can be had here, and why the others can't."""
    found, absent = [], []
    for peer in PEERS:
        if peer.package not in names:
            continue
        try:
            programs = install(peer, folder)
            found.append(Installed(peer, programs, version(peer, programs)))
        except (OSError, subprocess.CalledProcessError) as error:
            absent.append(f"{peer.name} could not be installed here ({describe(error)})")
    return found, absent


def _wall(each: Cost) -> float:
    return each.wall


def _cpu(each: Cost) -> float:
    return each.cpu


def register(asked: Namespace, folder: Path) -> Section:
    """Recording the jobs of a matrix, beside other tools."""
    peers, absent = install_all(asked.peers, folder)
    rows, limits, figures = [], [], {}
    for jobs in asked.jobs:
        turns = _register_turns(asked, folder, peers if jobs <= asked.peer_jobs else [], jobs, absent)
        figures[str(jobs)] = raw(turns)
        for name in dict.fromkeys(name for turn in turns for name in turn):
            wall, cpu = column(turns, name), column(turns, name, _cpu)
            rows.append((f"{jobs:,}", name, seconds(wall), seconds(cpu), seconds(ratio(turns, name, FLOOR))))
        first = column(turns, FIRST)
        assert first is not None
        if jobs in REGISTER_SECONDS:
            limits.append(Limit(f"expand and register {jobs:,} jobs, s", first.median, REGISTER_SECONDS[jobs]))
    text = [
        "`prove sweep FILE --register-only` expands a matrix (2 datasets, 5 models, 50 objectives, seeds), makes each "
        "cell a complete job with its key, and records it; into an empty folder, then once more, then `--dry-run`. "
        "Beside it the same jobs in other tools, and a table in bare sqlite3, whose jobs are complete already and only "
        "inserted. Whole processes, wall and CPU seconds: median (quartiles); all take turns, the ratio is of wall "
        "times of the same round.",
        f"Not measured: {'; '.join([*absent, *LEFT_OUT])}.",
    ]
    head = ("jobs", "", "wall, s", "CPU, s", "ratio to bare sqlite3")
    return Section("Expand and register", text, head, rows, limits, figures)


def _register_turns(
    asked: Namespace, folder: Path, peers: Sequence[Installed], jobs: int, absent: list[str]
) -> list[Turn]:
    file = matrix_file(folder, jobs)
    prepared: Path | None = None
    turns: list[Turn] = []
    for number in range(asked.rounds):
        progress(f"register {jobs:,}, round {number + 1} of {asked.rounds}")
        with tempfile.TemporaryDirectory(dir=folder) as name:
            place = Path(name)
            command = prove("sweep", file, "--results", place)
            turn = {FIRST: cost([*command, "--register-only"])}
            turn[AGAIN] = cost([*command, "--register-only"])
            turn[DRY] = cost([*command, "--dry-run"])
            if prepared is None:
                prepared = _jobs_for_peers(folder, registered(place), jobs)
            with tempfile.TemporaryDirectory(dir=folder) as bare:
                os.link(prepared, Path(bare) / JOBS)
                turn[FLOOR] = cost([sys.executable, "-c", BARE], folder=Path(bare))
            if takes_part(number, min(PEER_ROUNDS, asked.rounds), asked.rounds):
                turn |= _register_peers(peers, folder, prepared, absent)
        turns.append(turn)
    return turns


def _jobs_for_peers(folder: Path, runs: Sequence[tuple[str, str]], jobs: int) -> Path:
    texts = dict(runs)
    prepared = folder / f"jobs-{jobs}.json"
    prepared.write_text(json.dumps([{**each, "job": texts[each["key"]]} for each in as_objects(runs)]))
    return prepared


def _for_peer(prepared: Path, place: Path) -> None:
    """The jobs without their complete text, which is ours."""
    jobs = [{name: value for name, value in job.items() if name != "job"} for job in json.loads(prepared.read_text())]
    (place / JOBS).write_text(json.dumps(jobs))


def _register_peers(peers: Sequence[Installed], folder: Path, prepared: Path, absent: list[str]) -> Turn:
    turn: Turn = {}
    for each in peers:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            place = Path(name)
            _for_peer(prepared, place)
            each.peer.prepare(place)
            try:
                turn[each.title] = each.run(each.peer.register, place)
            except MeasurementError as error:
                absent.append(f"{each.title} failed ({error})")
    return turn


def million(asked: Namespace, folder: Path) -> Section:
    """Memory and time of a large matrix that a filter leaves a thousand cells of."""
    files = {
        "1,000 cells": matrix_file(folder, 1000),
        f"{asked.cells:,} cells, 1,000 left by its excludes": filtered_file(folder, asked.cells),
    }
    turns: list[Turn] = []
    peaks: dict[str, list[float]] = {name: [] for name in files}
    for number in range(asked.rounds):
        progress(f"million, round {number + 1} of {asked.rounds}")
        turn: Turn = {}
        for name, file in files.items():
            with tempfile.TemporaryDirectory(dir=folder) as place:
                turn[name], peak = peak_mib(["sweep", file, "--dry-run", "--results", place], Path(place))
            peaks[name].append(peak)
        turns.append(turn)
    rows = [(name, seconds(column(turns, name)), f"{Spread.of(peaks[name]).median:.0f}") for name in files]
    small, large = (Spread.of(found).median for found in peaks.values())
    text = [
        "`prove sweep FILE --dry-run` of a matrix whose excludes name two axes at once, so that all of its cells are "
        "looked at, beside a matrix of a thousand cells. Peak memory is the process's VmHWM."
    ]
    limit = Limit(f"peak memory of {asked.cells:,} cells to that of 1,000", large / small, CONSTANT)
    return Section("A large matrix", text, ("", "wall, s", "peak memory, MiB"), rows, [limit], {"peak_mib": peaks})


def status(asked: Namespace, folder: Path) -> Section:
    """`prove status` of many runs, after nothing has changed, beside other tools."""
    peers, absent = install_all(asked.peers, folder)
    rows, limits, figures = [], [], {}
    for jobs in asked.jobs:
        turns = _status_turns(asked, folder, peers if jobs <= asked.peer_jobs else [], jobs, absent)
        figures[str(jobs)] = raw(turns)
        for name in dict.fromkeys(name for turn in turns for name in turn):
            columns = [column(turns, name, part) for part in (_wall, _cpu)]
            columns += [beyond(turns, name, EMPTY, part) for part in (_wall, _cpu)]
            rows.append((f"{jobs:,}", name, *map(seconds, columns)))
        more = beyond(turns, STATUS, EMPTY, _wall)
        assert more is not None
        if jobs in STATUS_SECONDS:
            title = f"`prove status` of {jobs:,} runs, s beyond an empty Typer app"
            limits.append(Limit(title, more.median, STATUS_SECONDS[jobs]))
    mix = ", ".join(f"{share}% {state}" for state, share in MIX.items())
    text = [
        f"Runs with folders and events of their own ({mix}; {TRAINED} reports of training each; a fiftieth more is "
        "planned), all recorded, nothing new since. `sweep` is the launching command itself, which finds nothing left "
        "to do. The last columns are what is beyond an empty Typer app, which runs before and after in each round.",
        "Of the jobs in other tools 90% are finished (of Dora's none); each does what its users do to see how far "
        "they are.",
        *(f"Not measured: {each}." for each in absent),
    ]
    head = ("runs", "", "wall, s", "CPU, s", "wall beyond, s", "CPU beyond, s")
    return Section("Status", text, head, rows, limits, figures)


def _status_turns(
    asked: Namespace, folder: Path, peers: Sequence[Installed], jobs: int, absent: list[str]
) -> list[Turn]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        progress(f"status {jobs:,}: making the runs")
        file, results = fill(place, jobs)
        prepared = _jobs_for_peers(place, registered(results)[:jobs], jobs)
        filled = [each for each in peers if _fill_peer(each, place, prepared, absent)]
        here = ("--results", results)
        commands = {
            STATUS: prove("status", *here),
            MATRIX: prove("status", "bench", *here),
            AS_JSON: prove("status", "--json", *here),
            NOTHING_NEW: prove("sweep", file, *here),
        }
        turns: list[Turn] = []
        for number in range(asked.rounds + 1):
            if number:
                progress(f"status {jobs:,}, round {number} of {asked.rounds}")
            turn: Turn = {}
            before = cost(EMPTY_APP)
            for title, command in commands.items():
                # A run of the matrix has failed: `sweep` says so with its exit code.
                turn[title] = cost(command if title != NOTHING_NEW else _whatever(command))
            turn[EMPTY] = mean(before, cost(EMPTY_APP))
            if number and takes_part(number - 1, min(PEER_ROUNDS, asked.rounds), asked.rounds):
                for each in filled:
                    turn[each.title] = each.run(each.peer.status, place / each.peer.name)
            turns.append(turn)
        return turns[1:]  # the first warmed up


def _whatever(command: list[str]) -> list[str]:
    return ["sh", "-c", '"$@"; [ $? -le 1 ]', "sh", *command]


def _fill_peer(each: Installed, place: Path, prepared: Path, absent: list[str]) -> bool:
    folder = place / each.peer.name
    folder.mkdir()
    _for_peer(prepared, folder)
    each.peer.prepare(folder)
    try:
        if not each.peer.name.startswith("Optuna"):  # its trials are added as finished ones
            each.run(each.peer.register, folder)
        if each.peer.fill:
            each.run(each.peer.fill, folder)
    except MeasurementError as error:
        absent.append(f"{each.title} failed ({error})")
        return False
    return True
