"""Classes, conditions and other metrics, against the same sums done here by hand and by statsmodels."""

from collections.abc import Callable

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from prove.catalog.conditions import split
from prove.catalog.datasets import DATASETS
from prove.errors import ProveError
from prove.report.study import Measure, Options, Study
from prove.report.table import Cell, Table
from prove.report.views import domains as domains_view
from prove.report.views.classes import classes, counts, q_values
from prove.report.views.domains import domains, gap
from prove.report.views.entries import ONE_PAIR, ONE_SEED, entries
from prove.report.views.secondary import secondary
from prove.spec.job import METRICS
from prove.stats.block import compare
from prove.stats.effects import BlockData, BlockResult
from tests.report.studies import CLASSES, CONDITIONS, EFFECTS, simulate

LOSSES = tuple(EFFECTS)


def test_classes_have_one_family_of_q() -> None:
    study = simulate(seeds=4)
    (table,) = classes(study)
    block = study.blocks[0]
    effects = {
        (name, effect.loss): effect
        for name in CLASSES
        for effect in study.compare(block, Measure("IoU", "class", name)).effects
    }
    q = dict(zip(effects, multipletests([each.p for each in effects.values()], method="fdr_bh")[1], strict=True))
    found = {(record["name"], record["loss"]): record for record in table.records if record["loss"] != "ce"}
    assert {place: record["q"] for place, record in found.items()} == pytest.approx(q, abs=1e-12)
    for row, name in zip(table.rows, CLASSES, strict=True):
        assert row[0].text == name
        for cell, loss in zip(row[3:], LOSSES[1:], strict=True):
            effect = effects[name, loss]
            assert cell.value == effect.delta
            assert cell.bold == (q[name, loss] < 0.05 and effect.delta > 0)
            assert cell.muted == (q[name, loss] >= 0.05)
    assert "12 comparisons of this table with two or more seeds (4 classes)" in table.caption
    assert "Exploratory" in table.caption


def test_support_is_a_share_of_all_pixels() -> None:
    study = simulate()
    (table,) = classes(study)
    support = study.support(study.blocks[0])
    assert [row[1].value for row in table.rows] == [support[name] for name in CLASSES]
    shares = [float(row[1].text.strip("%")) for row in table.rows]
    assert shares == pytest.approx([100 * support[name] / sum(support.values()) for name in CLASSES], rel=0.05)


def test_a_rare_class_that_gains_is_found() -> None:
    rare = {"rider": {LOSSES[1]: 6.0}, **{name: {} for name in CLASSES if name != "rider"}}
    (table,) = classes(simulate(seeds=5, class_effects=rare))
    bold = {(row[0].text, table.columns[i].name) for row in table.rows for i, cell in enumerate(row) if cell.bold}
    assert ("rider", f"Δ {LOSSES[1]}") in bold


def test_classes_of_one_seed_have_intervals_and_no_q() -> None:
    (table,) = classes(simulate(seeds=1))
    assert all("[" in cell.text and " q " not in cell.text for row in table.rows for cell in row[3:])
    assert [note for _, note in table.notes] == [ONE_SEED]
    assert not any(cell.bold for row in table.rows for cell in row)
    assert all(record["q"] is None for record in table.records)


def test_classes_name_the_runs_that_are_missing() -> None:
    (table,) = classes(simulate(outcomes={(0, LOSSES[1], 1): "failed diverged"}))
    notes = [note for mark, note in table.notes if not mark]
    assert notes[0].startswith(f"{LOSSES[1]}: 1 run failed, of 3 seeds that ended")
    assert notes[1].startswith(f"{LOSSES[1]}: Seed 1 left out")
    assert "least-squares estimate" in table.caption
    assert "paired by seed" not in table.caption


def notes_of(table: Table, cell: Cell) -> list[str]:
    return [note for mark, note in table.notes if mark in cell.marks]


