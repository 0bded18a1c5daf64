"""What a user asks for on the command line, resolved into a Job and a place to run it."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from prove.build.job_config import Placement
from prove.build.objective import for_model
from prove.build.weights import chosen_file, fetch, sha256
from prove.catalog.losses import from_aux, resolve
from prove.catalog.models import MODELS, ModelEntry
from prove.catalog.strategies import require_batch, resolve_strategy
from prove.catalog.user_terms import register_terms
from prove.cli.objectives import kept_criterion, objective, require_fit, require_weight
from prove.data.cache import cache_dir
from prove.data.compose import compose
from prove.data.definition import DatasetDefinition, located, resolve_dataset
from prove.data.joint import absolute_roots
from prove.data.source import Dataset, open_dataset
from prove.errors import ProveError
from prove.losses.backends import chosen_backend
from prove.spec import EarlyStop, Job, LossExpr, ModelRef, TrainSettings, parse
from prove.spec.job import Definition
from prove.spec.recipe import Recipe

STUDY = {"max_iters": 15000, "batch_size": 16, "eval_interval": 2000}
"""The original study's settings: the defaults for real datasets."""

DEMO = {"max_iters": 200, "batch_size": 4, "eval_interval": 50}
"""Defaults for the built-in SynthStreet: minutes on a laptop."""


@dataclass(frozen=True)
class RunRequest:
    """The flags of ``prove run``; None means "the default"."""

    dataset: str = "SynthStreet"
    model: str = "segformer_mit-b0"
    strategy: str = "baseline"
    aux_loss: str | None = None
    aux_weight: float | None = None
    loss: str | None = None
    terms: Sequence[str | Path] | None = None
    seed: int = 0
    domain_filter: str | None = None
    real_gen_ratio: float | None = None
    data_root: str | None = None
    gen_root: str | None = None
    weights: str | None = None
    max_iters: int | None = None
    batch_size: int | None = None
    crop_size: str | None = None
    lr: float | None = None
    eval_interval: int | None = None
    val_images: int | None = None
    early_stop: bool = True
    patience: int | None = None
    min_delta: float | None = None
    monitor: str | None = None
    pretrained: bool = True
    amp: bool = True
    device: str = "auto"
    workers: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Plan:
    """A job, where it runs, and the model's config file when it was given as one.

    Until `with_weights` its placement names the pretrained weights as the model's config does: a URL, a path, a name.
    """

    job: Job
    placement: Placement
    dataset: Dataset
    model_config: str | None


class Planner:
    """Resolves requests; what many of them share is resolved once.

    Args:
        proof_only: the plans are for a wiring proof, which looks at a term whatever it weighs when.

    Attributes:
        remarks: what to tell the user about the objectives so far, each once.
    """

    def __init__(self, *, proof_only: bool = False) -> None:
        chosen_backend()  # a wrong name is not for the worker to find out
        self._proof_only = proof_only
        self.remarks: list[str] = []
        self._model = cache(_model)
        self._source = cache(_dataset_source)
        self._expression = cache(self._resolve_expression)
        self._train = cache(self._resolve_train)
        self._sound = cache(self._require_sound)
        self._open = cache(self._resolve_open)
        self.register = cache(register_terms)

    def require_known(self, name: str, value: Any) -> None:
        """Refuse a dataset, model, strategy or loss that does not exist; other settings are not looked at.

        Raises:
            ProveError: it does not; names the nearest.
        """
        if name == "dataset":
            self._source(value)
        elif name == "model":
            self._model(value)
        elif name == "strategy":
            resolve_strategy(value)
        elif name == "loss":
            resolve(parse(value))
        elif name == "aux_loss":
            from_aux(value)

    def job(self, request: RunRequest) -> Job:
        """The job that is asked for; the dataset need not be on this machine.

        Raises:
            ProveError: an unknown name, an impossible setting.
        """
        if request.terms:
            self.register(tuple(request.terms))
        _, reference, _ = self._model(request.model)
        _, _, canonical = self._source(request.dataset)
        train = self._train(_shared(request, _TRAIN))
        self._sound(_shared(request, _OBJECTIVE), request.dataset, train.max_iters)
        return Job(
            dataset=canonical,
            model=reference,
            loss=self._expression(_shared(request, _OBJECTIVE)),
            train=train,
            strategy=resolve_strategy(request.strategy).name,
            seed=request.seed,
        )

    def plan(self, request: RunRequest) -> Plan:
        """The job and where it runs; nothing is written and nothing is downloaded.

        Raises:
            ProveError: as `job`, or a dataset that is not there.
        """
        job = self.job(request)
        entry, _, config_text = self._model(request.model)
        source, definition, _ = self._source(request.dataset)
        dataset = self._open(request.dataset, request.data_root, job.recipe, request.gen_root)
        if request.val_images is not None and request.val_images > len(dataset.val):
            raise ProveError(
                f"--val-images {request.val_images}, but {definition.name} has {len(dataset.val)} validation images.",
                hint="Leave it out to validate on all of them.",
            )
        cuda = on_cuda(request.device)
        placement = Placement(
            source=source,
            data_root=absolute_roots(request.data_root) if request.data_root else None,
            weights=(request.weights or entry.weights) if job.train.pretrained else None,
            num_workers=_at_least(0, "workers", request.workers, 4 if cuda else 0),
            threads=_at_least(1, "threads", request.threads, len(os.sched_getaffinity(0))),
            cuda=cuda,
            generated_root=_absolute(request.gen_root),
        )
        return Plan(job, placement, dataset, config_text)

    def _resolve_expression(self, asked: tuple[Any, ...]) -> LossExpr:
        request = _request(_OBJECTIVE, asked)
        entry, _, _ = self._model(request.model)
        found = for_model(objective(request.loss, request.aux_loss, request.aux_weight), entry.kind, entry.name)
        remark = kept_criterion(found, entry.name)
        if remark and remark not in self.remarks:
            self.remarks.append(remark)
        return found

    def _resolve_train(self, asked: tuple[Any, ...]) -> TrainSettings:
        request = _request(_TRAIN, asked)
        entry, _, _ = self._model(request.model)
        _, definition, _ = self._source(request.dataset)
        return _train_settings(request, entry, definition)

    def _require_sound(self, asked: tuple[Any, ...], dataset: str, max_iters: int) -> None:
        expr = self._expression(asked)
        if not self._proof_only:
            require_weight(expr, max_iters)
        _, definition, _ = self._source(dataset)
        require_fit(expr, definition.label_space.classes, definition.name)

    def _resolve_open(self, dataset: str, root: str | None, recipe: Recipe, generated: str | None) -> Dataset:
        _, definition, _ = self._source(dataset)
        return compose(open_dataset(definition, root=root), recipe, generated_root=generated)


