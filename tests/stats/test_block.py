"""The comparison of a block against scipy's t tests, statsmodels' least squares and built images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from prove.stats.block import compare
from prove.stats.effects import BlockData, BlockResult, Effect, Verdict
from prove.stats.multiplicity import dunnett_p, dunnett_quantile, hsu_quantile
from prove.stats.verdict import verdict

Floats = NDArray[np.float64]
NAN = float("nan")


def block(values: Floats, replicates: Floats | None = None, **more: object) -> BlockData:
    losses, seeds = np.shape(values)
    names = ("ce", "focal", "lovasz", "dice", "tversky", "ohem")[:losses]
    return BlockData(names, "ce", tuple(range(seeds)), np.asarray(values, float), replicates, **more)  # type: ignore[arg-type]


def noisy(losses: int, seeds: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    values = 60 + rng.normal(size=(1, seeds)) + rng.normal(size=(losses, 1)) + 0.4 * rng.normal(size=(losses, seeds))
    return np.asarray(values)


def by_images(values: Floats, loss_sd: float, run_sd: float, images: int = 200, resamples: int = 4000) -> Floats:
    """Replicates of a metric that is a mean over images; what the images do to a loss, and to a run, has these SDs.

    The parts are orthogonal over the images, so that the variances are exact and not drawn.
    """
    rng = np.random.default_rng(9)
    losses, seeds = values.shape
    drawn = rng.normal(size=(images, 2 + losses + losses * seeds))
    drawn[:, 0] = 1
    parts = np.linalg.qr(drawn)[0].T[1:] * np.sqrt(images)
    pixels = 5 * parts[0] + loss_sd * parts[1 : 1 + losses, None]
    pixels = pixels + run_sd * parts[1 + losses :].reshape(losses, seeds, images)
    weights = rng.multinomial(images, np.full(images, 1 / images), size=resamples).T / images
    return np.asarray(values[..., None] + pixels @ weights)


def effect(result: BlockResult, loss: str) -> Effect:
    return next(each for each in result.effects if each.loss == loss)


def numbers(result: BlockResult) -> list[float]:
    """All numbers of the effects and arms, NaN for None."""
    rows = [
        (e.delta, e.low, e.high, e.p, e.p_adjusted, e.se, e.seed_se, e.image_se, e.df, e.seeds) for e in result.effects
    ] + [(a.mean, a.seed_sd, a.low, a.high, a.may_be_best, a.seeds) for a in result.arms]
    return [NAN if x is None else float(x) for row in rows for x in row]


class TestSeeds:
    def test_two_losses_are_the_paired_t_test(self) -> None:
        values = noisy(2, 5)
        found = effect(compare(block(values), smallest_effect=0.3), "focal")
        reference = stats.ttest_rel(values[1], values[0])
        low, high = reference.confidence_interval(0.95)
        assert found.delta == pytest.approx((values[1] - values[0]).mean(), abs=1e-9)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
        assert found.p == pytest.approx(reference.pvalue, abs=1e-9)
        assert found.p_adjusted == pytest.approx(reference.pvalue, abs=1e-9)
        assert (found.df, found.seeds, found.basis, found.image_se) == (4, 5, "seeds", None)

    def test_several_losses_share_the_noise_and_dunnett_s_law(self) -> None:
        values = noisy(4, 3)
        result = compare(block(values), smallest_effect=0.3)
        rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
        mse = (rest**2).sum() / 6
        se = np.sqrt(2 * mse / 3)
        assert result.residual_sd == pytest.approx(np.sqrt(mse))
        assert (result.residual_df, result.correlation) == (6, 0.5)
        assert result.critical == pytest.approx(dunnett_quantile(3, 6))
        for n, found in enumerate(result.effects, start=1):
            delta = (values[n] - values[0]).mean()
            assert found.delta == pytest.approx(delta)
            assert found.se == found.seed_se == pytest.approx(se)
            assert (found.low, found.high) == pytest.approx(
                (delta - result.critical * se, delta + result.critical * se)
            )
            assert found.p == pytest.approx(2 * stats.t.sf(abs(delta) / se, 6))
            assert found.p_adjusted == pytest.approx(float(dunnett_p(delta / se, 3, 6)))

    def test_arms_have_their_own_t_interval(self) -> None:
        values = noisy(3, 4)
        for arm, own in zip(compare(block(values), smallest_effect=0.3).arms, values, strict=True):
            assert (arm.mean, arm.seed_sd, arm.seeds) == (pytest.approx(own.mean()), pytest.approx(own.std(ddof=1)), 4)
            assert (arm.low, arm.high) == pytest.approx(stats.t.interval(0.95, 3, own.mean(), stats.sem(own)))

    def test_confidence(self) -> None:
        values = noisy(2, 6)
        found = effect(compare(block(values), smallest_effect=0.3, confidence=0.9), "focal")
        assert (found.low, found.high) == pytest.approx(
            tuple(stats.ttest_rel(values[1], values[0]).confidence_interval(0.9)), abs=1e-9
        )

    def test_the_best_by_a_one_sided_test(self) -> None:
        """With two losses, Hsu's comparison is the one-sided paired t test."""
        base = noisy(1, 5)[0]
        difference = np.array([0.1, 0.5, 0.3, 0.7, 0.2])
        t = stats.ttest_1samp(difference, 0).statistic
        assert t > stats.t.ppf(0.95, 4)
        scale = difference.mean() * (1 - stats.t.ppf(0.95, 4) / t)
        for shift, ruled_out in ((scale - 1e-6, True), (scale + 1e-6, False)):
            values = np.array([base, base + difference - shift])
            arms = compare(block(values), smallest_effect=0.3).arms
            assert [arm.may_be_best for arm in arms] == [not ruled_out, True]
            lower_is_better = compare(block(values, higher_is_better=False), smallest_effect=0.3).arms
            assert [arm.may_be_best for arm in lower_is_better] == [True, not ruled_out]

    def test_the_best_of_several(self) -> None:
        values = noisy(4, 5, seed=2)
        result = compare(block(values), smallest_effect=0.3)
        assert result.residual_sd is not None
        reach = hsu_quantile(3, 12) * result.residual_sd * np.sqrt(2 / 5)
        means = values.mean(axis=1)
        assert [arm.may_be_best for arm in result.arms] == list(means > means.max() - reach)

    def test_sign_flips_are_scipy_s_permutations(self) -> None:
        values = noisy(3, 7)
        for n, found in enumerate(compare(block(values), smallest_effect=0.3).effects, start=1):
            reference = stats.permutation_test(
                (values[n], values[0]),
                lambda a, b, axis: (a - b).mean(axis=axis),
                permutation_type="samples",
                n_resamples=np.inf,
                vectorized=True,
            )
            assert found.p_sign_flip == pytest.approx(reference.pvalue)
        assert compare(block(noisy(2, 5)), smallest_effect=0.3).effects[0].p_sign_flip is None

    def test_a_noisier_loss_is_judged_by_itself(self) -> None:
        values = noisy(5, 8, seed=1)
        values[2] += 4 * np.random.default_rng(5).normal(size=8)
        result = compare(block(values), smallest_effect=0.3)
        assert result.noisier == ("lovasz",)
        found, others = effect(result, "lovasz"), effect(result, "focal")
        assert found.seed_se == pytest.approx(stats.sem(values[2] - values[0]))
        assert found.df == 7
        assert others.df == 28
        quieter = values.copy()
        quieter[2] = quieter[1] + 0.3 * np.random.default_rng(5).normal(size=8)
        assert compare(block(quieter), smallest_effect=0.3).noisier == ()


