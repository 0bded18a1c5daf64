"""Matrices of a size, and results folders full of runs that no one had to train."""

from __future__ import annotations

import json
import os
import random
import socket
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sweep_timing import cost, prove

from prove.rundir import RunDir
from prove.spec import METRICS
from prove.spec.event import State, encode
from prove.store import Store

START = 1_700_000_000.0

ELSEWHERE = "node7"
"""Host of runs that train on another machine: nothing here can tell that they don't."""

MODELS = ("deeplabv3plus_r50", "pspnet_r50", "segformer_mit-b3", "segnext_mscan-b", "hrnet_hr48")
DATASETS = ("SynthStreet", "CamVid")

CELLS_PER_SEED = 500

MIX = {State.FINISHED: 90, State.FAILED: 4, State.RUNNING: 3, State.CANCELLED: 3}
"""Of a hundred runs of the matrix, how many are in which state; none is left to launch."""

TRAINED = 10
"""Reports of training in the events of a run."""

MATRIX = """
name: {name}
matrix:
  dataset: [{datasets}]
  model: [{models}]
  aux_loss: [focal, lovasz, boundary, dice, tversky]
  aux_weight: [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5]
  seed: {first}..{last}
train: {{pretrained: false}}
{more}"""


def matrix_file(folder: Path, jobs: int, name: str = "bench", first_seed: int = 0) -> Path:
    """An experiment of this many jobs: 2 datasets, 5 models, 50 objectives, and seeds; a multiple of 500."""
    return _write(folder, name, first_seed, first_seed + jobs // CELLS_PER_SEED - 1, "")


def filtered_file(folder: Path, cells: int) -> Path:
    """An experiment of this many cells that leaves a thousand: which seeds are left out depends on the dataset."""
    last = cells // CELLS_PER_SEED - 1
    kept = [f"{{dataset: {DATASETS[0]}, seed: 2..{last}}}", f"{{dataset: {DATASETS[1]}, seed: 0..{last - 2}}}"]
    return _write(folder, "filtered", 0, last, f"exclude: [{', '.join(kept)}]\n")


def small_file(folder: Path, jobs: int, more: str = "") -> Path:
    """An experiment of this many jobs on SynthStreet and one model: data that costs nothing to check."""
    path = folder / "small.yaml"
    axes = "  dataset: [SynthStreet]\n  model: [segformer_mit-b0]\n  aux_loss: [none, focal, lovasz, boundary, dice]\n"
    path.write_text(f"name: small\nmatrix:\n{axes}  seed: 0..{jobs // 5 - 1}\ntrain: {{pretrained: false}}\n{more}")
    return path


def _write(folder: Path, name: str, first: int, last: int, more: str) -> Path:
    path = folder / f"{name}.yaml"
    fields = {"datasets": ", ".join(DATASETS), "models": ", ".join(MODELS), "first": first, "last": last}
    path.write_text(MATRIX.format(name=name, more=more, **fields).lstrip())
    return path


def registered(results: Path) -> list[tuple[str, str]]:
    """Key and job of each run, the job as JSON."""
    with closing(sqlite3.connect(results / "prove.db")) as database:
        return database.execute("SELECT key, job FROM runs ORDER BY id").fetchall()


def fill(folder: Path, jobs: int) -> tuple[Path, Path]:
    """A results folder in which the runs of a matrix are in the states of `MIX`, and some of another are planned.

    Returns:
        the experiment file of the first matrix, and the results folder; the database knows all of its events.
    """
    results = folder / "results"
    file = matrix_file(folder, jobs)
    cost(prove("sweep", file, "--register-only", "--results", results))
    runs = registered(results)
    chooser = random.Random(0)
    states = [state for state, share in MIX.items() for _ in range(share)]
    chooser.shuffle(states)
    state_of = {key: states[number % len(states)] for number, (key, _) in enumerate(runs)}
    lives = {state: [life(chooser, state) for _ in range(50)] for state in MIX if state is not State.CANCELLED}
    for number, (key, job) in enumerate(runs):
        if state_of[key] is not State.CANCELLED:
            write_run(results, key, job, lives[state_of[key]][number % 50])
    more = matrix_file(folder, max(CELLS_PER_SEED, jobs // 50), "next", jobs // CELLS_PER_SEED)
    cost(prove("sweep", more, "--register-only", "--results", results))
    with Store.open(results) as store:
        store.refresh()
        store.reset([key for key, state in state_of.items() if state is State.CANCELLED], State.CANCELLED)
    return file, results


def write_run(results: Path, key: str, job: str, events: bytes) -> None:
    """The folder of a run, with these events."""
    run = RunDir.of(results, key)
    run.path.mkdir(parents=True)
    run.job.write_text(job)
    run.events.write_bytes(events)


def event(kind: str, at: float, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "time": START + at, "attempt": 1, **fields}


def started(host: str = ELSEWHERE, at: float = 0.0, max_iters: int = 15000) -> dict[str, Any]:
    where = {"host": host, "pid": os.getpid(), "launcher": "local", "device": "cuda"}
    return event("started", at, **where, resumed_from=0, max_iters=max_iters)


def trained(iteration: int, at: float) -> dict[str, Any]:
    values = {"lr": 0.01, "loss": 1.5 / (1 + iteration), "terms": {"decode.ce": 1.2, "decode.focal": 0.3}}
    rate = {"seconds_per_iteration": 0.5, "peak_memory_mib": 9000.5}
    return event("train", at, iteration=iteration, **values, weights={"decode.ce": 1.0}, **rate)


def life(chooser: random.Random, state: State) -> bytes:
    """What a run in this state has reported."""
    last = 15000

    def report(iteration: int) -> dict[str, Any]:
        metrics = {metric: 100 * chooser.random() for metric in METRICS}
        return {"iteration": iteration, "metrics": metrics, "conditions": {"day": metrics}, "classes": {}}

    step = last // TRAINED
    events = [started(), *(trained(number * step, float(number * step)) for number in range(1, TRAINED + 1))]
    events.append(event("validated", last, images=500, **report(last)))
    if state is State.FINISHED:
        end = {"last": report(last), "best": report(last), "train_seconds": 7200.5, "peak_memory_mib": 9000.5}
        events.append(event("finished", last + 1.0, iteration=last, reason="max_iters", **end))
    elif state is State.FAILED:
        why = chooser.choice([("out_of_memory", "CUDA is out of memory."), ("diverged", "decode.focal is not finite.")])
        fields = {"failure": why[0], "message": why[1], "advice": "Lower --lr.", "iteration": last}
        events.append(event("failed", last + 1.0, **fields))
    return b"".join(map(encode, events))


def fill_running(
    folder: Path, jobs: int, claim: Callable[[Store, Path, Sequence[str]], None]
) -> tuple[Path, list[Path]]:
    """A results folder of runs that all train here; it and their event files.

    Args:
        claim: takes them on for a launch.
    """
    results = folder / "results"
    cost(prove("sweep", small_file(folder, jobs), "--register-only", "--results", results))
    runs = registered(results)
    with Store.open(results) as store:
        claim(store, results, [key for key, _ in runs])
        for key, job in runs:
            write_run(results, key, job, encode(started(socket.gethostname(), 0.0, 1_000_000)))
    return results, [RunDir.of(results, key).events for key, _ in runs]


def as_objects(jobs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """The jobs as flat mappings: what other tools take as a job's parameters."""
    found = []
    for key, text in jobs:
        job = json.loads(text)
        flat = {"dataset": job["dataset"]["name"], "model": job["model"]["name"], "seed": job["seed"]}
        found.append({**flat, "loss": json.dumps(job["loss"], sort_keys=True), "key": key})
    return found
