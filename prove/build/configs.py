"""MMSegmentation configs: the shipped ones, a user's file, and what PROVE reads off them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prove.build.supported import check_head, check_one_kind, is_mask_classification, type_name
from prove.catalog.models import ModelEntry
from prove.errors import ProveError

if TYPE_CHECKING:
    from mmengine.config import Config


OWN = "prove/"
"""Begins the name of a config that is PROVE's own; mmsegmentation has no folder of that name."""


def shipped(relative: str) -> Path:
    """Path of a config below mmsegmentation's ``configs/``, or of PROVE's own: ``prove/dinov3_linear.py``.

    mmsegmentation is found, not imported.
    """
    if relative.startswith(OWN):
        return Path(__file__).parent / "model_configs" / relative.removeprefix(OWN)
    spec = importlib.util.find_spec("mmseg")
    if spec is None or not spec.submodule_search_locations:
        raise ProveError("mmsegmentation is not installed.", hint="Install PROVE again: `uv sync`.")
    return Path(spec.submodule_search_locations[0]) / ".mim" / "configs" / relative


KNOWN_IMPORTS = ("mmcv", "mmdet", "mmengine", "mmseg")
"""Packages whose modules are there when a run trains; a config may import from these."""


def load(path: Path) -> Config:
    """Read an MMSegmentation config file with everything it inherits. Reading executes the file.

    Raises:
        ProveError: the file is missing, can't be read as a config, or has no model with a decode head.
    """
    if not path.is_file():
        raise ProveError(f"There is no config file {path}.", hint="Give a model's name or the path of a config file.")
    from mmengine.config import Config

    try:
        config = Config.fromfile(str(path), import_custom_modules=False)
    except Exception as error:  # a config is arbitrary Python: whatever it raises is the user's answer
        raise ProveError(
            f"{path} can't be read as an MMSegmentation config: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(config.get("model"), Mapping) or "decode_head" not in config.model:
        raise ProveError(f"{path} defines no `model` with a `decode_head`, so it is not a segmentation model's config.")
    return config


def entry_of_file(path: Path, config: Config) -> ModelEntry:
    """What the catalogue would say of a model that is given as a config file.

    Raises:
        ProveError: what the config asks for is something that PROVE would not train as it stands there.
    """
    _check_imports(path, config)
    wrapper = config.get("optim_wrapper", {})
    optimizer = wrapper.get("optimizer", {})
    if "lr" not in optimizer:
        raise ProveError(
            f"{path} sets no `optim_wrapper.optimizer.lr`.", hint="Inherit one of the schedules in _base_."
        )
    if wrapper.get("accumulative_counts", 1) != 1:
        raise ProveError(
            f"{path} adds up the gradients of {wrapper['accumulative_counts']} batches before each step.",
            hint="Remove accumulative_counts: a job's batch size is what one optimiser step sees.",
        )
    heads = head_configs(config.model)
    for where, head in heads:
        check_head(where, head)
    check_one_kind(heads)
    for node in walk(config.model):
        if node.get("pretrained") is True:
            raise ProveError(
                f"{path} has `pretrained=True` in its {type_name(node) or 'model'}, which does not say what weights.",
                hint="Write pretrained=False there, and name the file: "
                "init_cfg=dict(type='Pretrained', checkpoint='PATH or URL').",
            )
    if config.get("load_from"):
        raise ProveError(
            f"{path} starts from a whole checkpoint, load_from={config.load_from!r}, which PROVE would not load.",
            hint="Take load_from out; a backbone's weights are named by its init_cfg.",
        )
    sources = sorted(set(pretrained_sources(config.model)))
    if len(sources) > 1:
        raise ProveError(f"{path} takes pretrained weights from {len(sources)} places: {', '.join(sources)}.")
    preprocessor = config.model.get("data_preprocessor") or config.get("data_preprocessor")
    if preprocessor is None:
        raise ProveError(
            f"{path} has no `data_preprocessor`: images would reach the model as they are.",
            hint='Give it one of type "SegDataPreProcessor", with the mean and std of the backbone\'s training.',
        )
    crop = preprocessor.get("size") or (512, 512)
    return ModelEntry(
        name=path.stem,
        config=str(path),
        kind="mask_classification" if any(is_mask_classification(head) for _, head in heads) else "per_pixel",
        base_lr=float(optimizer["lr"]),
        base_batch=_base_batch(path, config),
        lr_scaling="sqrt" if "adam" in type_name(optimizer).lower() else "linear",
        crop_size=(int(crop[0]), int(crop[1])),
        weights=next(iter(sources), None),
        summary=f"config file {path}",
    )


def digest(config: Config) -> str:
    """Hash of what a job takes from a config, however the file is written: its model, optimiser, schedule and length.

    Pretrained weights that are given by an absolute path count by the file's name: where they lie differs by machine.
    """
    parts = ("model", "data_preprocessor", "optim_wrapper", "param_scheduler")
    given = config.to_dict()
    taken = {part: given.get(part) for part in parts}
    length = given.get("train_cfg") or {}  # of its entries only these are read, by the learning-rate schedule
    taken["train_cfg"] = {name: length.get(name) for name in ("max_iters", "max_epochs")}
    for node in walk(taken):
        for name in ("pretrained", "checkpoint"):
            if isinstance(node.get(name), str) and node[name].startswith(("/", "~")):
                node[name] = Path(node[name]).name
    return hashlib.sha256(json.dumps(taken, sort_keys=True, default=str).encode()).hexdigest()


def _check_imports(path: Path, config: Config) -> None:
    names = (config.get("custom_imports") or {}).get("imports") or []
    for name in [names] if isinstance(names, str) else names:
        if str(name).split(".")[0] not in KNOWN_IMPORTS:
            raise ProveError(
                f"{path} imports {name!r} with custom_imports; a run would train without it.",
                hint=f"PROVE trains models made of {', '.join(KNOWN_IMPORTS)} alone.",
            )


def _base_batch(path: Path, config: Config) -> int:
    """Images per step that the config's learning rate is meant for."""
    declared = config.get("auto_scale_lr", {}).get("base_batch_size")
    if declared:
        return int(declared)
    named = re.search(r"_(\d+)xb(\d+)", path.stem)  # mmsegmentation's naming: GPUs x images per GPU
    if named:
        return int(named[1]) * int(named[2])
    return int(config.get("train_dataloader", {}).get("batch_size", 1))


def head_configs(model: Mapping[str, Any]) -> list[tuple[str, MutableMapping[str, Any]]]:
    """Every head of a model, as ``(module path, config)``: ``decode_head``, ``auxiliary_head.0``, ..."""
    found: list[tuple[str, MutableMapping[str, Any]]] = []
    for name in ("decode_head", "auxiliary_head"):
        head = model.get(name)
        if head is None:
            continue
        if isinstance(head, list | tuple):
            found += [(f"{name}.{i}", each) for i, each in enumerate(head)]
        else:
            found.append((name, head))
    return found


def walk(node: Any) -> Iterator[MutableMapping[str, Any]]:
    """Every mapping inside a nested config, outermost first."""
    if isinstance(node, MutableMapping):
        yield node
        for value in list(node.values()):
            yield from walk(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from walk(value)


def is_pretrained(init: Mapping[str, Any]) -> bool:
    """Whether an ``init_cfg`` loads weights."""
    return type_name(init) in ("Pretrained", "PretrainedInit")


def pretrained_sources(model: Any) -> list[str]:
    """Where a model's config takes pretrained weights from: URLs, files or hub names."""
    sources = []
    for node in walk(model):
        if isinstance(node.get("pretrained"), str):
            sources.append(node["pretrained"])
        if is_pretrained(node) and node.get("checkpoint"):
            sources.append(str(node["checkpoint"]))
    return sources
