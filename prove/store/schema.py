"""The version of the tables: creating the newest, refusing a newer one, upgrading an older one."""

from __future__ import annotations

import shutil
from pathlib import Path

from prove.errors import ProveError
from prove.store.connection import SQLITE, Connection, connect

REVISIONS = ("0001", "0002", "0003")
"""Revisions of the tables, oldest first; the names of the files in `migrations/versions`."""

HEAD = REVISIONS[-1]


def prepare(connection: Connection) -> None:
    """Create the tables in an empty database, accept the newest, refuse every other. Does not import Alembic.

    Raises:
        ProveError: the tables are older, newer, or another program's.
    """
    found = revision(connection)
    if found is None:
        with connection.writing():
            if revision(connection) is None:  # another process may have been quicker
                connection.create(HEAD)
        found = revision(connection)
    if found == HEAD:
        return
    if found in REVISIONS:
        raise ProveError(
            f"The database {connection.name} has tables of revision {found}, this PROVE needs {HEAD}.",
            hint="Run `prove db upgrade`: it keeps a copy of the old database.",
        )
    raise ProveError(
        f"The database {connection.name} has tables of revision {found}, written by a newer PROVE; "
        f"this one reads revision {HEAD}.",
        hint="Install the newer PROVE, or choose another database with $PROVE_DB or --results DIR.",
    )


def revision(connection: Connection) -> str | None:
    """The revision of the tables; None for an empty database.

    Raises:
        ProveError: the tables are another program's.
    """
    tables = connection.tables()
    if "alembic_version" in tables:
        rows = connection.query("SELECT version_num FROM alembic_version")
        if len(rows) == 1:
            return str(rows[0][0])
    if not tables:
        return None
    raise ProveError(
        f"The database {connection.name} is not PROVE's: it holds {', '.join(sorted(tables)[:5])}.",
        hint="Choose another with $PROVE_DB or --results DIR.",
    )


def upgrade(url: str, patience_seconds: float) -> tuple[str | None, Path | None]:
    """Bring a database to the newest revision.

    Returns:
        the revision it had, and the copy that was kept of it; None for the copy when nothing had to be done, or when
        the database is not a SQLite file: a server's is its administrator's to back up.

    Raises:
        ProveError: it can't be upgraded, or is newer than this PROVE.
    """
    connection = connect(url, patience_seconds)
    try:
        found = revision(connection)
        if found not in (None, *REVISIONS[:-1]):
            prepare(connection)
            return found, None
        copy = _copy(url, found) if found is not None else None
    finally:
        connection.close()
    migrate(url)
    return found, copy


def migrate(url: str, to: str = "head") -> None:
    """Run the migrations up to a revision."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "prove:store/migrations")
    config.attributes["url"] = url  # not a main option: those expand the % of an escaped password
    command.upgrade(config, to)


def _copy(url: str, found: str) -> Path | None:
    if not url.startswith(SQLITE):
        return None
    import sqlite3
    from contextlib import closing

    path = Path(url.removeprefix(SQLITE))
    copy = path.with_name(f"{path.name}.revision-{found}")
    if shutil.disk_usage(path.parent).free < 2 * path.stat().st_size:
        raise ProveError(f"There is no room for a copy of {path} beside it.", hint="Free some space, then try again.")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy
