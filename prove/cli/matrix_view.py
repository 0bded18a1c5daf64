"""The matrix at a glance: a row per objective, a column per model, in each cell how many runs are in which state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prove.cli.tables import STYLES
from prove.spec.event import State

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from prove.store.cells import CellGroup

LETTERS = {
    State.FINISHED.value: "F",
    State.RUNNING.value: "R",
    State.QUEUED.value: "Q",
    State.INTERRUPTED.value: "I",
    State.FAILED.value: "X",
    State.CANCELLED.value: "C",
    State.PLANNED.value: "P",
    "new": "N",
}
"""How a cell writes a state, in the order in which it lists them."""


def matrix_tables(states: Mapping[CellGroup, Counter[str]]) -> list[tuple[str, Table]]:
    """A titled table for each dataset and strategy.

    Args:
        states: runs by group and state, in the order in which rows and columns are to appear.
    """
    parts: dict[tuple[str, str], dict[CellGroup, Counter[str]]] = {}
    for group, counts in states.items():
        parts.setdefault((group.dataset, group.strategy), {})[group] = counts
    return [
        (dataset if strategy == "baseline" else f"{dataset}, {strategy}", _table(part))
        for (dataset, strategy), part in parts.items()
    ]


def _table(states: Mapping[CellGroup, Counter[str]]) -> Table:
    from rich.table import Table

    models = list(dict.fromkeys(group.model for group in states))
    rows: dict[str, dict[str, Counter[str]]] = {}
    for group, counts in states.items():
        rows.setdefault(group.loss, {})[group.model] = counts
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("loss", overflow="fold")
    for model in models:
        table.add_column(model, overflow="fold", justify="right")
    for loss, by_model in rows.items():
        table.add_row(loss, *(_cell(by_model.get(model, Counter())) for model in models))
    return table


def _cell(counts: Counter[str]) -> Text:
    from rich.text import Text

    cell = Text()
    for state, letter in LETTERS.items():
        if counts[state]:
            style = STYLES[State(state)] if state in set(State) else "bold"
            cell.append(f"{' ' if cell else ''}{counts[state]}{letter}", style=style)
    return cell if cell else Text("-", style="dim")


def legend(counts: Mapping[str, int]) -> str:
    """What the letters in use mean."""
    return ", ".join(f"{letter} {state}" for state, letter in LETTERS.items() if counts.get(state))
