"""What the store hands out: frozen rows, and their form as plain JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from prove.spec.event import FailureKind, State
from prove.spec.job import METRICS, Job
from prove.store.fold import Progress

IDENTITY = ("key", "dataset", "model", "strategy", "loss", "seed", "max_iters")
PROGRESS = ("state", "failure", "message", "advice", "iteration", "attempts", "started_at", "finished_at")
OUTCOME = ("val_mIoU", "best_mIoU", "best_iteration", "train_seconds", "peak_memory_mib")
CLAIM = ("launch", "task")
COLUMNS = (*IDENTITY, *PROGRESS, "created_at", "updated_at", *METRICS, *OUTCOME, *CLAIM)
"""The columns of table ``runs`` that a `RunRow` holds, in its order; ``job`` apart, which is long."""


SELECTED = ", ".join(f'runs."{name}"' for name in COLUMNS)
"""`COLUMNS` as SQL."""


@dataclass(frozen=True)
class RunRow:
    """One run: its identity, its state and, once finished, the metrics of its last checkpoint.

    Attributes:
        loss: the objective in its short canonical text.
        failure: why it failed; None otherwise.
        message: what went wrong, or why it ended.
        advice: what to do about a failure.
        attempts: how often it was started.
        created_at, updated_at, started_at, finished_at: seconds since 1970, UTC.
        metrics: by the names of `METRICS`, in percent, of the last checkpoint; None until finished, and for a metric
            that is undefined.
        val_mIoU: mIoU of the latest validation, in percent, also while it runs.
        best_mIoU, best_iteration: of the best checkpoint.
        train_seconds: training time, validation included, over all attempts.
        peak_memory_mib: most memory that it took on its device, by its last finished attempt.
        launch: the open launch that has taken it on; None when nobody has.
        task: which of that launch's tasks.
        job_json: the job's canonical JSON; empty where it was not asked for.
    """

    key: str
    dataset: str
    model: str
    strategy: str
    loss: str
    seed: int
    max_iters: int
    state: State
    failure: FailureKind | None
    message: str
    advice: str
    iteration: int
    attempts: int
    started_at: float | None
    finished_at: float | None
    created_at: float
    updated_at: float
    metrics: Mapping[str, float | None]
    val_mIoU: float | None  # noqa: N815 - the metric's name
    best_mIoU: float | None  # noqa: N815
    best_iteration: int | None
    train_seconds: float | None
    peak_memory_mib: float | None
    launch: str | None
    task: int | None
    job_json: str = field(default="", repr=False)

    @cached_property
    def job(self) -> Job:
        """The job; ProveError when this PROVE can't read its form."""
        return Job.from_dict(json.loads(self.job_json))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the metrics by their own names beside the other fields."""
        return {name: getattr(self, name) for name in _PLAIN} | dict(self.metrics)


_PLAIN = tuple(name for name in RunRow.__dataclass_fields__ if name not in ("metrics", "job_json"))


def run_row(values: tuple[Any, ...]) -> RunRow:
    """A row from the values of `COLUMNS`, followed by the job's JSON if it was selected."""
    named = dict(zip(COLUMNS, values, strict=False))
    metrics = {metric: named.pop(metric) for metric in METRICS}
    job_json = values[len(COLUMNS)] if len(values) > len(COLUMNS) else ""
    return RunRow(
        **named | {"state": State(named["state"]), "failure": _failure(named["failure"])},
        metrics=metrics,
        job_json=job_json,
    )


FIELDS = tuple(name for name in Progress.__dataclass_fields__ if name != "metrics")

RECORDED = ", ".join(f'runs."{name}"' for name in (*FIELDS, *METRICS))
"""The columns of table ``runs`` that hold a `Progress`, as SQL."""


def progress_of(values: Sequence[Any]) -> Progress:
    """The progress that the events have brought a run to, from the values of `RECORDED`."""
    named = dict(zip(FIELDS, values, strict=False))
    named["state"] = State(named["state"])
    named["failure"] = _failure(named["failure"])
    if not named["attempts"]:
        named["updated_at"] = None
    return Progress(**named, metrics=dict(zip(METRICS, values[len(FIELDS) :], strict=True)))


def _failure(name: str | None) -> FailureKind | None:
    return None if name is None else FailureKind(name)


@dataclass(frozen=True)
class Attempt:
    """One try at a run.

    Attributes:
        number: from 1.
        resumed_from: iteration of the checkpoint it started from, 0 when fresh.
        iteration: the furthest iteration it reported.
        seen_at: time of its newest event, seconds since 1970, UTC.
        ending: ``finished``, ``failed``, ``interrupted``; None while it runs.
        reason: why it ended.
    """

    number: int
    host: str | None = None
    pid: int | None = None
    launcher: str | None = None
    device: str | None = None
    resumed_from: int | None = None
    iteration: int | None = None
    started_at: float | None = None
    seen_at: float = 0.0
    ended_at: float | None = None
    ending: str | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {name: getattr(self, name) for name in ATTEMPT}


ATTEMPT = tuple(Attempt.__dataclass_fields__)
"""The columns of table ``attempts``, in the order of `Attempt`."""


@dataclass(frozen=True)
class ResultRow:
    """One number of a finished run.

    Attributes:
        checkpoint: ``last`` or ``best``.
        scope: ``overall``, ``condition`` or ``class``.
        name: the condition or the class; empty for overall.
        metric: such as ``mIoU``, ``IoU`` or ``support``.
        value: percent (``support``: pixels); None where it is undefined.
    """

    checkpoint: str
    scope: str
    name: str
    metric: str
    value: float | None


@dataclass(frozen=True)
class Problem:
    """Something in a run folder that could not be read.

    Attributes:
        key: the run folder's name.
        position: byte where the line starts in ``events.jsonl``; negative for the folder itself.
        message: what is wrong.
        line: the start of the line.
    """

    key: str
    position: int
    message: str
    line: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class CurvePoint:
    """What one event of training or validation reported.

    Attributes:
        split: ``train`` or ``val``.
        values: the event's fields: ``loss``, ``terms``, ``lr``, ... or ``metrics``, ``conditions``.
    """

    split: str
    iteration: int
    values: Mapping[str, Any]
