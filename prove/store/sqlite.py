"""A SQLite file as the store's database, by the standard library."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prove.errors import ProveError
from prove.store.connection import NONE, Params, Row

NETWORKED = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "afs", "ceph", "glusterfs", "9p", "fuse.sshfs"}
)
"""File systems on which the shared memory of SQLite's write-ahead log does not reach other hosts."""

CACHE_KIB = 65536
"""Most memory for pages of the file: what a refresh of a thousand runs changes fits, and is written once."""

SCARCE_BYTES = 1 << 20
"""A disk with less room is full, for a database."""


class SqliteConnection:
    """A SQLite file.

    Args:
        path: the file; created when absent.
        patience_seconds: how long to wait for another writer.
    """

    def __init__(self, path: Path, patience_seconds: float) -> None:
        self.path = path
        self.name = str(path)
        with self._translated():
            self._link = sqlite3.connect(path, timeout=patience_seconds, isolation_level=None)
        try:
            with self._translated():
                self._prepare(time.monotonic() + patience_seconds)
        except ProveError:
            self._link.close()
            raise

    def _prepare(self, deadline: float) -> None:
        self._link.execute("PRAGMA foreign_keys = ON")
        self._link.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        current = self._in_mode("delete" if file_system(self.path.parent) in NETWORKED else "wal", deadline)
        # A power cut can take the last transactions of a write-ahead log, not its integrity: the events are read again.
        self._link.execute(f"PRAGMA synchronous = {'NORMAL' if current == 'wal' else 'FULL'}")

    def _in_mode(self, wanted: str, deadline: float) -> str:
        """Bring the file to a journal mode; SQLite itself does not wait here for others who are at the same."""
        while True:
            try:
                (current,) = self._link.execute("PRAGMA journal_mode").fetchone()
                if current != wanted:
                    (current,) = self._link.execute(f"PRAGMA journal_mode = {wanted}").fetchone()
                return str(current)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @property
    def journal_mode(self) -> str:
        """SQLite's journal mode, ``wal`` or ``delete``."""
        with self._translated():
            return str(self._link.execute("PRAGMA journal_mode").fetchone()[0])

    def query(self, sql: str, params: Params = NONE) -> list[Row]:
        """The rows of a SELECT."""
        with self._translated():
            return self._link.execute(sql, params).fetchall()

    def execute(self, sql: str, params: Params = NONE) -> int:
        """Carry out one statement; how many rows it touched."""
        with self._translated():
            return self._link.execute(sql, params).rowcount

    def execute_many(self, sql: str, rows: Sequence[Params]) -> None:
        """Carry out one statement for every row of parameters."""
        with self._translated():
            self._link.executemany(sql, rows)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction with the right to write, held alone; committed at the end, undone by an exception."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._link.in_transaction:
                self.execute("ROLLBACK")
            raise

    def tables(self) -> set[str]:
        """Names of the tables that exist."""
        return {name for (name,) in self.query("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def create(self, revision: str) -> None:
        """Create all tables, stamped with their revision; inside `writing`."""
        from sqlalchemy.dialects import sqlite

        from prove.store.tables import statements

        for statement in statements(sqlite.dialect(), revision):
            self.execute(statement)

    def close(self) -> None:
        """Let go of the database."""
        self._link.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:
                raise  # a mistake in a statement of ours
            raise _operational(self.path, error) from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise  # likewise
            raise ProveError(
                f"{self.path} is not a usable SQLite database ({error}).",
                hint="Move it away, and the next command builds it again from the run folders.",
            ) from error


def _operational(path: Path, error: sqlite3.OperationalError) -> ProveError:
    elsewhere = "name another with $PROVE_DB or --results DIR"
    full = ProveError(f"The disk that holds {path} is full.", hint="Free some space; no result is lost.")
    match error.sqlite_errorcode & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return ProveError(f"The database {path} is locked by another process.", hint="Try again in a moment.")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return ProveError(
                f"The database {path} can't be written ({error}).",
                hint=f"Check its permissions and those of its folder, or {elsewhere}.",
            )
        case sqlite3.SQLITE_FULL:
            return full
        case sqlite3.SQLITE_IOERR if shutil.disk_usage(path.parent).free < SCARCE_BYTES:
            return full  # the log's shared memory fails like this
    return ProveError(f"The database {path} can't be used ({error}).", hint=f"Check its disk, or {elsewhere}.")


def file_system(folder: Path, mounts: Iterable[str] | None = None) -> str:
    """The type of the file system that a folder is on, such as ``ext4`` or ``nfs4``; empty when unknown.

    Args:
        mounts: lines of ``/proc/self/mounts``; read from there when None.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except FileNotFoundError:  # not Linux
            return ""
    place = folder.resolve()
    best, kind = -1, ""
    for line in mounts:
        _, point, this, *_ = line.split(" ")
        mount = Path(point.replace("\\040", " "))
        if place.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), this
    return kind
