"""One attempt at one job: build, prove, train, evaluate, record."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from prove.build.job_config import BuiltConfig, Placement, build_config, training_class_weight
from prove.build.weights import sha256
from prove.catalog.losses import short
from prove.catalog.user_terms import require_sources
from prove.data.check import check
from prove.data.compose import compose
from prove.data.manifest import fingerprint
from prove.data.source import Dataset, open_dataset, resolve_dataset
from prove.errors import ProveError
from prove.losses.user_terms import load_terms
from prove.metrics import METRIC_VERSION
from prove.provenance import collect, comparability
from prove.rundir import RunDir, read_json, write_atomically, write_json
from prove.spec import Job
from prove.spec.event import DISK_FULL
from prove.training import registered  # noqa: F401 - registers what the config names
from prove.training.dataset import BadData
from prove.training.failures import describe, is_disk_full, kind_of
from prove.training.guard import Diverged
from prove.training.recorder import Recorder
from prove.training.runner import ProveRunner, load_checkpoint
from prove.training.session import Interrupted, ProofHolds, Session
from prove.training.stack import quiet_known_warnings, see_devices, set_threads


def attempt(run: RunDir, recorder: Recorder) -> int:
    """Train the job of a run folder, from its newest readable checkpoint or from the start.

    Returns:
        Exit code: 0 finished, 1 failed, 130 interrupted. How it ended is the last event.
    """
    iteration = 0
    runner: ProveRunner | None = None
    scratch = run.path / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        job = Job.from_dict(read_json(run.job))
        load_terms(*run.saved_terms())
        require_sources(job.loss)
        launch = read_json(run.launch)
        placement = Placement(**launch["placement"])
        quiet_known_warnings()
        set_threads(placement.threads)
        see_devices()
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        if placement.cuda and not torch.cuda.is_available():
            raise ProveError(
                "This run was to train on CUDA, but torch can't use it here.",
                hint="`prove doctor` says what is missing; --device cpu trains on the CPU.",
            )
        state = _resumable(run, job)
        iteration = int(state["iteration"]) if state else 0
        recorder.emit(
            "started",
            host=socket.gethostname(),
            pid=os.getpid(),
            launcher=launch.get("launcher", "local"),
            device=device_name(),
            resumed_from=iteration,
            max_iters=job.train.max_iters,
        )
        require_own_weights(job, placement)
        dataset = sound_dataset(job, placement)
        weight = training_class_weight(job, dataset)
        built = build_config(job, dataset, placement, weight, run.model_config)
        write_atomically(run.config, lambda file: file.write(built.config.pretty_text.encode()))
        surroundings = {"data": fingerprints(dataset), "device": "cuda" if torch.cuda.is_available() else "cpu"}
        if state is not None:
            check_same_surroundings(state["prove"]["surroundings"], surroundings)
        recorded = environment(dataset, placement)
        write_json(run.env, recorded)
        recorder.emit(
            "environment",
            environment=comparability(
                recorded, batch_size=job.train.batch_size, amp=job.train.amp, resumed=state is not None
            ),
        )
        resumed = state["prove"] if state else None
        session = Session(run, job, built.heads, recorder, weight, short(job.loss), surroundings, resumed)
        session.proof_only = bool(launch.get("proof_only"))
        session.listen()
        runner = make_runner(built, scratch)
        runner.watcher, runner.resume_state = session, state
        runner.weights = Path(placement.weights) if placement.weights else None
        runner.train()
        session.finish(runner)
        return 0
    except ProofHolds:
        return 0
    except (Interrupted, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted"
        recorder.emit("interrupted", reason=reason, iteration=runner.iter if runner else iteration)
        return 130
    except Exception as error:
        traceback.print_exc()
        if is_disk_full(error):
            recorder.emit("interrupted", reason=DISK_FULL, iteration=runner.iter if runner else iteration)
            return 130
        kind = kind_of(error)
        reached = error.iteration if isinstance(error, Diverged) else runner.iter if runner else iteration
        recorder.emit("failed", failure=kind, message=describe(error), advice=kind.advice, iteration=reached)
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def require_own_weights(job: Job, placement: Placement) -> None:
    """Refuse a file of weights of the user's own that is no longer the one that the job was made for.

    Raises:
        ProveError: its content has changed, or it is gone.
    """
    if job.train.weights is None:
        return
    file = Path(placement.weights or "")
    if not file.is_file() or sha256(file)[: len(job.train.weights)] != job.train.weights:
        raise ProveError(f"{file} is no longer the file of weights that this job was made for.", hint="Run it anew.")


def sound_dataset(job: Job, placement: Placement) -> Dataset:
    """The job's dataset on this machine, checked.

    Raises:
        BadData: it is not the one the job was made for, or it has faults.
    """
    definition = resolve_dataset(placement.source)
    if {"name": definition.name, **definition.canonical()} != dict(job.dataset):
        raise BadData(f"{placement.source} is no longer the dataset that this job was made for.", hint="Run it anew.")
    try:
        dataset = compose(
            open_dataset(definition, root=placement.data_root), job.recipe, generated_root=placement.generated_root
        )
        check(dataset).raise_if_bad()
    except ProveError as error:
        raise BadData(error.message, hint=error.hint) from error
    return dataset


def fingerprints(dataset: Dataset) -> dict[str, str]:
    """Hashes of the bytes that a run trains and validates on."""
    return {"train": fingerprint(dataset.train), "val": fingerprint(dataset.val)}


def check_same_surroundings(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on where the result would mix two data sets, or two precisions.

    Raises:
        BadData: an image or a label has changed since the checkpoint.
        ProveError: the checkpoint is from another kind of device.
    """
    changed = [split for split in now["data"] if now["data"][split] != before["data"][split]]
    if changed:
        raise BadData(
            f"The {' and '.join(changed)} data have changed since this run was begun.", hint="--restart trains it anew."
        )
    if now["device"] != before["device"]:
        raise ProveError(
            f"This run was begun on {before['device']} and would go on on {now['device']}, in another precision.",
            hint=f"Continue it with --device {before['device']}, or train it anew with --restart.",
        )


