"""What the page may not hide: runs that take no part, failed, are not comparable, or have no number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from prove.report.page import page
from prove.report.page.headlines import Headline, headlines
from prove.report.page.issues import issues
from prove.report.page.ledger import ledger
from prove.report.study import LeftOut, Measure, Options
from prove.spec.event import State
from prove.stats.effects import Verdict
from tests.report.studies import SimulatedStudy, simulate
from tests.report.test_page import Reader

FOCAL = "ce + 0.3*focal"
TWO = (("A", "m1"), ("B", "m2"))


def read(study: SimulatedStudy) -> str:
    return " ".join(Reader(page(study, tables={})).text.split())


def said_of(study: SimulatedStudy, loss: str = FOCAL, group: int = 0) -> Headline:
    (found,) = [each for each in headlines(study)[group].headlines if each.loss == loss]
    return found


# headlines


def test_a_headline_counts_the_seeds_that_failed() -> None:
    study = simulate(seeds=5, outcomes={(0, FOCAL, seed): "failed diverged" for seed in (1, 2, 4)})
    assert said_of(study).numbers.endswith("2 of 5 seeds, 3 failed (diverged))")
    assert said_of(study, "ce + 0.3*lovasz").numbers.endswith(", 5 seeds)")


def test_a_headline_counts_failures_of_the_baseline_and_every_kind() -> None:
    outcomes = {(0, "ce", 0): "failed timeout", (0, FOCAL, 1): "failed diverged", (0, FOCAL, 2): "failed out_of_memory"}
    study = simulate(seeds=5, outcomes=outcomes)
    assert said_of(study).numbers.endswith(
        "2 of 5 seeds, 2 failed (diverged, out of memory), 1 of ce failed (timeout))"
    )
    assert said_of(study, "ce + 0.3*lovasz").numbers.endswith("4 of 5 seeds, 1 of ce failed (timeout))")


def test_a_loss_whose_runs_all_failed_is_not_passed_over() -> None:
    study = simulate(outcomes={(0, FOCAL, seed): "failed diverged" for seed in range(3)})
    found = said_of(study)
    assert (found.verdict, found.says) == (Verdict.NO_VERDICT, "has no run to compare with ce")
    assert found.numbers == "0 of 3 seeds, 3 failed (diverged)"
    assert found.strip is None
    assert f"{FOCAL} has no run to compare with ce. 0 of 3 seeds, 3 failed (diverged)" in read(study)


def test_a_pooled_headline_counts_the_runs_that_failed() -> None:
    study = simulate(blocks=TWO, outcomes={(0, FOCAL, 0): "failed diverged", (1, FOCAL, 2): "failed timeout"})
    assert said_of(study).numbers.endswith("2 blocks, 2 failed (diverged, timeout))")
    assert said_of(study, "ce + 0.3*lovasz").numbers.endswith("2 blocks)")


def test_a_loss_of_one_block_has_no_headline_over_all_blocks() -> None:
    study = simulate(blocks=TWO, outcomes={(1, FOCAL, seed): "absent" for seed in range(3)})
    assert FOCAL not in {each.loss for each in headlines(study)[0].headlines}
    assert said_of(study, group=1).numbers


def test_headlines_say_that_runs_are_not_comparable() -> None:
    study = simulate(blocks=TWO, outcomes={(0, FOCAL, 0): "mixed: another crop"})
    said = "1 run is not comparable (--allow-mixed)."
    assert [group.mixed for group in headlines(study)] == [said, said, ""]
    assert read(study).count(said) == 2


def test_seeds_that_are_copies_are_not_called_one_seed() -> None:
    found = said_of(simulate(run_sd=0.0, seed_sd=0.0))
    assert found.verdict is Verdict.NO_VERDICT
    assert found.numbers.endswith("these checkpoints only, resampled images, seeds alike, 3 seeds)")
    assert said_of(simulate(seeds=1)).numbers.endswith("these checkpoints only, resampled images, 1 seed)")


def test_the_confidence_keeps_its_digits() -> None:
    study = simulate(options=Options(confidence=0.999))
    assert "99.9% interval" in said_of(study).numbers
    assert "100%" not in read(study)


# issues

TROUBLES: dict[str, dict[str, Any]] = {
    "failed": {"outcomes": {(0, FOCAL, 0): "failed diverged"}},
    "planned": {"outcomes": {(0, FOCAL, 0): "planned"}},
    "absent": {"outcomes": {(0, FOCAL, 0): "absent"}},
    "undefined": {"outcomes": {(0, FOCAL, 0): "nan"}},
    "left out": {"outcomes": {(0, FOCAL, 0): "not comparable: another crop"}},
    "mixed": {"outcomes": {(0, FOCAL, 0): "mixed: another crop"}},
    "warned": {"warnings": ["1 of 12: another device."]},
    "noted": {"notes": ["Read before."]},
    "one seed": {"seeds": 1},
    "another metric": {"options": Options(metrics=("mIoU", "ECE")), "undefined": [("ECE", (0, FOCAL, 0))]},
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_nothing_is_amiss_only_where_nothing_is(trouble: str) -> None:
    assert "Nothing is amiss" in read(simulate())
    assert "Nothing is amiss" not in read(simulate(**TROUBLES[trouble]))


def test_what_is_left_out_for_a_reason_of_another_kind_is_told() -> None:
    study = simulate()
    (block,) = study.blocks
    odd = block.runs[FOCAL, 2]
    runs = {place: run for place, run in block.runs.items() if run is not odd}
    study.blocks = (replace(block, runs=runs, left_out=(LeftOut(odd, "something new", "it is odd"),)),)
    (found,) = issues(study)
    assert (found.says, found.runs) == ("it is odd", (odd.key,))


def test_a_run_of_no_block_is_told() -> None:
    study = simulate()
    (block,) = study.blocks
    lost = block.runs[FOCAL, 2]
    study.blocks = (replace(block, runs={place: run for place, run in block.runs.items() if run is not lost}),)
    assert (lost.key,) in {issue.runs for issue in issues(study)}


def test_a_metric_that_a_run_lacks_is_told_with_the_run() -> None:
    study = simulate(**TROUBLES["another metric"])
    (found,) = issues(study)
    (key,) = [run.key for run in study.runs if (run.loss, run.seed) == (FOCAL, 0)]
    assert (found.kind, found.says, found.runs) == ("no number", "ECE is undefined", (key,))


def test_what_is_noted_while_the_study_is_read_is_told() -> None:
    class Noting(SimulatedStudy):
        def evidence(self, run: Any) -> Any:
            self.notes = ("A file could not be read.",)
            return super().evidence(run)

        def compare(self, block: Any, measure: Measure) -> Any:
            self.notes = ("A file could not be read.",)
            return super().compare(block, measure)

    made = simulate()
    study = Noting(**{name: getattr(made, name) for name in made.__dataclass_fields__})
    assert "A file could not be read." in read(study)


def test_a_study_without_runs_is_not_said_to_be_in_order() -> None:
    text = read(simulate(blocks=()))
    assert "There is no run." in text
    assert "Nothing is amiss" not in text


# the ledger


def test_how_a_run_ended_is_no_reason_for_leaving_it_out() -> None:
    study = simulate(outcomes={(0, FOCAL, 0): "not comparable: another crop"})
    study.runs = tuple(replace(run, message="max_iters") for run in study.runs)
    (block,) = study.blocks
    lost = block.runs[FOCAL, 2]
    study.blocks = (replace(block, runs={place: run for place, run in block.runs.items() if run.key != lost.key}),)
    says = {(entry.run.loss, entry.run.seed): entry.says for entry in ledger(study).entries}
    assert says[FOCAL, 0] == "not comparable: another crop"
    assert says[FOCAL, 2] == "takes no part in a comparison"
    assert says["ce", 0] == ""


def test_runs_of_a_block_without_a_baseline_say_that_they_are_not_compared() -> None:
    study = simulate(outcomes={(0, "ce", seed): "failed diverged" for seed in range(3)})
    says = {entry.says for entry in ledger(study).entries if entry.run.state is State.FINISHED}
    assert says == {"not compared: No run of the baseline ce is finished."}
