"""What runs have cost, and what others like them will."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from prove.spec.job import Job
from prove.store.connection import Connection

Shape = tuple[str, str, int, int, int]
"""Dataset, model, batch size, crop height and width: what the time of an iteration depends on first."""


@dataclass(frozen=True)
class Rates:
    """How long finished runs took, by what they were.

    Attributes:
        by_loss: seconds per iteration, validation included, of a shape with an objective: the median over its longest
            runs, since in a short one the first iterations weigh too much.
        by_shape: the same, whatever the objective.
        memory: peak memory by shape in MiB, the largest.
    """

    by_loss: dict[tuple[Shape, str], float]
    by_shape: dict[Shape, float]
    memory: dict[Shape, float]

    def seconds(self, job: Job, loss: str) -> float | None:
        """The training time that a job is expected to take; None where nothing like it has finished.

        Args:
            loss: its objective in its short text.
        """
        shape = _shape(job)
        rate = self.by_loss.get((shape, loss)) or self.by_shape.get(shape)
        return None if rate is None else rate * job.train.max_iters

    def peak_memory_mib(self, job: Job) -> float | None:
        """What a job like this was measured to need; None where none has finished."""
        return self.memory.get(_shape(job))


def _shape(job: Job) -> Shape:
    return job.dataset_name, job.model.name, job.train.batch_size, *job.train.crop_size


def rates(connection: Connection) -> Rates:
    """`Rates` of the finished runs."""
    rows = connection.query(
        "SELECT dataset, model, loss, iteration, train_seconds, peak_memory_mib, job FROM runs "
        "WHERE state = 'finished' AND train_seconds IS NOT NULL AND iteration > 0"
    )
    times: dict[tuple[Shape, str], list[tuple[int, float]]] = {}
    memory: dict[Shape, float] = {}
    for dataset, model, loss, iteration, seconds, peak, job in rows:
        found = _batch_and_crop(job[job.rindex('"train":') + len('"train":') : -1])
        if found is None:
            continue
        shape = (dataset, model, *found)
        times.setdefault((shape, loss), []).append((iteration, seconds))
        if peak is not None:
            memory[shape] = max(peak, memory.get(shape, 0.0))
    by_shape: dict[Shape, list[tuple[int, float]]] = {}
    for (shape, _), each in times.items():
        by_shape.setdefault(shape, []).extend(each)
    return Rates(
        {key: _rate(each) for key, each in times.items()},
        {key: _rate(each) for key, each in by_shape.items()},
        memory,
    )


def _rate(runs: list[tuple[int, float]]) -> float:
    longest = max(iterations for iterations, _ in runs)
    return statistics.median(seconds / count for count, seconds in runs if count >= longest / 2)


@cache
def _batch_and_crop(train: str) -> tuple[int, int, int] | None:
    """From the training settings in a job's canonical text, where they come last."""
    try:
        settings = json.loads(train)
        return settings["batch_size"], *settings["crop_size"]
    except (ValueError, KeyError, TypeError):
        return None  # written by another PROVE


@dataclass(frozen=True)
class Hours:
    """Time that attempts have taken, whatever came of them.

    Attributes:
        name: of the experiment, objective, model, ...
        gpu, cpu: hours on a GPU and on a CPU; a GPU that two runs share counts for both.
        runs: how many runs.
    """

    name: str
    gpu: float
    cpu: float
    runs: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"name": self.name, "gpu_hours": self.gpu, "cpu_hours": self.cpu, "runs": self.runs}


BY = ("experiment", "loss", "model", "dataset", "strategy")
"""What hours can be counted by."""


def hours(connection: Connection, by: str, keys: Iterable[str] | None = None) -> list[Hours]:
    """Hours of all attempts by one of `BY`, most first; of some runs only, if any are named."""
    column = "COALESCE(experiments.name, '')" if by == "experiment" else f"runs.{by}"
    joined = "LEFT JOIN experiments ON experiments.run_id = runs.id " if by == "experiment" else ""
    rows = connection.query(
        f"SELECT {column}, runs.key, CASE WHEN attempts.device = 'cpu' THEN 1 ELSE 0 END, "
        "SUM(COALESCE(attempts.ended_at, attempts.seen_at) - attempts.started_at) "
        f"FROM attempts JOIN runs ON runs.id = attempts.run_id {joined}"
        f"WHERE attempts.started_at IS NOT NULL GROUP BY {column}, runs.key, attempts.device"
    )
    chosen = None if keys is None else set(keys)
    seconds: dict[str, list[float]] = {}
    counted: dict[str, set[str]] = {}
    for name, key, on_cpu, taken in rows:
        if chosen is None or key in chosen:
            seconds.setdefault(name, [0.0, 0.0])[on_cpu] += max(0.0, taken)
            counted.setdefault(name, set()).add(key)
    found = [Hours(name, gpu / 3600, cpu / 3600, len(counted[name])) for name, (gpu, cpu) in seconds.items()]
    return sorted(found, key=lambda each: (-each.gpu, -each.cpu, each.name))
