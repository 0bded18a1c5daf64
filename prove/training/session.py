"""One attempt at a run: proves, watches, records and keeps what the training loop does."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor

from prove.build.objective import CRITERION, HeadPlan, loss_name
from prove.catalog.strategies import resolve_strategy
from prove.data.manifest import evenly_spaced
from prove.metrics import METRICS, summarize_arrays
from prove.rundir import RunDir, write_atomically, write_json
from prove.spec import Job
from prove.training.dataset import DISTANCE_MAPS
from prove.training.early_stop import BestSoFar
from prove.training.evidence import Evidence
from prove.training.gradients import GradientWatch
from prove.training.guard import WiringError, install_guard, is_loss
from prove.training.predictions import IMAGES, encoded
from prove.training.recorder import Recorder
from prove.training.runner import ProveRunner, save_checkpoint
from prove.training.wiring import prove_wiring
from prove.training.wiring_mix import prove_mix

KEEP = 2
"""Checkpoints kept beside the best one: if the newest can't be read, the one before it is resumed from."""

REPORT_SECONDS = 2.0
"""A training event is written at most this often."""


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written."""


class ProofHolds(Exception):
    """Only the wiring proof was asked for, and it holds."""


class Session:
    """Follows one training (see `prove.training.runner.Watcher`).

    Args:
        run: the run folder.
        job: what is trained.
        heads: what each head must add up to.
        recorder: where events go.
        class_weight: weights from the training set, or None.
        surroundings: what must be the same when the run is resumed: data fingerprints, kind of device.
        state: the ``prove`` part of the checkpoint that is resumed, or None.
    """

    def __init__(
        self,
        run: RunDir,
        job: Job,
        heads: tuple[HeadPlan, ...],
        recorder: Recorder,
        class_weight: tuple[float, ...] | None,
        objective: str,
        surroundings: Mapping[str, Any],
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.run, self.job, self.heads, self.recorder = run, job, heads, recorder
        self.class_weight, self.objective, self.surroundings = class_weight, objective, dict(surroundings)
        state = state or {}
        self.best = BestSoFar.restore(state["best"]) if state else BestSoFar()
        self.last: dict[str, Any] | None = state.get("last")
        self.best_result: dict[str, Any] | None = state.get("best_result")
        self.train_seconds = float(state.get("train_seconds", 0.0))
        self.signal: str | None = None
        self.proof_only = False
        self.gradients = GradientWatch(heads, job.train.max_iters)
        self._peak_memory_mib = 0.0
        self._clock = time.monotonic()
        self._reported = 0.0
        self._step_ended = self._clock
        self._stepping = 0.0
        self._steps_since_report = 0

    @property
    def monitor(self) -> str:
        return self.job.train.early_stop.monitor if self.job.train.early_stop else "mIoU"

    def listen(self) -> None:
        """Let SIGTERM, SIGUSR1 and SIGINT end the run with a checkpoint; a second SIGINT ends it at once."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    # what the loop calls

    def before_training(self, runner: ProveRunner) -> None:
        """Prove the wiring; nothing is trained when it does not hold.

        Raises:
            WiringError: it does not hold.
        """
        evidence = self.prove(runner)
        write_json(self.run.evidence, evidence.to_dict())
        if not evidence.ok:
            raise WiringError(list(evidence.problems))
        self.recorder.emit("wired", evidence=evidence.to_dict())
        if self.proof_only:
            raise ProofHolds
        self._measure_gradients(runner, always=True)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()  # the proof's references are not the cost of training
        self._peak_memory_mib = 0.0
        runner.val_evaluator.metrics[0].pictured = frozenset(
            sample.id for sample in evenly_spaced(runner.val_dataloader.dataset.samples, IMAGES)
        )
        if self.last is not None and self.last["iteration"] not in self.recorder.validated:
            self._announce()  # the last attempt was killed before it could
        self._clock = self._step_ended = time.monotonic()

    def prove(self, runner: ProveRunner) -> Evidence:
        batch, planted = proof_batch(runner.train_dataloader.dataset, self.job.train.batch_size)
        self.gradients.batch = batch
        keys: set[str] = set()
        evidence = prove_wiring(
            runner.model,
            batch,
            self.heads,
            objective=self.objective,
            class_weight=self.class_weight,
            planted=planted,
            on_losses=keys.update,
        )
        mix = runner.train_loop.mix
        if mix is not None:
            batch, _ = proof_batch(runner.train_dataloader.dataset, self.job.train.batch_size, most=3)
        evidence = prove_mix(
            evidence,
            runner.model,
            batch,
            mix,
            resolve_strategy(self.job.strategy).part("mix"),
            self.heads,
            class_weight=self.class_weight,
        )
        held = {id(each) for group in runner.optim_wrapper.optimizer.param_groups for each in group["params"]}
        lost = [name for name, each in runner.model.named_parameters() if each.requires_grad and id(each) not in held]
        if lost:
            raise WiringError([f"the optimiser does not hold {len(lost)} trainable parameters, such as {lost[0]}"])
        install_guard(runner.model, frozenset(keys), lambda: runner.iter)
        return evidence

    def _measure_gradients(self, runner: ProveRunner, *, always: bool) -> None:
        """Report each term's shares, if it is time to; the time and memory that it takes are no cost of training."""
        if not self.gradients.is_due(always=always):
            return
        start = time.monotonic()
        self._peak_memory_mib = self.peak_memory_mib()
        heads = self.gradients.measure(runner.model, runner.iter)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if heads is not None:
            self.recorder.emit("grads", iteration=runner.iter, heads=heads)
        self._clock += time.monotonic() - start

    def peak_memory_mib(self) -> float:
        """Peak memory of training so far, measurements of gradients left out where they can be."""
        return max(self._peak_memory_mib, peak_memory_mib())

    def after_iteration(self, runner: ProveRunner, outputs: Mapping[str, Tensor]) -> None:
        self._steps_since_report += 1
        now = time.monotonic()
        self._stepping += now - self._step_ended
        self._step_ended = now
        last = runner.iter == self.job.train.max_iters
        if now - self._reported < REPORT_SECONDS and not last and runner.iter > 1:
            return
        self.recorder.emit(
            "train",
            iteration=runner.iter,
            lr=runner.train_loop.lr,
            loss=float(outputs["loss"].detach()),
            terms={name: float(value.detach()) for name, value in outputs.items() if is_loss(name)},
            weights=self._weights(runner),
            seconds_per_iteration=self._stepping / self._steps_since_report,
            peak_memory_mib=self.peak_memory_mib(),
        )
        self._reported, self._steps_since_report, self._stepping = now, 0, 0.0

    def _weights(self, runner: ProveRunner) -> dict[str, float]:
        """The weights that the model's terms had in the latest iteration, each what the objective says.

        Raises:
            WiringError: one differs.
        """
        progress = (runner.iter - 1) / self.job.train.max_iters
        for head in self.heads:
            actual = weights_in(runner.model, head)
            for label, term in head.terms:
                if actual.get(label) != term.weight.at(progress):
                    planned = term.weight.at(progress)
                    raise WiringError(
                        [f"iteration {runner.iter}: {head.path} weighs {label} {actual.get(label)}, not {planned}"]
                    )
        return {label: term.weight.at(progress) for label, term in self.heads[0].terms}

    def should_stop(self, runner: ProveRunner) -> bool:
        """Whether patience has run out.

        Raises:
            Interrupted: a signal asked for the end; the checkpoint is written first.
        """
        if self.signal:
            self.save(runner)
            raise Interrupted(f"signal {self.signal}")
        return self.best.stopped

    def validated(self, iteration: int) -> bool:
        return self.last is not None and int(self.last["iteration"]) >= iteration

    def after_validation(self, runner: ProveRunner, metrics: Mapping[str, float]) -> None:
        """Keep the counts and some predictions, move early stopping, write the checkpoint, say so."""
        iteration = runner.iter
        arrays = runner.val_evaluator.metrics[0].arrays
        pictures = predictions_of(runner)
        self.last = {"iteration": iteration, **result_of(arrays)}
        watched = self.last["metrics"][self.monitor]
        improved = self.best.update(self.monitor, watched, iteration, self.job.train.early_stop)
        write_atomically(self.run.confusion, lambda file: np.savez_compressed(file, **arrays))
        write_atomically(self.run.predictions, lambda file: file.write(pictures))
        if improved:
            self.best_result = self.last
            write_atomically(self.run.best_confusion, lambda file: np.savez_compressed(file, **arrays))
            write_atomically(self.run.best_predictions, lambda file: file.write(pictures))
        self.save(runner)
        self._announce()
        self._measure_gradients(runner, always=self.best.stopped or iteration == self.job.train.max_iters)
        self._step_ended = time.monotonic()

    def _announce(self) -> None:
        """Publish the latest validation, whose checkpoint is written; doing it twice changes nothing."""
        assert self.last is not None
        iteration = int(self.last["iteration"])
        improved = self.best.iteration == iteration
        if improved:
            copy_atomically(self.run, iteration)
        self.recorder.emit("validated", **self.last)
        if improved:
            self.recorder.emit("best", iteration=iteration, monitor=self.monitor, value=self.best.value)
        self.recorder.emit("checkpoint", iteration=iteration, file=f"checkpoints/{self.run.checkpoint(iteration).name}")

    def save(self, runner: ProveRunner) -> None:
        """Write the checkpoint of this iteration, then drop all but the newest ones."""
        now = time.monotonic()
        self.train_seconds += now - self._clock
        self._clock = now
        state = runner.training_state()
        state["prove"] = {
            "job": self.job.key,
            "best": self.best.state(),
            "last": self.last,
            "best_result": self.best_result,
            "train_seconds": self.train_seconds,
            "surroundings": self.surroundings,
        }
        save_checkpoint(self.run.checkpoint(runner.iter), state)
        for iteration in self.run.saved_iterations()[KEEP:]:
            self.run.checkpoint(iteration).unlink(missing_ok=True)

    def finish(self, runner: ProveRunner) -> None:
        """Say that the run is complete, with the metrics of its last and of its best checkpoint.

        Raises:
            WiringError: a term never weighed anything, so that another objective was trained.
        """
        idle = never_active(self.heads[0], runner.iter, self.job.train.max_iters)
        if idle:
            raise WiringError(
                [f"{label} never weighed anything: training ended at iteration {runner.iter}" for label in idle]
            )
        self.recorder.emit(
            "finished",
            iteration=runner.iter,
            reason="early_stop" if self.best.stopped and runner.iter < self.job.train.max_iters else "max_iters",
            last=self.last,
            best=self.best_result,
            train_seconds=self.train_seconds,
            peak_memory_mib=self.peak_memory_mib(),
        )


