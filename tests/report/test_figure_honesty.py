"""What a figure may not hide: runs that are not comparable, one seed, seeds that are copies; and names as formulas."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest

from prove.report.figures import FIGURES, effects_map, pictures
from prove.report.figures.picture import Picture
from prove.report.study import Measure, Options
from prove.report.views.classes import classes
from prove.stats.effects import Verdict
from tests.report.studies import SimulatedStudy, simulate
from tests.report.test_figure_predictions import changed, keep

TWO = (("A", "m1"), ("B", "m2"))
FOCAL = "ce + 0.3*focal"


def drawn(study: SimulatedStudy, *names: str) -> list[Picture]:
    return [each for each in pictures(study, which=names or None) if isinstance(each, Picture)]


def texts(made: Picture) -> set[str]:
    return {text.get_text() for text in made.figure.texts}


def rows(made: Picture) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(made.csv)))


def with_predictions(study: SimulatedStudy) -> SimulatedStudy:
    """The same, its runs having kept predictions on one image."""
    for run in study.runs:
        keep(study, run, {"a": changed(run.seed)}, study.results)
    return study


def with_one_pair() -> SimulatedStudy:
    """Focal loss has one seed, the others have four."""
    return simulate(seeds=4, outcomes={(0, FOCAL, seed): "absent" for seed in (1, 2, 3)}, run_sd=0.05)


def test_a_map_colours_what_the_table_of_classes_finds() -> None:
    for study in (with_one_pair(), simulate({"ce": 0.0, "a": 1.0, "b": 0.0}, seeds=4)):
        (table,) = classes(study)
        found = {(row["name"], row["loss"]): row["q"] for row in table.records if row["loss"] != "ce"}
        (made,) = drawn(study, "classes")
        assert len(made.data) == len(found)
        for row in made.data:
            expected = found[row["class"], row["loss"]]
            assert row["q"] == expected if expected is not None else math.isnan(float(str(row["q"]))), row


@pytest.mark.parametrize("name", ["classes", "conditions"])
def test_a_single_pair_of_seeds_has_no_p_in_a_map(name: str) -> None:
    (made,) = drawn(with_one_pair(), name)
    for row in made.data:
        assert math.isnan(float(str(row["p"]))) == math.isnan(float(str(row["q"]))) == (row["loss"] == FOCAL)
    shown = sum(row["loss"] != FOCAL for row in made.data)
    assert f"over the {shown} comparisons" in made.caption


def test_a_condition_of_few_images_is_grey_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    study = simulate({"ce": 0.0, "a": 9.0}, seeds=4, run_sd=0.05, conditions=("fog", "night"))
    monkeypatch.setattr(SimulatedStudy, "images", lambda self, block, measure: 4 if measure.name == "fog" else 5)
    (made,) = drawn(study, "conditions")
    found = {row["condition"]: row for row in made.data}
    assert math.isnan(float(str(found["fog"]["q"])))
    assert float(str(found["night"]["q"])) < 0.05
    assert (found["fog"]["images"], found["night"]["images"]) == (4.0, 5.0)
    assert "Fewer than 5 images, and so grey: fog." in made.caption


def test_a_map_takes_the_confidence_that_was_asked_for() -> None:
    (made,) = drawn(simulate(seeds=2, options=Options(confidence=0.8), run_sd=1.0), "classes")
    assert "q < .2 " in made.caption
    assert "q ≥ .2" in texts(made)


def test_every_figure_says_that_runs_are_not_comparable(tmp_path: Any) -> None:
    outcomes = {(0, FOCAL, 0): "mixed: another crop", (1, "ce", 0): "mixed: another crop"}
    made = drawn(with_predictions(simulate(blocks=TWO, outcomes=outcomes, results=tmp_path)))
    names = {each.name.split("-")[0] for each in made}
    assert names == set(FIGURES)
    for each in made:
        one = each.name[-1].isdigit()
        said = "1 run is not comparable" if one else "2 runs are not comparable"
        assert f"{said} (--allow-mixed)." in each.caption, each.name
        assert any(int(row["mixed"]) for row in rows(each)), each.name


def test_no_figure_speaks_of_runs_that_are_not_comparable_where_there_is_none(tmp_path: Any) -> None:
    for each in drawn(with_predictions(simulate(blocks=TWO, results=tmp_path))):
        assert "not comparable" not in each.caption, each.name
        assert not any(int(row["mixed"]) for row in rows(each)), each.name


def test_a_curve_is_marked_where_its_own_run_is_not_comparable() -> None:
    (made,) = drawn(simulate(outcomes={(0, FOCAL, 1): "mixed: another crop"}), "curves")
    assert {(row["loss"], row["seed"]) for row in rows(made) if row["mixed"] == "1"} == {(FOCAL, "1")}


def test_seeds_that_are_copies_are_not_called_one_seed() -> None:
    (made,) = drawn(simulate(run_sd=0.0, seed_sd=0.0), "forest")
    assert "seeds alike" in texts(made)
    assert "one seed" not in texts(made)
    assert "come from seeds that gave the same numbers:" in made.caption
    assert "one seed" not in made.alt


def test_one_seed_is_called_one_seed() -> None:
    (made,) = drawn(simulate(seeds=1), "forest")
    assert "one seed" in texts(made)
    assert "come from one seed:" in made.caption


def test_a_loss_of_one_block_is_not_pooled() -> None:
    study = simulate(blocks=TWO, outcomes={(1, FOCAL, seed): "absent" for seed in range(3)})
    (made,) = drawn(study, "forest")
    assert {row["loss"] for row in made.data if row["kind"] == "pooled"} == {"ce + 0.3*lovasz", "ce + 0.3*boundary"}
    assert not any("pooled, 1" in text for text in texts(made))


def test_a_forest_of_an_incomplete_block_says_whose_runs_its_effects_rest_on() -> None:
    (whole,) = drawn(simulate(seeds=4), "forest")
    (missing,) = drawn(with_one_pair(), "forest")
    assert "paired by seed" in whole.caption
    assert "additive" not in whole.caption
    assert "paired by seed" not in missing.caption
    assert "additive loss + seed model" in missing.caption


def test_captions_keep_the_digits_of_the_confidence() -> None:
    for each in drawn(simulate(blocks=TWO, options=Options(confidence=0.999)), "forest", "ranks", "cost"):
        assert "99.9%" in each.caption, each.name
        assert "100%" not in each.caption, each.name


def test_a_mask_classification_model_shares_its_pooled_effects() -> None:
    study = simulate({"m2f": 0.0, "m2f + 0.3*focal": 1.0}, blocks=TWO)
    pooled = tuple(replace(each, loss=each.loss.replace("m2f", "ce")) for each in study.pooled(Measure()))
    study.pooled = lambda measure: pooled  # type: ignore[method-assign]
    forest, ranks = drawn(study, "forest", "ranks")
    assert any(text.startswith("pooled") for text in texts(forest))
    assert {row["loss"] for row in ranks.data} == {"ce", "ce + 0.3*focal"}


def test_a_baseline_in_other_words_has_its_rank() -> None:
    study = simulate(blocks=TWO)
    study.options = Options(baseline=" ce ")
    (made,) = drawn(study, "ranks")
    assert "ce" in {row["loss"] for row in made.data}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_field_of_a_csv_is_a_formula(start: str) -> None:
    name = f"{start}1+1"
    (made,) = drawn(simulate(classes=(name, "road"), conditions=(name, "night")), "classes")
    found = {row["class"] for row in csv.DictReader(StringIO(made.csv, newline=""))}
    assert f"'{name}".replace("\r", "\n") in found
    assert "road" in found
    assert any(row["delta"].startswith("-") for row in rows(made)), "a number is left alone"


def test_a_figure_is_drawn_when_it_is_needed_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[str] = []
    real = effects_map._figure
    monkeypatch.setattr(effects_map, "_figure", lambda *given: times.append("drawn") or real(*given))
    (made,) = drawn(simulate(), "classes")
    assert times == []
    assert made.svg == made.svg
    assert times == ["drawn"]
    assert made.figure is not made.figure


def test_a_forest_does_not_round_a_verdict_away() -> None:
    study = simulate({"ce": 0.0, "a": 0.012}, run_sd=0.0008, image_sd=0.0008, options=Options(smallest_effect=0.003))
    (effect,) = study.compare(study.blocks[0], Measure()).effects
    assert effect.verdict is Verdict.BETTER
    (made,) = drawn(study, "forest")
    (numbers,) = [text for text in texts(made) if text.startswith("+0.0")]
    low = float(numbers.partition("[")[2].partition(",")[0])
    assert low > 0
    assert low == pytest.approx(effect.low, abs=6e-4)
    assert numbers in made.alt
