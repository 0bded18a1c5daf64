"""What a finding rests on: blocks that don't count, runs that stand still, are not comparable or have no number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats

from prove.report.hypotheses import findings
from prove.report.hypothesis_finding import Finding, Outcome
from prove.report.study import Measure, Options, Trained
from prove.spec.hypothesis import BUILT_IN
from tests.report.hypothesis_studies import FOCAL, TWO, HypothesisStudy, hypothesis, only, study

LOVASZ, DICE = "ce + 0.3*lovasz", "ce + 0.3*dice"
OSCILLATES = next(each for each in BUILT_IN if each.name == "lovasz_oscillates")
TWO_PLACES = (("A", "m1"), ("B", "m1"))


def said(finding: Finding, *words: str) -> list[str]:
    """The notes with all these words."""
    return [note for note in finding.notes if all(word in note for word in words)]


def ordinary_least_squares(values: np.ndarray) -> Any:
    """The fit of value = loss + seed; ``params[i]`` is loss i against the first."""
    import statsmodels.api as sm

    there = np.isfinite(values)
    loss, seed = np.nonzero(there)
    columns = [np.ones(len(loss)), *((loss == i) * 1.0 for i in range(1, len(values)))]
    columns += [(seed == j) * 1.0 for j in range(1, values.shape[1])]
    return sm.OLS(values[there], np.column_stack(columns)).fit()


# blocks


@pytest.mark.parametrize(("own", "words"), [(-30.0, "points the other way"), (30.0, "is not counted: One paired")])
def test_a_block_that_does_not_count_is_told(own: float, words: str) -> None:
    gone = {(1, loss, seed): "absent" for loss in TWO for seed in (1, 2, 3)}
    made = study({"ce": 0.0, FOCAL: 2.0}, blocks=TWO_PLACES, seeds=4, outcomes=gone)
    plain = made.values
    shift = np.array([[0.0], [own]])
    made.values = lambda block, measure: plain(block, measure) + shift * (block.key.dataset == "B")  # type: ignore[method-assign]
    finding = only(findings(made, [hypothesis()]))
    assert finding.outcome is Outcome.SUPPORTED
    assert (finding.blocks, finding.seeds, finding.tau) == (1, 4, None)
    assert [each.counts for each in finding.by_block] == [True, False]
    (note,) = said(finding, "is not counted")
    assert note.startswith("B, m1")
    assert words in note
    assert "One paired seed" in note


def test_a_block_without_the_control_is_told_and_does_not_count() -> None:
    gone = {(1, "ce", seed): "failed diverged" for seed in range(4)}
    made = study({"ce": 0.0, FOCAL: 2.0}, blocks=TWO_PLACES, seeds=4, outcomes=gone)
    finding = only(findings(made, [hypothesis()]))
    assert (finding.blocks, finding.seeds) == (1, 4)
    assert said(finding, "B, m1 is not counted: No run of ce can be compared")


def test_images_without_noise_do_not_take_a_block_out_of_its_own_test() -> None:
    """A block whose only noise is that of copies has nothing to pool; the other one is tested as if it were alone."""
    gone = {(1, loss, seed): "absent" for loss in TWO for seed in (1, 2, 3)}
    made = study({"ce": 0.0, FOCAL: 2.0}, blocks=TWO_PLACES, seeds=4, outcomes=gone)
    made.replicates = lambda block, measure: np.repeat(made.values(block, measure)[..., None], 50, axis=-1)  # type: ignore[method-assign]
    alone = study({"ce": 0.0, FOCAL: 2.0}, blocks=TWO_PLACES[:1], seeds=4)
    finding, expected = (only(findings(each, [hypothesis()])) for each in (made, alone))
    assert (finding.effect, finding.blocks) == (expected.effect, 1)
    assert finding.p == pytest.approx(expected.p, rel=1e-6)


# missing runs


def test_where_runs_are_missing_the_effect_is_that_of_the_additive_model() -> None:
    gone = {(0, FOCAL, 0): "failed diverged"}
    made = study({"ce": 0.0, FOCAL: 1.0, DICE: 0.5}, seeds=4, outcomes=gone, rng=5)
    finding = only(findings(made, [hypothesis()]))
    values = made.values(made.blocks[0], Measure())
    fit = ordinary_least_squares(values)
    assert finding.effect == pytest.approx(fit.params[1], abs=1e-9)
    assert finding.effect != pytest.approx(np.nanmean(values[1] - values[0]), abs=1e-3)
    assert finding.by_block[0].estimated
    whole = only(findings(study({"ce": 0.0, FOCAL: 1.0, DICE: 0.5}, seeds=4, rng=5), [hypothesis()]))
    assert not whole.by_block[0].estimated


def test_the_interval_of_one_paired_seed_is_of_that_comparison_alone() -> None:
    """The noise is that of the block's other losses; Dunnett's interval over all of them would be wider."""
    gone = {(0, FOCAL, seed): "absent" for seed in (1, 2, 3)}
    made = study({"ce": 0.0, FOCAL: 1.0, DICE: 0.5, LOVASZ: 0.5}, seeds=4, outcomes=gone, rng=5)
    finding = only(findings(made, [hypothesis()]))
    low, high = ordinary_least_squares(made.values(made.blocks[0], Measure())).conf_int()[1]
    assert (finding.low, finding.high) == pytest.approx((low, high), abs=1e-8)
    assert (finding.p, finding.seeds, finding.outcome) == (None, 1, Outcome.OPEN)


def test_runs_without_a_number_are_told_by_key() -> None:
    undefined = [("bF1", (0, FOCAL, 1)), ("bF1", (0, FOCAL, 2))]
    made = study({"ce": 0.0, FOCAL: 2.0}, seeds=5, undefined=undefined)
    finding = only(findings(made, [hypothesis(measure="bF1")]))
    keys = [made.blocks[0].runs[FOCAL, seed].key for seed in (1, 2)]
    assert finding.seeds == 3
    assert said(finding, "2 of 5 runs", "have no bF1", *keys)
    assert not said(only(findings(made, [hypothesis()])), "have no")


# runs that stand still


def flat(made: HypothesisStudy, loss: str, seeds: tuple[int, ...], wobble: float = 0.0) -> list[str]:
    """Make the validation mIoU of some runs a constant, which floating point does not fit exactly; their keys."""
    keys = [made.blocks[0].runs[loss, seed].key for seed in seeds]
    plain: Callable[[Trained, str], tuple[tuple[int, Mapping[str, Any]], ...]] = made.curve

    def curve(run: Trained, split: str) -> tuple[tuple[int, Mapping[str, Any]], ...]:
        points = plain(run, split)
        if run.key not in keys:
            return points
        return tuple((step, {"metrics": {"mIoU": 37.3 + wobble * (n % 2)}}) for n, (step, _) in enumerate(points))

    made.curve = curve  # type: ignore[method-assign]
    return keys


@pytest.mark.parametrize("wobble", [0.0, 1e-4])
@pytest.mark.parametrize("loss", ["ce", LOVASZ])
def test_runs_that_stand_still_allow_no_outcome(loss: str, wobble: float) -> None:
    made = study({"ce": 0.0, LOVASZ: 0.0}, seeds=6, more={"jumps": {"ce": 0.1, LOVASZ: 1.0}, "validations": 40})
    moving = only(findings(made, [OSCILLATES]))
    assert (moving.outcome, moving.seeds) == (Outcome.SUPPORTED, 6)
    keys = flat(made, loss, (1, 4), wobble)
    finding = only(findings(made, [OSCILLATES]))
    assert (finding.outcome, finding.seeds) == (Outcome.OPEN, 4)
    assert finding.p is not None
    assert finding.low is not None
    assert finding.low > 0  # what moves still says what it said
    assert "stand still" in finding.why
    assert "do not learn" in finding.settle
    assert said(finding, "0.001 points", "2 runs", *keys)


def test_runs_of_another_loss_that_stand_still_do_not_matter() -> None:
    jumps = {"ce": 0.1, LOVASZ: 1.0, DICE: 0.1}
    made = study({"ce": 0.0, LOVASZ: 0.0, DICE: 0.0}, seeds=6, more={"jumps": jumps, "validations": 40})
    flat(made, DICE, (1, 4))
    finding = only(findings(made, [OSCILLATES]))
    assert (finding.outcome, finding.seeds) == (Outcome.SUPPORTED, 6)
    assert not said(finding, "stands still")


def test_a_block_that_does_not_count_since_its_runs_stand_still_allows_no_outcome() -> None:
    more = {"jumps": {"ce": 0.1, LOVASZ: 1.0}, "validations": 40}
    made = study({"ce": 0.0, LOVASZ: 0.0}, blocks=TWO_PLACES, seeds=4, more=more)
    keys = flat(made, LOVASZ, (1, 2, 3))
    finding = only(findings(made, [OSCILLATES]))
    assert (finding.blocks, finding.outcome) == (1, Outcome.OPEN)
    assert finding.p is not None
    assert said(finding, *keys)


def test_all_runs_stand_still() -> None:
    made = study({"ce": 0.0, LOVASZ: 0.0}, more={"validations": 40})
    keys = flat(made, LOVASZ, (0, 1, 2))
    finding = only(findings(made, [OSCILLATES]))
    assert (finding.outcome, finding.p, finding.seeds) == (Outcome.OPEN, None, 0)
    assert "do not learn" in finding.settle
    assert said(finding, "3 runs", *keys)


# runs that are not comparable

MIXED = Options(allow_mixed=True)


@pytest.mark.parametrize("effect", [3.0, -3.0])
@pytest.mark.parametrize("loss", ["ce", FOCAL, DICE])
def test_runs_that_are_not_comparable_allow_no_outcome(loss: str, effect: float) -> None:
    """Of any loss: the noise is judged from all runs of the block."""
    effects = {"ce": 0.0, FOCAL: effect, DICE: 0.0}
    plain = only(findings(study(effects, seeds=5), [hypothesis()]))
    assert plain.outcome is (Outcome.SUPPORTED if effect > 0 else Outcome.NOT_SUPPORTED)
    outcomes = {(0, loss, seed): "mixed: another learning rate (0.05, not 0.01)" for seed in (1, 3)}
    finding = only(findings(study(effects, seeds=5, outcomes=outcomes, options=MIXED), [hypothesis()]))
    assert (finding.effect, finding.p) == (plain.effect, plain.p)
    assert (finding.outcome, finding.mixed) == (Outcome.OPEN, 2)
    assert "not comparable" in finding.why
    assert "--allow-mixed" in finding.settle
    (note,) = said(finding, "--allow-mixed")
    assert note == "2 of the 15 runs in SynthStreet, segformer_mit-b0 are not comparable (--allow-mixed): " + (
        "another learning rate (0.05, not 0.01)."
    )


def test_one_block_that_is_mixed_is_enough_and_one_that_does_not_count_is_not() -> None:
    mixed = {(1, FOCAL, 0): "mixed: other code"}
    effects = {"ce": 0.0, FOCAL: 3.0}
    finding = only(
        findings(study(effects, blocks=TWO_PLACES, seeds=6, outcomes=mixed, options=MIXED, rng=1), [hypothesis()])
    )
    assert (finding.blocks, finding.mixed, finding.outcome) == (2, 1, Outcome.OPEN)
    assert "not comparable" in finding.why
    gone = {(1, loss, seed): "absent" for loss in effects for seed in range(1, 6)}
    made = study(effects, blocks=TWO_PLACES, seeds=6, outcomes={**mixed, **gone}, options=MIXED, rng=1)
    finding = only(findings(made, [hypothesis()]))
    assert (finding.blocks, finding.mixed, finding.outcome) == (1, 0, Outcome.SUPPORTED)
    assert said(finding, "1 of the 2 runs in B, m1 is not comparable")


def test_a_mixed_run_without_a_number_is_not_used() -> None:
    mixed = {(0, FOCAL, 0): "mixed: other code"}
    made = study({"ce": 0.0, FOCAL: 3.0}, seeds=6, outcomes=mixed, options=MIXED, undefined=[("bF1", (0, FOCAL, 0))])
    finding = only(findings(made, [hypothesis(measure="bF1")]))
    assert (finding.seeds, finding.mixed, finding.outcome) == (5, 0, Outcome.SUPPORTED)


def test_blocks_of_one_dataset_without_counts_say_that_the_interval_holds_for_their_images() -> None:
    effects = {"ce": 0.0, FOCAL: 3.0}
    same, other = (
        only(findings(study(effects, blocks=places, seeds=4), [hypothesis()]))
        for places in ((("A", "m1"), ("A", "m2")), TWO_PLACES)
    )
    assert said(same, "these images only")
    assert not said(other, "these images only")


@pytest.mark.parametrize("measure", ["mIoU", "rare_IoU"])
def test_what_blocks_of_the_same_images_have_in_common_is_in_the_interval(measure: str) -> None:
    """However many blocks agree, the variance of a mean over them is at least that of the images they share."""
    places = tuple(("A", f"m{n}") for n in range(6))
    brought = np.random.default_rng(0).normal(0, 1.0, (2, 1, 400))
    half_widths = {}
    for digest in (None, "same images"):
        made = study({"ce": 0.0, FOCAL: 3.0}, blocks=places, seeds=4, run_sd=0.1, more={"digest": digest})
        made.replicates = lambda block, of, made=made: made.values(block, of)[..., None] + brought  # type: ignore[method-assign,misc]
        finding = only(findings(made, [hypothesis(measure=measure)]))
        assert finding.low is not None
        assert finding.high is not None
        half_widths[digest] = (finding.high - finding.low) / 2
        assert bool(said(finding, "these images only")) is (digest is None)
    shared = np.std(brought[1, 0] - brought[0, 0], ddof=1)
    t = stats.t.ppf(0.975, len(places) - 1)
    assert half_widths[None] < t * shared * 0.99
    assert half_widths["same images"] > t * shared * 0.99