def make_runner(built: BuiltConfig, work_dir: Path) -> ProveRunner:
    """The Runner of a built config; MMEngine's own files go to ``work_dir``."""
    config = built.config.copy()
    config.work_dir = str(work_dir)
    config.log_level = "WARNING"
    config.experiment_name = work_dir.parent.name
    runner: ProveRunner = ProveRunner.from_cfg(config)
    return runner


def environment(dataset: Dataset, placement: Placement) -> dict[str, Any]:
    """What this attempt ran on, and the fingerprint of what it was trained on."""
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return collect(
        {
            "device": device_name(),
            "gpu_memory_mib": gpu.total_memory // 2**20 if gpu else None,
            "torch_threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "metric_version": METRIC_VERSION,
            "torch_cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "placement": dataclasses.asdict(placement),
            "weights_sha256": sha256(Path(placement.weights)) if placement.weights else None,
            "data_root": str(dataset.root),
            "data_fingerprint": fingerprints(dataset),
        }
    )


def device_name() -> str:
    """``cpu``, or the name of the GPU."""
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else "cpu"


def _resumable(run: RunDir, job: Job) -> dict[str, Any] | None:
    """The newest checkpoint that can be read and belongs to this job; None to start afresh."""
    for iteration in run.saved_iterations():
        try:
            state = load_checkpoint(run.checkpoint(iteration))
        except ProveError as error:
            print(f"{error}; trying the one before it", flush=True)
            continue
        if state.get("prove", {}).get("job") == job.key:
            return state
        print(f"{run.checkpoint(iteration)} belongs to another job, it is not used", flush=True)
    return None
