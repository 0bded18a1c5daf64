"""A config's learning-rate schedule, stretched or shrunk to a job's length and learning rate: it keeps its shape."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from prove.build.supported import type_name
from prove.errors import ProveError

if TYPE_CHECKING:
    from mmengine.config import Config

SHORTEST = 2
"""Iterations that a part needs to get anywhere: a warm-up of one would hold the rate at its start for ever."""

_LENGTHS: dict[str, tuple[str, ...]] = {
    "ConstantLR": (),
    "CosineAnnealingLR": ("T_max",),
    "LinearLR": (),
    "MultiStepLR": ("milestones",),
    "PolyLR": (),
    "StepLR": ("step_size",),
}
"""The schedulers PROVE can stretch, and what in them counts iterations beside ``begin`` and ``end``."""


def lr_schedule(base: Config, max_iters: int, lr: float) -> list[dict[str, Any]]:
    """The schedulers of a config for a job of ``max_iters`` steps that starts from ``lr``.

    At equal progress the learning rate is the config's, times ``lr`` over the config's own: a floor (``eta_min``)
    scales along. A schedule in epochs becomes one in iterations. A part without an ``end`` lasts until training ends,
    as MMEngine's Runner has it; of the others, one that is shorter than `SHORTEST` is left out.

    Raises:
        ProveError: a scheduler that can't be stretched, epochs and iterations mixed, or no length to stretch from.
    """
    given = copy.deepcopy(base.get("param_scheduler") or [])
    given = given if isinstance(given, list) else [given]
    if not given:
        return []
    factor = max_iters / _planned(base, given)
    rate = lr / float(base.optim_wrapper.optimizer.lr)

    def length(count: int) -> int:
        return round(count * factor)

    schedulers = []
    for scheduler in map(dict, given):
        for name in ("begin", "end", *_LENGTHS[type_name(scheduler)]):
            value = scheduler.get(name)
            if isinstance(value, list | tuple):
                scheduler[name] = [max(1, length(each)) for each in value]
            elif isinstance(value, int):
                scheduler[name] = length(value) if name in ("begin", "end") else max(1, length(value))
        if "eta_min" in scheduler:
            scheduler["eta_min"] *= rate
        scheduler["by_epoch"] = False
        scheduler.pop("convert_to_iter_based", None)
        open_ended = scheduler.get("end") is None
        if open_ended:
            scheduler["end"] = max_iters
        if open_ended or scheduler["end"] - scheduler.get("begin", 0) >= SHORTEST:
            schedulers.append(scheduler)
    return schedulers


def _planned(base: Config, schedulers: list[Any]) -> int:
    """How long the config meant to train, in the unit that its schedulers count in."""
    units = {bool(scheduler.get("by_epoch", True)) for scheduler in schedulers}  # MMEngine's own default is epochs
    for scheduler in schedulers:
        if type_name(scheduler) not in _LENGTHS:
            raise ProveError(
                f"The config's param_scheduler has a {type_name(scheduler)}, which PROVE can't fit to a job's length.",
                hint=f"Use {', '.join(_LENGTHS)}.",
            )
    if len(units) > 1:
        raise ProveError(
            "The config's param_scheduler counts in epochs and in iterations.", hint="Write by_epoch=False in all."
        )
    unit = "max_epochs" if units == {True} else "max_iters"
    planned = (base.get("train_cfg") or {}).get(unit)
    if planned:
        return int(planned)
    ends = [scheduler.get("end") for scheduler in schedulers]
    if None in ends:
        raise ProveError(
            "The config does not say how long its learning-rate schedule is.",
            hint=f"Give train_cfg a `{unit}`, or every part of param_scheduler an `end`.",
        )
    return int(max(ends))
