"""`prove db`: the database of a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from prove.cli.options import RESULTS, JsonOption, ResultsOption, console, notes, print_json
from prove.errors import ProveError
from prove.store import Store, database_url, schema
from prove.store.connection import Connection, connect
from prove.store.sqlite import SqliteConnection
from prove.store.store import PATIENCE_SECONDS

app = typer.Typer(help="Look at the database of a results folder, and upgrade it.", no_args_is_help=True)

TABLES = ("runs", "attempts", "results", "curves", "evidence", "experiments", "problems")


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
