"""Launches, the claim that one has on a run, and the results folder that a run's events come from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, and what a run says of its launch."""
    op.create_table(
        "launches",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("launcher", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("user_name", sa.Text, nullable=False),
        sa.Column("experiment", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("slurm_jobs", sa.Text),
        sa.Column("closed_at", sa.Double),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.add_column("runs", sa.Column("launch", sa.Text))
    op.add_column("runs", sa.Column("task", sa.Integer))
    op.add_column("runs", sa.Column("peak_memory_mib", sa.Double))
    op.add_column("ingest", sa.Column("results", sa.Text))
    op.create_index("runs_by_launch", "runs", ["launch"])
    op.create_index("runs_by_update", "runs", ["updated_at"])


def downgrade() -> None:
    """Drop what `upgrade` added."""
    op.drop_index("runs_by_update", "runs")
    op.drop_index("runs_by_launch", "runs")
    op.drop_column("ingest", "results")
    for column in ("peak_memory_mib", "task", "launch"):
        op.drop_column("runs", column)
    op.drop_table("launches")
