"""Findings against known truths: tests of the same thing by scipy and statsmodels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from prove.errors import ProveError
from prove.report.hypotheses import findings
from prove.report.hypothesis_finding import Finding, Outcome, judge
from prove.report.hypothesis_measures import oscillation
from prove.report.study import Measure, Trained
from prove.spec.hypothesis import BUILT_IN
from tests.report.hypothesis_studies import FOCAL, TWO, HypothesisStudy, hypothesis, only, study

BY_NAME = {each.name: each for each in BUILT_IN}


# the rule


@pytest.mark.parametrize(
    ("low", "high", "p_adjusted", "outcome"),
    [
        (0.1, 0.9, 0.01, "supported"),
        (0.1, 0.9, 0.06, "can't tell yet"),
        (0.4, 0.9, 0.01, "supported"),
        (0.1, 0.2, 0.01, "not supported"),  # there, but too small to matter
        (-0.2, 0.2, 0.9, "not supported"),
        (-0.9, 0.29, 0.5, "not supported"),  # no room for 0.3
        (-0.9, 0.31, 0.5, "can't tell yet"),
        (-0.9, -0.1, 0.01, "not supported"),
        (-0.2, 0.9, 0.5, "can't tell yet"),
    ],
)
@pytest.mark.parametrize("direction", ["raises", "lowers"])
def test_the_rule(low: float, high: float, p_adjusted: float, outcome: str, direction: str) -> None:
    if direction == "lowers":
        low, high = -high, -low
    asked = hypothesis(direction=direction)
    finding = Finding(asked, FOCAL, "ce", Outcome.OPEN, (low + high) / 2, low, high, 0.01, p_adjusted, 0.3, None, 3, 1)
    assert judge(finding, 0.95).value == outcome
    assert judge(replace(finding, p=None), 0.95) is Outcome.OPEN


# agreement with scipy and statsmodels


@pytest.mark.parametrize("direction", ["raises", "lowers"])
def test_two_objectives_are_a_paired_t_test(direction: str) -> None:
    made = study({"ce": 0.0, FOCAL: 0.8}, seeds=5, rng=3)
    finding = only(findings(made, [hypothesis(direction=direction)]))
    control, treatment = made.values(made.blocks[0], Measure())
    expected = stats.ttest_rel(treatment, control)
    low, high = expected.confidence_interval(0.95)
    assert finding.effect == pytest.approx(np.mean(treatment - control), abs=1e-9)
    assert finding.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert finding.p_adjusted == pytest.approx(expected.pvalue, rel=1e-9)
    assert (finding.low, finding.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    assert (finding.treatment, finding.control, finding.seeds, finding.blocks) == (FOCAL, "ce", 5, 1)
    assert finding.tau is None
    assert set(finding.runs) == {run.key for run in made.runs}


def test_p_is_adjusted_over_all_findings() -> None:
    effects = {"ce": 0.0, FOCAL: 0.9, "ce + 0.1*focal": 0.5, "ce + 0.3*lovasz": -0.4, "ce + 0.3*boundary": 0.2}
    found = findings(study(effects, seeds=4, rng=1), BUILT_IN)
    tested = [each for each in found if each.p is not None]
    assert len(tested) == 2 + 1 + 1 + 2  # focal twice, Lovász' mIoU and oscillation, boundary F1 and IoU
    _, expected, _, _ = multipletests([each.p for each in tested], method="holm")
    assert [each.p_adjusted for each in tested] == [pytest.approx(p, rel=1e-9) for p in expected]
    assert all(each.p_adjusted is None for each in found if each.p is None)


def test_the_residual_noise_is_that_of_the_whole_block() -> None:
    """Loss and seed as factors: the interval is that of ordinary least squares on all four objectives."""
    import statsmodels.api as sm

    effects = {"ce": 0.0, FOCAL: 0.9, "ce + 0.3*dice": 0.5, "ce + 0.3*lovasz": -0.4}
    made = study(effects, seeds=4, rng=8)
    finding = only(findings(made, [hypothesis("lovasz", control="ce")]))
    values = made.values(made.blocks[0], Measure())
    loss, seed = np.indices(values.shape)
    columns = [np.ones(values.size), *((loss.ravel() == i) * 1.0 for i in (1, 2, 3))]
    columns += [(seed.ravel() == j) * 1.0 for j in (1, 2, 3)]
    fit = sm.OLS(values.ravel(), np.column_stack(columns)).fit()
    assert finding.effect == pytest.approx(fit.params[3], abs=1e-9)
    assert finding.p == pytest.approx(fit.pvalues[3], rel=1e-7)
    assert (finding.low, finding.high) == pytest.approx(tuple(fit.conf_int()[3]), abs=1e-8)


def test_a_control_that_is_not_the_baseline() -> None:
    effects = {"ce": 0.0, "ce + 0.3*lovasz": 2.0, "ce + cosine(0.5->0.1)*lovasz": 2.5}
    made = study(effects, seeds=4, rng=2)
    finding = only(findings(made, [hypothesis("scheduled lovasz", control="constant lovasz")]))
    values = made.values(made.blocks[0], Measure())
    assert finding.control == "ce + 0.3*lovasz"
    assert finding.effect == pytest.approx(np.mean(values[2] - values[1]), abs=1e-9)


def test_images_count_where_their_counts_are_recorded() -> None:
    """The variance of what the images bring to a loss at every seed is added to that of the seeds."""
    made = study({"ce": 0.0, FOCAL: 0.5}, seeds=5, rng=3)
    bare = only(findings(made, [hypothesis()])).by_block[0]
    brought = np.random.default_rng(0).normal(0, 0.5, (2, 1, 400))
    made.replicates = lambda block, measure: made.values(block, measure)[..., None] + brought  # type: ignore[method-assign]
    with_images = only(findings(made, [hypothesis()])).by_block[0]
    variance = np.var(brought[1, 0] - brought[0, 0], ddof=1)
    assert bare.se is not None
    assert with_images.se == pytest.approx(math.sqrt(bare.se**2 + variance), rel=1e-6)
    assert with_images.effect == bare.effect


# measures


def test_rare_classes_are_those_with_the_fewest_pixels() -> None:
    law = {"rider": {"ce": 0.0, FOCAL: 6.0}, "pole": {"ce": 0.0, FOCAL: 3.0}}
    made = study(TWO, seeds=5, class_effects=law, classes=("road", "car", "sky", "tree", "pole", "rider"), image_sd=0.1)
    finding = only(findings(made, [BY_NAME["focal_rare"]]))
    values = [made.values(made.blocks[0], Measure("IoU", "class", name)) for name in ("pole", "rider")]
    assert finding.effect == pytest.approx(np.mean((values[0] + values[1])[1] - (values[0] + values[1])[0]) / 2)
    assert finding.outcome is Outcome.SUPPORTED
    assert finding.by_block[0].control_mean == pytest.approx(np.mean(values) - finding.effect / 2)
    assert any("rider, pole" in note and "in validation" in note for note in finding.notes)


def test_a_class_and_a_condition() -> None:
    made = study(
        TWO,
        seeds=5,
        class_effects={"rider": {"ce": 0.0, FOCAL: 4.0}},
        condition_effects={"night": {"ce": 0.0, FOCAL: -4.0}},
    )
    asked = [
        hypothesis(measure="IoU of rider"),
        replace(hypothesis(measure="mIoU in night"), name="y"),
        replace(hypothesis(measure="mIoU in night", direction="lowers"), name="z"),
    ]
    outcomes = [each.outcome for each in findings(made, asked)]
    assert outcomes == [Outcome.SUPPORTED, Outcome.NOT_SUPPORTED, Outcome.SUPPORTED]
    for wrong, near in (("IoU of ridr", "'rider'"), ("mIoU in nihgt", "'night'")):
        with pytest.raises(ProveError, match="in the hypothesis 'x'") as error:
            findings(made, [hypothesis(measure=wrong)])
        assert near in error.value.hint


def test_a_lower_calibration_error_supports_label_smoothing() -> None:
    smooth = "ce(label_smoothing=0.1)"
    made = study({"ce": 0.0, smooth: 0.0}, seeds=5, metric_effects={"ECE": {"ce": 0.0, smooth: -3.0}})
    finding = only(findings(made, [BY_NAME["smoothing_ece"]]))
    assert finding.outcome is Outcome.SUPPORTED
    assert finding.effect is not None
    assert finding.effect < 0


def test_oscillation_is_a_ratio_and_only_the_runs_of_its_blocks_are_read() -> None:
    effects = {"ce": 0.0, "ce + 0.3*lovasz": 0.0, "ce + cosine(0.5->0.1)*lovasz": 0.0}
    jumps = {"ce": 0.2, "ce + 0.3*lovasz": 1.0, "ce + cosine(0.5->0.1)*lovasz": 0.2}
    made = study(effects, seeds=5, more={"jumps": jumps, "validations": 40})
    oscillates, calms = findings(made, [BY_NAME["lovasz_oscillates"], BY_NAME["lovasz_schedule"]])
    assert (oscillates.outcome, calms.outcome) == (Outcome.SUPPORTED, Outcome.SUPPORTED)
    assert (oscillates.treatment, calms.control) == ("ce + 0.3*lovasz", "ce + 0.3*lovasz")
    logs = {
        loss: [math.log(oscillation(*(np.array(x, float) for x in _curve(made, loss, seed)))) for seed in range(5)]
        for loss in effects
    }
    ratio = np.mean(np.subtract(logs["ce + 0.3*lovasz"], logs["ce"]))
    assert oscillates.effect == pytest.approx(100 * ratio, abs=1e-9)
    assert oscillates.low is not None
    assert oscillates.low < 100 * math.log(5) < (oscillates.high or 0)
    assert oscillates.smallest_effect == pytest.approx(100 * math.log(1.25))
    none = study({"ce": 0.0, FOCAL: 0.0})
    findings(none, BUILT_IN)
    assert none.curves_read == []


def _curve(made: HypothesisStudy, loss: str, seed: int) -> tuple[list[int], list[float]]:
    points = made.curve(made.blocks[0].runs[loss, seed], "val")
    return [step for step, _ in points], [payload["metrics"]["mIoU"] for _, payload in points]


# what can't be told


def test_no_treatment_names_the_objective_to_add() -> None:
    found = findings(study(TWO), BUILT_IN)
    assert [each.hypothesis.name for each in found] == list(BY_NAME)
    by_name = {each.hypothesis.name: each for each in found}
    assert by_name["boundary_bf1"].treatment == ""
    assert "ce + 0.3*boundary" in by_name["boundary_bf1"].settle
    assert "ce(label_smoothing=0.1)" in by_name["smoothing_ece"].settle
    assert "ce + 0.3*lovasz and ce + cosine(0.5->0.1)*lovasz" in by_name["lovasz_schedule"].settle
    assert {each.outcome for name, each in by_name.items() if name != "focal_rare"} == {Outcome.OPEN}
    assert all(each.effect is None and each.p is None for name, each in by_name.items() if name != "focal_rare")


def test_a_missing_control_is_named() -> None:
    made = study({"ce": 0.0, "ce + cosine(0.5->0.1)*lovasz": 1.0})
    finding = only(findings(made, [BY_NAME["lovasz_schedule"]]))
    assert finding.outcome is Outcome.OPEN
    assert finding.effect is None
    assert "ce + 0.3*lovasz" in finding.settle


def test_one_seed_gives_no_outcome() -> None:
    for image_sd in (None, 0.1):
        finding = only(findings(study({"ce": 0.0, FOCAL: 30.0}, seeds=1, image_sd=image_sd), [hypothesis()]))
        assert finding.outcome is Outcome.OPEN
        assert finding.p is None
        assert finding.effect is not None
        assert finding.effect > 20
        assert "seed" in finding.settle


def test_failed_runs_are_told() -> None:
    failed = {(0, FOCAL, 1): "failed diverged"}
    finding = only(findings(study({"ce": 0.0, FOCAL: 9.0}, seeds=4, outcomes=failed), [hypothesis()]))
    assert finding.outcome is Outcome.SUPPORTED
    assert finding.seeds == 3
    assert any("1 of 4 runs" in note and "diverged" in note for note in finding.notes)
    every = {(0, FOCAL, seed): "failed out_of_memory" for seed in range(4)}
    finding = only(findings(study(TWO, seeds=4, outcomes=every), [hypothesis()]))
    assert finding.outcome is Outcome.OPEN
    assert finding.effect is None
    assert FOCAL in finding.settle
    assert any("out of memory" in note for note in finding.notes)


def test_a_block_without_its_baseline_still_tests_what_needs_none() -> None:
    effects = {"ce": 0.0, "ce + 0.3*lovasz": 0.0, "ce + cosine(0.5->0.1)*lovasz": 9.0, FOCAL: 3.0}
    gone = {(0, "ce", seed): "absent" for seed in range(4)}
    made = study(effects, seeds=4, outcomes=gone)
    assert made.blocks[0].baseline is None
    scheduled = replace(hypothesis("scheduled lovasz", control="constant lovasz"), name="y")
    focal, schedule = findings(made, [hypothesis(), scheduled])
    assert focal.outcome is Outcome.OPEN
    assert "ce" in focal.settle
    assert schedule.outcome is Outcome.SUPPORTED


def test_too_few_validations() -> None:
    made = study({"ce": 0.0, "ce + 0.3*lovasz": 0.0}, more={"validations": 3})
    finding = only(findings(made, [BY_NAME["lovasz_oscillates"]]))
    assert finding.outcome is Outcome.OPEN
    assert "eval_interval 66" in finding.settle  # a sixth of 400
    assert "4 validations" in finding.why


def test_a_metric_that_is_undefined() -> None:
    nan = {(0, FOCAL, seed): "nan" for seed in range(3)}
    finding = only(findings(study(TWO, outcomes=nan), [hypothesis()]))
    assert finding.outcome is Outcome.OPEN
    assert finding.settle


def test_objectives_that_are_no_treatment_are_told() -> None:
    effects = {"ce": 0.0, FOCAL: 0.0, "0.7*ce + 0.3*focal": 5.0}
    finding = only(findings(study(effects), [hypothesis()]))
    assert finding.treatment == FOCAL
    assert any("Not tested" in note and "0.7*ce + 0.3*focal" in note for note in finding.notes)


def test_what_would_settle_it_is_more_seeds() -> None:
    made = study({"ce": 0.0, FOCAL: 0.4}, seeds=3, run_sd=0.4, rng=2)
    finding = only(findings(made, [hypothesis()]))
    assert finding.outcome is Outcome.OPEN
    assert "seeds for each instead of 3" in finding.settle


def test_nothing_asked() -> None:
    assert findings(study(TWO), []) == ()


def test_a_loss_that_nobody_knows() -> None:
    with pytest.raises(ProveError, match="'focl'"):
        findings(study(TWO), [hypothesis("focl")])


# several treatments, several blocks

THREE = (("A", "m1"), ("A", "m2"), ("B", "m1"))


def test_every_treatment_is_a_finding() -> None:
    """The best weight is not picked."""
    effects = {"ce": 0.0, "ce + 0.1*focal": 0.0, FOCAL: 3.0, "ce + 0.5*focal": -3.0}
    found = findings(study(effects, seeds=5), [hypothesis()])
    assert [each.treatment for each in found] == list(effects)[1:]
    assert [each.outcome for each in found][1:] == [Outcome.SUPPORTED, Outcome.NOT_SUPPORTED]


def test_several_blocks_are_pooled_and_listed() -> None:
    made = study({"ce": 0.0, FOCAL: 2.0}, blocks=THREE, seeds=4, tau=0.2)
    finding = only(findings(made, [hypothesis()]))
    assert finding.blocks == 3
    assert finding.seeds == 12
    assert [each.block for each in finding.by_block] == ["A, m1", "A, m2", "B, m1"]
    (pooled,) = made.pooled(Measure())
    assert (finding.effect, finding.low, finding.high) == (pooled.delta, pooled.low, pooled.high)
    assert (finding.p, finding.tau) == (pooled.p, pooled.tau)
    assert finding.outcome is Outcome.SUPPORTED


def test_a_block_of_one_seed_is_listed_and_takes_no_part() -> None:
    gone = {(2, loss, seed): "absent" for loss in TWO for seed in (1, 2, 3)}
    made = study({"ce": 0.0, FOCAL: 2.0}, blocks=THREE, seeds=4, outcomes=gone)
    finding = only(findings(made, [hypothesis()]))
    assert (finding.blocks, len(finding.by_block), finding.seeds) == (2, 3, 8)
    assert finding.by_block[2].p is None
    assert finding.by_block[2].why


def test_two_blocks_that_agree_say_so() -> None:
    made = study({"ce": 0.0, FOCAL: 2.0}, blocks=THREE[:2], seeds=4, tau=0.6, rng=4)
    finding = only(findings(made, [hypothesis()]))
    assert finding.outcome is Outcome.OPEN
    assert "blocks (models, datasets) instead of 2" in finding.settle
    assert "Each of the 2 blocks shows it on its own." in finding.settle


def test_blocks_of_one_seed_are_pooled_by_their_images() -> None:
    made = study({"ce": 0.0, FOCAL: 4.0}, blocks=THREE, seeds=1, image_sd=0.3)
    finding = only(findings(made, [hypothesis()]))
    (pooled,) = made.pooled(Measure())
    assert (finding.effect, finding.p, finding.blocks, finding.seeds) == (pooled.delta, pooled.p, 3, 3)
    assert finding.p is not None
    bare = only(findings(study({"ce": 0.0, FOCAL: 4.0}, blocks=THREE, seeds=1), [hypothesis()]))
    assert (bare.p, bare.outcome, bare.blocks) == (None, Outcome.OPEN, 3)


def test_mask_classification_is_pooled_with_the_others() -> None:
    made = study({"ce": 0.0, FOCAL: 2.0}, blocks=THREE[:2], seeds=4)
    block = made.blocks[1]
    names = {"ce": "m2f", FOCAL: "m2f + 0.3*focal"}

    def renamed(run: Trained) -> Trained:
        return replace(run, loss=names[run.loss])

    masked = replace(
        block,
        losses=tuple(names.values()),
        baseline="m2f",
        runs={(names[loss], seed): renamed(run) for (loss, seed), run in block.runs.items()},
    )
    first = made.blocks[0]
    plain = made.values
    made.blocks = (first, masked)
    made.values = lambda each, measure: plain(block if each is masked else each, measure)  # type: ignore[method-assign]
    made.replicates = lambda each, measure: None  # type: ignore[method-assign]
    finding = only(findings(made, [hypothesis()]))
    assert (finding.treatment, finding.control, finding.blocks) == (FOCAL, "ce", 2)


def test_a_class_that_one_dataset_lacks() -> None:
    made = study({"ce": 0.0, FOCAL: 2.0}, blocks=(("A", "m1"), ("B", "m1")), seeds=4)
    plain = made.values
    made.values = lambda block, measure: plain(block, measure) * (np.nan if block.key.dataset == "B" else 1.0)  # type: ignore[method-assign]
    finding = only(findings(made, [hypothesis(measure="IoU of rider")]))
    assert finding.outcome is Outcome.SUPPORTED
    assert (finding.blocks, finding.tau) == (2 - 1, None)
    assert "No seed has a number for both" in finding.by_block[1].why


def test_hundreds_of_blocks_do_not_say_hundreds_of_sentences() -> None:
    failed = {(i, FOCAL, 0): "failed diverged" for i in range(30)}
    many = study(TWO, blocks=[("A", f"m{i}") for i in range(30)], seeds=1, outcomes=failed)
    finding = only(findings(many, [hypothesis()]))
    assert "26 more" in finding.why
    assert len(finding.notes) == 5
    assert len(finding.by_block) == 30
