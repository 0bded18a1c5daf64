"""MMEngine's Runner and training loop, with what an honest run needs: pairing, safe resume, a place to watch from."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, LOOPS, RUNNERS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor

from prove.errors import ProveError
from prove.rundir import write_atomically
from prove.training.fused_heads import fuse_heads
from prove.training.mixing import mix_of
from prove.training.objective import set_progress
from prove.training.pretrained import check_arrived, read_weights
from prove.training.seeding import generator, seed_torch


class Watcher(Protocol):
    """What follows a training from outside the loop."""

    def before_training(self, runner: ProveRunner) -> None: ...
    def after_iteration(self, runner: ProveRunner, outputs: Mapping[str, Tensor]) -> None: ...
    def after_validation(self, runner: ProveRunner, metrics: Mapping[str, float]) -> None: ...
    def validated(self, iteration: int) -> bool: ...
    def should_stop(self, runner: ProveRunner) -> bool: ...


@RUNNERS.register_module()
class ProveRunner(Runner):  # type: ignore[misc]
    """A Runner whose initial weights depend on the seed alone and which resumes without executing pickled code."""

    watcher: Watcher | None = None
    resume_state: Mapping[str, Any] | None = None
    weights: Path | None = None
    """File of the pretrained backbone, checked to have arrived in the model."""

    @property
    def seed_value(self) -> int:
        return int(self._randomness_cfg.get("seed") or 0)

    def build_model(self, model: Any) -> Any:
        seed_torch("build", self.seed_value)
        built = super().build_model(model)
        fuse_heads(built)
        return built

    def _init_model_weights(self) -> None:
        seed_torch("weights", self.seed_value)
        if self.weights is not None and self.resume_state is None:
            read_weights(self.weights)  # a file that can't be read is refused by name before MMEngine trips over it
        super()._init_model_weights()
        if self.weights is not None and self.resume_state is None:
            check_arrived(self.model, self.weights)

    def load_or_resume(self) -> None:
        if self.resume_state is None:
            super().load_or_resume()
            return
        state = self.resume_state
        self.model.load_state_dict(state["state_dict"], strict=True)
        self.optim_wrapper.load_state_dict(state["optimizer"])
        for scheduler, saved in zip(self.param_schedulers, state["param_schedulers"], strict=True):
            scheduler.load_state_dict(saved)
        self.train_loop.resume_at(int(state["iteration"]))
        self._has_loaded = True

    def training_state(self) -> dict[str, Any]:
        """Everything that resuming needs, in tensors and plain Python values."""
        return {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optim_wrapper.state_dict(),
            "param_schedulers": [scheduler.state_dict() for scheduler in self.param_schedulers],
            "iteration": self.iter,
            "meta": {"dataset_meta": dict(self.train_dataloader.dataset.metainfo), "seed": self.seed_value},
        }


@LOOPS.register_module()
class ProveTrainLoop(IterBasedTrainLoop):  # type: ignore[misc]
    """Iteration-based training in which iteration k draws its randomness from (seed, k).

    Args:
        mix: what is done to the images of every batch (`prove.training.mixing.mix_of`); None leaves them as they are.
        options: of MMEngine's `IterBasedTrainLoop`.
    """

    lr = 0.0
    """The base learning rate of the latest iteration."""

    def __init__(self, *args: Any, mix: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.mix = mix_of(mix)

    def resume_at(self, iteration: int) -> None:
        self._iter = iteration

    def run(self) -> Any:
        """Train until the last iteration or until the watcher says stop."""
        runner: ProveRunner = self.runner
        watcher = runner.watcher
        runner.call_hook("before_train")
        runner.call_hook("before_train_epoch")
        if watcher is not None:
            watcher.before_training(runner)
        self.dataloader_iterator.skip_iter(self._iter)
        if watcher is not None and self._iter > 0 and self._due() and not watcher.validated(self._iter):
            self._validate()  # the last attempt ended between the iteration and its validation
        while self._iter < self._max_iters and not self.stop_training:
            if watcher is not None and watcher.should_stop(runner):
                break
            runner.model.train()
            batch = next(self.dataloader_iterator)
            if self.mix is not None:
                batch = self.mix(batch, generator("mix", runner.seed_value, self._iter))
            seed_torch("iteration", runner.seed_value, self._iter)
            self.run_iter(batch)
            if self._due():
                self._validate()
        runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")
        return runner.model

    def run_iter(self, data_batch: Any) -> None:
        """One step; the watcher sees its losses."""
        runner: ProveRunner = self.runner
        runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=data_batch)
        self.lr = learning_rate(runner)
        outputs = runner.model.train_step(data_batch, optim_wrapper=runner.optim_wrapper)
        runner.call_hook("after_train_iter", batch_idx=self._iter, data_batch=data_batch, outputs=outputs)
        self._iter += 1
        if runner.watcher is not None:
            runner.watcher.after_iteration(runner, outputs)

    def _due(self) -> bool:
        return bool(self._iter % self.val_interval == 0 or self._iter == self._max_iters)

    def _validate(self) -> None:
        runner: ProveRunner = self.runner
        seed_torch("validation", runner.seed_value, self._iter)
        metrics = runner.val_loop.run()
        if runner.watcher is not None:
            runner.watcher.after_validation(runner, metrics)


def learning_rate(runner: Runner) -> float:
    """The base learning rate of the step that comes next."""
    rates = runner.optim_wrapper.get_lr()
    return float(rates.get("base_lr", rates["lr"])[0])


@HOOKS.register_module()
class ScheduleHook(Hook):  # type: ignore[misc]
    """Moves the weights of terms that have a schedule along with training."""

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        set_progress(runner.model, batch_idx / runner.max_iters)


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a kill leaves the old file or the new one, never half of one."""
    write_atomically(path, lambda file: torch.save(plain(state), file))


def load_checkpoint(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; never executes what is pickled in it.

    Raises:
        ProveError: it is damaged, holds something else, or can't be read; in one line, without torch's advice.
    """
    _require_whole(path)
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ProveError(f"The checkpoint {path} holds more than tensors and plain values.") from error
    except Exception as error:  # in memory that is short, or of a version of torch that writes otherwise
        first = str(error).partition("\n")[0]
        raise ProveError(f"The checkpoint {path} can't be read: {type(error).__name__}: {first}") from error
    return state


def _require_whole(path: Path) -> None:
    """Hold every part of a checkpoint against its check sum, which torch writes and does not look at."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except OSError as error:
        raise ProveError(f"The checkpoint {path} can't be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ProveError(f"The checkpoint {path} is damaged: it is cut off, or was never a checkpoint.") from error
    if broken is not None:
        raise ProveError(f"The checkpoint {path} is damaged: {broken} in it is not what was written.")


def plain(value: Any) -> Any:
    """Tensors and Python's own types as they are, numpy scalars as Python numbers; all else is refused."""
    if isinstance(value, Tensor) or value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value) if type(value) in (list, tuple) else [plain(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    raise TypeError(f"{type(value).__name__} does not belong in a checkpoint")
