"""Across blocks, precision, integrity and cost: every number counted again here."""

from collections.abc import Callable
from dataclasses import replace
from statistics import geometric_mean, median

import pytest

from prove.report.study import Measure, Options, Study
from prove.report.table import Table
from prove.report.views import cost as cost_view
from prove.report.views.across import COUNTED, across
from prove.report.views.cost import cost
from prove.report.views.footnotes import SAME_IMAGES
from prove.report.views.integrity import integrity
from prove.report.views.precision import precision
from prove.stats.effects import Verdict
from tests.report.studies import EFFECTS, simulate

LOSSES = tuple(EFFECTS)
BLOCKS = (("A", "m1"), ("A", "m2"), ("B", "m1"))
OUTCOMES = {
    (0, LOSSES[1], 1): "failed diverged",
    (1, LOSSES[1], 0): "failed out_of_memory",
    (1, LOSSES[1], 1): "failed diverged",
    (0, LOSSES[2], 0): "planned",
    (2, LOSSES[3], 2): "not comparable: another learning rate (0.1, not 0.01)",
    (2, "ce", 1): "absent",
    (2, "ce", 2): "nan",
}


def test_across_says_what_was_pooled() -> None:
    study = simulate(blocks=BLOCKS, seeds=4, run_sd=0.1)
    (table,) = across(study)
    pooled = study.pooled(Measure())
    assert [row[0].text for row in table.rows] == list(LOSSES[1:])
    for row, effect, record in zip(table.rows, pooled, table.records, strict=True):
        assert row[2].value == effect.delta == record["delta"]
        counts = [int(count) for count in row[6].text.split("/")]
        assert counts == [effect.verdicts.get(verdict, 0) for verdict in COUNTED]
        assert sum(counts) == len(BLOCKS)
        assert row[2].bold == (effect.verdict is Verdict.BETTER)
        assert record["p_adjusted"] == effect.p_adjusted
    # effects of 1.5 points with hardly any noise, the same in every block
    assert [row[4].text for row in table.rows[:2]] == ["better", "worse"]
    assert "p by Holm over the 3 losses" in table.caption


def test_an_interval_that_holds_for_its_images_only_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    study = simulate(blocks=BLOCKS)
    first, *others = study.pooled(Measure())
    monkeypatch.setattr(study, "pooled", lambda measure: (replace(first, shares_images=True), *others))
    (table,) = across(study)
    assert marked(table) == {LOSSES[1]: [SAME_IMAGES], LOSSES[2]: [], LOSSES[3]: []}
    assert [record["shares_images"] for record in table.records] == [True, False, False]


def test_one_block_or_one_seed_is_not_pooled() -> None:
    assert across(simulate()) == ()
    (table,) = across(simulate(blocks=BLOCKS, seeds=1, image_sd=None))
    assert all("[" not in row[2].text for row in table.rows)
    assert [mark for mark, _ in table.notes] == ["a", ""]
    assert all(row[0].marks == ("a",) for row in table.rows)
    assert [table.name for table in across(simulate(blocks=BLOCKS, options=Options(metrics=("mIoU", "ECE"))))] == [
        "across-mIoU", "across-ECE",
    ]  # fmt: skip


MIXED = {
    (0, LOSSES[1], 0): "mixed: other training data",
    (0, LOSSES[1], 2): "mixed: other training data",
    (1, "ce", 1): "mixed: other training data",
}


def marked(table: Table) -> dict[str, list[str]]:
    """Row → its footnotes; by block and loss, or by what heads the row."""
    notes = dict(table.notes)
    heads = 2 if table.columns[1].name == "loss" else 1
    return {
        " / ".join(cell.text for cell in row[:heads]): [notes[mark] for cell in row for mark in cell.marks]
        for row in table.rows
    }


@pytest.mark.parametrize("view", [across, precision, cost])
def test_what_is_not_comparable_is_marked_in_every_summary(view: Callable[[Study], tuple[Table, ...]]) -> None:
    study = simulate(blocks=BLOCKS, outcomes=MIXED, options=Options(allow_mixed=True), run_sd=1.0)
    by_block = {("A", "m1"): 2, ("A", "m2"): 1, ("B", "m1"): 0}
    for table in view(study):
        for record in table.records:
            expected = by_block[record["dataset"], record["model"]] if "dataset" in record else 3
            assert record["mixed"] == expected
        total = max(record["mixed"] for record in table.records)
        if total and len({record.get("model") for record in table.records}) == 1:
            assert any(note.startswith(f"{total} run") and "--allow-mixed" in note for mark, note in table.notes)
    assert not any("--allow-mixed" in note for table in view(simulate(blocks=BLOCKS)) for _, note in table.notes)


