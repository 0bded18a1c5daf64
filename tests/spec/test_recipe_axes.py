"""What is trained on, as axes and settings of an experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prove.cli.request import Planner, RunRequest, plan
from prove.errors import ProveError
from prove.spec.experiment import read_experiment

ROOT = Path(__file__).parent.parent.parent


def cells(tmp_path: Path, text: str) -> list[dict[str, Any]]:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return list(read_experiment(file).cells())


def test_shares_and_filters_are_axes(tmp_path: Path) -> None:
    found = cells(
        tmp_path,
        "matrix: {strategy: [gen_x], real_gen_ratio: [0, 0.5, 1], domain_filter: [all, clear_day+night]}\n",
    )
    jobs = [Planner().job(RunRequest(**cell)) for cell in found]
    assert [(job.train.real_gen_ratio, job.train.domain_filter) for job in jobs] == [
        (ratio, names) for ratio in (0.0, 0.5, 1.0) for names in (None, ("clear_day", "night"))
    ]
    assert len({job.key for job in jobs}) == 6


def test_no_filter_is_the_job_without_one() -> None:
    planner = Planner()
    assert planner.job(RunRequest(domain_filter="all")).key == planner.job(RunRequest()).key


def test_the_folder_of_generated_images_counts_from_the_file(tmp_path: Path) -> None:
    one = cells(tmp_path, "matrix: {strategy: [gen_x]}\ntrain: {gen_root: made/here}\n")
    assert one == [{"strategy": "gen_x", "gen_root": str(tmp_path / "made" / "here")}]
    each = cells(tmp_path, "matrix: {dataset: [CamVid, ACDC]}\ntrain: {gen_root: {CamVid: made, ACDC: /gen}}\n")
    assert [cell["gen_root"] for cell in each] == [str(tmp_path / "made"), "/gen"]


def test_where_images_lie_is_no_part_of_a_job() -> None:
    planner = Planner()
    here = planner.job(RunRequest(strategy="gen_x", gen_root="/a"))
    assert here.key == planner.job(RunRequest(strategy="gen_x", gen_root="/b")).key


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("matrix: {real_gen_ratio: [0.5], strategy: [baseline]}", "the strategy 'baseline' has none"),
        ("matrix: {domain_filter: [clear_day++night]}", r"--domain-filter 'clear_day\+\+night' leaves"),
    ],
)
def test_what_can_not_be(text: str, message: str, tmp_path: Path) -> None:
    (cell,) = cells(tmp_path, text + "\n")
    with pytest.raises(ProveError, match=message):
        Planner().job(RunRequest(**cell))


@pytest.mark.parametrize("ratio", ["1.5", "-0.1", "1.0000001"])
def test_a_share_has_its_place_in_the_file(ratio: str, tmp_path: Path) -> None:
    with pytest.raises(ProveError, match=rf":1:27: real_gen_ratio must be a number in \[0, 1\], not {ratio}"):
        cells(tmp_path, f"matrix: {{real_gen_ratio: [{ratio}], strategy: [gen_x]}}\n")


def test_a_folder_of_generated_images_is_for_a_strategy_that_has_some(tmp_path: Path) -> None:
    """Of one run; among several strategies of a sweep it says where those of one lie."""
    with pytest.raises(
        ProveError, match=r"--gen-root /a holds generated images, and the strategy 'std_cutmix' has none"
    ):
        plan(RunRequest(strategy="std_cutmix", gen_root="/a"))
    found = [
        Planner().job(RunRequest(**cell))
        for cell in cells(tmp_path, "matrix: {strategy: [baseline, gen_x]}\ntrain: {gen_root: made}\n")
    ]
    assert [job.strategy for job in found] == ["baseline", "gen_x"]


@pytest.mark.parametrize("text", ["", " ", "day+", ",day"])
def test_a_condition_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(ProveError) as caught:
        Planner().job(RunRequest(domain_filter=text))
    assert caught.value.message == f"--domain-filter {text!r} leaves a condition unnamed."


def test_domain_shift_holds_what_its_comment_says() -> None:
    jobs = [
        Planner().job(RunRequest(**cell)) for cell in read_experiment(ROOT / "experiments/domain_shift.yaml").cells()
    ]
    arms = {(job.strategy, job.train.domain_filter, job.train.real_gen_ratio) for job in jobs}
    clear = ("clear_day",)
    assert arms == {
        ("baseline", None, None), ("baseline", clear, None), ("gen_synthweather", clear, 0.5),
        ("gen_random_noise", clear, 0.5),
    }  # fmt: skip
    assert len({job.key for job in jobs}) == len(jobs) == 24
