"""What a worker reports, one JSON object a line, append only.

Every event holds ``kind``, ``time`` (seconds since 1970, UTC) and ``attempt`` (from 1). The others by kind:

    started      host, pid, launcher, device, resumed_from (iteration, 0 when fresh), max_iters
    environment  environment: what decides whether runs can be compared, see `prove.provenance.comparability`
    wired        evidence: one line per head and term, see `evidence.json`
    train        iteration, lr, loss, terms {name: value}, weights {name: weight}, seconds_per_iteration,
                 peak_memory_mib
    grads        iteration, heads {head: {term: {"loss_share": .., "gradient_share": .., "cosine": .. or null}}}: each
                 term's share of the total loss and of the head's gradient norms, and the cosine between its gradient
                 and the primary term's, on the batch of the wiring proof
    validated    iteration, images, metrics {name: percent or null}, conditions {condition: {name: percent or null}},
                 classes {class: {"IoU": .., "Acc": .., "bIoU": .., "bF1": .., "support": pixels}}
    best         iteration, monitor, value: validation found a new best
    checkpoint   iteration, file (relative to the run folder)
    finished     iteration, reason ("max_iters" or "early_stop"), last and best (each: iteration, metrics, conditions,
                 classes as in validated), train_seconds, peak_memory_mib
    failed       failure (a FailureKind), message, advice, iteration
    interrupted  reason ("signal SIGTERM", ...), iteration: the run can be resumed from its checkpoint
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """State of a run."""

    PLANNED = "planned"
    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class FailureKind(StrEnum):
    """Why a run failed."""

    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    TIMEOUT = "timeout"
    BAD_DATA = "bad_data"
    WIRING = "wiring"
    NODE_LOST = "node_lost"
    KILLED = "killed"
    ERROR = "error"

    @property
    def advice(self) -> str:
        """One line on what to do."""
        return _ADVICE[self]


DISK_FULL = "The disk is full: make room, then run it again to continue from its checkpoint."
"""Reason of an interruption that is no fault of the run."""

_ADVICE = {
    FailureKind.OUT_OF_MEMORY: "Use a smaller --batch-size or --crop-size, or a device with more memory.",
    FailureKind.DIVERGED: "The named terms were not finite: lower --lr or the term's weight, or delay its start.",
    FailureKind.TIMEOUT: "Run it again to continue from its checkpoint, with more time.",
    FailureKind.BAD_DATA: "Run `prove data check` on the dataset and mend what it lists.",
    FailureKind.WIRING: "The built model does not minimise the objective that was asked for: see its evidence.json.",
    FailureKind.NODE_LOST: "Run it again to continue from its checkpoint.",
    FailureKind.KILLED: "Run it again to continue from its checkpoint.",
    FailureKind.ERROR: "See the end of the log with `prove logs KEY`.",
}


def encode(event: Mapping[str, Any]) -> bytes:
    """One line; a number that is not finite becomes null, since JSON has no NaN."""
    return (json.dumps(_finite(event), separators=(",", ":"), allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
