"""The tables, as SQLAlchemy describes them. Times are seconds since 1970, UTC; metrics are percent."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)
from sqlalchemy.schema import CreateIndex, CreateTable

from prove.spec.job import METRICS

metadata = MetaData()


def _run() -> Column[int]:
    return Column("run_id", Integer, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False)


runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", String(12), nullable=False, unique=True),
    Column("job", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("strategy", Text, nullable=False),
    Column("loss", Text, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("max_iters", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("failure", String(16)),
    Column("message", Text, nullable=False, server_default=""),
    Column("advice", Text, nullable=False, server_default=""),
    Column("iteration", Integer, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    *(Column(metric, Double) for metric in METRICS),
    Column("val_mIoU", Double),
    Column("best_mIoU", Double),
    Column("best_iteration", Integer),
    Column("train_seconds", Double),
    Column("launch", Text),
    Column("task", Integer),
    Column("peak_memory_mib", Double),
    Index("runs_by_state", "state"),
    Index("runs_by_cell", "dataset", "model", "strategy", "loss", "seed"),
    Index("runs_by_launch", "launch"),
    Index("runs_by_update", "updated_at"),
)

launches = Table(
    "launches",
    metadata,
    Column("id", Text, nullable=False),
    Column("launcher", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("user_name", Text, nullable=False),
    Column("experiment", Text),
    Column("created_at", Double, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("slurm_jobs", Text),
    Column("closed_at", Double),
    PrimaryKeyConstraint("id"),
    sqlite_with_rowid=False,
)

attempts = Table(
    "attempts",
    metadata,
    _run(),
    Column("number", Integer, nullable=False),
    Column("host", Text),
    Column("pid", Integer),
    Column("launcher", Text),
    Column("device", Text),
    Column("resumed_from", Integer),
    Column("iteration", Integer),
    Column("started_at", Double),
    Column("seen_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("ending", String(16)),
    Column("reason", Text),
    PrimaryKeyConstraint("run_id", "number"),
    sqlite_with_rowid=False,
)

results = Table(
    "results",
    metadata,
    _run(),
    Column("checkpoint", String(8), nullable=False),
    Column("scope", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("metric", String(16), nullable=False),
    Column("value", Double),
    PrimaryKeyConstraint("run_id", "checkpoint", "scope", "name", "metric"),
    sqlite_with_rowid=False,
)

curves = Table(
    "curves",
    metadata,
    _run(),
    Column("split", String(8), nullable=False),
    Column("iteration", Integer, nullable=False),
    Column("payload", Text, nullable=False),
    PrimaryKeyConstraint("run_id", "split", "iteration"),
    sqlite_with_rowid=False,
)

evidence = Table(
    "evidence",
    metadata,
    _run(),
    Column("payload", Text, nullable=False),
    PrimaryKeyConstraint("run_id"),
)

environments = Table(
    "environments",
    metadata,
    _run(),
    Column("payload", Text, nullable=False),
    PrimaryKeyConstraint("run_id"),
)

replicates = Table(
    "replicates",
    metadata,
    _run(),
    Column("checkpoint", String(8), nullable=False),
    Column("scope", String(16), nullable=False),
    Column("metric", String(16), nullable=False),
    Column("stamp", Double, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run_id", "checkpoint", "scope", "metric"),
)

studies = Table(
    "studies",
    metadata,
    Column("name", Text, nullable=False),
    Column("report", Text, nullable=False),
    Column("description", Text, nullable=False),
    PrimaryKeyConstraint("name"),
    sqlite_with_rowid=False,
)

looks = Table(
    "looks",
    metadata,
    Column("study", Text, nullable=False),
    Column("metric", String(16), nullable=False),
    Column("digest", String(16), nullable=False),
    Column("runs", Integer, nullable=False),
    Column("seen_at", Double, nullable=False),
    PrimaryKeyConstraint("study", "metric", "digest"),
    sqlite_with_rowid=False,
)

experiments = Table(
    "experiments",
    metadata,
    Column("name", Text, nullable=False),
    _run(),
    PrimaryKeyConstraint("name", "run_id"),
    sqlite_with_rowid=False,
)

ingest = Table(
    "ingest",
    metadata,
    _run(),
    Column("position", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("head", String(32), nullable=False),
    Column("results", Text),
    PrimaryKeyConstraint("run_id"),
)

problems = Table(
    "problems",
    metadata,
    Column("key", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("message", Text, nullable=False),
    Column("line", Text, nullable=False),
    Column("seen_at", Double, nullable=False),
    PrimaryKeyConstraint("key", "position"),
    sqlite_with_rowid=False,
)


def statements(dialect: Dialect, revision: str) -> Iterator[str]:
    """The statements that create all tables in one database's dialect, stamped with their revision."""
    indices: list[Index] = []
    for table in metadata.sorted_tables:
        yield str(CreateTable(table).compile(dialect=dialect))
        indices += sorted(table.indexes, key=lambda index: str(index.name))
    for index in indices:
        yield str(CreateIndex(index).compile(dialect=dialect))
    yield (
        "CREATE TABLE alembic_version "
        "(version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    yield f"INSERT INTO alembic_version (version_num) VALUES ('{revision}')"