def test_the_arms_that_are_not_comparable_are_those_that_are_marked() -> None:
    study = simulate(blocks=BLOCKS, outcomes=MIXED, options=Options(allow_mixed=True), run_sd=1.0)
    (pooled,) = across(study)
    of_baseline = "Of the baseline's runs: 1 run is not comparable (--allow-mixed)."
    assert marked(pooled) == {
        LOSSES[1]: ["Of its runs: 2 runs are not comparable (--allow-mixed).", of_baseline],
        LOSSES[2]: [of_baseline],
        LOSSES[3]: [of_baseline],
    }
    noise, open_ones = precision(study)
    assert [len(said) for said in marked(noise).values()] == [1, 1, 0]
    for head, said in marked(open_ones).items():
        assert bool(said) == (head == f"A, m1 / {LOSSES[1]}" or head.startswith("A, m2"))
    overall, first, second, third = cost(study)
    assert [bool(said) for said in marked(overall).values()] == [True, True, False, False]
    assert [bool(said) for said in marked(first).values()] == [False, True, False, False]
    assert [bool(said) for said in marked(second).values()] == [True, False, False, False]
    assert not any(marked(third).values())


@pytest.mark.parametrize("confidence", [0.975, 0.999])
def test_captions_name_the_confidence_that_was_asked_for(confidence: float) -> None:
    study = simulate(blocks=BLOCKS, options=Options(confidence=confidence))
    assert f"{100 * confidence:g}% interval" in across(study)[0].caption
    assert f"({100 * confidence:g}%)" in precision(study)[0].caption


def test_holm_counts_the_losses_that_have_a_p() -> None:
    only_once = {(block, LOSSES[1], seed): "absent" for block in (1, 2) for seed in range(3)}
    study = simulate(blocks=BLOCKS, outcomes=only_once)
    tested = sum(effect.p_adjusted is not None for effect in study.pooled(Measure()))
    assert tested == 2
    assert "p by Holm over the 2 losses" in across(study)[0].caption


def test_precision_lists_every_block_and_every_open_comparison() -> None:
    study = simulate(blocks=BLOCKS, run_sd=1.0)
    noise, open_ones = precision(study)
    for row, block in zip(noise.rows, study.blocks, strict=True):
        result, seen = study.compare(block, Measure()), study.precision(block, Measure())
        assert row[0].text == str(block.key)
        assert [cell.value for cell in row[3:]] == [
            result.residual_sd, seen.image_sd, result.seed_correlation, seen.detectable, seen.detectable_alone,
        ]  # fmt: skip
    expected = {
        (str(block.key), loss): needed
        for block in study.blocks
        for loss, needed in study.precision(block, Measure()).seeds_needed.items()
    }
    assert {(row[0].text, row[1].text): row[5].value for row in open_ones.rows} == expected
    assert len(expected) > 3
    assert "80% power" in noise.caption


def test_precision_of_one_seed_and_of_a_settled_study() -> None:
    (noise, *_) = precision(simulate(seeds=1))
    assert noise.rows[0][6].text == "–"
    assert any("One seed" in note for _, note in noise.notes)
    settled = precision(simulate({"ce": 0.0, "focal": 5.0}, seeds=5, run_sd=0.05))
    assert [table.name for table in settled] == ["precision"]
    blind = simulate(blocks=BLOCKS, outcomes={(0, "ce", seed): "planned" for seed in range(3)})
    assert [row[0].text for row in precision(blind)[0].rows] == ["A, m2", "B, m1"]


