"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

METRICS = ("mIoU", "aAcc", "mAcc", "fwIoU", "bIoU", "bF1", "ECE")


def run_id() -> sa.Column[int]:
    """The column that names a run."""
    return sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False)


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String(12), nullable=False, unique=True),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("dataset", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("loss", sa.Text, nullable=False),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("max_iters", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("failure", sa.String(16)),
        sa.Column("message", sa.Text, nullable=False, server_default=""),
        sa.Column("advice", sa.Text, nullable=False, server_default=""),
        sa.Column("iteration", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        *(sa.Column(metric, sa.Double) for metric in METRICS),
        sa.Column("val_mIoU", sa.Double),
        sa.Column("best_mIoU", sa.Double),
        sa.Column("best_iteration", sa.Integer),
        sa.Column("train_seconds", sa.Double),
    )
    op.create_index("runs_by_state", "runs", ["state"])
    op.create_index("runs_by_cell", "runs", ["dataset", "model", "strategy", "loss", "seed"])
    op.create_table(
        "attempts",
        run_id(),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("host", sa.Text),
        sa.Column("pid", sa.Integer),
        sa.Column("launcher", sa.Text),
        sa.Column("device", sa.Text),
        sa.Column("resumed_from", sa.Integer),
        sa.Column("iteration", sa.Integer),
        sa.Column("started_at", sa.Double),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.Column("ending", sa.String(16)),
        sa.Column("reason", sa.Text),
        sa.PrimaryKeyConstraint("run_id", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "results",
        run_id(),
        sa.Column("checkpoint", sa.String(8), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("metric", sa.String(16), nullable=False),
        sa.Column("value", sa.Double),
        sa.PrimaryKeyConstraint("run_id", "checkpoint", "scope", "name", "metric"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "curves",
        run_id(),
        sa.Column("split", sa.String(8), nullable=False),
        sa.Column("iteration", sa.Integer, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "split", "iteration"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "evidence",
        run_id(),
        sa.Column("payload", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_table(
        "experiments",
        sa.Column("name", sa.Text, nullable=False),
        run_id(),
        sa.PrimaryKeyConstraint("name", "run_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ingest",
        run_id(),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("head", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_table(
        "problems",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("line", sa.Text, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("key", "position"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Drop every table."""
    for table in ("problems", "ingest", "experiments", "evidence", "curves", "results", "attempts", "runs"):
        op.drop_table(table)