class TestMissingRuns:
    def test_one_paired_seed_has_an_interval_and_no_verdict(self) -> None:
        values = noisy(3, 4) + np.array([[0], [0], [30]])
        values[2, 1:] = NAN
        result = compare(block(values), smallest_effect=0.3)
        found = effect(result, "lovasz")
        assert found.seeds == 1
        assert found.low is not None
        assert found.low > 0
        assert found.verdict is Verdict.NO_VERDICT
        assert [arm.may_be_best for arm in result.arms][2] is None

    def test_without_a_pair_there_is_no_delta(self) -> None:
        values = noisy(3, 4)
        values[1, :2], values[0, 2:] = NAN, NAN
        result = compare(block(values), smallest_effect=0.3)
        found = effect(result, "focal")
        assert np.isnan(found.delta)
        assert (found.low, found.p, found.seeds, found.basis) == (None, None, 0, "nothing")
        assert effect(result, "lovasz").low is not None

    def test_without_the_baseline_the_arms_remain(self) -> None:
        values = noisy(3, 4)
        values[0] = NAN
        result = compare(block(values), smallest_effect=0.3)
        assert np.isnan([each.delta for each in result.effects]).all()
        assert result.critical is None
        assert np.isnan(result.arms[0].mean)
        assert result.arms[1].low is not None
        assert result.arms[1].may_be_best is not None
        assert result.residual_df == 3

    def test_without_any_run(self) -> None:
        result = compare(block(np.full((2, 3), NAN)), smallest_effect=0.3)
        assert result.effects[0].basis == "nothing"
        assert [arm.seeds for arm in result.arms] == [0, 0]
        assert compare(block(np.zeros((2, 0))), smallest_effect=0.3).residual_sd is None

    @pytest.mark.parametrize("images", [False, True])
    def test_a_loss_without_runs_changes_nothing(self, images: bool) -> None:
        values = noisy(3, 4)
        more = np.vstack([values, np.full((1, 4), NAN)])
        replicates = by_images(values, 3, 2) if images else None
        wider = None if replicates is None else np.concatenate([replicates, np.full((1, *replicates.shape[1:]), NAN)])
        expected = compare(block(values, replicates), smallest_effect=0.3)
        found = compare(block(more, wider), smallest_effect=0.3)
        short = replace(found, effects=found.effects[:2], arms=found.arms[:3])
        assert numbers(short) == pytest.approx(numbers(expected), abs=1e-9, nan_ok=True)
        assert found.correlation == expected.correlation

    def test_infinite_is_missing(self) -> None:
        values = noisy(2, 4)
        values[1, 0] = np.inf
        assert effect(compare(block(values), smallest_effect=0.3), "focal").seeds == 3


