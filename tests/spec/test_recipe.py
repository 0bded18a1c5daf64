"""What decides the training data is part of a job, and changes no key where it is not used."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from prove.errors import ProveError
from prove.spec import EarlyStop, Job, TrainSettings
from prove.spec.canonical import canonical_json
from prove.spec.recipe import Recipe
from tests.journal import make_job

TRAIN: dict[str, Any] = {"max_iters": 40, "batch_size": 2, "crop_size": (64, 64), "lr": 0.01, "eval_interval": 10}


def test_keys_are_those_of_before_there_were_recipes() -> None:
    """Computed by the version before: results that are recorded under a key must be found again."""
    assert make_job().key == "9a498c437eb5"
    changed = TrainSettings(**TRAIN, early_stop=EarlyStop(patience=3), val_images=20, pretrained=False, amp=False)
    assert make_job(seed=7, train=changed).key == "0ab258b20cbb"


@pytest.mark.parametrize(
    "settings",
    [{"domain_filter": ("clear_day",)}, {"real_gen_ratio": 0.25}, {"domain_filter": ("a", "b"), "real_gen_ratio": 0.0}],
)
def test_a_recipe_is_part_of_the_key_and_survives_its_text(settings: dict[str, Any]) -> None:
    job = make_job(train=TrainSettings(**TRAIN, **settings), strategy="gen_x")
    assert job.key != make_job(strategy="gen_x").key
    again = Job.from_dict(json.loads(canonical_json(job.to_dict())))
    assert again == job
    assert again.key == job.key
    assert again.recipe == job.recipe
    assert json.loads(job.canonical)["train"].items() >= json.loads(canonical_json(settings)).items()


def test_the_order_of_conditions_is_nothing() -> None:
    one = TrainSettings(**TRAIN, domain_filter=("night", "clear_day"))
    assert one == TrainSettings(**TRAIN, domain_filter=("clear_day", "night", "night"))
    assert one.domain_filter == ("clear_day", "night")


@pytest.mark.parametrize("settings", [{"real_gen_ratio": 1.5}, {"real_gen_ratio": -0.1}, {"domain_filter": ()},
                                      {"domain_filter": ("",)}, {"real_gen_ratio": float("nan")}])  # fmt: skip
def test_what_is_no_recipe(settings: dict[str, Any]) -> None:
    with pytest.raises(ProveError):
        TrainSettings(**TRAIN, **settings)


def test_in_words() -> None:
    assert Recipe().words == ""
    assert Recipe("gen_x", ("clear_day", "cloudy"), 0.25).words == "clear_day and cloudy alone, 25% real images"
    assert replace(Recipe(), domain_filter=("night",)).words == "night alone"
