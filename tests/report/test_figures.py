"""What each figure shows: its data are what the study says, its words say what is not there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Patch, PathPatch, Rectangle
from scipy import stats

from prove.report.figures import FIGURES, pictures
from prove.report.figures.cost import Spot, frontier
from prove.report.figures.curves import MOST_POINTS, aligned, band, smooth, thin
from prove.report.figures.picture import Picture, Undrawn
from prove.report.figures.style import WASH
from prove.report.study import BlockKey, Measure, Options
from prove.stats.effects import Verdict
from tests.report.studies import EFFECTS, SimulatedStudy, simulate

THREE = (("A", "m1"), ("B", "m2"), ("CamVid", "segformer_mit-b0"))


def picture(study: SimulatedStudy, name: str, measure: Measure | None = None) -> Picture:
    made = pictures(study, which=[name], measure=measure)[0]
    assert isinstance(made, Picture), made
    return made


def reason(study: SimulatedStudy, name: str) -> str:
    made = pictures(study, which=[name])[0]
    assert isinstance(made, Undrawn)
    return made.reason


def all_failed() -> SimulatedStudy:
    return simulate(outcomes={(0, loss, seed): "failed diverged" for loss in EFFECTS for seed in range(3)})


# forest


def test_forest_data_are_the_studys_effects() -> None:
    study = simulate(blocks=THREE)
    data = picture(study, "forest").data
    blocks = [row for row in data if row["kind"] == "block"]
    expected = [(block, each) for block in study.blocks for each in study.compare(block, Measure()).effects]
    assert len(blocks) == len(expected) == 9
    for row, (block, effect) in zip(blocks, expected, strict=True):
        assert (row["dataset"], row["model"], row["loss"]) == (block.key.dataset, block.key.model, effect.loss)
        assert (row["delta"], row["low"], row["high"]) == (effect.delta, effect.low, effect.high)
        assert (row["p_adjusted"], row["verdict"]) == (effect.p_adjusted, str(effect.verdict))
    pooled = [row for row in data if row["kind"] == "pooled"]
    assert [(row["loss"], row["delta"], row["low"]) for row in pooled] == [
        (each.loss, each.delta, each.low) for each in study.pooled(Measure())
    ]


def test_forest_shades_the_smallest_effect() -> None:
    study = simulate(options=Options(smallest_effect=0.7))
    figure = picture(study, "forest").figure
    spans = [each for each in figure.axes[0].patches if isinstance(each, Rectangle) and each.get_facecolor()[3] < 1]
    assert len(spans) == 1
    assert (spans[0].get_x(), spans[0].get_x() + spans[0].get_width()) == pytest.approx((-0.7, 0.7))
    assert "0.7 points" in picture(study, "forest").caption


def test_forest_fills_what_is_decided() -> None:
    study = simulate({"ce": 0.0, "a": 5.0, "b": 0.0}, run_sd=0.4)
    verdicts = {effect.loss: effect.verdict for effect in study.compare(study.blocks[0], Measure()).effects}
    assert verdicts == {"a": Verdict.BETTER, "b": Verdict.INCONCLUSIVE}
    axes = picture(study, "forest").figure.axes[0]
    points = [line for line in axes.lines if line.get_marker() in ("s", "^")]
    assert [line.get_markerfacecolor() == line.get_markeredgecolor() for line in points] == [True, False]


@pytest.mark.parametrize(("metric", "better"), [("mIoU", "right"), ("ECE", "left")])
def test_forest_says_on_which_side_better_is(metric: str, better: str) -> None:
    figure = picture(simulate(), "forest", Measure(metric)).figure
    x = {
        text.get_text().strip("←→ "): text.get_position()[0]
        for text in figure.texts
        if set("←→") & set(text.get_text())
    }
    assert ("right" if x["better"] > x["worse"] else "left") == better


def test_forest_of_one_seed_gives_no_verdict() -> None:
    made = picture(simulate(seeds=1), "forest")
    assert "about these checkpoints only" in made.caption
    assert {row["verdict"] for row in made.data} == {"no verdict"}
    assert all(text.get_text() not in ("better", "worse") for text in made.figure.texts)


def test_forest_keeps_a_loss_without_a_pair() -> None:
    study = simulate(outcomes={(0, "ce + 0.3*focal", seed): "failed diverged" for seed in range(3)})
    made = picture(study, "forest")
    assert any(text.get_text() == "no pair of seeds" for text in made.figure.texts)
    focal = next(row for row in made.data if row["loss"] == "ce + 0.3*focal")
    assert math.isnan(float(str(focal["delta"])))
    assert ",," in next(line for line in made.csv.splitlines() if "focal" in line)


def test_forest_of_many_blocks_says_what_it_leaves_out() -> None:
    made = picture(simulate(blocks=[("D", f"m{i}") for i in range(30)], seeds=2), "forest")
    assert "of the 30 blocks are not drawn" in made.caption
    assert sum(row["kind"] == "block" for row in made.data) == 90


# maps


def test_class_map_data_and_colours() -> None:
    study = simulate({"ce": 0.0, "a": 0.0, "b": 0.0}, class_effects={"pole": {"a": 9.0}, "rider": {"b": -9.0}})
    made = picture(study, "classes")
    block, p, rows = study.blocks[0], [], []
    for name in study.classes:
        for effect in study.compare(block, Measure("IoU", "class", name)).effects:
            rows.append((name, effect.loss, effect.delta))
            p.append(effect.p)
    found = {(row["class"], row["loss"]): row for row in made.data}
    q = stats.false_discovery_control(p)
    for (name, loss, delta), expected in zip(rows, q, strict=True):
        assert found[name, loss]["delta"] == delta
        assert found[name, loss]["q"] == pytest.approx(expected, abs=1e-12)
    axes = made.figure.axes[0]
    colored_cells = [each for each in axes.patches if isinstance(each, Rectangle)]
    assert len(colored_cells) + grey_cells(axes) == len(rows)
    assert len(colored_cells) == int((q < 0.05).sum()) >= 2
    place = {(int(each.get_y()), int(each.get_x() + 0.1)): _hex(each) for each in colored_cells}
    red, _, blue = _rgb(place[2, 0])  # pole, a
    assert blue > red, "better is blue"
    red, _, blue = _rgb(place[3, 1])  # rider, b
    assert red > blue, "worse is not"


def grey_cells(axes: Axes) -> int:
    (grey,) = [each for each in axes.patches if isinstance(each, PathPatch)]
    assert _hex(grey) == WASH
    return len(grey.get_path().to_polygons())


def _hex(patch: Patch) -> str:
    return "#" + "".join(f"{round(255 * each):02x}" for each in patch.get_facecolor()[:3])


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def test_class_map_sorts_by_support_and_says_how_much() -> None:
    study = simulate()
    made = picture(study, "classes")
    support = study.support(study.blocks[0])
    order = list(dict.fromkeys(row["class"] for row in made.data))
    assert order == sorted(support, key=lambda name: -support[name])
    percent = {row["class"]: row["pixels_percent"] for row in made.data}
    assert sum(float(str(each)) for each in percent.values()) == pytest.approx(100)


def test_map_of_one_seed_is_grey() -> None:
    made = picture(simulate(seeds=1), "conditions")
    assert made.caption.count("All grey") == 1
    axes = made.figure.axes[0]
    assert not [each for each in axes.patches if isinstance(each, Rectangle)]
    assert grey_cells(axes) == len(made.data) == 9
    assert all(math.isnan(float(str(row["q"]))) for row in made.data)


def test_map_of_calibration_turns_its_colours() -> None:
    study = simulate({"ce": 0.0, "a": 9.0}, conditions=("night", "fog"))  # ECE: minus half of it
    cells = picture(study, "conditions", Measure("ECE")).figure.axes[0].patches
    better = [each for each in cells if isinstance(each, Rectangle)]
    assert better
    assert all(_rgb(_hex(each))[2] > _rgb(_hex(each))[0] for each in better)


def test_map_of_very_many_classes_says_so() -> None:
    made = picture(simulate(classes=[f"class {i}" for i in range(90)], seeds=2), "classes")
    assert "56 largest of 90 classes" in made.caption
    assert len({row["class"] for row in made.data}) == 90


# curves


def test_curves_data_are_what_was_recorded() -> None:
    study = simulate(seeds=2)
    data = picture(study, "curves").data
    for (loss, seed), run in study.blocks[0].runs.items():
        own = [row for row in data if (row["loss"], row["seed"]) == (loss, seed)]
        validated = [(row["iteration"], row["value"]) for row in own if row["curve"] == "mIoU"]
        assert validated == [(at, payload["metrics"]["mIoU"]) for at, payload in study.curve(run, "val")]


def test_curves_of_a_class_or_condition() -> None:
    made = picture(simulate(), "curves", Measure("IoU", "class", "pole"))
    assert {row["curve"] for row in made.data} == {"IoU of pole", "training loss, smoothed"}


def test_up_to_five_seeds_are_lines_and_more_a_band() -> None:
    few, many = (picture(simulate(seeds=seeds), "curves").figure.axes[0] for seeds in (5, 6))
    assert (len(few.lines), len(few.collections)) == (20, 0)
    assert (len(many.lines), len(many.collections)) == (4, 4)


def test_band_is_the_t_interval() -> None:
    values = [[1.0, 5.0], [2.0, 5.5], [4.0, 9.0], [4.5, 2.0]]
    at, mean, low, high = band([((10.0, a), (20.0, b)) for a, b in values], 0.9)
    assert at.tolist() == [10, 20]
    for column in (0, 1):
        own = [each[column] for each in values]
        expected = stats.t.interval(0.9, 3, np.mean(own), stats.sem(own))
        assert (mean[column], low[column], high[column]) == pytest.approx((np.mean(own), *expected))


def test_curves_reported_at_other_iterations_are_interpolated() -> None:
    lines = [tuple((float(at), 3.0 * at + 1) for at in range(first, 100, 7)) for first in (1, 2, 3)]
    made = aligned(lines)
    assert len({tuple(at for at, _ in points) for points in made}) == 1
    assert all(value == pytest.approx(3 * at + 1) for points in made for at, value in points)
    same = [((1.0, 2.0), (2.0, 3.0)), ((1.0, 4.0), (2.0, 5.0))]
    assert aligned(same) == same


def test_smoothing_keeps_lines_and_calms_noise() -> None:
    line = tuple((float(at), 2.0 * at) for at in range(0, 1001, 2))
    assert [value for _, value in smooth(line)][30:-30] == pytest.approx([value for _, value in line][30:-30])
    noise = np.random.default_rng(0).normal(0, 1, 1000)
    calmed = [value for _, value in smooth(tuple(enumerate(noise.tolist())))]
    assert np.std(calmed) == pytest.approx(1 / math.sqrt(51), rel=0.3)  # 25 on each side
    assert len(thin(line)) == MOST_POINTS
    assert (thin(line)[0], thin(line)[-1]) == (line[0], line[-1])


# ranks


def test_ranks_below_ten_blocks_are_the_pooled_intervals() -> None:
    study = simulate(blocks=THREE)
    data = {row["loss"]: row for row in picture(study, "ranks").data}
    for each in study.pooled(Measure()):
        row = data[each.loss]
        assert (row["mean_rank"], row["low"], row["high"]) == (each.mean_rank, each.rank_low, each.rank_high)
    assert sum(float(str(row["mean_rank"])) for row in data.values()) == pytest.approx(1 + 2 + 3 + 4)


def test_ranks_from_ten_blocks_have_the_critical_difference() -> None:
    study = simulate(blocks=[("D", f"m{i}") for i in range(12)], tau=0.5)
    made = picture(study, "ranks")
    expected = 2.569 * math.sqrt(4 * 5 / (6 * 12))  # q of 4 methods at .05: Demšar 2006, table 5(a)
    assert made.data[0]["critical_difference"] == pytest.approx(expected, rel=1e-3)
    means = {
        loss: [arm.mean for block in study.blocks for arm in study.compare(block, Measure()).arms if arm.loss == loss]
        for loss in EFFECTS
    }
    ranks = stats.rankdata(-np.array(list(means.values())), axis=0).mean(axis=1)
    assert {row["loss"]: row["mean_rank"] for row in made.data} == pytest.approx(dict(zip(means, ranks, strict=True)))
    assert "Nemenyi" in made.caption


# cost


def test_frontier_holds_what_nothing_beats() -> None:
    key = BlockKey("D", "m", "baseline")
    rng = np.random.default_rng(3)
    spots = [Spot(key, str(i), float(h), float(v), None, None, 3) for i, (h, v) in enumerate(rng.random((60, 2)))]
    for higher in (True, False):
        best = {spot.loss for spot in frontier(spots, higher) if spot.best}
        beats = {
            a.loss
            for a in spots
            for b in spots
            if b.hours <= a.hours and (b.value > a.value if higher else b.value < a.value)
        }
        assert best == {spot.loss for spot in spots} - beats


def test_cost_data_are_the_means_of_the_study() -> None:
    study = simulate()
    made = picture(study, "cost")
    values, block = study.values(study.blocks[0], Measure()), study.blocks[0]
    for row in made.data:
        at = block.losses.index(str(row["loss"]))
        hours = [study.hours(block.runs[str(row["loss"]), seed])[0] for seed in block.seeds]
        assert (row["value"], row["hours"]) == pytest.approx((values[at].mean(), np.mean(hours)))
        assert row["device"] == "GPU"


def test_cost_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedStudy, "hours", lambda self, run: (0.0, 2.0 + run.seed))
    made = picture(simulate(), "cost")
    assert "on a CPU" in made.caption
    assert made.figure.axes[0].get_xlabel() == "CPU hours per run"
    assert {row["hours"] for row in made.data} == {3.0}


def test_cost_without_times_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedStudy, "hours", lambda self, run: (0.0, 0.0))
    assert "time of training" in reason(simulate(), "cost")


# shares


class Recorded(SimulatedStudy):
    """A study whose terms are known: focal is 0.25 of the loss in the decode head, and then 0.5."""

    def curve(self, run: Any, split: str) -> tuple[tuple[int, Mapping[str, Any]], ...]:
        if split == "grads":
            heads = {"decode_head": {"ce": {"gradient_share": 0.9, "cosine": None},
                                     "focal": {"gradient_share": 0.1, "cosine": -0.5}}}  # fmt: skip
            return ((0, {"heads": heads}),)
        if split == "val" or "focal" not in run.loss:
            return ()
        terms = [{"decode.loss_ce": 3.0, "decode.loss_focal": 1.0, "aux.loss_ce": 9.0, "aux.loss_focal": 50.0},
                 {"decode.d1.loss_cls": 1.0, "decode.loss_mask": 1.0, "decode.loss_semantic_focal": 2.0}]  # fmt: skip
        return tuple((10 * at, {"loss": 1.0, "terms": each, "weights": {"ce": 1.0, "focal": 0.3}}) for at, each in
                     enumerate(terms, 1))  # fmt: skip


def recorded(**other: Any) -> Recorded:
    study = simulate({"ce": 0.0, "ce + 0.3*focal": 1.0})
    return Recorded(**{name: getattr(study, name) for name in study.__dataclass_fields__} | other)


def test_loss_shares_are_of_weighted_values_in_the_decode_head() -> None:
    data = picture(recorded(), "shares").data
    found: dict[object, list[object]] = {row["quantity"]: [] for row in data}
    for row in data:
        assert (row["loss"], row["term"], row["source"]) == ("ce + 0.3*focal", "focal", "training")
        found[row["quantity"]].append((row["iteration"], round(float(str(row["value"])), 12)))
    assert found == {"loss_share": [(10, 0.25), (20, 0.5)], "gradient_share": [(0, 0.1)], "cosine": [(0, -0.5)]}


def test_shares_fall_back_to_the_wiring_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedStudy, "curve", lambda self, run, split: ())
    made = picture(simulate(), "shares")
    assert {(row["source"], row["iteration"], row["value"]) for row in made.data} == {("wiring proof", 0, 0.5)}
    assert "Hollow symbols were measured once" in made.caption


def test_shares_need_a_second_term() -> None:
    assert "second term" in reason(simulate({"ce": 0.0, "dice": 1.0}), "shares")


# what can't be drawn


@pytest.mark.parametrize("name", FIGURES)
def test_without_a_finished_run_there_is_a_reason(name: str) -> None:
    said = reason(all_failed(), name)
    assert said.endswith(".")
    assert "\n" not in said


def test_without_any_block_there_is_a_reason_for_each() -> None:
    empty = simulate(blocks=())
    assert all(isinstance(each, Undrawn) for each in pictures(empty))


def test_one_block_has_no_ranks_and_one_loss_no_forest() -> None:
    assert "there is one" in reason(simulate(), "ranks")
    assert reason(simulate({"ce": 0.0}), "forest") == "No loss stands beside the baseline in any block."


def test_a_block_without_a_baseline_is_named() -> None:
    study = simulate(blocks=THREE, outcomes={(1, "ce", seed): "failed timeout" for seed in range(3)})
    assert "not compared: B, m2." in picture(study, "forest").caption


def test_a_metric_that_is_nan_everywhere_is_not_drawn() -> None:
    study = simulate()
    study.law = replace(study.law, effects=dict.fromkeys(study.law.effects, math.nan))
    for name in ("forest", "classes", "conditions", "cost"):
        assert reason(study, name)
