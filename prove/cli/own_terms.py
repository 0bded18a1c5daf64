"""``--terms``: loss terms of a user's own, named by their YAML files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prove.errors import ProveError

if TYPE_CHECKING:
    from prove.catalog.term_file import UserTerm

TermsOption = Annotated[
    list[Path] | None,
    typer.Option("--terms", metavar="FILE", help="YAML file of a loss term of your own; may be given several times."),
]
"""Give it the default ``None``."""

_LOAD = "import sys; from prove.losses.user_terms import main; sys.exit(main(sys.argv[1:]))"


def require_sound(terms: Sequence[UserTerm]) -> None:
    """Have the code of terms executed and checked, in a process of its own: here no user's code runs, and no torch.

    Raises:
        ProveError: it can't be used.
    """
    if not terms:
        return
    command = [sys.executable, "-c", _LOAD, *(str(term.file) for term in terms)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    if done.returncode == 2 and done.stdout.strip():
        said = json.loads(done.stdout.splitlines()[-1])
        raise ProveError(said["message"], hint=said["hint"])
    names = ", ".join(str(term.code) for term in terms)
    complaint = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    raise ProveError(f"{names} can't be loaded: {complaint[-1]}")