_TRAIN = (
    "dataset", "model", "max_iters", "batch_size", "crop_size", "lr", "eval_interval", "val_images", "early_stop",
    "patience", "min_delta", "monitor", "pretrained", "amp", "strategy", "domain_filter", "real_gen_ratio", "weights",
)  # fmt: skip
"""What the training settings depend on."""

_OBJECTIVE = ("model", "loss", "aux_loss", "aux_weight")
"""What the objective depends on."""


def _shared(request: RunRequest, names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(map(request.__dict__.__getitem__, names))


def _request(names: tuple[str, ...], values: tuple[Any, ...]) -> RunRequest:
    return RunRequest(**dict(zip(names, values, strict=True)))


def plan(request: RunRequest, *, proof_only: bool = False) -> Plan:
    """`Planner.plan` for one request, in which nothing may stand that has no effect.

    Raises:
        ProveError: as there, or a folder of generated images for a strategy without them.
    """
    if request.gen_root is not None and resolve_strategy(request.strategy).generated is None:
        raise ProveError(
            f"--gen-root {request.gen_root} holds generated images, and the strategy {request.strategy!r} has none.",
            hint="Name them: --strategy gen_NAME.",
        )
    return Planner(proof_only=proof_only).plan(request)


def _train_settings(request: RunRequest, entry: ModelEntry, definition: DatasetDefinition) -> TrainSettings:
    defaults = DEMO if definition.size is not None else STUDY
    max_iters = request.max_iters if request.max_iters is not None else defaults["max_iters"]
    batch_size = request.batch_size if request.batch_size is not None else defaults["batch_size"]
    crop = _crop(request.crop_size) or (
        min(entry.crop_size[0], definition.default_crop[0]),
        min(entry.crop_size[1], definition.default_crop[1]),
    )
    train = TrainSettings(
        max_iters=max_iters,
        batch_size=batch_size,
        crop_size=crop,
        lr=request.lr if request.lr is not None else entry.lr(max(1, batch_size)),
        eval_interval=request.eval_interval
        if request.eval_interval is not None
        else min(defaults["eval_interval"], max(1, max_iters)),
        early_stop=_early_stop(request),
        val_images=request.val_images,
        pretrained=request.pretrained and (entry.weights or request.weights) is not None,
        amp=request.amp,
        domain_filter=_conditions(request.domain_filter),
        real_gen_ratio=_real_gen_ratio(request),
        weights=_digest(request, entry),
    )
    _possible(entry, train)
    require_batch(resolve_strategy(request.strategy), train.batch_size)
    return train


DEFAULT_REAL_GEN_RATIO = 0.5
"""Share of real images in an epoch of a generative strategy."""


def _real_gen_ratio(request: RunRequest) -> float | None:
    if resolve_strategy(request.strategy).generated is not None:
        return DEFAULT_REAL_GEN_RATIO if request.real_gen_ratio is None else request.real_gen_ratio
    if request.real_gen_ratio is not None:
        raise ProveError(
            f"--real-gen-ratio {request.real_gen_ratio:g} mixes in generated images, and the strategy "
            f"{request.strategy!r} has none.",
            hint="Name them: --strategy gen_NAME.",
        )
    return None


def _conditions(text: str | None) -> tuple[str, ...] | None:
    """``clear_day+cloudy``, or the same with a comma; ``all`` filters nothing."""
    if text is None or text.strip() == "all":
        return None
    names = tuple(part.strip() for part in re.split(r"[+,]", text))
    if not all(names):
        raise ProveError(
            f"--domain-filter {text!r} leaves a condition unnamed.",
            hint="Write clear_day+cloudy, or leave it out to train on all images.",
        )
    return names


def _digest(request: RunRequest, entry: ModelEntry) -> str | None:
    """What identifies a file of weights of the user's own."""
    if request.weights is None:
        return None
    if not request.pretrained:
        raise ProveError("--weights and --no-pretrained contradict each other.")
    return sha256(chosen_file(request.weights, entry.name, entry.weights))[:12]


def _absolute(folder: str | None) -> str | None:
    return str(Path(folder).expanduser().resolve()) if folder else None


def _to_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def with_weights(plan: Plan, say: Callable[[str], None] = _to_stderr) -> Plan:
    """The plan with its pretrained weights as a file on this machine, downloaded if need be.

    Args:
        say: told what is downloaded, and how large it is.

    Raises:
        ProveError: the weights can't be had.
    """
    source = plan.placement.weights
    if source is None:
        return plan
    file = fetch(source, cache_dir() / "weights", say).absolute()
    return dataclasses.replace(plan, placement=dataclasses.replace(plan.placement, weights=str(file)))


def _model(name: str) -> tuple[ModelEntry, ModelRef, str | None]:
    if not name.endswith(".py"):
        entry = MODELS.get(name, where="(a config file is given by its path, which ends in .py)" if "/" in name else "")
        return entry, ModelRef(entry.name), None
    from prove.build.configs import digest, entry_of_file, load  # reads the config with MMEngine, which imports torch

    path = Path(name).expanduser()
    config = load(path)
    entry = entry_of_file(path, config)
    return entry, ModelRef(entry.name, digest(config)), config.pretty_text


def _dataset_source(name: str) -> tuple[str, DatasetDefinition, Definition]:
    """What a worker finds the dataset by, its definition, and what of that identifies a job."""
    name = located(name)
    definition = resolve_dataset(name)
    return name, definition, Definition(name=definition.name, **definition.canonical())


def _crop(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[x,](\d+))?", text.strip())
    if match is None:
        raise ProveError(f"--crop-size {text!r} is not a size.", hint="Write HEIGHTxWIDTH, such as 512x512.")
    height = int(match[1])
    return height, int(match[2]) if match[2] else height


def _early_stop(request: RunRequest) -> EarlyStop | None:
    given: dict[str, Any] = {"patience": request.patience, "min_delta": request.min_delta, "monitor": request.monitor}
    changed = {name: value for name, value in given.items() if value is not None}
    if not request.early_stop:
        if changed:
            raise ProveError(f"--no-early-stop and --{next(iter(changed)).replace('_', '-')} contradict each other.")
        return None
    return dataclasses.replace(EarlyStop(), **changed)


def _possible(entry: ModelEntry, train: TrainSettings) -> None:
    if train.batch_size < entry.min_batch:
        raise ProveError(
            f"{entry.name} can't train with batch_size {train.batch_size}: "
            "a batch norm behind its image pooling sees one value per image.",
            hint=f"Use --batch-size {entry.min_batch} or more.",
        )


def on_cuda(device: str) -> bool:
    """Whether ``--device`` auto, cpu or cuda means a GPU here.

    Raises:
        ProveError: another name, or a GPU that is not there.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ProveError(f"Unknown device {device!r}.", hint="Valid: auto, cpu, cuda.")
    if device == "cpu":
        return False
    present = gpu_is_present()
    if device == "cuda" and not present:
        raise ProveError(
            "--device cuda, but no CUDA device is visible here.", hint="`prove doctor` says what this machine has."
        )
    return present


def gpu_is_present() -> bool:
    """Whether an NVIDIA driver and a visible device are there; asked of the system, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible is None or visible.strip() not in ("", "-1")) and Path("/dev/nvidiactl").exists()


def _at_least(low: int, name: str, value: int | None, default: int) -> int:
    if value is None:
        return default
    if value < low:
        raise ProveError(f"--{name} {value} is less than {low}.")
    return value
