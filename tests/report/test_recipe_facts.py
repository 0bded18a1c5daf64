"""What a run was trained on is said in its report, and nothing trained on other images stands beside it unsaid."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from prove.report.blocks import form_blocks
from prove.report.comparability import why_not_comparable
from prove.report.facts import JobParts
from prove.report.study import Block, Trained
from prove.report.views.domains import domains
from prove.spec import TrainSettings
from prove.spec.event import State
from tests.journal import make_job
from tests.report.studies import simulate

TRAIN: dict[str, Any] = {"max_iters": 40, "batch_size": 2, "crop_size": (64, 64), "lr": 0.01, "eval_interval": 10}


def facts(**settings: Any) -> dict[str, Any]:
    return dict(JobParts(make_job(train=TrainSettings(**TRAIN, **settings)).canonical).facts)


def blocks(*settings: dict[str, Any]) -> tuple[Block, ...]:
    runs = [
        Trained(
            number, f"{number}", "D", "M", "baseline", "ce", number, State.FINISHED, None, "", "", 40, 40, None, None,
            facts(**each),
        )
        for number, each in enumerate(settings)
    ]  # fmt: skip
    return form_blocks(runs, lambda losses: "ce", dict.fromkeys(range(len(runs)), 50.0))


def test_facts_are_in_words() -> None:
    plain = facts()
    assert (plain["domain_filter"], plain["real_gen_ratio"], plain["weights"]) == ("all", "none", "none")
    chosen = facts(domain_filter=("night", "clear_day"), real_gen_ratio=0.25, weights="abc")
    assert (chosen["domain_filter"], chosen["real_gen_ratio"], chosen["weights"]) == ("clear_day+night", 0.25, "abc")
    assert plain["settings"] == chosen["settings"] == ""


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"domain_filter": ("clear_day",)}, "trained on images of other conditions (clear_day, not all)"),
        ({"real_gen_ratio": 0.5}, "another share of real images (0.5, not none)"),
        ({"weights": "abc"}, "other pretrained weights of one's own (abc, not none)"),
    ],
)
def test_another_recipe_forbids_a_comparison(settings: dict[str, Any], reason: str) -> None:
    assert reason in why_not_comparable(facts(**settings), facts())


def test_filters_make_blocks_that_say_so() -> None:
    names = ("clear_day", "cloudy", "dawn_dusk", "foggy")
    found = blocks({}, {"domain_filter": ("clear_day",)}, {"domain_filter": names})
    assert [block.key.settings for block in found] == [
        "domain_filter all", "domain_filter clear_day", f"domain_filter {'+'.join(names)}",
    ]  # fmt: skip


def test_a_filter_is_said_where_all_runs_have_it() -> None:
    (block,) = blocks({"domain_filter": ("clear_day",)}, {"domain_filter": ("clear_day",)})
    assert str(block.key) == "D, M [domain_filter clear_day]"
    (block,) = blocks({}, {})
    assert str(block.key) == "D, M"


def test_shares_make_blocks_that_say_so() -> None:
    found = blocks({"real_gen_ratio": 0.0}, {"real_gen_ratio": 0.5})
    assert [block.key.settings for block in found] == ["real_gen_ratio 0", "real_gen_ratio 0.5"]


def test_the_table_of_conditions_says_what_was_trained_on() -> None:
    study = simulate(condition_images={"clear_day": 50, "foggy": 40})
    assert "Trained on images of" not in domains(study)[0].caption
    filtered = [
        dataclasses.replace(
            block,
            runs={
                cell: dataclasses.replace(run, facts={**run.facts, "domain_filter": "clear_day"})
                for cell, run in block.runs.items()
            },
        )
        for block in study.blocks
    ]
    (table,) = domains(study, blocks=filtered)
    assert "Trained on images of clear_day alone, validated on all." in table.caption
    assert "gap" in [column.name for column in table.columns]
