"""What a run loses from clear to adverse conditions, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prove.cli.evaluation_tables import gap_line

if TYPE_CHECKING:
    from prove.store import ResultRow


def gap_of(results: Sequence[ResultRow]) -> str:
    """The gap of the last checkpoint, or why there is none; empty where there are not several conditions."""
    conditions = {
        row.name: {"mIoU": row.value}
        for row in results
        if (row.checkpoint, row.scope, row.metric) == ("last", "condition", "mIoU")
    }
    return gap_line(conditions) if len(conditions) > 1 else ""
