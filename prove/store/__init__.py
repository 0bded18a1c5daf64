"""The record of all runs: SQLAlchemy tables, migrations, ingest of events, queries."""

from prove.store.claims import Claim, LaunchRow, Settlement
from prove.store.fold import derive_state
from prove.store.reporting import Described, Resampled
from prove.store.rows import Attempt, CurvePoint, Problem, ResultRow, RunRow
from prove.store.store import Store, database_url

__all__ = [
    "Attempt",
    "Claim",
    "CurvePoint",
    "Described",
    "LaunchRow",
    "Problem",
    "Resampled",
    "ResultRow",
    "RunRow",
    "Settlement",
    "Store",
    "database_url",
    "derive_state",
]
