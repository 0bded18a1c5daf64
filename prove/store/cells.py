"""The matrix that the runs make up: how many of each group are in which state."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from prove.store.connection import Connection


@dataclass(frozen=True)
class CellGroup:
    """Jobs that differ in nothing that a table shows: in their seeds and training settings."""

    dataset: str
    model: str
    strategy: str
    loss: str


def cells(connection: Connection, experiment: str | None = None) -> dict[CellGroup, Counter[str]]:
    """Runs by group and state, in the order in which they were registered.

    Args:
        experiment: only its runs; one that does not exist has none.
    """
    where = "1 = 1" if experiment is None else "id IN (SELECT run_id FROM experiments WHERE name = :experiment)"
    found: dict[CellGroup, Counter[str]] = {}
    for dataset, model, strategy, loss, state, count, _ in connection.query(
        "SELECT dataset, model, strategy, loss, state, COUNT(*), MIN(id) AS first FROM runs "
        f"WHERE {where} GROUP BY dataset, model, strategy, loss, state ORDER BY first",
        {} if experiment is None else {"experiment": experiment},
    ):
        found.setdefault(CellGroup(dataset, model, strategy, loss), Counter())[state] += count
    return found