class TestAdjustedMeans:
    def test_a_complete_block_has_nothing_to_adjust(self) -> None:
        for values in (noisy(3, 4), noisy(3, 1), np.full((2, 3), 50.0)):
            for arm in compare(block(values), smallest_effect=0.3).arms:
                assert arm.adjusted_mean == pytest.approx(arm.mean, abs=1e-9)

    def test_a_missing_bad_seed(self) -> None:
        """Exactly 1 worse at each seed: adjusted, 1 worse; by the mean, better."""
        base = np.array([50.0, 56.0, 50.0, 56.0])
        values = np.array([base, base - 1, base + 0.5])
        values[1, [0, 2]] = NAN
        ce, focal, lovasz = compare(block(values), smallest_effect=0.3).arms
        assert focal.mean == 55
        assert [arm.adjusted_mean for arm in (ce, focal, lovasz)] == pytest.approx([53, 52, 53.5])
        assert ce.mean == 53

    def test_the_best_is_the_one_of_the_highest_adjusted_mean(self) -> None:
        values = np.array([[50.0, 56.0, 50.0, 56.0]] * 3) + 0.01 * noisy(3, 4) + np.array([[0], [-1], [0.5]])
        values[1, [0, 2]] = NAN
        assert [arm.may_be_best for arm in compare(block(values), smallest_effect=0.3).arms] == [False, False, True]

    def test_one_seed_while_others_have_more(self) -> None:
        values = noisy(3, 4)
        values[2, 1:] = NAN
        found = [arm.adjusted_mean for arm in compare(block(values), smallest_effect=0.3).arms]
        assert np.isnan(found).tolist() == [False, False, True]

    def test_no_run(self) -> None:
        values = noisy(3, 4)
        values[2] = NAN
        found = [arm.adjusted_mean for arm in compare(block(values), smallest_effect=0.3).arms]
        assert np.isnan(found).tolist() == [False, False, True]

    def test_losses_that_no_seed_connects(self) -> None:
        values = noisy(5, 4)
        values[:2, 2:], values[2:, :2] = NAN, NAN
        found = compare(block(values), smallest_effect=0.3).arms
        assert np.isnan([arm.adjusted_mean for arm in found]).tolist() == [True, True, False, False, False]
        assert [arm.may_be_best is None for arm in found] == [True, True, False, False, False]
        equal = compare(block(values[:4]), smallest_effect=0.3).arms
        assert np.isnan([arm.adjusted_mean for arm in equal]).tolist() == [False, False, True, True]
        alone = np.full((2, 4), NAN)
        alone[0, :2], alone[1, 2:] = [50, 51], [60, 61]
        assert np.isnan([arm.adjusted_mean for arm in compare(block(alone), smallest_effect=0.3).arms]).all()


