"""The main tables say what the runs say: values recomputed here from the runs' numbers."""

from itertools import permutations

import numpy as np
import pytest

from prove.errors import ProveError
from prove.report.study import Measure, Options
from prove.report.table import Cell, Table
from prove.report.views.entries import NO_COUNTS, ONE_PAIR, ONE_SEED, SAME_NUMBERS, SEEDS_ALONE
from prove.report.views.footnotes import MAY_BE_BEST
from prove.report.views.results import results
from prove.report.views.wide import AXES
from prove.stats.effects import Verdict
from tests.report.studies import EFFECTS, simulate

LOSSES = tuple(EFFECTS)
BLOCKS = (("A", "m1"), ("A", "m2"), ("B", "m1"), ("B", "m2"))


def column(table: Table, name: str) -> dict[str, Cell]:
    """Loss (or whatever is on the rows) → cell."""
    names = [each.name for each in table.columns]
    return {row[0].text: row[names.index(name)] for row in table.rows}


def notes_of(table: Table, cell: Cell) -> list[str]:
    return [note for mark, note in table.notes if mark in cell.marks]


def whole_notes(table: Table) -> list[str]:
    return [note for mark, note in table.notes if not mark]


def test_a_block_line_by_line() -> None:
    study = simulate(seeds=5, run_sd=0.2)
    (table,) = results(study)
    values = study.values(study.blocks[0], Measure())
    means, sds = values.mean(1), values.std(1, ddof=1)
    cells = column(table, "mIoU (%)")
    for loss, mean, sd in zip(LOSSES, means, sds, strict=True):
        assert cells[loss].value == pytest.approx(mean, abs=1e-12)
        shown = [float(part) for part in cells[loss].text.split(" ± ")]
        assert shown == pytest.approx([mean, sd], abs=0.06)
        assert len(cells[loss].runs) == 5
    assert {loss for loss in LOSSES if cells[loss].underline} == {LOSSES[int(means.argmax())]}
    assert [cell.text for cell in column(table, "seeds").values()] == ["5"] * 4
    deltas = column(table, "Δ to ce")
    for loss, mean in list(zip(LOSSES, means, strict=True))[1:]:
        assert deltas[loss].value == pytest.approx(mean - means[0], abs=1e-9)
        low, high = (float(part) for part in deltas[loss].text.split("[")[1].strip("]").split(", "))
        assert low < mean - means[0] < high
    assert deltas["ce"].text == ""
    verdicts = column(table, "verdict")
    # effects of 1.5 with a noise of 0.2 at five seeds can't be missed
    assert [cell.text for cell in verdicts.values()] == ["baseline", "better", "worse", verdicts[LOSSES[3]].text]
    assert [loss for loss in LOSSES if cells[loss].bold] == [LOSSES[1]]
    assert [loss for loss in LOSSES if deltas[loss].bold] == [LOSSES[1]]


def test_the_caption_says_what_it_rests_on() -> None:
    (table,) = results(simulate(options=Options(confidence=0.9, smallest_effect=0.5, checkpoint="best")))
    for part in ("3 seeds (0, 1, 2)", "20 validation images", "best checkpoint", "c0dec0de", "90% interval", "±0.5"):
        assert part in table.caption
    assert "the 3 comparisons of this table (Dunnett" in table.caption


def test_records_are_unrounded_and_whole() -> None:
    study = simulate(options=Options(metrics=("mIoU", "ECE")))
    (table,) = results(study)
    assert len({tuple(record) for record in table.records}) == 1
    assert [(record["metric"], record["loss"]) for record in table.records] == [
        (metric, loss) for metric in ("mIoU", "ECE") for loss in LOSSES
    ]
    for record in table.records:
        measure = Measure(record["metric"])
        row = study.values(study.blocks[0], measure)[LOSSES.index(record["loss"])]
        assert record["mean"] == pytest.approx(row.mean(), abs=1e-12)
        assert record["seed_sd"] == pytest.approx(row.std(ddof=1), abs=1e-12)
        assert len(record["runs"].split()) == 3
        effect = {each.loss: each for each in study.compare(study.blocks[0], measure).effects}.get(record["loss"])
        assert record["delta"] == (effect and effect.delta)
        assert record["verdict"] == (effect and str(effect.verdict))
    hours = [study.hours(run) for (loss, _), run in study.blocks[0].runs.items() if loss == "ce"]
    assert table.records[0]["gpu_hours"] == pytest.approx(sum(gpu for gpu, _ in hours))


