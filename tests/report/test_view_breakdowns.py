"""Classes, conditions and other metrics, against the same sums done here by hand and by statsmodels."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from prove.catalog.datasets import DATASETS
from prove.errors import ProveError
from prove.report.study import Measure, Options
from prove.report.views.about import count_images
from prove.report.views.classes import classes
from prove.report.views.domains import domains, gap, split
from prove.report.views.entries import ONE_SEED
from prove.report.views.secondary import secondary
from prove.spec.job import METRICS
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
    assert "12 comparisons of this table (4 classes)" in table.caption
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
    assert [note.split(",")[0] for _, note in table.notes] == [f"{LOSSES[1]}: Seed 1 left out"]


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
    assert without == {"Cityscapes", "ACDC", "IDD-AW"}
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
    found = {entry.loss: entry for entry in gap(study, block, "mIoU", parts, count_images(study, study.blocks))}
    effect = found[LOSSES[1]].effect
    assert effect is not None
    assert effect.low is not None
    assert effect.high is not None
    assert effect.low < -4.0 < effect.high
    assert found[LOSSES[1]].is_better
    assert found[LOSSES[1]].is_best
    assert not found[LOSSES[2]].is_better


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
