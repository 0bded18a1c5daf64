"""What is trained on, as axes and settings of an experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prove.cli.request import Planner, RunRequest
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
        ("matrix: {real_gen_ratio: [1.5], strategy: [gen_x]}", "real_gen_ratio is 1.5"),
        ("matrix: {real_gen_ratio: [0.5], strategy: [baseline]}", "the strategy 'baseline' has none"),
        ("matrix: {domain_filter: [clear_day++night]}", "domain_filter"),
    ],
)
def test_what_can_not_be(text: str, message: str, tmp_path: Path) -> None:
    (cell,) = cells(tmp_path, text + "\n")
    with pytest.raises(ProveError, match=message):
        Planner().job(RunRequest(**cell))


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
