"""One connection to the database: SQLite by the standard library, any other by SQLAlchemy.

The queries of the store are plain SQL that SQLite and PostgreSQL share, with ``:name`` parameters. SQLite takes them
without SQLAlchemy, whose import alone would cost `prove status` more than everything else that it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from prove.errors import ProveError

Row = tuple[Any, ...]
Params = Mapping[str, Any]

NONE: Params = {}

SQLITE = "sqlite:///"


class Connection(Protocol):
    """What the store needs of a database."""

    name: str
    """What messages call it: a path, or a URL without its password."""

    def query(self, sql: str, params: Params = NONE) -> list[Row]:
        """The rows of a SELECT."""

    def execute(self, sql: str, params: Params = NONE) -> int:
        """Carry out one statement; how many rows it touched."""

    def execute_many(self, sql: str, rows: Sequence[Params]) -> None:
        """Carry out one statement for every row of parameters."""

    def writing(self) -> AbstractContextManager[None]:
        """A transaction with the right to write, held alone; committed at the end, undone by an exception."""

    def tables(self) -> set[str]:
        """Names of the tables that exist."""

    def create(self, revision: str) -> None:
        """Create all tables, stamped with their revision; inside `writing`."""

    def close(self) -> None:
        """Let go of the database."""


def connect(url: str, patience_seconds: float) -> Connection:
    """A connection to a database URL.

    Raises:
        ProveError: it can't be reached, or is not a database.
    """
    if url.startswith(SQLITE):
        from prove.store.sqlite import SqliteConnection

        path = Path(url.removeprefix(SQLITE))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProveError(
                f"The folder of the database can't be made: {path.parent} ({error.strerror}).",
                hint="Choose another with --results DIR or $PROVE_RESULTS.",
            ) from error
        return SqliteConnection(path, patience_seconds)
    from prove.store.engine import EngineConnection

    return EngineConnection(url)
