"""Jobs and what their workers report, for tests that need a run folder but no training."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from prove.rundir import RunDir, write_json
from prove.spec import METRICS, Job, LossExpr, LossTerm, ModelRef, TrainSettings, WeightSchedule
from prove.spec.event import encode

START = 1_700_000_000.0

EVIDENCE = {
    "ok": True,
    "problems": [],
    "total": 3.1,
    "objective": "ce + 0.3*focal",
    "batch": {"images": 2, "pixels": 8192, "ignored_pixels": 100},
    "heads": [
        {
            "head": "decode_head",
            "terms": [
                {
                    "term": "ce",
                    "text": "ce",
                    "weight": 1.0,
                    "value": 2.9,
                    "contribution": 2.9,
                    "loss_share": 0.935,
                    "gradient_norm": 0.02,
                    "gradient_share": 0.9,
                    "cosine_to_primary": None,
                    "ignored_gradient": 0.0,
                    "valid_gradient": 0.02,
                    "doubling": 2.0,
                    "reference_value": 2.9,
                },
                {
                    "term": "focal",
                    "text": "focal[gamma]",
                    "weight": 0.3,
                    "value": 0.66,
                    "contribution": 0.2,
                    "loss_share": 0.065,
                    "gradient_norm": 0.002,
                    "gradient_share": 0.1,
                    "cosine_to_primary": 0.87,
                    "ignored_gradient": 0.0,
                    "valid_gradient": 0.002,
                    "doubling": 2.0,
                    "reference_value": 0.66,
                },
            ],
        }
    ],
}


def make_job(seed: int = 0, max_iters: int = 40, **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "dataset": {"name": "SynthStreet", "classes": ["road", "rider"], "ignore_index": 255},
        "model": ModelRef("fcn_tiny"),
        "loss": LossExpr((LossTerm("ce"), LossTerm("focal", WeightSchedule(first=0.3, last=0.3), (("gamma", 2),)))),
        "train": TrainSettings(max_iters=max_iters, batch_size=2, crop_size=(64, 64), lr=0.01, eval_interval=10),
        "seed": seed,
    }
    return Job(**fields | changes)


def event(kind: str, at: float = 0.0, attempt: int = 1, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "time": START + at, "attempt": attempt, **fields}


def started(at: float = 0.0, attempt: int = 1, resumed_from: int = 0, host: str | None = None) -> dict[str, Any]:
    return event(
        "started",
        at,
        attempt,
        host=host or socket.gethostname(),
        pid=4242,
        launcher="local",
        device="cpu",
        resumed_from=resumed_from,
        max_iters=40,
    )


def train(iteration: int, attempt: int = 1, loss: float = 1.5) -> dict[str, Any]:
    terms = {"decode.ce": loss, "decode.focal": 0.1}
    return event("train", float(iteration), attempt, iteration=iteration, lr=0.01, loss=loss, terms=terms, weights={})


def report(iteration: int, mean: float) -> dict[str, Any]:
    metrics = {metric: mean + index for index, metric in enumerate(METRICS)}
    return {
        "iteration": iteration,
        "metrics": metrics,
        "conditions": {"day": metrics, "night": {**metrics, "mIoU": None}},
        "classes": {
            "road": {"IoU": 90.0, "Acc": 95.0, "bIoU": 60.0, "bF1": 70.0, "support": 123456},
            "rider": {"IoU": None, "Acc": None, "bIoU": None, "bF1": None, "support": 0},
        },
    }


def validated(iteration: int, mean: float = 20.0, attempt: int = 1) -> dict[str, Any]:
    return event("validated", float(iteration) + 0.5, attempt, **report(iteration, mean))


def finished(at: float = 50.0, attempt: int = 1, iteration: int = 40, mean: float = 40.0) -> dict[str, Any]:
    return event(
        "finished",
        at,
        attempt,
        iteration=iteration,
        reason="max_iters",
        last=report(iteration, mean),
        best=report(iteration - 10, mean + 1),
        train_seconds=48.5,
    )


def failed(at: float = 30.0, attempt: int = 1, iteration: int = 20) -> dict[str, Any]:
    return event(
        "failed",
        at,
        attempt,
        failure="diverged",
        message="decode.focal is not finite at [20]",
        advice="Lower --lr.",
        iteration=iteration,
    )


def interrupted(at: float = 25.0, attempt: int = 1, iteration: int = 20) -> dict[str, Any]:
    return event("interrupted", at, attempt, reason="signal SIGTERM", iteration=iteration)


def whole_life() -> list[dict[str, Any]]:
    """Interrupted once, resumed from iteration 20, finished."""
    first = [train(i) for i in range(5, 30, 5)]
    second = [train(i, attempt=2, loss=1.2) for i in range(25, 45, 5)]
    return [
        started(),
        event("wired", 1.0, evidence=EVIDENCE),
        *first[:4],
        validated(20, 18.0),
        event("best", 20.6, iteration=20, monitor="mIoU", value=18.0),
        event("checkpoint", 21.0, iteration=20, file="checkpoints/iter_20.pth"),
        train(23),
        first[4],
        interrupted(),
        started(26.0, attempt=2, resumed_from=20),
        *second,
        validated(40, 40.0, attempt=2),
        finished(attempt=2),
    ]


def encoded(events: list[dict[str, Any]]) -> bytes:
    return b"".join(encode(e) for e in events)


def make_run(results: Path, events: list[dict[str, Any]] | bytes = b"", seed: int = 0) -> RunDir:
    """The run folder of a job, with these events."""
    job = make_job(seed)
    run = RunDir.of(results, job.key)
    run.create()
    write_json(run.job, job.to_dict())
    data = events if isinstance(events, bytes) else encoded(events)
    if data:
        run.events.write_bytes(data)
    return run
