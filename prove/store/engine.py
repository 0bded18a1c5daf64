"""Any database that SQLAlchemy knows, by its URL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy
from sqlalchemy.engine import Connection as Link
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from prove.errors import ProveError
from prove.store.connection import NONE, Params, Row
from prove.store.tables import statements

WRITER = 0x70726F7665
"""PostgreSQL's advisory lock that PROVE's one writer holds: "prove" in ASCII."""


class EngineConnection:
    """Any other database that SQLAlchemy knows, by its URL."""

    def __init__(self, url: str) -> None:
        try:
            parsed = sqlalchemy.make_url(url)
        except ArgumentError:
            # SQLAlchemy's message would repeat the text, which may hold a password.
            raise ProveError(
                "$PROVE_DB is not a database URL.", hint="Write it as sqlite:///path or postgresql://host/name."
            ) from None
        self.name = parsed.render_as_string(hide_password=True)
        with self._translated():
            self.engine = sqlalchemy.create_engine(parsed)
            self._link: Link = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._text = sqlalchemy.text
        self._inside: Link | None = None

    def query(self, sql: str, params: Params = NONE) -> list[Row]:
        """The rows of a SELECT."""
        with self._translated():
            return [tuple(row) for row in self._current.execute(self._text(sql), params)]

    def execute(self, sql: str, params: Params = NONE) -> int:
        """Carry out one statement; how many rows it touched."""
        with self._translated():
            return self._current.execute(self._text(sql), params).rowcount

    def execute_many(self, sql: str, rows: Sequence[Params]) -> None:
        """Carry out one statement for every row of parameters."""
        if rows:
            with self._translated():
                self._current.execute(self._text(sql), list(rows))

    @property
    def _current(self) -> Link:
        return self._link if self._inside is None else self._inside

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction with the right to write, held alone; committed at the end, undone by an exception."""
        with self._translated(), self.engine.begin() as link:
            self._inside = link
            try:
                self._become_the_writer()
                yield
            finally:
                self._inside = None

    def _become_the_writer(self) -> None:
        """Wait until no other transaction of `writing` is open on the database."""
        if self.engine.dialect.name == "postgresql":
            # Also while there are no tables: several may find that at once, and one must create them.
            self.query("SELECT pg_advisory_xact_lock(:lock)", {"lock": WRITER})
        elif "alembic_version" in self.tables():
            self.execute("UPDATE alembic_version SET version_num = version_num")  # the row is locked until the end

    def tables(self) -> set[str]:
        """Names of the tables that exist."""
        with self._translated():
            return set(sqlalchemy.inspect(self._current).get_table_names())

    def create(self, revision: str) -> None:
        """Create all tables, stamped with their revision; inside `writing`."""
        for statement in statements(self.engine.dialect, revision):
            self.execute(statement)

    def close(self) -> None:
        """Let go of the database."""
        self._link.close()
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise ProveError(
                f"There is no driver for the database {self.name} ({error}).",
                hint="Install it beside PROVE; for PostgreSQL: `pip install psycopg[binary]` and postgresql+psycopg://...",
            ) from error
        except SQLAlchemyError as error:
            raise ProveError(
                f"The database {self.name} can't be used: {getattr(error, 'orig', None) or error}.",
                hint="Check $PROVE_DB and that the server is up.",
            ) from error
