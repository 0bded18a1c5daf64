"""One connection to the database: SQLite by the standard library, any other by SQLAlchemy.

The queries of the store are plain SQL that SQLite and PostgreSQL share, with ``:name`` parameters. SQLite takes them
without SQLAlchemy, whose import alone would cost `prove status` more than everything else that it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from prove.errors import ProveError

Row = tuple[Any, ...]
Params = Mapping[str, Any]

NONE: Params = {}

SQLITE = "sqlite:///"

DATABASE = "prove.db"
"""The database of a results folder, unless another is named."""


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


CHUNK = 500
"""Values per query of `query_among`; SQLite takes at least 999."""


def query_among(connection: Connection, sql: str, values: Iterable[Any], params: Params = NONE) -> Iterator[Row]:
    """The rows of a SELECT, which holds ``IN :values``, for any number of values; ``params`` are its others."""
    rest = iter(values)
    while chunk := list(islice(rest, CHUNK)):
        named = {f"v{index}": value for index, value in enumerate(chunk)}
        yield from connection.query(sql.replace(":values", f"(:{', :'.join(named)})"), {**named, **params})


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