def test_further_metrics_stand_beside_the_first() -> None:
    study = simulate(options=Options(metrics=("mIoU", "ECE")), run_sd=0.05)
    (table,) = results(study)
    assert [each.name for each in table.columns] == [
        "loss", "seeds", "mIoU (%)", "Δ to ce", "p", "verdict", "ECE (%)", "Δ ECE", "GPU h/run",
    ]  # fmt: skip
    means = study.values(study.blocks[0], Measure("ECE")).mean(1)
    ece = column(table, "ECE (%)")
    assert [loss for loss in LOSSES if ece[loss].underline] == [LOSSES[int(means.argmin())]]
    # an ECE that falls is better
    assert ece[LOSSES[1]].bold
    assert column(table, "Δ ECE")[LOSSES[1]].text.startswith("-")
    assert not ece[LOSSES[2]].bold


def test_what_may_be_best_is_marked_and_explained() -> None:
    study = simulate({"ce": 0.0, "a": 0.0, "b": -9.0}, seeds=5)
    (table,) = results(study)
    arms = {arm.loss: arm for arm in study.compare(study.blocks[0], Measure()).arms}
    cells = column(table, "mIoU (%)")
    marked = {loss for loss, cell in cells.items() if MAY_BE_BEST in cell.marks}
    best = next(loss for loss, cell in cells.items() if cell.underline)
    assert marked == {loss for loss, arm in arms.items() if arm.may_be_best} - {best}
    assert "b" not in marked
    assert marked
    assert any(mark == MAY_BE_BEST and "best" in note for mark, note in table.notes)


def test_every_run_that_is_missing_has_its_footnote() -> None:
    study = simulate(
        seeds=4,
        outcomes={
            (0, LOSSES[1], 1): "failed diverged",
            (0, LOSSES[1], 2): "failed diverged",
            (0, LOSSES[2], 0): "planned",
            (0, LOSSES[2], 1): "absent",
            (0, LOSSES[3], 0): "not comparable: trained for 200 iterations, not 400",
            (0, LOSSES[3], 3): "nan",
        },
    )
    (table,) = results(study)
    found = {loss: notes_of(table, cell) for loss, cell in column(table, "loss").items()}
    keys = {(run.loss, run.seed): run.key for run in study.runs}
    assert found["ce"] == []
    (failed,) = found[LOSSES[1]]
    assert failed.startswith("Seeds 1, 2 left out, failed: diverged: the loss is not finite (runs ")
    assert keys[LOSSES[1], 1] in failed
    assert keys[LOSSES[1], 2] in failed
    assert found[LOSSES[2]] == [f"Seed 0 left out, unfinished: planned (run {keys[LOSSES[2], 0]}).", "Seed 1 not run."]
    assert "trained for 200 iterations, not 400" in found[LOSSES[3]][0]
    assert "no number" in found[LOSSES[3]][1]
    assert [cell.text for cell in column(table, "seeds").values()] == ["4", "2", "2", "2"]
    assert "Δ is that of the model" in table.caption


def test_what_is_not_comparable_is_marked_when_it_is_shown() -> None:
    study = simulate(outcomes={(0, LOSSES[1], 1): "mixed: other training data"}, options=Options(allow_mixed=True))
    (table,) = results(study)
    (said,) = notes_of(table, column(table, "loss")[LOSSES[1]])
    assert said.startswith("Seed 1 not comparable, shown all the same: other training data (run ")


def test_warnings_and_notes_stand_below() -> None:
    (table,) = results(simulate(warnings=("2 of 12: another device.",), notes=("Nothing is recorded.",)))
    assert whole_notes(table) == ["2 of 12: another device.", "Nothing is recorded."]


@pytest.mark.parametrize(("image_sd", "note"), [(0.5, ONE_SEED), (None, NO_COUNTS)])
def test_one_seed_has_no_verdict(image_sd: float | None, note: str) -> None:
    (table,) = results(simulate(seeds=1, image_sd=image_sd))
    verdicts = column(table, "verdict")
    assert [cell.text for cell in verdicts.values()] == ["baseline"] + ["no verdict"] * 3
    assert "p" not in [each.name for each in table.columns]
    assert not any(cell.bold for row in table.rows for cell in row)
    for loss in LOSSES[1:]:
        assert notes_of(table, column(table, "loss")[loss]) == [note]
        assert ("[" in column(table, "Δ to ce")[loss].text) == (image_sd is not None)
    assert table.caption.startswith("One run each.")
    assert "±" not in table.rows[0][2].text


def test_one_seed_among_losses_with_more() -> None:
    study = simulate(outcomes={(0, LOSSES[1], 0): "absent", (0, LOSSES[1], 1): "absent"})
    (table,) = results(study)
    assert column(table, "verdict")[LOSSES[1]].text == str(Verdict.NO_VERDICT)
    assert ONE_PAIR in notes_of(table, column(table, "loss")[LOSSES[1]])


