"""How long reports of a large study take, and how much memory: 10,000 finished runs with classes and conditions.

    python benchmarks/report.py [--runs 10000] [--counts 0] [--rounds 3]

Builds a results folder with a known truth (`--counts K`: the first K runs also keep per-image counts), then runs the
commands as a user would, each in a process of its own. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np

from prove.catalog.losses import from_aux, short
from prove.metrics import MetricSet, summarize_arrays
from prove.metrics.counts import BOUNDARY_FIELDS, METRIC_VERSION
from prove.rundir import RunDir
from prove.spec.job import METRICS, EarlyStop, Job, ModelRef, TrainSettings
from prove.store import Store

CLASSES = tuple(f"class {i}" for i in range(19))
CONDITIONS = ("clear_day", "foggy", "night", "rainy")
IMAGES = 100
SEEDS = 5
TEMPLATES = 97
AUX = ("none", "focal", "lovasz", "boundary", "dice")
WEIGHTS = (0.1, 0.2, 0.3, 0.5, 1.0)
TRAIN = TrainSettings(
    max_iters=400, batch_size=4, crop_size=(128, 128), lr=0.01, eval_interval=100, early_stop=EarlyStop()
)


def jobs(count: int) -> Iterator[Job]:
    """Datasets x models x strategies x 21 objectives x 5 seeds, as many as asked."""
    losses = list(dict.fromkeys(from_aux(aux, weight) for aux, weight in product(AUX, WEIGHTS)))
    made = 0
    for dataset, model in product((f"Dataset{i}" for i in range(100)), (f"model_{i}" for i in range(10))):
        for loss, seed in product(losses, range(SEEDS)):
            if made == count:
                return
            made += 1
            yield Job({"name": dataset}, ModelRef(model), loss, TRAIN, "baseline", seed)


def build(folder: Path, count: int, with_counts: int) -> None:
    """Register the runs and write down results drawn around a known truth."""
    rng = np.random.default_rng(0)
    templates = [_counts(rng) for _ in range(TEMPLATES if with_counts else 0)]
    with Store.open(folder) as store:
        made = list(jobs(count))
        store.register(((job, short(job.loss)) for job in made), "large")
        ids = dict(store.connection.query("SELECT key, id FROM runs"))
        now = time.time()
        progress, results, environments, attempts = [], [], [], []
        environment = json.dumps(
            {"data_train": "a", "data_val": "b", "metric_version": METRIC_VERSION, "code": "c", "packages": {},
             "device": "GPU", "weights_sha256": None, "batch_size_per_device": 4, "amp": True, "resumed": False}
        )  # fmt: skip
        for job in made:
            run_id = ids[job.key]
            kept = templates[len(progress) % len(templates)] if len(progress) < with_counts else None
            values = 50 + rng.normal(0, 0.5, len(METRICS))
            if kept is not None:
                values = np.array([kept[1].metrics[metric] for metric in METRICS])
            progress.append({"id": run_id, "now": now, **{f"m{i}": float(value) for i, value in enumerate(values)}})
            for checkpoint in ("last", "best"):
                rows = [("overall", "", metric, value) for metric, value in zip(METRICS, values, strict=True)]
                rows += [("condition", name, m, 45 + rng.normal()) for name in CONDITIONS for m in METRICS]
                rows += [
                    ("class", name, m, 1e6 / (i + 1) if m == "support" else 40 + rng.normal())
                    for i, name in enumerate(CLASSES)
                    for m in ("IoU", "Acc", "bIoU", "bF1", "support")
                ]
                if kept is not None:
                    rows = _of_summary(kept[1])
                results += [
                    {"r": run_id, "c": checkpoint, "s": scope, "n": name, "m": metric, "v": float(value)}
                    for scope, name, metric, value in rows
                ]
            environments.append({"r": run_id, "p": environment})
            attempts.append({"r": run_id, "now": now})
        metrics = ", ".join(f'"{metric}" = :m{i}' for i, metric in enumerate(METRICS))
        with store.connection.writing():
            store.connection.execute_many(
                f"UPDATE runs SET state = 'finished', iteration = 400, attempts = 1, started_at = :now, "
                f"finished_at = :now, train_seconds = 3600, peak_memory_mib = 9000, {metrics} WHERE id = :id",
                progress,
            )
            store.connection.execute_many("INSERT INTO results VALUES (:r, :c, :s, :n, :m, :v)", results)
            store.connection.execute_many("INSERT INTO environments VALUES (:r, :p)", environments)
            store.connection.execute_many(
                "INSERT INTO attempts (run_id, number, device, started_at, seen_at, ended_at, ending) "
                "VALUES (:r, 1, 'GPU', :now - 3600, :now, :now, 'finished')",
                attempts,
            )
    for index, job in enumerate(made[:with_counts]):
        run = RunDir.of(folder, job.key)
        run.path.mkdir(parents=True)
        run.confusion.write_bytes(templates[index % len(templates)][0])


def _of_summary(found: MetricSet) -> list[tuple[str, str, str, float]]:
    rows = [("overall", "", metric, found.metrics[metric]) for metric in METRICS]
    rows += [("condition", name, m, part.metrics[m]) for name, part in found.conditions.items() for m in METRICS]
    rows += [("class", name, m, values[i]) for m, values in found.per_class.items() for i, name in enumerate(CLASSES)]
    return rows


def _counts(rng: np.random.Generator) -> tuple[bytes, MetricSet]:
    """The kept file of a run, and what it says; runs share some of them, which changes no cost."""
    classes = len(CLASSES)
    confusion = rng.poisson(20, (IMAGES, classes, classes)) + 2000 * np.eye(classes, dtype=np.int64)
    arrays = {
        "metric_version": np.array(METRIC_VERSION),
        "ids": np.array([f"image {i}" for i in range(IMAGES)]),
        "conditions": np.array([CONDITIONS[i % len(CONDITIONS)] for i in range(IMAGES)]),
        "classes": np.array(CLASSES),
        "confusion": confusion.astype(np.int64),
        "calibration": rng.random((IMAGES, 3, 15)),
        **{f"boundary_{name}": rng.integers(50, 99, (IMAGES, classes)) for name in BOUNDARY_FIELDS},
    }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue(), summarize_arrays(arrays)


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds and peak memory in MiB of a command that must succeed."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} failed: {said}")
    return time.perf_counter() - began, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--counts", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = Path(tempfile.mkdtemp(prefix="prove-report-"))
    try:
        # in a process of its own: a child's peak memory counts from what its parent had when it was forked
        builder = multiprocessing.Process(target=build, args=(folder, asked.runs, asked.counts))
        builder.start()
        builder.join()
        if builder.exitcode:
            raise SystemExit("The results folder can't be built.")
        prove = str(Path(sys.executable).parent / "prove")
        base = ["--results", str(folder)]
        commands = {
            "prove report tables": [prove, "report", "tables", "large", *base],
            "prove report tables --format json": [prove, "report", "tables", "large", "--format", "json", *base],
            "prove report classes": [prove, "report", "classes", "large", *base],
            "prove report domains": [prove, "report", "domains", "large", *base],
            "prove report cost": [prove, "report", "cost", "large", *base],
            "prove report html": [prove, "report", "html", "large", "-o", str(folder / "r.html"), *base],
        }
        print(f"{asked.runs} finished runs, {asked.counts} with per-image counts; median of {asked.rounds} rounds")
        print(f"Python {platform.python_version()}, {os.cpu_count()} cores\n")
        print("| command | first | then | memory |\n|---|---|---|---|")
        for name, command in commands.items():
            first, _ = measure(command)
            rounds = [measure(command) for _ in range(asked.rounds)]
            seconds, memory = statistics.median(s for s, _ in rounds), max(m for _, m in rounds)
            print(f"| `{name}` | {first:.2f} s | {seconds:.2f} s | {memory:.0f} MiB |", flush=True)
        page = folder / "r.html"
        if page.exists():
            print(f"\nThe HTML file has {page.stat().st_size / 2**20:.1f} MiB.")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
