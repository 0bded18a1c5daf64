"""The main tables say what the runs say: values recomputed here from the runs' numbers."""

import json
from itertools import permutations

import numpy as np
import pytest

from prove.errors import ProveError
from prove.report.render import render
from prove.report.study import Floats, Measure, Options
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
    failures, failed = found[LOSSES[1]]
    assert failures == "2 runs failed, of 4 seeds that ended: the numbers are of those left."
    assert failed.startswith("Seeds 1, 2 left out, failed: diverged: the loss is not finite (runs ")
    assert keys[LOSSES[1], 1] in failed
    assert keys[LOSSES[1], 2] in failed
    assert found[LOSSES[2]] == [f"Seed 0 left out, unfinished: planned (run {keys[LOSSES[2], 0]}).", "Seed 1 not run."]
    assert "trained for 200 iterations, not 400" in found[LOSSES[3]][0]
    assert "no number" in found[LOSSES[3]][1]
    assert [cell.text for cell in column(table, "seeds").values()] == ["4", "2 of 4", "2", "2"]
    assert [record["failed"] for record in table.records] == [0, 2, 0, 0]
    assert "least-squares estimate" in table.caption


def test_what_is_not_comparable_is_marked_when_it_is_shown() -> None:
    study = simulate(outcomes={(0, LOSSES[1], 1): "mixed: other training data"}, options=Options(allow_mixed=True))
    (table,) = results(study)
    (said,) = notes_of(table, column(table, "loss")[LOSSES[1]])
    assert said.startswith("Seed 1 not comparable, shown all the same: other training data (run ")
    assert whole_notes(table) == ["1 run is not comparable (--allow-mixed)."]
    assert {record["mixed"] for record in table.records} == {1}
    (row,) = (row for row in json.loads(render([table], "json"))["tables"][0]["rows"] if row[0]["text"] == LOSSES[1])
    assert row[0]["marks"] == list(column(table, "loss")[LOSSES[1]].marks) != []


def test_what_is_not_comparable_is_marked_in_a_wide_table() -> None:
    outcomes = {(1, LOSSES[1], seed): "mixed: other training data" for seed in (0, 2)}
    (table,) = results(simulate(blocks=BLOCKS[:2], outcomes=outcomes, options=Options(allow_mixed=True)))
    assert "2 runs are not comparable (--allow-mixed)." in whole_notes(table)
    assert any("other training data" in note for note in notes_of(table, column(table, "m2")[LOSSES[1]]))
    assert not notes_of(table, column(table, "m1")[LOSSES[1]])
    assert {(record["model"], record["mixed"]) for record in table.records} == {("m1", 0), ("m2", 2)}


def least_squares(values: Floats) -> Floats:
    """The losses' estimates in value = loss + seed + noise, by a design matrix; up to a constant."""
    losses, seeds = np.nonzero(np.isfinite(values))
    design = np.zeros((len(losses), sum(values.shape)))
    design[np.arange(len(losses)), losses] = 1
    design[np.arange(len(losses)), len(values) + seeds] = 1
    return np.linalg.lstsq(design, values[losses, seeds], rcond=None)[0][: len(values)]


def test_the_caption_names_the_estimate_where_any_run_is_missing() -> None:
    """Every loss has three of four seeds: the numbers of seeds agree, and yet Δ is no mean of paired differences."""
    gaps = {(0, loss, seed): "absent" for seed, loss in enumerate(LOSSES)}
    study = simulate(seeds=4, outcomes=gaps)
    (table,) = results(study)
    values = study.values(study.blocks[0], Measure())
    paired = np.nanmean(values - values[0], axis=1)
    estimates = least_squares(values)
    deltas = [cell.value for cell in column(table, "Δ to ce").values()][1:]
    assert deltas == pytest.approx((estimates - estimates[0])[1:].tolist(), abs=1e-9)
    assert deltas != pytest.approx(paired[1:].tolist(), abs=0.01)
    assert "least-squares estimate of the additive loss + seed model, to which the other losses" in table.caption
    assert "paired by seed" not in table.caption
    assert not any("aired" in note for _, note in table.notes)
    (wide,) = results(study, rows="model", columns="loss")
    assert "least-squares estimate" in wide.caption


@pytest.mark.parametrize("nowhere", [{}, {(0, loss, 3): "planned" for loss in LOSSES}])
def test_a_whole_block_is_paired(nowhere: dict[tuple[int, str, int], str]) -> None:
    """A seed or a loss that has no run at all takes no part."""
    nowhere = {**nowhere, **({(0, LOSSES[3], seed): "planned" for seed in range(4)} if nowhere else {})}
    (table,) = results(simulate(seeds=4, outcomes=nowhere))
    assert "paired by seed" in table.caption
    assert "least-squares" not in table.caption


@pytest.mark.parametrize("baseline_is_there", [True, False])
def test_a_loss_is_not_best_because_its_bad_seed_is_missing(baseline_is_there: bool) -> None:
    effects = {"ce": 0.0, "a": 2.0, "b": 1.0}
    whole = simulate(effects, seeds=4, seed_sd=20.0, run_sd=0.01)
    worst = int(whole.values(whole.blocks[0], Measure())[0].argmin())
    outcomes = {(0, "b", worst): "failed diverged"}
    if not baseline_is_there:
        outcomes |= {(0, "ce", seed): "planned" for seed in range(4)}
    (table,) = results(simulate(effects, seeds=4, seed_sd=20.0, run_sd=0.01, outcomes=outcomes))
    cells = column(table, "mIoU (%)")
    assert (cells["b"].value or 0) > (cells["a"].value or 0)
    assert [loss for loss in effects if cells[loss].underline] == ["a"]
    assert "best mean, adjusted for the missing runs" in table.caption


