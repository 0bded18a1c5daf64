"""The facts of a run, from its job's canonical text and from what its worker said of its environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from prove.report.comparability import UNKNOWN
from prove.spec.canonical import canonical_json

MAJOR = ("torch", "torchvision", "onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation", "onedl-mmdetection", "numpy",
         "opencv-python-headless")  # fmt: skip
"""The libraries whose major versions must agree."""

_OWN = ("max_iters", "lr", "batch_size", "crop_size", "early_stop", "eval_interval", "val_images", "pretrained",
        "domain_filter", "real_gen_ratio", "weights")  # fmt: skip
"""Training settings that are facts of their own; a setting that a later PROVE adds falls under ``settings``."""

_FROM_ENVIRONMENT = ("data_train", "data_val", "metric_version", "batch_size_per_device", "code", "device", "resumed",
                     "deterministic")  # fmt: skip


class JobParts:
    """A job's canonical text, taken apart.

    Attributes:
        loss: canonical text of its objective.
        facts: what was asked for, by the names of `comparability.ASKED`; shared by jobs that share it.
    """

    __slots__ = ("asked", "facts", "loss")

    def __init__(self, text: str) -> None:
        head, loss, tail, train = _split(text)
        self.loss = loss
        self.asked = (head, _without_seed_and_strategy(tail), train)
        self.facts = _asked(*self.asked)


def _split(text: str) -> tuple[str, str, str, str]:
    """Dataset, loss, middle and train of a canonical text; a job is never put together again from them."""
    start, middle, train = text.find(',"loss":['), text.rfind('],"model":'), text.rfind(',"train":{')
    if min(start, middle, train) < 0:  # not in canonical form: written by hand
        text = canonical_json(json.loads(text))
        start, middle, train = text.find(',"loss":['), text.rfind('],"model":'), text.rfind(',"train":{')
    return text[:start], text[start + 8 : middle + 1], text[middle + 2 : train], text[train + 9 : -1]


@lru_cache(maxsize=65536)
def _without_seed_and_strategy(tail: str) -> str:
    found = json.loads("{" + tail + "}")
    return canonical_json({"model": found["model"], "schema": found["schema"]})


@lru_cache(maxsize=4096)
def _asked(dataset: str, model: str, train: str) -> Mapping[str, Any]:
    settings = json.loads(train)
    reference = json.loads(model)["model"]
    amp = settings.pop("amp", True)  # what was in force is a fact of the environment: a CPU has none
    settings["crop_size"] = "x".join(map(str, settings["crop_size"]))
    stop = settings.get("early_stop")
    settings["early_stop"] = ", ".join(f"{name} {value}" for name, value in stop.items()) if stop else "none"
    if settings.get("val_images") is None:
        settings["val_images"] = "all"
    settings["domain_filter"] = "+".join(settings.get("domain_filter") or ("all",))
    for name in ("real_gen_ratio", "weights"):  # left out of a job's canonical form while unset
        settings.setdefault(name, "none")
    return {
        **{name: settings.pop(name, UNKNOWN) for name in _OWN},
        "settings": canonical_json(settings) if settings else "",
        "definition": dataset,
        "amp_asked": amp,
        "model": reference["config_sha256"] or reference["name"],
    }


def run_facts(asked: Mapping[str, Any], environment: str | None, iteration: int) -> dict[str, Any]:
    """All facts of a run, by the names of `comparability.FACTS`.

    Args:
        asked: `JobParts.facts`.
        environment: what its worker said, JSON; None where nothing is recorded.
    """
    return {**asked, **_ran_on(environment), "iteration": iteration}


@lru_cache(maxsize=65536)
def _ran_on(environment: str | None) -> Mapping[str, Any]:
    if environment is None:
        return {}
    said = json.loads(environment)
    packages: Mapping[str, str] = said.get("packages") or {}
    weights = said.get("weights_sha256")
    return {
        **{name: said[name] for name in _FROM_ENVIRONMENT if said.get(name) is not None},
        "weights_sha256": "none" if weights is None and "data_train" in said else weights or UNKNOWN,
        "amp": said.get("amp", UNKNOWN),
        "libraries": tuple((name, packages[name].split(".")[0]) for name in MAJOR if name in packages),
        "versions": canonical_json(dict(sorted(packages.items()))),
    }