def test_one_seed_in_common_has_no_q() -> None:
    """The loss that has one of four seeds, with an effect that can't be overlooked, is not found to be better."""
    effects = {"ce": 0.0, "one": 50.0, "a": 1.0, "b": 1.0}
    outcomes = {(0, "one", seed): "absent" for seed in (1, 2, 3)}
    study = simulate(effects, seeds=4, outcomes=outcomes)
    (table,) = classes(study)
    at = [each.name for each in table.columns].index("Δ one")
    for row in table.rows:
        assert " q " not in row[at].text
        assert not row[at].bold
        assert ONE_PAIR in notes_of(table, row[at])
        assert row[at + 1].text.count(" q ") == 1
    found = {(record["name"], record["loss"]): record for record in table.records}
    assert all(found[name, "one"][what] is None for name in CLASSES for what in ("p", "p_adjusted", "q"))
    others = [(name, loss) for name in CLASSES for loss in ("a", "b")]
    q = multipletests([found[place]["p"] for place in others], method="fdr_bh")[1]
    assert [found[place]["q"] for place in others] == pytest.approx(q.tolist(), abs=1e-12)
    assert "over the 8 comparisons" in table.caption
    # the shared function says the same of any parts
    entries_by_class = {name: entries(study, study.blocks[0], Measure("IoU", "class", name)) for name in CLASSES}
    assert set(q_values(entries_by_class)) == set(others)
    assert {entry.loss for each in entries_by_class.values() for entry in each if counts(entry)} == {"a", "b"}


def test_a_class_that_some_seeds_lack_says_so_at_its_cell() -> None:
    places = [("IoU of pole", (0, LOSSES[1], seed)) for seed in (1, 2)]
    (table,) = classes(simulate(undefined=places))
    cells = {row[0].text: row[3] for row in table.rows}
    assert notes_of(table, cells["pole"]) == ["Seeds 1, 2: IoU of pole is undefined.", ONE_PAIR]
    assert " q " not in cells["pole"].text
    assert not cells["road"].marks
    assert " q " in cells["road"].text
    (table,) = classes(simulate(undefined=[("IoU of pole", (0, "ce", 0))]))
    assert notes_of(table, table.rows[CLASSES.index("pole")][2]) == ["Seed 0: IoU of pole is undefined."]
    assert "Shares 2 of its 3 seeds with the baseline." in notes_of(table, table.rows[CLASSES.index("pole")][3])


MIXED = {(0, LOSSES[1], seed): "mixed: other training data" for seed in (0, 2)}


@pytest.mark.parametrize("view", [classes, domains, secondary])
def test_what_is_not_comparable_is_marked_in_every_breakdown(view: Callable[[Study], tuple[Table, ...]]) -> None:
    (table,) = view(simulate(outcomes=MIXED, options=Options(allow_mixed=True)))
    assert ("", "2 runs are not comparable (--allow-mixed).") in table.notes
    assert all(record["mixed"] == 2 for record in table.records)
    (mark,) = (mark for mark, note in table.notes if "other training data" in note)
    marked = {
        loss
        for row in table.rows
        for cell, column in zip(row, table.columns, strict=True)
        if mark in cell.marks
        for loss in LOSSES
        if loss in (cell.text, column.name.removeprefix("Δ "))
    }
    assert marked == {LOSSES[1]}
    (table,) = view(simulate())
    assert not any("--allow-mixed" in note for _, note in table.notes)
    assert all(record["mixed"] == 0 for record in table.records)


@pytest.mark.parametrize("view", [domains, secondary])
def test_the_family_of_a_column_is_of_those_that_have_a_p(view: Callable[[Study], tuple[Table, ...]]) -> None:
    (table,) = view(simulate(outcomes={(0, LOSSES[1], seed): "planned" for seed in range(3)}))
    assert "the 2 comparisons in each column" in table.caption
    (table,) = secondary(simulate(undefined=[("bF1", (0, LOSSES[1], seed)) for seed in range(3)]))
    assert "bF1: 2" in table.caption
    assert "ECE: 3" in table.caption


def test_a_class_that_is_nowhere_labelled() -> None:
    places = [("IoU", (0, loss, seed)) for loss in LOSSES for seed in range(3)]
    (table,) = classes(simulate(undefined=places))
    assert all(cell.text == "–" for row in table.rows for cell in row[2:])


