"""`prove status`: the runs at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prove.cli.options import RESULTS, JsonOption, ResultsOption, console, notes, print_json
from prove.cli.tables import percent
from prove.spec.event import State

if TYPE_CHECKING:
    from prove.store import RunRow

SHOWN = 50

STYLES = {
    State.PLANNED: "dim",
    State.QUEUED: "dim",
    State.RUNNING: "cyan",
    State.FINISHED: "green",
    State.FAILED: "red",
    State.CANCELLED: "yellow",
    State.INTERRUPTED: "yellow",
}


def status(
    experiment: Annotated[str | None, typer.Argument(metavar="EXPERIMENT", help="Only the runs of this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most runs to list, the latest first.")] = SHOWN,
    results: ResultsOption = RESULTS,
    json_output: JsonOption = False,
) -> None:
    """Show the runs: how many are in which state, and their mIoU."""
    from prove.store import Store

    if experiment is None and Store.holds_nothing(results):
        _show([], {}, 0, results, json_output)
        return
    with Store.open_existing(results) as store:
        store.refresh()
        runs = store.runs(experiment, limit=None if json_output else limit)
        _show(runs, store.counts(experiment), len(store.problems()), results, json_output)


def _show(runs: list[RunRow], counts: dict[State, int], problems: int, results: Path, json_output: bool) -> None:
    if json_output:
        print_json(
            {
                "results": str(results),
                "counts": {state.value: counts.get(state, 0) for state in State},
                "problems": problems,
                "runs": [run.to_dict() for run in runs],
            }
        )
        return
    if not counts:
        notes().print(
            f"No runs yet in {results}/. Train one with `prove run`, or name another folder with --results DIR."
        )
        return
    out = console()
    out.print(", ".join(f"{count} {state}" for state, count in counts.items()))
    out.print(runs_table(runs))
    rest = sum(counts.values()) - len(runs)
    if rest > 0:
        notes().print(f"... and {rest} more: see them with --limit, or all with --json.")
    for run in runs:
        if run.state is State.FAILED:
            notes().print(f"{run.key} failed ({run.failure}): {run.message}")
    if problems:
        lines = "1 line" if problems == 1 else f"{problems} lines"
        notes().print(f"{lines} in the run folders could not be read; `prove show KEY` tells which.")


def runs_table(runs: list[RunRow]) -> object:
    """A table with a row per run, fit for 80 columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("key", no_wrap=True)
    for name in ("dataset", "model", "loss"):
        table.add_column(name, overflow="fold")
    for name in ("seed", "state", "iteration", "mIoU"):
        table.add_column(name, no_wrap=True, justify="left" if name == "state" else "right")
    for run in runs:
        table.add_row(
            run.key,
            run.dataset,
            run.model,
            run.loss if run.strategy == "baseline" else f"{run.loss} [{run.strategy}]",
            str(run.seed),
            Text(run.state.value, style=STYLES[run.state]),
            f"{run.iteration}/{run.max_iters}",
            percent(run.metrics["mIoU"] if run.state is State.FINISHED else run.val_mIoU),
        )
    return table
