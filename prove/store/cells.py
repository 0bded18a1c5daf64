"""The matrix that the runs make up: how many of each group are in which state."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from prove.spec.event import State
from prove.store.connection import Connection


@dataclass(frozen=True)
class CellGroup:
    """Jobs that differ in nothing that a table shows but their seeds.

    Attributes:
        loss: the objective in its short text; where groups would look alike, with what they differ in, as in
            ``ce [max_iters 400]``.
    """

    dataset: str
    model: str
    strategy: str
    loss: str


Cells = dict[CellGroup, Counter[str]]
"""Runs by group and state."""


def cells(connection: Connection, experiment: str | None = None) -> Cells:
    """Runs by group and state, in the order in which they were registered.

    Args:
        experiment: only its runs; one that does not exist has none.
    """
    where = "1 = 1" if experiment is None else "id IN (SELECT run_id FROM experiments WHERE name = :experiment)"
    rows = connection.query(
        f"SELECT dataset, model, strategy, loss, state, job FROM runs WHERE {where} ORDER BY id",
        {} if experiment is None else {"experiment": experiment},
    )
    tally = Tally()
    for *named, state, job in rows:
        tally.add(CellGroup(*named), job, state)
    return tally.cells()


class Tally:
    """Counts runs by group and state; groups that hold different jobs are told apart."""

    def __init__(self) -> None:
        self._found: dict[tuple[CellGroup, str], Counter[str]] = {}

    def add(self, group: CellGroup, job: str, state: str) -> None:
        """One run.

        Args:
            job: its job's canonical text.
        """
        self._found.setdefault((group, without_seed(job)), Counter())[state] += 1

    def cells(self) -> Cells:
        """What was counted, in the order in which it came."""
        variants: dict[CellGroup, list[str]] = {}
        for group, job in self._found:
            variants.setdefault(group, []).append(job)
        labels = {group: _differences(jobs) for group, jobs in variants.items() if len(jobs) > 1}
        named: Cells = {}
        for (group, job), counts in self._found.items():
            label = labels.get(group, {}).get(job, "")
            shown = replace(group, loss=f"{group.loss} [{label}]") if label else group
            named.setdefault(shown, Counter()).update(counts)
        return named


def without_seed(job: str) -> str:
    """A job's canonical text without its seed: runs that have it in common are repetitions of each other."""
    start = job.rindex('"seed":')
    return job[:start] + job[job.index(",", start) + 1 :]


def _differences(jobs: list[str]) -> dict[str, str]:
    """What each of these jobs has that others of them have not, by its text."""
    facts = {job: dict(_facts(json.loads(job))) for job in jobs}
    names = dict.fromkeys(name for each in facts.values() for name in each)
    varying = [name for name in names if len({each.get(name) for each in facts.values()}) > 1]
    return {job: ", ".join(f"{name} {each.get(name, '-')}" for name in varying) for job, each in facts.items()}


def _facts(job: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield "domain_filter", "+".join(job["train"].get("domain_filter") or ("all",))
    for name, value in job["train"].items():
        if name == "domain_filter":
            continue
        yield name, value if isinstance(value, str) else json.dumps(value)
    for term in job["loss"]:
        for name, value in term["params"].items():
            yield f"{term['name']}.{name}", str(value).removeprefix("sha256_")[:12]
    for name, value in job["dataset"].items():
        yield f"dataset.{name}", json.dumps(value)[:40]
    if job["model"]["config_sha256"]:
        yield "model", job["model"]["config_sha256"][:8]


def iterations(connection: Connection, experiment: str | None = None) -> tuple[int, int]:
    """Iterations that runs have done, and that those which wait, run or were interrupted still have to do."""
    where = "1 = 1" if experiment is None else "id IN (SELECT run_id FROM experiments WHERE name = :experiment)"
    left = ", ".join(f"'{state}'" for state in (State.QUEUED, State.RUNNING, State.INTERRUPTED))
    (done, rest), *_ = connection.query(
        "SELECT COALESCE(SUM(iteration), 0), "
        f"COALESCE(SUM(CASE WHEN state IN ({left}) THEN max_iters - iteration ELSE 0 END), 0) FROM runs WHERE {where}",
        {} if experiment is None else {"experiment": experiment},
    )
    return int(done), int(rest)