def predictions_of(runner: ProveRunner) -> bytes:
    """The file of the predictions that the latest validation kept, in the order of the validation set."""
    metric, dataset = runner.val_evaluator.metrics[0], runner.val_dataloader.dataset
    return encoded(
        [metric.pictures[sample.id] for sample in dataset.samples if sample.id in metric.pictured],
        root=dataset.root,
        classes=dataset.metainfo["classes"],
        palette=dataset.metainfo["palette"],
        iteration=runner.iter,
    )


def weights_in(model: Any, head: HeadPlan) -> dict[str, float | None]:
    """The present weights of a head's terms, read from its modules."""
    module = model.get_submodule(head.path)
    terms = module.loss_decode if head.kind == "per_pixel" else module.semantic_terms
    by_name = {term.loss_name: float(term.loss_weight) for term in terms}
    return {
        label: float(module.loss_weight) if term.name == CRITERION else by_name.get(loss_name(label, head.kind))
        for label, term in head.terms
    }


def never_active(head: HeadPlan, iterations: int, max_iters: int) -> list[str]:
    """The terms whose weight was 0 in every one of the first ``iterations``."""
    return [label for label, term in head.terms if not any(term.weight.at(k / max_iters) for k in range(iterations))]


def result_of(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of kept counts, by name: overall, by condition, by class."""
    summary = summarize_arrays(arrays)
    names = [str(name) for name in arrays["classes"]]
    return {
        "images": summary.images,
        "metrics": {name: _percent(summary.metrics[name]) for name in METRICS},
        "conditions": {
            condition: {"images": part.images, **{name: _percent(part.metrics[name]) for name in METRICS}}
            for condition, part in summary.conditions.items()
        },
        "classes": {
            name: {metric: _percent(values[i]) for metric, values in summary.per_class.items()}
            for i, name in enumerate(names)
        },
    }


def _percent(value: Any) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None


def proof_batch(dataset: Any, batch_size: int, candidates: int = 16, most: int = 2) -> tuple[Any, bool]:
    """A real training batch for the wiring proof, with ignored pixels and valid ones.

    Two images are enough for every check (one when the batch size is one), except on a mix: of two, the one before is
    the one after. They are drawn outside the training stream, so that training sees what it would have seen.

    Args:
        candidates: images to choose from.
        most: images in the batch, where the batch size allows.

    Returns:
        The collated batch, and whether its ignored pixels had to be planted.
    """
    count = min(batch_size, most)
    drawn = [dataset[(i % len(dataset), -1 - i)] for i in range(max(count, min(candidates, len(dataset))))]

    def ignored(item: Any) -> float:
        return float((item["data_samples"].gt_sem_seg.data == 255).float().mean())

    usable = sorted((item for item in drawn if ignored(item) < 0.5), key=ignored, reverse=True)
    rest = sorted((item for item in drawn if ignored(item) >= 0.5), key=ignored)
    chosen = (usable + rest)[:count]
    planted = all(ignored(item) == 0 for item in chosen)
    if planted:
        label = chosen[0]["data_samples"].gt_sem_seg.data
        label[..., : label.shape[-2] // 4, : label.shape[-1] // 4] = 255
        chosen[0]["data_samples"].pop(DISTANCE_MAPS, None)  # they were those of the labels before
    return pseudo_collate(chosen), planted


def copy_atomically(run: RunDir, iteration: int) -> None:
    """Make the checkpoint of this iteration the best one, sharing its bytes where the file system can."""
    fresh = run.checkpoints / ".best.pth.new"
    fresh.unlink(missing_ok=True)
    try:
        os.link(run.checkpoint(iteration), fresh)
    except OSError:
        shutil.copyfile(run.checkpoint(iteration), fresh)
    os.replace(fresh, run.best_checkpoint)


def peak_memory_mib() -> float:
    """Peak memory of this process: on the GPU when there is one, resident otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
