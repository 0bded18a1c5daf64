"""A results folder as a sweep leaves it, with results of the test's choosing: run folders, events, per-image counts."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from prove.catalog.losses import resolve, short
from prove.metrics import METRICS, summarize_arrays
from prove.metrics.counts import BOUNDARY_FIELDS, METRIC_VERSION
from prove.rundir import RunDir, write_json
from prove.spec import Job, ModelRef, TrainSettings, parse
from prove.store import Store
from tests.journal import EVIDENCE, encoded, event, started

CLASSES = ("road", "car", "pole")
CONDITIONS = ("clear", "night")
IMAGES = 12
LOSSES = ("ce", "ce + 0.3*focal", "ce + 0.3*lovasz")

ENVIRONMENT = {
    "data_train": "a" * 64, "data_val": "b" * 64, "weights_sha256": None, "metric_version": METRIC_VERSION,
    "code": "c" * 64, "code_sha256": "d" * 64, "prove": "0.1.0", "dirty": False,
    "packages": {"torch": "2.11.0", "numpy": "2.1.0"}, "python": "3.11.0", "device": "cpu", "device_kind": "cpu",
    "amp": False, "batch_size_per_device": 4, "deterministic": None, "resumed": False,
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        skill: share of a class's pixels that are predicted right, which decides every metric.
        state: ``finished``, ``failed``, ``running`` or ``planned``.
        metrics: reported in place of what the counts say, by name; None for undefined.
        environment: of its events, where it differs from `ENVIRONMENT`; None writes no such event.
        train: training settings that differ.
        counts: whether its per-image counts are kept.
        message: of a failure.
    """

    skill: float = 0.8
    state: str = "finished"
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    environment: Mapping[str, Any] | None = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    counts: bool = True
    message: str = "decode.loss_focal not finite"


def campaign(
    results: Path,
    cell: Callable[[str, int], Cell],
    *,
    losses: Iterable[str] = LOSSES,
    seeds: Iterable[int] = range(3),
    models: Iterable[str] = ("segformer_mit-b0",),
    dataset: str = "SynthStreet",
    experiment: str | None = "study",
    report: Mapping[str, Any] | None = None,
) -> dict[tuple[str, str, int], str]:
    """Write the runs; model, loss and seed → key."""
    keys, jobs = {}, []
    for model in models:
        for loss in losses:
            for seed in seeds:
                made = cell(loss, seed)
                job = _job(model, loss, seed, dataset, made)
                jobs.append((job, short(job.loss)))
                keys[model, short(job.loss), seed] = job.key
                _write(results, job, made)
    with Store.open(results) as store:
        store.register(jobs, experiment)
        if experiment is not None and report is not None:
            store.remember_study(experiment, report, "A study of the tests.")
    return keys


def _job(model: str, loss: str, seed: int, dataset: str, cell: Cell) -> Job:
    settings = TrainSettings(max_iters=40, batch_size=4, crop_size=(64, 64), lr=0.01, eval_interval=10)
    return Job(
        {"name": dataset}, ModelRef(model), resolve(parse(loss)), replace(settings, **cell.train), "baseline", seed
    )


def counts(key: str, skill: float) -> dict[str, Any]:
    """Per-image counts of a run: the images are the same for all, what is predicted right is the run's."""
    images = np.random.default_rng(7)
    own = np.random.default_rng(zlib.crc32(key.encode()))
    size = len(CLASSES)
    support = images.integers(500, 4000, (IMAGES, size))
    right = own.binomial(support, skill)
    confusion = np.zeros((IMAGES, size, size), dtype=np.int64)
    for i in range(size):
        confusion[:, i, i] = right[:, i]
        confusion[:, i, (i + 1) % size] = support[:, i] - right[:, i]
    ids = [f"image{i}" for i in range(IMAGES)]
    boundary = {f"boundary_{name}": own.integers(50, 90, (IMAGES, size)) for name in BOUNDARY_FIELDS}
    boundary["boundary_band_intersection"] = np.minimum(
        boundary["boundary_band_predicted"], boundary["boundary_band_labelled"]
    )
    for what in ("predicted", "labelled"):
        total = boundary[f"boundary_contour_{what}"]
        boundary[f"boundary_contour_{what}_matched"] = own.binomial(total, skill)
    calibration = np.zeros((IMAGES, 3, 15))
    calibration[:, 0, 12] = support.sum(1)
    calibration[:, 1, 12] = 0.83 * support.sum(1)
    calibration[:, 2, 12] = right.sum(1)
    return {
        "metric_version": np.array(METRIC_VERSION),
        "ids": np.array(ids),
        "conditions": np.array([CONDITIONS[i % 2] for i in range(IMAGES)]),
        "classes": np.array(CLASSES),
        "confusion": confusion,
        "calibration": calibration,
        **boundary,
    }


def _write(results: Path, job: Job, cell: Cell) -> None:
    if cell.state == "planned":
        return
    run = RunDir.of(results, job.key)
    run.create()
    write_json(run.job, job.to_dict())
    events = [started()]
    if cell.environment is not None:
        events.append(event("environment", 0.5, environment={**ENVIRONMENT, **cell.environment}))
    events.append(event("wired", 1.0, evidence=EVIDENCE))
    if cell.state == "failed":
        said = {"failure": "diverged", "message": cell.message, "advice": "Lower --lr.", "iteration": 20}
        events.append(event("failed", 20.0, **said))
    arrays = counts(job.key, cell.skill)
    for iteration in range(10, 50, 10):
        shown = _result({**arrays}, iteration, cell)
        lr, loss = 0.01, 3.0 / iteration
        events.append(
            event("train", float(iteration), iteration=iteration, lr=lr, loss=loss, terms={"decode.loss_ce": loss},
                  weights={"ce": 1.0}, seconds_per_iteration=0.5, peak_memory_mib=900.0)
        )  # fmt: skip
        if cell.state != "failed":
            events.append(event("validated", iteration + 0.5, **shown))
    if cell.state == "finished":
        last = _result(arrays, 40, cell)
        events.append(
            event("finished", 50.0, iteration=40, reason="max_iters", last=last, best=last, train_seconds=48.0,
                  peak_memory_mib=1000.0)
        )  # fmt: skip
        if cell.counts:
            for file in (run.confusion, run.best_confusion):
                with open(file, "wb") as opened:
                    np.savez_compressed(opened, **arrays)
    if cell.state == "failed":
        events = [each for each in events if each["time"] <= events[0]["time"] + 20]
    run.events.write_bytes(encoded(sorted(events, key=lambda each: each["time"])))


def _result(arrays: Mapping[str, Any], iteration: int, cell: Cell) -> dict[str, Any]:
    found = summarize_arrays(arrays)
    shown = {name: found.metrics[name] for name in METRICS} | dict(cell.metrics)
    return {
        "iteration": iteration,
        "images": found.images,
        "metrics": shown,
        "conditions": {name: {"images": part.images, **part.metrics} for name, part in found.conditions.items()},
        "classes": {
            name: {metric: float(values[i]) for metric, values in found.per_class.items()}
            for i, name in enumerate(CLASSES)
        },
    }
