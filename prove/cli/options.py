"""Options that every command takes, and the two places a command writes to."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

ResultsOption = Annotated[
    Path,
    typer.Option("--results", metavar="DIR", envvar="PROVE_RESULTS", help="Folder of database and runs."),
]
"""Give it the default ``RESULTS``."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
"""Give it the default ``False``."""

RESULTS = Path("results")

UNBOUNDED = 10_000
"""Columns where there is no terminal: a pipe or a file takes lines of any length, and nothing is cut."""


def print_json(data: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def console() -> Console:
    """Stdout, for data. Text is printed as it is: square brackets are not markup."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False, width=_width(sys.stdout.isatty()))


def notes() -> Console:
    """Stderr, for messages. Text is printed as it is: square brackets are not markup."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False, width=_width(sys.stderr.isatty()))


def _width(is_terminal: bool) -> int | None:
    return None if is_terminal or "COLUMNS" in os.environ else UNBOUNDED
