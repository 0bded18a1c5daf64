"""A stretched schedule gives at equal progress what the config's own gives, as MMEngine's schedulers run both."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import scheduler as schedulers
from torch import nn

from prove.build.configs import load, shipped
from prove.build.lr_schedule import lr_schedule
from prove.catalog.models import MODELS
from prove.errors import ProveError

STEPS = 3000
POLY = [{"type": "PolyLR", "eta_min": 0.0001, "power": 0.9, "begin": 0, "end": STEPS, "by_epoch": False}]
WARM = [
    {"type": "LinearLR", "start_factor": 0.001, "begin": 0, "end": 300, "by_epoch": False},
    {"type": "PolyLR", "eta_min": 0.0, "power": 1.0, "begin": 300, "end": STEPS, "by_epoch": False},
]
STAIRS = [{"type": "MultiStepLR", "milestones": [1200, 2100], "gamma": 0.1, "end": STEPS, "by_epoch": False}]
COSINE = [{"type": "CosineAnnealingLR", "T_max": STEPS, "eta_min": 0.001, "end": STEPS, "by_epoch": False}]


def base(param_scheduler: Any, lr: float = 0.01, **more: Any) -> Config:
    return Config(
        {"optim_wrapper": {"optimizer": {"type": "SGD", "lr": lr}}, "param_scheduler": param_scheduler, **more}
    )


def curve(param_scheduler: list[dict[str, Any]], lr: float, steps: int) -> list[float]:
    """The learning rate of every step."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=lr)
    built = []
    for config in copy.deepcopy(param_scheduler):
        built.append(getattr(schedulers, config.pop("type"))(optimizer, **config))
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: the scheduler steps, the optimiser never does
        for _ in range(steps):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            for each in built:
                each.step()
    return rates


@pytest.mark.parametrize("steps", [300, 1500, 6000])
@pytest.mark.parametrize("given", [POLY, WARM, STAIRS, COSINE], ids=["poly", "warmup", "stairs", "cosine"])
def test_same_rate_at_equal_progress(given: list[dict[str, Any]], steps: int) -> None:
    before = curve(given, 0.01, STEPS)
    after = curve(lr_schedule(base(given), steps, 0.04), 0.04, steps)
    edge = 3 * STEPS // steps + 3  # a stair may move by a rounding
    for step in range(0, steps, 7):
        at = step * STEPS // steps
        near = before[max(0, at - edge) : at + edge + 1]
        assert min(near) * 0.98 - 1e-9 <= after[step] / 4 <= max(near) * 1.02 + 1e-9


@pytest.mark.parametrize("name", [entry.name for entry in MODELS])
def test_shipped_schedules_start_and_end_as_they_did(name: str) -> None:
    entry = MODELS.get(name)
    config = load(shipped(entry.config))
    rates = curve(lr_schedule(config, 500, entry.base_lr), entry.base_lr, 500)
    warm = config.param_scheduler[0]["type"] == "LinearLR"
    floor = config.param_scheduler[-1]["eta_min"]
    assert max(rates) == pytest.approx(entry.base_lr, rel=0.02)
    assert rates[-1] == pytest.approx(floor, abs=0.01 * entry.base_lr)
    assert (rates[0] < rates[5]) == warm
    assert len(set(rates)) > 450


def test_a_schedule_in_epochs_becomes_one_in_iterations() -> None:
    """Left in epochs it would never move: an iteration-based loop has one endless epoch."""
    given = [{"type": "PolyLR", "eta_min": 0.0, "power": 1.0, "begin": 0, "end": 40}]
    rates = curve(lr_schedule(base(given), 100, 0.01), 0.01, 100)
    assert rates[50] == pytest.approx(0.005, rel=0.05)
    stairs = [{"type": "MultiStepLR", "milestones": [10, 20], "gamma": 0.1}]
    config = base(stairs, train_cfg={"type": "EpochBasedTrainLoop", "max_epochs": 40})
    assert lr_schedule(config, 400, 0.01)[0]["milestones"] == [100, 200]


@pytest.mark.parametrize("steps", [400, 4000, 12000])
@pytest.mark.parametrize("main", ["PolyLR", "CosineAnnealingLR"])
def test_an_open_ended_part_lasts_as_long_as_the_training(main: str, steps: int) -> None:
    """MMEngine's Runner ends it with train_cfg; the end of the warm-up does not say how long a schedule is."""
    warm_up = {"type": "LinearLR", "start_factor": 0.001, "begin": 0, "end": 400, "by_epoch": False}
    part = {"type": main, "eta_min": 0.0, "begin": 400, "by_epoch": False}
    before = curve([warm_up, {**part, "end": 4000}], 0.01, 4000)
    config = base([warm_up, part], train_cfg={"type": "IterBasedTrainLoop", "max_iters": 4000})
    after = curve(lr_schedule(config, steps, 0.01), 0.01, steps)
    for step in range(0, steps, 7):
        assert after[step] == pytest.approx(before[step * 4000 // steps], abs=0.0004)
    assert max(after) == pytest.approx(0.01, rel=0.02)
    assert after[-1] < 0.0004
    for few in (1, 2, 3):
        assert [each["type"] for each in lr_schedule(config, few, 0.01)] == [main]


def test_training_that_ends_before_its_schedule_is_stretched_as_it_is() -> None:
    """At half of the training the rate is that of a quarter of the schedule."""
    config = base(POLY, train_cfg={"max_iters": STEPS // 2})
    rates = curve(lr_schedule(config, 600, 0.01), 0.01, 600)
    assert rates[300] == pytest.approx(curve(POLY, 0.01, STEPS)[STEPS // 4], rel=0.01)


@pytest.mark.parametrize("steps", [1, 2, 5, 30, 54, 60, 107, 160, 200, 213, 1000])
@pytest.mark.parametrize("name", ["segformer_mit-b0", "fcn_tiny"])
def test_short_jobs_reach_their_rate(name: str, steps: int) -> None:
    """A warm-up of 1500 in 160000 iterations rounds to one iteration at 60: it held the rate at a millionth."""
    entry = MODELS.get(name)
    rates = curve(lr_schedule(load(shipped(entry.config)), steps, 0.01), 0.01, steps)
    assert max(rates) == pytest.approx(0.01, rel=0.02)
    assert sum(rates) / steps > 0.004


def test_no_part_is_shorter_than_an_iteration() -> None:
    assert [part["type"] for part in lr_schedule(base(WARM), 2, 0.01)] == ["PolyLR"]
    assert lr_schedule(base([]), 100, 0.01) == []
    assert lr_schedule(base(POLY[0]), 100, 0.01)[0]["end"] == 100


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"type": "OneCycleLR", "total_steps": 10}], "OneCycleLR, which PROVE can't fit"),
        ([{"type": "MultiStepLR", "milestones": [3], "by_epoch": False}], "does not say how long"),
        ([WARM[0], {"type": "PolyLR", "begin": 300, "by_epoch": False}], "does not say how long"),
        ([WARM[0], {"type": "PolyLR", "end": 40}], "in epochs and in iterations"),
    ],
)
def test_what_can_not_be_stretched_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ProveError, match=message):
        lr_schedule(base(given), 100, 0.01)
