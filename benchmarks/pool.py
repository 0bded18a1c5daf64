"""What starting a hundred runs costs: PROVE's local pool beside what else starts processes on two slots.

    python benchmarks/pool.py [--rounds 7] [--jobs 100] [--slots 2] [--json]

A job does nothing but say that it has started and finished. ``warm`` is from the first word of the first job to the end
of all, with the run folders written; ``in all`` starts with an empty launch; ``stack`` has torch and MMSegmentation
imported in the process that forks. Beside it: ``xargs`` with ``python -c pass``, whose jobs record nothing; a pool of
joblib's, where it is installed (``uv run --with joblib``); and the same jobs, each in a ``python`` of its own that
imports the recorder. Contenders take turns, so that a busy machine slows all of them alike; the table has medians, and
the ratio to xargs of the same round. Exit code 1 where a hundred jobs with the stack, warm, take more than 2 s.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pool_worker import main

from prove.build.job_config import Placement
from prove.launch.folder import Assignment, Launch, LaunchDir
from prove.launch.pool import run_pool
from prove.launch.slots import Slot
from prove.launch.worker import events_since
from prove.rundir import RunDir
from prove.spec import Job, LossExpr, LossTerm, ModelRef, TrainSettings

LIMIT_SECONDS = 2.0
"""For a hundred jobs on two slots, once warm."""

BASELINE = "xargs -P python -c pass"


def assignments(count: int) -> list[Assignment]:
    train = TrainSettings(max_iters=1, batch_size=2, crop_size=(64, 64), lr=0.01, eval_interval=1)
    jobs = [
        Job({"name": "SynthStreet"}, ModelRef("fcn_tiny"), LossExpr((LossTerm("ce"),)), train, seed=seed)
        for seed in range(count)
    ]
    placement = dataclasses.asdict(Placement("SynthStreet"))
    return [Assignment(job.key, job.to_dict(), placement) for job in jobs]


def launch(results: Path, runs: list[Assignment], worker: str) -> LaunchDir:
    folder = LaunchDir.of(results, "benchmark")
    folder.begin()
    folder.create(Launch("benchmark", "local", "here", os.getpid(), "me", time.time(), worker=worker), [runs], {})
    return folder


def by_pool(jobs: int, slots: int, worker: str) -> tuple[float, float]:
    """Seconds in all, and from the first word of the first job."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as results:
        runs = assignments(jobs)
        folder = launch(Path(results), runs, worker)
        begun = time.time()
        places = [Slot(f"cpu:{number}", 1) for number in range(slots)]
        outcome = run_pool(folder, runs, places, launcher="local")
        ended = time.time()
        assert len(outcome.finished) == jobs, outcome
        first = min(events_since(RunDir.of(Path(results), each.key), 0)[0]["time"] for each in runs)
        return ended - begun, ended - first


def by_xargs(jobs: int, slots: int) -> float:
    begun = time.monotonic()
    command = ["xargs", f"-P{slots}", "-n1", sys.executable, "-c", "pass"]
    subprocess.run(command, input="\n".join(map(str, range(jobs))), text=True, check=True)
    return time.monotonic() - begun


def by_processes(jobs: int, slots: int) -> float:
    """The same jobs, each in a python of its own."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as results:
        folders = [RunDir.of(Path(results), each.key) for each in assignments(jobs)]
        begun = time.monotonic()
        for folder in folders:
            folder.create()
        script = str(Path(__file__).with_name("pool_worker.py"))
        subprocess.run(
            ["xargs", f"-P{slots}", "-n1", sys.executable, script],
            input="\n".join(str(folder.path) for folder in folders),
            text=True,
            check=True,
        )
        return time.monotonic() - begun


def by_joblib(jobs: int, slots: int) -> float:
    from joblib import Parallel, delayed

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as results:
        folders = [RunDir.of(Path(results), each.key) for each in assignments(jobs)]
        begun = time.monotonic()
        for folder in folders:
            folder.create()
        Parallel(n_jobs=slots, batch_size=1)(delayed(main)([str(folder.path)]) for folder in folders)
        return time.monotonic() - begun


def contenders(jobs: int, slots: int) -> dict[str, Callable[[], dict[str, float]]]:
    found: dict[str, Callable[[], dict[str, float]]] = {
        BASELINE: lambda: {BASELINE: by_xargs(jobs, slots)},
        "pool": lambda: dict(
            zip(("PROVE, in all", "PROVE, warm"), by_pool(jobs, slots, "pool_worker:main"), strict=True)
        ),
        "stack": lambda: dict(
            zip(
                ("PROVE, stack, in all", "PROVE, stack, warm"),
                by_pool(jobs, slots, "pool_worker_stack:main"),
                strict=True,
            )
        ),
        "processes": lambda: {"a python for each": by_processes(jobs, slots)},
    }
    if importlib.util.find_spec("joblib"):
        found["joblib"] = lambda: {"joblib (its processes are reused)": by_joblib(jobs, slots)}
    return found


def benchmark() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    asked = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROVE_CACHE"] = folder
        for _ in range(asked.rounds):
            for contender in contenders(asked.jobs, asked.slots).values():
                for name, taken in contender().items():
                    seconds.setdefault(name, []).append(taken)
    rows = [
        {
            "name": name,
            "seconds": statistics.median(values),
            "lowest": min(values),
            "highest": max(values),
            "ratio": statistics.median(v / base for v, base in zip(values, seconds[BASELINE], strict=True)),
        }
        for name, values in seconds.items()
    ]
    warm = next(row for row in rows if row["name"] == "PROVE, stack, warm")
    met = float(warm["seconds"]) <= LIMIT_SECONDS * asked.jobs / 100
    if asked.json:
        print(json.dumps({"jobs": asked.jobs, "slots": asked.slots, "rounds": asked.rounds, "met": met, "rows": rows}))
        return int(not met)
    print(f"{asked.jobs} jobs on {asked.slots} slots, {asked.rounds} rounds\n")
    print("| | seconds (lowest to highest) | ratio to xargs |")
    print("|---|---|---|")
    for row in rows:
        spread = f"{row['seconds']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f})"
        print(f"| {row['name']} | {spread} | {row['ratio']:.2f} |")
    return int(not met)


if __name__ == "__main__":
    sys.exit(benchmark())
