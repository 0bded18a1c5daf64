import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from prove.errors import ProveError
from prove.store import Store, schema
from prove.store.connection import Connection
from prove.store.engine import EngineConnection
from prove.store.sqlite import SqliteConnection, file_system
from tests.journal import make_run, whole_life


def anatomy(path: Path) -> dict[str, object]:
    """The tables of a database as SQLite itself sees them."""
    with closing(sqlite3.connect(path)) as link:
        tables = sorted(name for (name,) in link.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
        return {
            table: (
                link.execute(f"PRAGMA table_info({table})").fetchall(),
                link.execute(f"PRAGMA foreign_key_list({table})").fetchall(),
                sorted(
                    (unique, link.execute(f"PRAGMA index_info({name})").fetchall())
                    for _, name, unique, *_ in link.execute(f"PRAGMA index_list({table})").fetchall()
                ),
                "WITHOUT ROWID" in link.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0],
            )
            for table in tables
        }


def test_migrations_end_in_the_tables_that_a_fresh_database_gets(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    schema.migrate(f"sqlite:///{tmp_path / 'migrated.db'}")
    fresh = anatomy(tmp_path / "prove.db")
    assert {"runs", "attempts", "results", "curves", "evidence", "ingest", "alembic_version"} <= set(fresh)
    assert anatomy(tmp_path / "migrated.db") == fresh


def test_alembic_sees_no_difference_and_knows_the_same_revisions(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from prove.store.tables import metadata

    Store.open(tmp_path).close()
    engine = EngineConnection(f"sqlite:///{tmp_path / 'prove.db'}")
    with engine.engine.connect() as link:
        context = MigrationContext.configure(link, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == schema.HEAD
    engine.close()
    config = Config()
    config.set_main_option("script_location", "prove:store/migrations")
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(known)) == schema.REVISIONS


def test_opening_imports_neither_alembic_nor_sqlalchemy(tmp_path: Path) -> None:
    make_run(tmp_path, whole_life())
    Store.open(tmp_path).close()
    code = (
        "import sys; from pathlib import Path; from prove.store import Store\n"
        "with Store.open(Path(sys.argv[1])) as store: store.refresh(); assert len(store.runs()) == 1\n"
        "heavy = {'alembic', 'sqlalchemy', 'torch', 'numpy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)


def test_creating_does_not_import_alembic(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from prove.store import Store\n"
        "Store.open(Path(sys.argv[1])).close(); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    assert (tmp_path / "prove.db").exists()


def test_another_process_that_creates_the_tables_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = schema.revision, []

    def revision(connection: Connection) -> str | None:
        if seen:
            return real(connection)
        seen.append(real(connection))
        Store.open(tmp_path).close()  # just after we looked
        return seen[0]

    monkeypatch.setattr(schema, "revision", revision)
    with Store.open(tmp_path) as store:
        assert seen == [None]
        assert store.runs() == []


def stamp(results: Path, revision: str) -> None:
    with closing(sqlite3.connect(results / "prove.db")) as link, link:
        link.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def test_a_newer_database_is_refused_untouched(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    stamp(tmp_path, "0099")
    with pytest.raises(ProveError, match=f"0099, written by a newer PROVE; this one reads revision {schema.HEAD}"):
        Store.open(tmp_path)
    with pytest.raises(ProveError, match="newer"):
        schema.upgrade(f"sqlite:///{tmp_path / 'prove.db'}", 1.0)
    assert [path.name for path in tmp_path.iterdir() if path.suffix not in (".db", "")] == []


def test_an_older_database_asks_for_the_upgrade_which_keeps_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, whole_life())
    with Store.open(tmp_path) as store:
        store.refresh()
    old = schema.HEAD
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "0099"))
    monkeypatch.setattr(schema, "HEAD", "0099")
    with pytest.raises(ProveError, match=f"revision {old}, this PROVE needs 0099") as caught:
        Store.open(tmp_path)
    assert "prove db upgrade" in caught.value.hint
    monkeypatch.setattr(schema, "migrate", lambda url: stamp(tmp_path, "0099"))
    before, copy = schema.upgrade(f"sqlite:///{tmp_path / 'prove.db'}", 1.0)
    assert before == old
    assert copy is not None
    assert anatomy(copy) == anatomy(tmp_path / "prove.db")
    with closing(sqlite3.connect(copy)) as link:
        assert link.execute("SELECT state FROM runs").fetchall() == [("finished",)]
        assert link.execute("SELECT version_num FROM alembic_version").fetchall() == [(old,)]
    with Store.open(tmp_path) as store:
        assert len(store.runs()) == 1


def test_another_program_s_database_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "prove.db")) as link:
        link.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(ProveError, match="not PROVE's: it holds bookmarks"):
        Store.open(tmp_path)


def test_what_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "prove.db").write_text("mIoU,aAcc\n" * 1000)
    with pytest.raises(ProveError, match="not a usable SQLite database"):
        Store.open(tmp_path)
    (tmp_path / "folder" / "prove.db").mkdir(parents=True)
    with pytest.raises(ProveError, match="can't be written"):
        Store.open(tmp_path / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(ProveError, match="folder of the database can't be made"):
        Store.open(tmp_path / "file" / "results")


def test_a_database_that_can_only_be_read(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        # SQLite's own read-only mode: root, as in a container, may write any file.
        store.connection.execute("PRAGMA query_only = ON")
        with pytest.raises(ProveError, match="can't be written"):
            store.connection.execute("DELETE FROM runs")


def test_a_locked_database_says_so_after_its_patience(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "prove.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with Store.open(tmp_path, patience_seconds=0.05) as store, pytest.raises(ProveError, match="locked by another"):
            store.register([])
        other.execute("ROLLBACK")
        with Store.open(tmp_path, patience_seconds=0.05) as store:
            store.register([])


def test_other_databases_are_named_without_their_password() -> None:
    with pytest.raises(ProveError, match="no driver") as caught:
        EngineConnection("nosuchdb://prove:s3cret@host/lab")
    assert "s3cret" not in str(caught.value)
    assert "prove:***@host" in str(caught.value)
    with pytest.raises(ProveError, match="not a database URL") as caught:
        EngineConnection("s3cret@host")
    assert "s3cret" not in str(caught.value)


MOUNTS = [
    "overlay / overlay rw 0 0",
    "server:/home /home nfs4 rw 0 0",
    "/dev/sdb1 /home/scratch\\040disk ext4 rw 0 0",
    "proc /proc proc rw 0 0",
]


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/srv/x", "overlay"), ("/home/anna/results", "nfs4"), ("/home/scratch disk/r", "ext4"), ("/homes", "overlay")],
)
def test_the_file_system_of_a_folder(folder: str, kind: str) -> None:
    assert file_system(Path(folder), MOUNTS) == kind


@pytest.mark.parametrize(("kind", "mode"), [("nfs4", "delete"), ("ext4", "wal"), ("", "wal")])
def test_the_journal_follows_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, mode: str
) -> None:
    monkeypatch.setattr("prove.store.sqlite.file_system", lambda folder: kind)
    with Store.open(tmp_path) as store:
        assert isinstance(store.connection, SqliteConnection)
        assert store.connection.journal_mode == mode
