"""`prove status`: the runs at a glance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prove.cli.options import RESULTS, JsonOption, ResultsOption, console, notes, print_json
from prove.cli.tables import STYLES, percent, plain_table
from prove.errors import unknown
from prove.spec.event import State

if TYPE_CHECKING:
    from prove.store import RunRow, Store
    from prove.store.accounting import Hours

SHOWN = 50

FAILURES_SHOWN = 10


def status(
    experiment: Annotated[str | None, typer.Argument(metavar="EXPERIMENT", help="Only the runs of this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most runs to list, the latest first.")] = SHOWN,
    matrix: Annotated[
        bool | None, typer.Option("--matrix/--list", help="A table of objectives by models, or a list of runs.")
    ] = None,
    hours: Annotated[
        str | None, typer.Option("--hours", metavar="BY", help="Hours by experiment, loss, model, dataset or strategy.")
    ] = None,
    results: ResultsOption = RESULTS,
    json_output: JsonOption = False,
) -> None:
    """Show the runs: their states, their mIoU, what failed and why.

    With an experiment, its matrix; without, the latest runs. --hours says what they have cost.
    """
    from prove.store import Store

    if experiment is None and Store.holds_nothing(results):
        _show_nothing(results, json_output)
        return
    with Store.open_existing(results) as store:
        from prove.launch.settle import refresh

        said = refresh(store)
        if hours is not None:
            _hours(store, experiment, hours, json_output)
        elif json_output:
            runs = [run.to_dict() for run in store.runs(experiment)]
            print_json(_as_json(results, store.counts(experiment), len(store.problems()), runs))
        else:
            _show(store, experiment, experiment is not None if matrix is None else matrix, limit, said)


def _as_json(results: Path, counts: dict[State, int], problems: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "results": str(results),
        "counts": {state.value: counts.get(state, 0) for state in State},
        "problems": problems,
        "runs": runs,
    }


def _show_nothing(results: Path, json_output: bool) -> None:
    if json_output:
        print_json(_as_json(results, {}, 0, []))
        return
    notes().print(f"No runs yet in {results}/. Train one with `prove run`, or name another folder with --results DIR.")


def _show(store: Store, experiment: str | None, matrix: bool, limit: int, said: Sequence[str]) -> None:
    counts = store.counts(experiment)
    out = console()
    for line in said:
        notes().print(line)
    out.print(", ".join(f"{count} {state}" for state, count in counts.items()) or "no runs")
    if matrix:
        show_matrix(store, experiment)
    else:
        runs = store.runs(experiment, limit=limit)
        out.print(runs_table(runs))
        rest = sum(counts.values()) - len(runs)
        if rest > 0:
            notes().print(f"... and {rest} more: see them with --limit, by model with --matrix, or all with --json.")
    if counts.get(State.FAILED):
        show_failures(store.runs(experiment, states=(State.FAILED,)))
    problems = len(store.problems())
    if problems:
        lines = "1 line" if problems == 1 else f"{problems} lines"
        notes().print(f"{lines} in the run folders could not be read; `prove show KEY` tells which.")


def show_matrix(store: Store, experiment: str | None) -> None:
    """The runs as tables of objectives by models, with a legend."""
    from prove.cli.matrix_view import legend, matrix_tables
    from prove.store.cells import cells

    found = cells(store.connection, experiment)
    out = console()
    for title, table in matrix_tables(found):
        out.print("")
        out.print(title, style="bold")
        out.print(table)
    out.print("")
    out.print(legend(sum(found.values(), Counter())))


def show_failures(runs: Sequence[RunRow]) -> None:
    """What failed and why: by kind, the same message once."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for run in runs:
        groups.setdefault((str(run.failure), run.message, run.advice), []).append(run.key)
    out = notes()
    for (kind, message, advice), keys in list(groups.items())[:FAILURES_SHOWN]:
        named = keys[0] if len(keys) == 1 else f"{len(keys)} runs ({', '.join(keys[:3])}{', ...' * (len(keys) > 3)})"
        out.print(f"{named} failed ({kind}): {message}" + (f"\n  {advice}" if advice else ""))
    if len(groups) > FAILURES_SHOWN:
        out.print(f"... and {len(groups) - FAILURES_SHOWN} other failures: `prove status --list --json` has all.")


def _hours(store: Store, experiment: str | None, by: str, json_output: bool) -> None:
    from prove.store.accounting import BY
    from prove.store.accounting import hours as count

    if by not in BY:
        raise unknown("column", by, BY, where="in --hours")
    keys = None if experiment is None else [run.key for run in store.runs(experiment)]
    found = count(store.connection, by, keys)
    if json_output:
        print_json({"by": by, "hours": [each.to_dict() for each in found]})
        return
    console().print(_hours_table(by, found))


def _hours_table(by: str, found: Sequence[Hours]) -> object:
    table = plain_table(by, "runs", "GPU hours", "CPU hours")
    for each in found:
        table.add_row(each.name or "(none)", str(each.runs), f"{each.gpu:.2f}", f"{each.cpu:.2f}")
    return table


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
