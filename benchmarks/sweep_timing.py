"""Whole processes, timed: what the benchmarks of sweeps share, and the sections that their report is made of."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from measuring import MeasurementError, Spread
from startup import EMPTY, PROVE

EMPTY_APP = [sys.executable, "-c", EMPTY]

PEAK = """
import atexit, sys
from pathlib import Path
def note(file=sys.argv.pop(1)):
    lines = Path("/proc/self/status").read_text().splitlines()
    Path(file).write_text(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
atexit.register(note)
"""
"""Ahead of `PROVE`: notes the most that was resident, in KiB, in the file that the first argument names."""


def prove(*arguments: object) -> list[str]:
    """A command line of PROVE's, run by this interpreter."""
    return [sys.executable, "-c", PROVE, *map(str, arguments)]


@dataclass(frozen=True)
class Cost:
    """What a process took, and the processes that it waited for; seconds."""

    wall: float
    cpu: float


Turn = dict[str, Cost]
"""What the contenders of one round cost, by name."""


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what leads PROVE elsewhere, as wide as a report is."""
    ours = ("PROVE_DB", "PROVE_RESULTS")
    return {**{name: value for name, value in os.environ.items() if name not in ours}, "COLUMNS": "120", **more}


def cost(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    settings: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> Cost:
    """Run a command and time it.

    Args:
        folder: where it runs.
        settings: variables that its environment has beside ours.
        output: file for what it prints; dropped without one.

    Raises:
        MeasurementError: it fails; in its own last words.
    """
    with tempfile.TemporaryFile() as complaints, open(output or os.devnull, "wb") as said:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(**settings or {}),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=complaints,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            complaints.seek(0)
            words = " ".join(complaints.read().decode(errors="replace").split()[-40:])
            line = re.sub(r"\s+", " ", " ".join(command))[-160:]
            raise MeasurementError(f"`{line}` ended with exit code {process.returncode}: {words}")
    return Cost(wall, usage.ru_utime + usage.ru_stime)


def peak_mib(arguments: Sequence[object], folder: Path) -> tuple[Cost, float]:
    """What a command of PROVE's takes, and the most memory that it had, in MiB."""
    noted = folder / "peak"
    taken = cost([sys.executable, "-c", PEAK + PROVE, str(noted), *map(str, arguments)])
    return taken, int(noted.read_text()) / 1024


def column(turns: Sequence[Turn], name: str, part: Callable[[Cost], float] = lambda each: each.wall) -> Spread | None:
    """Quartiles of one contender; None where it took part in no round."""
    found = [part(turn[name]) for turn in turns if name in turn]
    return Spread.of(found) if found else None


def ratio(turns: Sequence[Turn], name: str, to: str) -> Spread | None:
    """Quartiles of the wall time of one contender as a multiple of another's in the same round."""
    found = [turn[name].wall / turn[to].wall for turn in turns if name in turn and to in turn]
    return Spread.of(found) if found else None


def beyond(turns: Sequence[Turn], name: str, floor: str, part: Callable[[Cost], float]) -> Spread | None:
    """Quartiles of what one contender takes more than the floor of the same round, in seconds."""
    found = [part(turn[name]) - part(turn[floor]) for turn in turns if name in turn and floor in turn]
    return Spread.of(found) if found else None


def mean(first: Cost, second: Cost) -> Cost:
    """What the floor costs, from the runs before and after the others."""
    return Cost((first.wall + second.wall) / 2, (first.cpu + second.cpu) / 2)


@dataclass(frozen=True)
class Limit:
    """What was asked of a figure."""

    name: str
    value: float
    asked: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.asked if self.at_least else self.value <= self.asked

    def line(self) -> str:
        """The figure beside what was asked, as a row of a table."""
        sign = "at least" if self.at_least else "at most"
        return f"| {self.name} | {self.value:.3g} | {sign} {self.asked:g} | {'ok' if self.met else '**missed**'} |"


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes:
        text: what was done and how; Markdown.
        head: the columns of the table.
        rows: its cells.
        figures: the measurements behind it, plain JSON types.
    """

    title: str
    text: Sequence[str]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    limits: Sequence[Limit] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Section:
        """A section of an earlier run."""
        return cls(**{**data, "limits": [Limit(**each) for each in data["limits"]]})

    def markdown(self) -> list[str]:
        """The lines of the section."""
        lines = [f"## {self.title}", "", *(line for each in self.text for line in (each, ""))]
        lines += [f"| {' | '.join(self.head)} |", "|" + "---|" * len(self.head)]
        return [*lines, *(f"| {' | '.join(row)} |" for row in self.rows), ""]


def seconds(spread: Spread | None) -> str:
    """A cell: the median, and in brackets the quartiles where there are several rounds."""
    if spread is None:
        return "-"
    return f"{spread.median:.2f}" if spread.rounds == 1 else str(spread)


def raw(turns: Sequence[Turn]) -> list[dict[str, dict[str, float]]]:
    """The rounds, for a JSON document."""
    return [{name: asdict(each) for name, each in turn.items()} for turn in turns]


def progress(text: str) -> None:
    """Say on stderr what is being measured."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
    sys.stderr.flush()
