"""Which runs a command is about: by key, by experiment, by what they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

import typer

from prove.errors import ProveError, nearest, unknown
from prove.spec.event import FailureKind, State

if TYPE_CHECKING:
    from prove.store import RunRow, Store

FIELDS = ("dataset", "model", "strategy", "loss", "seed", "max_iters", "state", "failure")
"""What ``--where`` can ask for."""

KeysArgument = Annotated[list[str] | None, typer.Argument(metavar="KEY", help="Runs, by the start of their keys.")]
ExperimentOption = Annotated[str | None, typer.Option("--experiment", "-e", help="All runs of this experiment.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where", "-w", metavar="FIELD=VALUE", help=f"Only these: {', '.join(FIELDS)}; * stands for anything."
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="All runs of the results folder.")]


def select(
    store: Store, keys: Sequence[str] | None, experiment: str | None, where: Sequence[str] | None, everything: bool
) -> list[RunRow]:
    """The runs that were named, each once; every condition holds for all of them.

    Raises:
        ProveError: nothing was named, or something that does not exist.
    """
    if not keys and experiment is None and not where and not everything:
        raise ProveError(
            "Which runs?", hint="Name keys, --experiment NAME, --where model=segformer_*, or --all. See `prove status`."
        )
    if keys and (experiment is not None or everything):
        raise ProveError(
            "Keys, --experiment and --all are three ways to choose.", hint="Use one; --where narrows any of them."
        )
    conditions = [_condition(text) for text in where or ()]
    chosen = [store.run(key) for key in dict.fromkeys(keys)] if keys else store.runs(experiment)
    once = {run.key: run for run in chosen}
    found = [run for run in once.values() if all(_holds(run, *condition) for condition in conditions)]
    if once and not found:
        raise ProveError(
            f"None of {len(once)} runs has {' and '.join(where or ())}.",
            hint="`prove status` lists what they have; * stands for anything.",
        )
    return found


def _condition(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"\s*([A-Za-z_]+)\s*=\s*(.+?)\s*", text)
    if match is None:
        close = nearest(text, FIELDS, 1)
        raise ProveError(
            f"--where {text!r} is no condition.",
            hint=f"Write {close[0] if close else 'model'}=VALUE, such as state=failed.",
        )
    if match[1] not in FIELDS:
        raise unknown("field", match[1], FIELDS, where=f"in --where {text!r}")
    field, value = match[1], match[2]
    choices: dict[str, list[str]] = {"state": list(State), "failure": list(FailureKind)}
    known = choices.get(field, [])
    if known and "*" not in value and value not in known:
        raise unknown(field, value, known, where=f"in --where {text!r}")
    if field in ("seed", "max_iters") and not re.fullmatch(r"[\d*?]+", value):
        raise ProveError(f"--where {text!r}: {field} is a number.", hint=f"Write {field}=0, or {field}=* for any.")
    return field, value


def _holds(run: RunRow, field: str, pattern: str) -> bool:
    value = getattr(run, field)
    text = "" if value is None else str(value)
    # An objective holds brackets and stars of its own: as it is written it matches itself.
    return pattern in (text, text.replace(" ", "")) or fnmatchcase(text, pattern)