def test_seeds_that_give_the_same_numbers_are_no_seeds() -> None:
    study = simulate(run_sd=0.0, seed_sd=0.0)
    (table,) = results(study)
    assert notes_of(table, column(table, "loss")[LOSSES[1]]) == [SAME_NUMBERS]
    assert not any(cell.bold for row in table.rows for cell in row)


def test_without_counts_the_table_says_so() -> None:
    (table,) = results(simulate(image_sd=None))
    assert SEEDS_ALONE in whole_notes(table)
    assert "variance of seeds)" in table.caption


def test_without_a_baseline_there_are_means_and_no_effects() -> None:
    study = simulate(outcomes={(0, "ce", seed): "failed out_of_memory" for seed in range(3)})
    (table,) = results(study)
    assert [each.name for each in table.columns] == ["loss", "seeds", "mIoU (%)", "GPU h/run"]
    means = study.values(study.blocks[0], Measure())[1:].mean(1)
    assert [row[2].value for row in table.rows[1:]] == pytest.approx(means)
    assert table.rows[0][2] == Cell("–", muted=True)
    assert [cell.underline for cell in column(table, "mIoU (%)").values()].index(True) == 1 + int(means.argmax())
    assert whole_notes(table) == ["No Δ: No run of the baseline ce is finished."]


def test_a_metric_that_is_undefined_in_one_run() -> None:
    study = simulate(options=Options(metrics=("mIoU", "bF1")), undefined=[("bF1", (0, LOSSES[1], 2))])
    (table,) = results(study)
    assert notes_of(table, column(table, "loss")[LOSSES[1]])[0] == "Seed 2: bF1 is undefined."


def test_several_models_make_columns() -> None:
    study = simulate(blocks=BLOCKS, seeds=4)
    tables = results(study)
    assert [table.title for table in tables] == ["mIoU: A, by model", "mIoU: B, by model"]
    for table, blocks in zip(tables, (study.blocks[:2], study.blocks[2:]), strict=True):
        assert [each.name for each in table.columns] == ["loss", "m1", "m2"]
        for block in blocks:
            means = study.values(block, Measure()).mean(1)
            cells = column(table, block.key.model)
            assert [cell.value for cell in cells.values()] == pytest.approx(means)
            assert {loss for loss in LOSSES if cells[loss].underline} == {LOSSES[int(means.argmax())]}
            effects = {effect.loss: effect for effect in study.compare(block, Measure()).effects}
            for loss in LOSSES[1:]:
                first, second = cells[loss].text.split("\n")
                assert first.endswith("(4)")
                assert float(second.split()[0]) == pytest.approx(effects[loss].delta, abs=0.06)
                assert cells[loss].bold == (effects[loss].verdict is Verdict.BETTER)


@pytest.mark.parametrize(("rows", "columns"), list(permutations(AXES, 2)))
def test_any_axis_may_be_rows_or_columns(rows: str, columns: str) -> None:
    """However it is laid out, each loss in each block is there once, with the same number."""
    study = simulate(
        {"ce": 0.0, "focal": 1.0},
        blocks=(("A", "m1"), ("A", "m2", "night"), ("B", "m1", "baseline", "lr 0.1")),
        outcomes={(1, "focal", 0): "failed diverged"},
    )
    tables = results(study, rows=rows, columns=columns)
    expected = {
        (block.key, loss): values[np.isfinite(values)].mean()
        for block in study.blocks
        for loss, values in zip(block.losses, study.values(block, Measure()), strict=True)
    }
    records = [record for table in tables for record in table.records]
    assert len(records) == len(expected)
    shown = sorted(
        cell.value for table in tables for row in table.rows for cell in row[1:]
        if cell.value is not None and "±" in cell.text
    )  # fmt: skip
    assert shown == pytest.approx(sorted(expected.values()))
    assert len({table.name for table in tables}) == len(tables)
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    assert any("failed" in note for table in tables for _, note in table.notes)


def test_several_metrics_make_wide_tables_of_their_own() -> None:
    tables = results(simulate(blocks=BLOCKS[:2], options=Options(metrics=("mIoU", "bF1"))))
    assert [table.name for table in tables] == ["results-1-mIoU", "results-1-bF1"]
    assert [table.title for table in tables] == ["mIoU: A, by model", "bF1: A, by model"]


@pytest.mark.parametrize(("rows", "columns"), [("los", "model"), ("loss", "seed"), ("model", "model")])
def test_axes_that_are_none(rows: str, columns: str) -> None:
    with pytest.raises(ProveError):
        results(simulate(), rows=rows, columns=columns)