class TestImages:
    def test_draws_have_the_variance_of_the_images(self) -> None:
        values, images = noisy(3, 1), 50
        replicates = by_images(values, 4, 1, images=images)
        result = compare(block(values, replicates.astype(np.float32), images=images), smallest_effect=0.3)
        for n, found in enumerate(result.effects, start=1):
            resampled = replicates[n, 0] - replicates[0, 0]
            assert found.image_draws is not None
            assert found.image_draws.dtype == np.float32
            expected = (resampled - resampled.mean()) * np.sqrt(images / (images - 1))
            assert found.image_draws == pytest.approx(expected, abs=1e-4)

    def test_draws_are_of_the_paired_seeds(self) -> None:
        values = noisy(3, 4)
        replicates = by_images(values, 4, 3)
        values[1, 0], values[0, 3] = NAN, NAN
        replicates[..., 7] = NAN
        found = compare(block(values, replicates), smallest_effect=0.3).effects[0].image_draws
        assert found is not None
        expected = (replicates[1, 1:3] - replicates[0, 1:3]).mean(axis=0)
        assert np.flatnonzero(np.isnan(found)).tolist() == [7]
        assert found == pytest.approx(expected - np.nanmean(expected), abs=1e-5, nan_ok=True)

    @pytest.mark.parametrize("seeds", [1, 4])
    def test_what_is_no_sample_of_images(self, seeds: int) -> None:
        """One image, resamples that are all alike, or hardly any left: nothing is known of the images' part."""
        values = noisy(3, seeds)
        varied = by_images(values, 4, 1)
        constant = np.broadcast_to(values[..., None], varied.shape).astype(np.float32)
        holed = varied.copy()
        holed[:, :, 100:] = NAN
        for replicates, images in ((varied, 1), (varied, 0), (constant, 1), (constant, 300), (holed, 300)):
            result = compare(block(values, replicates, images=images), smallest_effect=0.3)
            without = compare(block(values), smallest_effect=0.3)
            assert numbers(result) == pytest.approx(numbers(without), nan_ok=True)
            for found in result.effects:
                assert (found.image_se, found.image_draws) == (None, None)
                assert found.basis == ("seeds" if seeds > 1 else "nothing")

    def test_single_precision_is_enough(self) -> None:
        values = noisy(4, 3)
        replicates = by_images(values, 1.0, 1.0)
        exact, rounded = (
            compare(block(values, each), smallest_effect=0.3) for each in (replicates, replicates.astype(np.float32))
        )
        assert numbers(rounded) == pytest.approx(numbers(exact), rel=1e-4, nan_ok=True)

    def test_what_the_images_do_to_a_loss_is_added(self) -> None:
        values = noisy(3, 4)
        result = compare(block(values, by_images(values, 4.0, 0.0)), smallest_effect=0.3)
        for found in result.effects:
            assert found.image_se == pytest.approx(np.sqrt(2 * 16 / 200), rel=0.05)
            assert found.se == pytest.approx(np.hypot(found.seed_se, found.image_se))
            assert found.df is not None
            assert found.df > result.residual_df
            assert found.basis == "seeds and images"

    def test_what_they_do_to_a_run_is_in_the_seeds_noise_already(self) -> None:
        values = noisy(3, 4)
        for found in compare(block(values, by_images(values, 0.0, 6.0)), smallest_effect=0.3).effects:
            one_run = np.sqrt(2 * 36 / 200)
            assert found.image_se == pytest.approx(0, abs=0.15 * one_run)
            assert found.se >= found.seed_se

    def test_both(self) -> None:
        values = noisy(3, 4)
        for found in compare(block(values, by_images(values, 4.0, 6.0)), smallest_effect=0.3).effects:
            assert found.image_se == pytest.approx(np.sqrt(2 * 16 / 200), rel=0.15)

    def test_few_images_count_as_few_degrees_of_freedom(self) -> None:
        values, images = noisy(3, 4), 25
        replicates = by_images(values, 3, 0, images=images)
        many, few = (
            effect(compare(block(values, replicates, images=n), smallest_effect=0.3), "focal") for n in (None, images)
        )
        assert few.image_se == pytest.approx(many.image_se * np.sqrt(images / (images - 1)))
        assert few.df < many.df

    def test_one_seed_is_the_percentile_interval_of_the_images(self) -> None:
        values = noisy(3, 1)
        replicates = by_images(values, 4, 1)
        result = compare(block(values, replicates), smallest_effect=0.3)
        for n, found in enumerate(result.effects, start=1):
            resampled = replicates[n, 0] - replicates[0, 0]
            assert found.delta == pytest.approx(values[n, 0] - values[0, 0])
            assert (found.low, found.high) == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])))
            assert found.se == found.image_se == pytest.approx(resampled.std(ddof=1))
            assert (found.p, found.df, found.seeds, found.basis) == (None, None, 1, "images")
            assert found.verdict is Verdict.NO_VERDICT
        assert result.arms[1].low == pytest.approx(np.quantile(replicates[1, 0], 0.025))
        assert result.arms[1].may_be_best is None
        assert (result.residual_sd, result.critical, result.seed_correlation) == (None, None, None)

    def test_one_seed_without_counts_says_nothing(self) -> None:
        found = compare(block(noisy(2, 1)), smallest_effect=0.3).effects[0]
        assert np.isfinite(found.delta)
        assert (found.low, found.se, found.basis, found.verdict) == (None, None, "nothing", Verdict.NO_VERDICT)

    @pytest.mark.parametrize("images", [False, True])
    def test_copies_of_one_run_are_not_seeds(self, images: bool) -> None:
        """Three seeds with the very same numbers give no certainty of +-0."""
        one = noisy(3, 1)
        values = np.repeat(one, 3, axis=1)
        replicates = np.repeat(by_images(one, 4, 1), 3, axis=1) if images else None
        result = compare(block(values, replicates), smallest_effect=0.3)
        for found in result.effects:
            assert (found.p, found.verdict) == (None, Verdict.NO_VERDICT)
            assert found.basis == ("images" if images else "nothing")
            assert (found.low is not None) == images

    def test_a_class_that_no_run_ever_finds(self) -> None:
        values = np.zeros((3, 4))
        result = compare(block(values, np.zeros((3, 4, 100))), smallest_effect=0.3)
        for found in result.effects:
            assert (found.delta, found.low, found.basis, found.verdict) == (0, None, "nothing", Verdict.NO_VERDICT)
        assert result.arms[0].low is None

    def test_resamples_that_lack_the_class_are_dropped(self) -> None:
        values = noisy(2, 3)
        replicates = by_images(values, 3, 1, resamples=900)
        holed = replicates.copy()
        holed[:, :, 600:] = NAN
        expected = compare(block(values, replicates[..., :600]), smallest_effect=0.3)
        assert numbers(compare(block(values, holed), smallest_effect=0.3)) == pytest.approx(numbers(expected))
        holed[:, :, 400:] = NAN
        assert compare(block(values, holed), smallest_effect=0.3).effects[0].basis == "seeds"

    def test_the_crossed_bootstrap_agrees(self) -> None:
        values = noisy(2, 10)
        replicates = by_images(values, 4, 0)
        found = compare(block(values, replicates), smallest_effect=0.3).effects[0]
        assert found.crossed is not None
        assert np.diff(found.crossed) == pytest.approx(2 * 1.96 * found.se, rel=0.15)
        assert np.mean(found.crossed) == pytest.approx(found.delta, abs=0.1 * found.se)
        assert compare(block(values, replicates), smallest_effect=0.3).effects[0].crossed == found.crossed
        assert compare(block(values[:, :7], replicates[:, :7]), smallest_effect=0.3).effects[0].crossed is None


