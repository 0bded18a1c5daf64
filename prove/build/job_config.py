"""Job + dataset → the complete MMSegmentation config that trains it."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prove.build.configs import digest, load, shipped
from prove.build.lr_schedule import lr_schedule
from prove.build.model import patch_model
from prove.build.objective import HeadPlan, plan_heads
from prove.build.pipeline import mix_options, pastes_labels, training_pipeline, validation_pipeline
from prove.catalog.losses import class_weight_scheme
from prove.catalog.models import MODELS
from prove.catalog.strategies import resolve_strategy
from prove.data.source import Dataset
from prove.data.stats import epoch_frequencies
from prove.errors import ProveError
from prove.spec import Job
from prove.spec.canonical import plain
from prove.spec.recipe import Recipe

if TYPE_CHECKING:
    from mmengine.config import Config


@dataclass(frozen=True)
class Placement:
    """Where a job runs: nothing of this changes what it is.

    Attributes:
        source: the dataset's name or YAML file, as it was asked for.
        data_root: folder of the dataset, None for the built-in one.
        weights: local file with the pretrained backbone, None without.
        num_workers: processes that load data, 0 loads in the training process.
        threads: threads of torch in the training process; OpenCV runs in the caller's.
        cuda: whether it trains on a GPU.
        generated_root: folder that holds generated images, None asks the environment.
    """

    source: str
    data_root: str | None = None
    weights: str | None = None
    num_workers: int = 0
    threads: int = 1
    cuda: bool = False
    generated_root: str | None = None


@dataclass(frozen=True)
class BuiltConfig:
    """A complete config and what its heads must add up to."""

    config: Config
    heads: tuple[HeadPlan, ...]


def base_config(job: Job, model_file: Path | None = None) -> Config:
    """The unpatched config of a job's model: the shipped one with the catalogue's edits, or the user's file."""
    if job.model.config_sha256 is not None:
        assert model_file is not None, "a model given as a file travels with its run"
        config = load(model_file)
        if digest(config) != job.model.config_sha256:
            raise ProveError(f"{model_file} is no longer the config that this job was made from.", hint="Run it anew.")
        return config
    entry = MODELS.get(job.model.name)
    config = load(shipped(entry.config))
    if entry.edits:
        # a deep copy: MMEngine takes `_delete_` out of what it merges, and the entry is used again
        config.merge_from_dict({"model": copy.deepcopy(dict(entry.edits))})
    return config


def training_class_weight(job: Job, dataset: Dataset) -> tuple[float, ...] | None:
    """One weight per class from the training set's frequencies, when a term of the objective asks for it."""
    scheme = class_weight_scheme(job.loss)
    if scheme is None:
        return None
    from prove.losses import class_weights  # imports torch, which `prove run` itself has no use for

    seen = epoch_frequencies(dataset)
    around = seen.pixels_around if scheme[0] == "median_frequency" else None
    return class_weights(seen.pixels, *scheme, pixels_around=around)