def test_integrity_accounts_for_every_run() -> None:
    study = simulate(blocks=BLOCKS, outcomes=OUTCOMES, warnings=("1 of 9: resumed.",))
    losses, left_out, missing, warned = integrity(study)
    by_loss = {record["loss"]: record for record in losses.records}
    assert sum(record["registered"] for record in losses.records) == len(study.runs)
    focal = by_loss[LOSSES[1]]
    assert (focal["registered"], focal["compared"], focal["failed"]) == (9, 6, 3)
    assert focal["failure_rate"] == pytest.approx(3 / 9)
    assert focal["failures"] == "2 diverged, 1 out_of_memory"
    assert by_loss[LOSSES[2]]["unfinished"] == 1
    assert by_loss[LOSSES[2]]["failure_rate"] == 0
    assert (by_loss["ce"]["missing"], by_loss["ce"]["no_number"], by_loss["ce"]["registered"]) == (1, 1, 8)
    assert by_loss[LOSSES[3]]["not_comparable"] == 1
    assert [cell.text for cell in losses.rows[1]][-2:] == ["33%", "2 diverged, 1 out_of_memory"]

    taking_part = {run.key for block in study.blocks for run in block.runs.values()}
    assert {record["run"] for record in left_out.records} == {run.key for run in study.runs} - taking_part
    assert len(left_out.rows) == 6
    said = {row[0].text: row[4].text for row in left_out.rows}
    assert "not comparable: another learning rate (0.1, not 0.01)" in said.values()
    assert [(record["dataset"], record["loss"], record["seed"]) for record in missing.records] == [("B", "ce", 1)]
    assert [row[1].text for row in warned.rows] == ["1 of 9: resumed."] * 3


def test_integrity_of_a_whole_study_is_one_table() -> None:
    (losses,) = integrity(simulate())
    assert all(record["compared"] == record["registered"] == 3 for record in losses.records)


def test_mixed_runs_and_lost_baselines_are_named() -> None:
    study = simulate(
        blocks=BLOCKS,
        outcomes={(0, LOSSES[1], 0): "mixed: other data", **{(1, "ce", seed): "planned" for seed in range(3)}},
    )
    warned = integrity(study)[-1]
    assert [record["kind"] for record in warned.records] == ["mixed", "no baseline"]
    assert "other data" in warned.rows[0][1].text


def test_cost_of_a_block() -> None:
    study = simulate(outcomes={(0, LOSSES[1], 1): "failed diverged"})
    (table,) = cost(study)
    block = study.blocks[0]
    by_loss = {record["loss"]: record for record in table.records}
    seconds = {}
    for loss in LOSSES:
        own = [run for run in study.runs if run.loss == loss]
        assert by_loss[loss]["gpu_hours"] == pytest.approx(sum(study.hours(run)[0] for run in own))
        timed = [
            median(point["seconds_per_iteration"] for _, point in study.curve(run, "train"))
            for (name, _), run in block.runs.items()
            if name == loss
        ]
        seconds[loss] = median(timed)
        assert by_loss[loss]["seconds_per_iteration"] == pytest.approx(seconds[loss])
    assert by_loss[LOSSES[1]]["seconds_ratio"] == pytest.approx(seconds[LOSSES[1]] / seconds["ce"])
    assert by_loss[LOSSES[1]]["memory_ratio"] == pytest.approx(1050 / 1000)
    assert by_loss[LOSSES[1]]["runs"] == 2
    assert [each.name for each in table.columns][2] == "GPU h"
    assert "CPU h" not in [each.name for each in table.columns]


def test_cost_over_blocks_is_the_geometric_mean() -> None:
    overall, *tables = cost(simulate(blocks=BLOCKS))
    assert len(tables) == 3
    for index, loss in enumerate(LOSSES):
        ratios = [table.records[index]["seconds_ratio"] for table in tables]
        assert overall.records[index]["seconds_ratio"] == pytest.approx(geometric_mean(ratios))
        assert overall.records[index]["gpu_hours"] == pytest.approx(
            sum(table.records[index]["gpu_hours"] for table in tables)
        )
        assert overall.records[index]["loss"] == loss


def test_many_runs_are_timed_from_the_database_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_view, "MOST_TIMED", 5)
    study = simulate()
    monkeypatch.setattr(study, "curve", None)
    (table,) = cost(study)
    run = study.blocks[0].runs["ce", 1]
    assert run.train_seconds is not None
    assert table.records[0]["seconds_per_iteration"] == pytest.approx(run.train_seconds / 400)
    assert "validation included" in table.caption


def test_cost_without_a_baseline_has_no_ratios() -> None:
    (table,) = cost(simulate(outcomes={(0, "ce", seed): "failed error" for seed in range(3)}))
    assert all(record["seconds_ratio"] is None for record in table.records)
    assert table.records[0]["seconds_per_iteration"] is None
    assert next(note for mark, note in table.notes if not mark).startswith("No ratios")