def test_classes_without_a_baseline() -> None:
    (table,) = classes(simulate(outcomes={(0, "ce", seed): "planned" for seed in range(3)}))
    assert [each.name for each in table.columns] == ["class", "pixels", *(f"{loss} (%)" for loss in LOSSES)]
    assert any(note.startswith("No Δ") for _, note in table.notes)


def test_only_metrics_of_a_class() -> None:
    with pytest.raises(ProveError, match="bIoU"):
        classes(simulate(), "mIoU")
    assert classes(simulate(), "bF1")[0].title.startswith("bF1")
    assert classes(simulate(classes=())) == ()


def test_the_clear_condition_of_every_dataset_that_has_one() -> None:
    found = {entry.name: split(entry.conditions) for entry in DATASETS}
    without = {name for name, parts in found.items() if parts is None}
    assert without == {"Cityscapes", "ACDC", "IDD-AW", "ADE20K"}
    clear = {name: parts.clear for name, parts in found.items() if parts is not None}
    assert clear.pop("CamVid") == "day"
    assert set(clear.values()) == {"clear_day"}


def test_a_clear_condition_can_be_named() -> None:
    parts = split(("a", "b", "c"), "b")
    assert parts is not None
    assert (parts.clear, parts.adverse) == ("b", ("a", "c"))
    assert split(("Clear Day", "fog")) is not None
    assert split(("day",)) is None
    with pytest.raises(ProveError, match="foggy"):
        split(("clear_day", "foggy"), "fogy")


@pytest.mark.parametrize("metric", ["mIoU", "ECE"])
def test_the_gap_is_taken_run_by_run(metric: str) -> None:
    study = simulate(seeds=4, outcomes={(0, LOSSES[1], 1): "absent"}, options=Options(metrics=(metric,)))
    (table,) = domains(study)
    block = study.blocks[0]
    clear, foggy, night = (study.values(block, Measure(metric, "condition", name)) for name in CONDITIONS)
    gaps = (clear - (foggy + night) / 2) * (-1 if metric == "ECE" else 1)
    assert [row[-1].value for row in table.rows] == pytest.approx(np.nanmean(gaps, axis=1).tolist())
    assert [each.name for each in table.columns] == ["loss", *CONDITIONS, "gap"]
    assert [row[1].value for row in table.rows] == pytest.approx(np.nanmean(clear, axis=1).tolist())
    full = [row for row, loss in zip(gaps, LOSSES, strict=True) if loss in LOSSES[2:]]
    deltas = [record["delta"] for record in table.records if record["scope"] == "gap" and record["loss"] in LOSSES[2:]]
    everyone = ~np.isnan(gaps).any(1)
    if everyone.all():
        assert deltas == pytest.approx([row.mean() - gaps[0].mean() for row in full])


def test_a_loss_that_closes_the_gap_is_better() -> None:
    """4 points more in bad weather alone: the gap falls by 4."""
    adverse = {loss: 4.0 if loss == LOSSES[1] else 0.0 for loss in LOSSES}
    study = simulate(
        seeds=5, run_sd=0.1, condition_effects={"clear_day": {}, "foggy": adverse, "night": adverse}, rng=3
    )
    block = study.blocks[0]
    parts = split(CONDITIONS)
    assert parts is not None
    found = {entry.loss: entry for entry in gap(study, block, "mIoU", parts, None)}
    effect = found[LOSSES[1]].effect
    assert effect is not None
    assert effect.low is not None
    assert effect.high is not None
    assert effect.low < -4.0 < effect.high
    assert found[LOSSES[1]].is_better
    assert found[LOSSES[1]].is_best
    assert not found[LOSSES[2]].is_better


STRONG = {loss: 4.0 if loss == LOSSES[1] else 0.0 for loss in LOSSES}