def test_one_seed_is_best_only_among_ones() -> None:
    outcomes = {(0, "a", seed): "absent" for seed in (1, 2)}
    (table,) = results(simulate({"ce": 0.0, "a": 30.0, "b": 5.0}, outcomes=outcomes))
    assert [loss for loss, cell in column(table, "mIoU (%)").items() if cell.underline] == ["b"]
    (table,) = results(simulate({"ce": 0.0, "a": 30.0, "b": 5.0}, seeds=1))
    assert [loss for loss, cell in column(table, "mIoU (%)").items() if cell.underline] == ["a"]


def test_the_mark_of_what_may_be_best_refers_to_what_is_underlined() -> None:
    (table,) = results(simulate({"ce": 0.0, "a": 0.0}, seeds=5))
    assert any(mark == MAY_BE_BEST and "the underlined one" in note for mark, note in table.notes)


def test_a_failure_shows_where_seeds_are_counted() -> None:
    outcomes = {(0, LOSSES[1], seed): "failed diverged" for seed in (1, 2, 4)}
    outcomes |= {(0, LOSSES[2], 0): "planned", (0, LOSSES[3], 1): "absent"}
    study = simulate(seeds=5, outcomes=outcomes)
    (table,) = results(study)
    assert [cell.text for cell in column(table, "seeds").values()] == ["5", "2 of 5", "4", "4"]
    assert [cell.value for cell in column(table, "seeds").values()] == [5, 2, 4, 4]
    assert notes_of(table, column(table, "loss")[LOSSES[1]])[0].startswith("3 runs failed, of 5 seeds that ended")
    (wide,) = results(study, rows="model", columns="loss")
    assert wide.rows[0][2].text.split("\n")[0].endswith("(2 of 5)")
    gone = {(0, LOSSES[1], seed): "failed diverged" for seed in range(3)}
    (wide,) = results(simulate(outcomes=gone), rows="model", columns="loss")
    assert wide.rows[0][2].text == "– (0 of 3)"


def test_the_family_is_of_those_that_have_a_p() -> None:
    """A loss that shares no seed with the baseline is not compared with it; one metric may lack a loss."""
    study = simulate(outcomes={(0, LOSSES[1], seed): "planned" for seed in range(3)})
    (table,) = results(study)
    assert "the 2 comparisons of this table" in table.caption
    places = [("bF1", (0, LOSSES[1], seed)) for seed in range(3)]
    (table,) = results(simulate(options=Options(metrics=("mIoU", "bF1")), undefined=places))
    assert "the comparisons in each metric (mIoU: 3; bF1: 2)" in table.caption
    two = simulate(blocks=BLOCKS[:2], outcomes={(1, LOSSES[1], seed): "planned" for seed in range(3)})
    (wide,) = results(two)
    assert "the comparisons of a block (dataset, model, strategy) (A, m1: 3; A, m2: 2)" in wide.caption
    by_strategy = results(two, rows="model", columns="strategy")
    shown = [table.caption for table in by_strategy if "Dunnett" in table.caption]
    assert len(shown) == 3
    assert all("(A, m1: 3; A, m2: 2)" in caption for caption in shown)


def test_hours_are_means_over_the_runs_that_used_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    study = simulate({"ce": 0.0, "a": 0.0, "b": 0.0})
    spent = {"ce": [(2.0, 0.0)] * 3, "a": [(3.0, 0.0), (0.0, 40.0), (0.0, 60.0)], "b": [(0.0, 0.0)] * 3}
    monkeypatch.setattr(study, "hours", lambda run: spent[run.loss][run.seed])
    (table,) = results(study)
    assert [cell.value for cell in column(table, "GPU h/run").values()] == [2.0, 3.0, None]
    assert [cell.value for cell in column(table, "CPU h/run").values()] == [None, 50.0, None]
    assert [cell.text for cell in column(table, "CPU h/run").values()] == ["–", "50.0", "–"]


@pytest.mark.parametrize("confidence", [0.975, 0.999])
def test_the_confidence_that_was_asked_for_is_the_one_that_is_named(confidence: float) -> None:
    (table,) = results(simulate(options=Options(confidence=confidence)))
    said = f"{100 * confidence:g}%"
    assert f"with its {said} interval" in table.caption
    assert all(said in note for mark, note in table.notes if mark == MAY_BE_BEST)


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


def test_a_block_without_any_result() -> None:
    study = simulate(outcomes={(0, loss, seed): "failed diverged" for loss in LOSSES for seed in range(3)})
    (table,) = results(study)
    assert [cell.text for cell in column(table, "seeds").values()] == ["0 of 3"] * 4
    assert [cell.text for cell in column(table, "mIoU (%)").values()] == ["–"] * 4
    assert not any(cell.underline or cell.bold for row in table.rows for cell in row)


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
