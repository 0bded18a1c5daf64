"""Tables of one run's numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from prove.cli.progress import number
from prove.spec import METRICS

if TYPE_CHECKING:
    from rich.table import Table

    from prove.store import ResultRow, RunRow

CLASS_METRICS = ("IoU", "Acc", "bIoU", "bF1")


def overall_table(row: RunRow, numbers: Iterable[ResultRow]) -> Table:
    """The metrics of the last and the best checkpoint, overall and by condition, in percent."""
    from rich.table import Table

    table = Table(title=f"{row.dataset}, {row.model}, {row.loss}, seed {row.seed} (percent)", title_justify="left")
    table.add_column("checkpoint")
    table.add_column("condition")
    for metric in METRICS:
        table.add_column(metric, justify="right")
    cells: dict[tuple[str, str], dict[str, float | None]] = {}
    for result in numbers:
        if result.scope in ("overall", "condition"):
            name = "all" if result.scope == "overall" else result.name
            cells.setdefault((result.checkpoint, name), {})[result.metric] = result.value
    for (checkpoint, condition), values in sorted(
        cells.items(), key=lambda item: (item[0][0] != "last", item[0][1] != "all", item[0])
    ):
        if checkpoint == "best" and condition != "all":
            continue
        label = (
            f"last (iteration {row.iteration})" if checkpoint == "last" else f"best (iteration {row.best_iteration})"
        )
        table.add_row(
            label if condition == "all" else "", condition, *(number(values.get(metric)) for metric in METRICS)
        )
    return table


def class_table(numbers: Iterable[ResultRow], order: Sequence[str]) -> Table:
    """The last checkpoint by class: percent, and labelled pixels; a dash where the class has no ground truth.

    Args:
        order: the classes in the dataset's order.
    """
    from rich.table import Table

    table = Table(title="last checkpoint by class (percent)", title_justify="left")
    table.add_column("class")
    for metric in CLASS_METRICS:
        table.add_column(metric, justify="right")
    table.add_column("pixels", justify="right")
    rows: dict[str, dict[str, float | None]] = {}
    for result in numbers:
        if result.scope == "class" and result.checkpoint == "last":
            rows.setdefault(result.name, {})[result.metric] = result.value
    for name in order:
        values = rows.get(name, {})
        table.add_row(
            name, *(number(values.get(metric)) for metric in CLASS_METRICS), f"{int(values.get('support') or 0):,}"
        )
    return table