class TestVerdict:
    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [
            (0.1, 0.9, Verdict.BETTER),
            (-0.9, -0.1, Verdict.WORSE),
            (-0.1, 0.9, Verdict.INCONCLUSIVE),
            (-0.2, 0.29, Verdict.EQUIVALENT),
            (0.1, 0.2, Verdict.EQUIVALENT),
            (0.0, 0.9, Verdict.INCONCLUSIVE),
            (-0.3, 0.3, Verdict.INCONCLUSIVE),
        ],
    )
    def test_by_the_interval(self, low: float, high: float, expected: Verdict) -> None:
        assert verdict(low, high, 0.3) is expected
        swap = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
        assert verdict(low, high, 0.3, higher_is_better=False) is swap.get(expected, expected)

    def test_nothing_is_equivalent_to_within_nothing(self) -> None:
        assert verdict(-1e-12, 1e-12, 0.0) is Verdict.INCONCLUSIVE

    def test_in_a_block(self) -> None:
        values = noisy(2, 4) * 0.01 + np.array([[60], [62]])
        assert compare(block(values), smallest_effect=0.3).effects[0].verdict is Verdict.BETTER
        assert compare(block(values, higher_is_better=False), smallest_effect=0.3).effects[0].verdict is Verdict.WORSE
        assert compare(block(values), smallest_effect=3).effects[0].verdict is Verdict.EQUIVALENT


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 6), st.floats(0, 0.4), st.booleans())
def test_symmetries(seed: int, losses: int, seeds: int, missing: float, images: bool) -> None:
    """What a seed does to all losses, the order of losses and of seeds, and the unit don't matter."""
    rng = np.random.default_rng(seed)
    values = noisy(losses, seeds, seed)
    values[rng.random(values.shape) < missing] = NAN
    replicates = values[..., None] + rng.normal(size=(losses, seeds, 60)) + rng.normal(size=60) if images else None
    data = block(values, replicates)
    result = compare(data, smallest_effect=0.3)
    by_seed = rng.normal(size=seeds)
    moved = replace(
        data, values=values + by_seed, replicates=None if replicates is None else replicates + by_seed[:, None]
    )
    effects = len(result.effects) * 10
    found = numbers(compare(moved, smallest_effect=0.3))[:effects]
    assert found == pytest.approx(numbers(result)[:effects], rel=1e-6, abs=1e-7, nan_ok=True)
    order = rng.permutation(losses)
    shuffled = replace(
        data,
        losses=tuple(data.losses[n] for n in order),
        values=values[order][:, ::-1],
        replicates=None if replicates is None else replicates[order][:, ::-1],
    )
    other = compare(shuffled, smallest_effect=0.3)
    sorted_back = replace(
        other,
        effects=tuple(effect(other, each.loss) for each in result.effects),
        arms=tuple(next(a for a in other.arms if a.loss == each.loss) for each in result.arms),
    )
    assert numbers(sorted_back) == pytest.approx(numbers(result), rel=1e-6, abs=1e-7, nan_ok=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "dice"}, "must be one of the losses"),
        ({"losses": ("ce", "ce")}, "each named once"),
        ({"values": np.zeros((3, 3))}, r"Values must be \(2, 3\)"),
        ({"replicates": np.zeros((2, 2, 9))}, r"Values must be \(2, 3\)"),
    ],
)
def test_nonsense(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(replace(block(noisy(2, 3)), **change), smallest_effect=0.3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("smallest", "confidence"), [(-0.1, 0.95), (NAN, 0.95), (0.3, 1.0), (0.3, 0.4)])
def test_options_out_of_range(smallest: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        compare(block(noisy(2, 3)), smallest_effect=smallest, confidence=confidence)
