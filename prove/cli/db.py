"""`prove db`: the database of a results folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from prove.cli.options import RESULTS, JsonOption, ResultsOption, console, notes, print_json
from prove.cli.tables import percent
from prove.errors import ProveError
from prove.store import Store, database_url, schema
from prove.store.connection import Connection, connect
from prove.store.merge import Merged, Verdict, export_runs, import_runs
from prove.store.sqlite import SqliteConnection
from prove.store.store import PATIENCE_SECONDS

app = typer.Typer(help="Look at the database, upgrade it, exchange runs with others.", no_args_is_help=True)

TABLES = (
    "runs", "attempts", "results", "curves", "evidence", "environments", "replicates", "experiments", "studies",
    "looks", "launches", "problems",
)  # fmt: skip


@app.command()
def info(results: ResultsOption = RESULTS, json_output: JsonOption = False) -> None:
    """Show where the database is, the revision of its tables, and how much they hold."""
    _require_database(results)
    connection = connect(database_url(results), PATIENCE_SECONDS)
    try:
        facts = _facts(connection)
    finally:
        connection.close()
    if json_output:
        print_json(facts)
        return
    out = console()
    rows = facts.pop("rows")
    for name, value in (*facts.items(), *rows.items()):
        out.print(f"{name:<17} {value}")


@app.command()
def upgrade(results: ResultsOption = RESULTS, json_output: JsonOption = False) -> None:
    """Bring the tables to this PROVE's revision, and keep a copy of the old database."""
    _require_database(results)
    before, copy = schema.upgrade(database_url(results), PATIENCE_SECONDS)
    if json_output:
        print_json({"before": before, "after": schema.HEAD, "copy": None if copy is None else str(copy)})
    elif before == schema.HEAD:
        notes().print(f"The tables are of revision {schema.HEAD} already.")
    else:
        notes().print(f"Upgraded from revision {before} to {schema.HEAD}. The old database: {copy or 'not copied'}.")


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, such as runs.tar.gz.")],
    experiment: Annotated[
        str | None, typer.Option("--experiment", metavar="NAME", help="Only the runs of this experiment.")
    ] = None,
    results: ResultsOption = RESULTS,
    json_output: JsonOption = False,
) -> None:
    """Write runs to one file that another results folder can import: all but their checkpoints."""
    with Store.open_existing(results) as store:
        store.refresh()
        exported, running = export_runs(store, file, experiment)
    if json_output:
        print_json({"file": str(file), "exported": exported, "left_out": running})
        return
    left_out = f" Left out, because they are running or queued: {running}." if running else ""
    notes().print(f"Exported {counted(exported)} to {file}.{left_out}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `prove db export` wrote.")],
    results: ResultsOption = RESULTS,
    json_output: JsonOption = False,
) -> None:
    """Add the runs of a file that are not here; exit code 1 where a run is finished here and there, and differs."""
    if not file.is_file():
        raise ProveError(f"There is no file {file}.", hint="Write one with `prove db export FILE`.")
    with Store.open(results) as store:
        merged = import_runs(store, file)
    if json_output:
        print_json({"file": str(file), **merged.to_dict()})
    else:
        for line in _told(merged):
            notes().print(line)
    if merged.conflicts:
        raise typer.Exit(1)


TOLD = {
    Verdict.ADDED: "added",
    Verdict.REPLACED: "finished there and not here: replaced, the old folders are in replaced/",
    Verdict.SAME: "here already",
    Verdict.KEPT: "not finished there: ours kept",
    Verdict.HELD: "being trained here, or about to be: ours kept",
    Verdict.CONFLICT: "finished here and there, with different events: ours kept",
}


def _told(merged: Merged) -> Iterator[str]:
    for verdict, meaning in TOLD.items():
        if keys := merged.keys(verdict):
            yield f"{counted(len(keys))} {meaning}."
    for key, (ours, theirs) in merged.conflicts.items():
        yield f"  {key}  mIoU {percent(ours)} here, {percent(theirs)} there"
    if not merged.verdicts:
        yield "The file holds no runs."


def counted(runs: int) -> str:
    """A number of runs, in words."""
    return "1 run" if runs == 1 else f"{runs:,} runs"


def _require_database(results: Path) -> None:
    if Store.holds_nothing(results):
        raise ProveError(
            f"There is no database in {results}.",
            hint="Train a run with `prove run`, or name another folder with --results DIR.",
        )


def _facts(connection: Connection) -> dict[str, Any]:
    found = schema.revision(connection)
    facts: dict[str, Any] = {"database": connection.name, "revision": found, "newest_revision": schema.HEAD}
    if isinstance(connection, SqliteConnection):
        facts |= {
            "journal_mode": connection.journal_mode,
            "bytes": connection.path.stat().st_size,
            "integrity": connection.query("PRAGMA quick_check")[0][0],
        }
    present = connection.tables()
    rows = {table: connection.query(f"SELECT COUNT(*) FROM {table}")[0][0] for table in TABLES if table in present}
    return {**facts, "rows": rows}