@pytest.mark.parametrize(("images", "has_verdict"), [(1, False), (4, False), (5, True), (40, True)])
def test_few_images_give_no_verdict(images: int, has_verdict: bool) -> None:
    """An effect that can't be overlooked, on few images, is about these images."""
    effects = {"clear_day": {}, "foggy": STRONG, "night": STRONG}
    counted = {"clear_day": 50, "foggy": images, "night": 60}
    study = simulate(
        seeds=5, run_sd=0.05, image_sd=0.05, condition_effects=effects, condition_images=counted, resamples=50
    )
    (table,) = domains(study)
    noun = "image" if images == 1 else "images"
    assert [each.name for each in table.columns] == [
        "loss", "clear_day (50 images)", f"foggy ({images} {noun})", "night (60 images)", "gap",
    ]  # fmt: skip
    row = table.rows[1]
    for cell, decided in zip(row[2:], (has_verdict, True, has_verdict), strict=True):
        assert cell.bold == decided
        assert (" p " in cell.text) == decided
        assert "[" in cell.text
        assert any("fewer than 5" in note for note in notes_of(table, cell)) != decided
    found = {(record["name"], record["loss"]): record for record in table.records}
    few, gap_record = found["foggy", LOSSES[1]], found["clear_day to adverse", LOSSES[1]]
    assert (few["images"], gap_record["images"]) == (images, min(images, 50))
    for record in (few, gap_record):
        assert record["verdict"] == ("better" if has_verdict else "no verdict")
        assert (record["p"] is not None) == (record["p_adjusted"] is not None) == has_verdict
        assert record["may_be_best"] is None or has_verdict


def test_the_gap_knows_as_many_images_as_its_smallest_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    def watched(data: BlockData, **options: float) -> BlockResult:
        asked.append(data.images)
        return compare(data, **options)

    monkeypatch.setattr(domains_view, "compare", watched)
    domains(simulate(condition_images={"clear_day": 50, "foggy": 7, "night": 60}))
    assert asked == [7]


def test_the_number_of_images_is_known_without_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without per-image counts there is no resampling; how many images there were is in the last validation."""
    study = simulate(image_sd=None, seeds=5, run_sd=0.05)
    said = {"conditions": {name: {"images": 1 + index} for index, name in enumerate(CONDITIONS)}}
    monkeypatch.setattr(study, "curve", lambda run, split: ((400, said),))
    (table,) = domains(study)
    assert [each.name for each in table.columns][1:4] == [
        "clear_day (1 image)", "foggy (2 images)", "night (3 images)",
    ]  # fmt: skip
    assert not any(cell.bold for row in table.rows for cell in row)


def test_without_a_clear_condition_there_is_no_gap() -> None:
    (table,) = domains(simulate(conditions=("foggy", "rainy")))
    assert [each.name for each in table.columns] == ["loss", "foggy", "rainy"]
    assert any("none of foggy, rainy is known as the clear condition" in note for _, note in table.notes)
    (table,) = domains(simulate(conditions=("foggy", "rainy")), clear="rainy")
    assert [each.name for each in table.columns] == ["loss", "rainy", "foggy", "gap"]
    assert domains(simulate(conditions=("all",))) == ()
    assert domains(simulate(conditions=())) == ()


def test_conditions_of_one_seed_and_without_a_baseline() -> None:
    (table,) = domains(simulate(seeds=1))
    assert all("[" in row[-1].text for row in table.rows[1:])
    assert any(note == ONE_SEED for _, note in table.notes)
    (table,) = domains(simulate(outcomes={(0, "ce", seed): "planned" for seed in range(3)}))
    assert [each.name for each in table.columns] == ["loss", *CONDITIONS]


def test_secondary_has_the_other_metrics() -> None:
    study = simulate(options=Options(metrics=("bIoU",)), run_sd=0.05)
    (table,) = secondary(study)
    others = [metric for metric in METRICS if metric != "bIoU"]
    assert [each.name for each in table.columns] == ["loss", *others]
    for column, metric in enumerate(others, 1):
        means = study.values(study.blocks[0], Measure(metric)).mean(1)
        assert [row[column].value for row in table.rows] == pytest.approx(means.tolist())
        best = int(means.argmin() if metric == "ECE" else means.argmax())
        assert [row[column].underline for row in table.rows].index(True) == best
    assert "not over the columns" in table.caption