def build_config(
    job: Job,
    dataset: Dataset,
    placement: Placement,
    class_weight: tuple[float, ...] | None = None,
    model_file: Path | None = None,
) -> BuiltConfig:
    """The config of one job. It stands alone: MMSegmentation's ``tools/train.py`` trains it where PROVE is installed.

    Args:
        dataset: gives the classes and their colours.
        class_weight: of `training_class_weight`.
        model_file: the config file of a model that is not in the catalogue.
    """
    from mmengine.config import Config

    base = base_config(job, model_file)
    heads = plan_heads(base.model, job.loss)
    train = job.train
    classes, palette = dataset.train.label_space.classes, dataset.train.label_space.palette
    model = _model_with_preprocessor(base)
    config: dict[str, Any] = {
        "default_scope": "mmseg",
        "custom_imports": {"imports": ["prove.training.registered"], "allow_failed_imports": False},
        "runner_type": "ProveRunner",
        "model": patch_model(
            model,
            heads=heads,
            num_classes=len(classes),
            crop_size=train.crop_size,
            class_weight=class_weight,
            weights=placement.weights,
        ),
        "train_dataloader": _loader(job, placement, "train"),
        "val_dataloader": _loader(job, placement, "val"),
        "train_cfg": {
            "type": "ProveTrainLoop",
            "max_iters": train.max_iters,
            "val_interval": train.eval_interval,
            **mix_options(resolve_strategy(job.strategy), train.crop_size, model.get("data_preprocessor")),
        },
        "val_cfg": {"type": "ValLoop"},
        "val_evaluator": {"type": "ImageCountsMetric", "classes": classes, "normalise": heads[0].kind != "per_pixel"},
        "test_dataloader": _loader(job, placement, "val"),
        "test_cfg": {"type": "TestLoop"},
        "test_evaluator": {"type": "ImageCountsMetric", "classes": classes, "normalise": heads[0].kind != "per_pixel"},
        "optim_wrapper": _optimizer(base, job, placement),
        "param_scheduler": lr_schedule(base, train.max_iters, train.lr),
        "randomness": {"seed": job.seed, "deterministic": False},
        "env_cfg": {
            "cudnn_benchmark": False,
            "mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0},
            "dist_cfg": {"backend": "nccl"},
        },
        "default_hooks": {
            "runtime_info": {"type": "RuntimeInfoHook"},
            "timer": None,
            "logger": None,
            "param_scheduler": {"type": "ParamSchedulerHook"},
            "checkpoint": None,
            "sampler_seed": None,
        },
        "custom_hooks": [{"type": "ScheduleHook"}],
        "visualizer": {"type": "Visualizer", "vis_backends": []},
        "log_processor": {"by_epoch": False},
        "log_level": "INFO",
        "load_from": None,
        "resume": False,
        "palette": palette,
    }
    return BuiltConfig(Config(config), heads)


def _model_with_preprocessor(base: Config) -> dict[str, Any]:
    """Some configs keep the preprocessor beside the model."""
    model = base.model.to_dict() if hasattr(base.model, "to_dict") else dict(base.model)
    if "data_preprocessor" not in model and "data_preprocessor" in base:
        model["data_preprocessor"] = dict(base.data_preprocessor)
    return copy.deepcopy(model)


def _loader(job: Job, placement: Placement, split: str) -> dict[str, Any]:
    training = split == "train"
    strategy = resolve_strategy(job.strategy)
    pipeline = training_pipeline(strategy, job.train.crop_size) if training else validation_pipeline()
    dataset: dict[str, Any] = {
        "type": "ManifestDataset",
        "source": placement.source,
        "root": placement.data_root,
        "split": split,
        "pipeline": pipeline,
    }
    if training:
        dataset["seed"] = job.seed
        if job.recipe != Recipe():
            dataset |= {"recipe": plain(asdict(job.recipe)), "generated_root": placement.generated_root}
        # Of labels with a pasted box, distances are known only when it is pasted: the term computes them.
        if any(term.name == "distance" for term in job.loss.terms) and not pastes_labels(strategy):
            dataset["distance_maps"] = True
    elif job.train.val_images is not None:
        dataset["limit"] = job.train.val_images
    return {
        "batch_size": job.train.batch_size if training else 1,
        "num_workers": placement.num_workers,
        "persistent_workers": placement.num_workers > 0,
        "drop_last": training,
        "sampler": {"type": "PositionSampler", "seed": job.seed}
        if training
        else {"type": "DefaultSampler", "shuffle": False},
        "dataset": dataset,
    }


def _optimizer(base: Config, job: Job, placement: Placement) -> dict[str, Any]:
    wrapper: dict[str, Any] = copy.deepcopy(base.optim_wrapper.to_dict())
    wrapper["optimizer"]["lr"] = job.train.lr
    if placement.cuda and job.train.amp:
        wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
    else:
        wrapper["type"] = "OptimWrapper"
        for option in ("loss_scale", "dtype", "use_fsdp"):
            wrapper.pop(option, None)
    return wrapper
