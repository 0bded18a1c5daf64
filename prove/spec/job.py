"""One cell of the matrix at one seed, and the key that identifies it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from prove.errors import ProveError, unknown
from prove.spec.canonical import canonical_json, plain
from prove.spec.expr import LossExpr, LossTerm, Value
from prove.spec.recipe import Recipe
from prove.spec.schedule import WeightSchedule

SCHEMA = 1
"""Version of the canonical form below; it is part of every key."""

METRICS = ("mIoU", "aAcc", "mAcc", "fwIoU", "bIoU", "bF1", "ECE")
"""The metrics that every validation records, in percent."""


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ProveError(f"{name} is {value}, which is not {expected}.")


@dataclass(frozen=True)
class EarlyStop:
    """Stop when a metric has not risen by ``min_delta`` for ``patience`` validations in a row.

    Attributes:
        monitor: a name of `METRICS` that is better when larger.
        patience: validations without improvement before training stops, >= 1.
        min_delta: smallest rise that counts, in percentage points, > 0.
    """

    monitor: str = "mIoU"
    patience: int = 5
    min_delta: float = 0.1

    def __post_init__(self) -> None:
        name = self.monitor.removeprefix("val/")  # the study's spelling
        rising = [metric for metric in METRICS if metric != "ECE"]
        if name not in rising:
            raise unknown("metric to monitor", self.monitor, rising)
        object.__setattr__(self, "monitor", name)
        _require(self.patience >= 1, "early-stopping patience", self.patience, "an integer >= 1")
        _require(
            math.isfinite(self.min_delta) and self.min_delta > 0,
            "early-stopping min_delta",
            self.min_delta,
            "a number > 0, in percentage points: with 0 a constant metric never stops",
        )


@dataclass(frozen=True)
class TrainSettings:
    """How a job trains; every field is resolved, none means "the default".

    Attributes:
        max_iters: optimiser steps, >= 1.
        batch_size: images per step, over all devices, >= 1.
        crop_size: height and width of the training crop in pixels.
        lr: base learning rate at this batch size.
        eval_interval: iterations between validations, in [1, max_iters]; the last iteration is always validated.
        early_stop: None trains for ``max_iters`` whatever the metric does.
        val_images: validate on this many images, evenly spaced over the validation split; None validates on all.
        pretrained: whether the backbone starts from the weights that the model's config names.
        amp: mixed precision on CUDA; a CPU always computes in float32.
        domain_filter: train on images of these conditions only, sorted; None trains on all. Validation sees all.
        real_gen_ratio: share of real images in every epoch of a generative strategy, in [0, 1]; None without one.
        weights: first twelve digits of the SHA-256 of a file of pretrained weights of the user's own; None for those
            that the model's config names.
    """

    max_iters: int
    batch_size: int
    crop_size: tuple[int, int]
    lr: float
    eval_interval: int
    early_stop: EarlyStop | None = EarlyStop()
    val_images: int | None = None
    pretrained: bool = True
    amp: bool = True
    domain_filter: tuple[str, ...] | None = None
    real_gen_ratio: float | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        _require(self.max_iters >= 1, "max_iters", self.max_iters, "an integer >= 1")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "an integer >= 1")
        _require(math.isfinite(self.lr) and self.lr > 0, "lr", self.lr, "a finite number > 0")
        _require(
            1 <= self.eval_interval <= self.max_iters,
            "eval_interval",
            self.eval_interval,
            f"in [1, max_iters={self.max_iters}]: the metric would never be seen during training",
        )
        _require(self.val_images is None or self.val_images >= 1, "val_images", self.val_images, "an integer >= 1")
        _require(min(self.crop_size) >= 32, "crop_size", "x".join(map(str, self.crop_size)), "at least 32x32 pixels")
        if self.domain_filter is not None:
            names = tuple(sorted(set(self.domain_filter)))
            _require(len(names) > 0 and all(names), "domain_filter", self.domain_filter, "a list of conditions")
            object.__setattr__(self, "domain_filter", names)
        if self.real_gen_ratio is not None:
            _require(0 <= self.real_gen_ratio <= 1, "real_gen_ratio", self.real_gen_ratio, "a number in [0, 1]")
            object.__setattr__(self, "real_gen_ratio", float(self.real_gen_ratio) + 0.0)  # -0.0 is 0

    def canonical(self) -> dict[str, Any]:
        """Plain JSON types. Settings that came later are left out while they are unset: no older key changes."""
        values: dict[str, Any] = plain(dataclasses.asdict(self))
        return {name: value for name, value in values.items() if value is not None or name not in _LATER}


_LATER = ("domain_filter", "real_gen_ratio", "weights")


@dataclass(frozen=True)
class ModelRef:
    """Which model: a name of the catalogue, or a config file known by its content.

    Attributes:
        name: catalogue name, or the config file's stem.
        config_sha256: hash of what a job takes from the config file, which is then its identity; None for a model of
            the catalogue.
    """

    name: str
    config_sha256: str | None = None


@dataclass(frozen=True)
class Job:
    """One training run, fully resolved: pure data, the same on any machine.

    Attributes:
        dataset: canonical definition of the dataset (`DatasetDefinition.canonical()`), without paths.
        loss: resolved expression, complete with every default.
        strategy: canonical text of `prove.catalog.strategies.Strategy`.
        seed: initial weights and batches; >= 0.
    """

    dataset: Mapping[str, Any]
    model: ModelRef
    loss: LossExpr
    train: TrainSettings
    strategy: str = "baseline"
    seed: int = 0

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**31, "seed", self.seed, "in [0, 2**31)")

    @cached_property
    def key(self) -> str:
        """Twelve hex digits that identify the job on any machine; a config file counts by its content, not its name."""
        reference = _model_text(self.model)
        if self.model.config_sha256 is not None:
            reference = canonical_json({"config_sha256": self.model.config_sha256})
        return hashlib.sha256(self._text(reference).encode()).hexdigest()[:12]

    @cached_property
    def canonical(self) -> str:
        """The canonical form as its one JSON text: ``canonical_json(job.to_dict())``."""
        return self._text(_model_text(self.model))

    def _text(self, model: str) -> str:
        # Put together from the texts of its parts, each made once: of a hundred thousand jobs few parts differ.
        return (
            f'{{"dataset":{_dataset_text(self.dataset)},"loss":{self.loss.canonical},"model":{model},'
            f'"schema":{SCHEMA},"seed":{self.seed},"strategy":{canonical_json(self.strategy)},'
            f'"train":{_train_text(self.train)}}}'
        )

    @property
    def dataset_name(self) -> str:
        return str(self.dataset["name"])

    @property
    def recipe(self) -> Recipe:
        """What decides the training data beside the dataset."""
        return Recipe(self.strategy, self.train.domain_filter, self.train.real_gen_ratio)

    def to_dict(self) -> dict[str, Any]:
        """The canonical form, plain JSON types."""
        return {
            "schema": SCHEMA,
            "dataset": plain(self.dataset),
            "model": dataclasses.asdict(self.model),
            "strategy": self.strategy,
            "loss": json.loads(self.loss.canonical),
            "seed": self.seed,
            "train": self.train.canonical(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        """The inverse of `to_dict`.

        Raises:
            ProveError: the form is of another schema.
        """
        if data.get("schema") != SCHEMA:
            raise ProveError(
                f"This job has schema {data.get('schema')!r}, this PROVE reads schema {SCHEMA}.",
                hint="Use the version of PROVE that wrote it, or run the job again.",
            )
        train = dict(data["train"])
        stop = train.pop("early_stop")
        train["crop_size"] = tuple(train["crop_size"])
        if train.get("domain_filter") is not None:
            train["domain_filter"] = tuple(train["domain_filter"])
        return cls(
            dataset=data["dataset"],
            model=ModelRef(**data["model"]),
            strategy=data["strategy"],
            loss=LossExpr(
                tuple(LossTerm(t["name"], WeightSchedule(**t["weight"]), _params(t["params"])) for t in data["loss"])
            ),
            seed=data["seed"],
            train=TrainSettings(**train, early_stop=EarlyStop(**stop) if stop else None),
        )


@lru_cache(maxsize=4096)
def _model_text(model: ModelRef) -> str:
    return canonical_json(dataclasses.asdict(model))


@lru_cache(maxsize=4096)
def _train_text(train: TrainSettings) -> str:
    return canonical_json(train.canonical())


def _dataset_text(dataset: Mapping[str, Any]) -> str:
    return dataset.text if isinstance(dataset, Definition) else canonical_json(plain(dataset))


class Definition(dict[str, Any]):
    """The canonical definition of a dataset, with its JSON text made once for all jobs that share it."""

    @cached_property
    def text(self) -> str:
        """The canonical JSON; the definition must not change after."""
        return canonical_json(plain(self))


def _params(data: Mapping[str, Any]) -> tuple[tuple[str, Value], ...]:
    def frozen(value: Any) -> Value:
        return tuple(frozen(item) for item in value) if isinstance(value, list) else value

    return tuple((name, frozen(value)) for name, value in sorted(data.items()))
