"""Pooling against statsmodels' meta-analysis; ranks and critical differences against scipy and Demsar's own example."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.multitest import multipletests

from prove.stats.block import compare
from prove.stats.effects import BlockData, BlockResult, Verdict
from prove.stats.pool import paule_mandel, pool, random_effects
from prove.stats.ranks import block_ranks, critical_difference, rank
from prove.stats.shared_images import SharedImages, shared_images

Floats = NDArray[np.float64]
LOSSES = ("ce", "focal", "lovasz", "dice")


def result(seed: int, shift: tuple[float, ...] = (0, 0.5, 0, 2), seeds: int = 4, sd: float = 0.3) -> BlockResult:
    rng = np.random.default_rng(seed)
    values = 60 + np.array(shift)[:, None] + rng.normal(size=(1, seeds)) + sd * rng.normal(size=(len(shift), seeds))
    return compare(BlockData(LOSSES[: len(shift)], "ce", tuple(range(seeds)), values), smallest_effect=0.3)


class TestRandomEffects:
    @pytest.mark.parametrize("spread", [0.0, 0.3, 3.0])
    @pytest.mark.parametrize("count", [2, 3, 7, 20])
    def test_is_that_of_statsmodels(self, spread: float, count: int) -> None:
        rng = np.random.default_rng(count)
        variances = rng.uniform(0.01, 0.5, count)
        effects = 0.4 + spread * rng.normal(size=count) + np.sqrt(variances) * rng.normal(size=count)
        ours = random_effects(effects, variances)
        assert ours.tau is not None
        # Started from our solution, theirs stays there if it solves their equation. (A rounding error above the root,
        # theirs would return 0.)
        start = ours.tau**2 * (1 - 1e-12)
        theirs = combine_effects(effects, variances, method_re="pm", use_t=True, atol=1e-9, tau2_start=start)
        assert ours.tau == pytest.approx(np.sqrt(theirs.tau2), abs=1e-9)
        assert ours.value == pytest.approx(theirs.mean_effect_re, abs=1e-9)
        # The usual safeguard: Hartung and Knapp's scatter does not make the interval narrower than without it.
        weights = 1 / (variances + theirs.tau2)
        expected = max(theirs.sd_eff_w_re_hksj, 1 / np.sqrt(weights.sum()))
        assert ours.se == pytest.approx(expected, abs=1e-9)
        if expected == theirs.sd_eff_w_re_hksj:
            # The last of the four intervals is Hartung and Knapp's about the random-effects mean.
            assert ours.interval(0.95) == pytest.approx(tuple(theirs.conf_int(use_t=True)[3]), abs=1e-9)

    def test_the_scatter_is_used_where_it_is_wider(self) -> None:
        ours = random_effects(np.array([0.0, 1.0, 5.0]), np.array([0.01, 0.01, 4.0]))
        assert ours.tau is not None
        assert ours.tau > 0

    @given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.01, 4)), min_size=2, max_size=12))
    def test_paule_and_mandel_s_equation(self, drawn: list[tuple[float, float]]) -> None:
        effects, variances = np.array(drawn).T

        def squares(tau2: float) -> float:
            weights = 1 / (variances + tau2)
            return float(weights @ (effects - weights @ effects / weights.sum()) ** 2)

        tau2 = paule_mandel(effects, variances)
        if tau2 == 0:
            assert squares(0) <= len(drawn) - 1 + 1e-9
        else:
            assert squares(tau2) == pytest.approx(len(drawn) - 1, abs=1e-8)

    def test_too_few(self) -> None:
        assert np.isnan(random_effects(np.array([]), np.array([])).value)
        one = random_effects(np.array([0.7]), np.array([0.1]))
        assert (one.value, one.se, one.tau, one.p, one.interval(0.95), one.blocks) == (0.7, None, None, None, None, 1)


class TestPool:
    def test_every_loss_over_the_blocks(self) -> None:
        results = [result(seed) for seed in range(6)]
        pooled = pool(results)
        assert [each.loss for each in pooled] == ["focal", "lovasz", "dice"]
        for n, each in enumerate(pooled):
            effects = [one.effects[n] for one in results]
            # complete blocks of one design and no images: the common unit variance is the plain mean of theirs
            variance = np.full(6, np.mean([(e.se or 0) ** 2 for e in effects]))
            mean = random_effects(np.array([e.delta for e in effects]), variance)
            assert each.delta == pytest.approx(mean.value, abs=1e-12)
            assert (each.low, each.high) == pytest.approx(mean.interval(0.95), abs=1e-12)
            assert each.blocks == 6
            assert sum(each.verdicts.values()) == 6
        alone = [each.p for each in pooled]
        assert [each.p_adjusted for each in pooled] == pytest.approx(multipletests(alone, method="holm")[1])
        assert pooled[2].verdict is Verdict.BETTER
        assert pooled[2].verdicts == {Verdict.BETTER: 6}

    def test_lower_is_better(self) -> None:
        results = [replace(result(seed), higher_is_better=False) for seed in range(6)]
        dice = pool(results)[2]
        assert dice.verdict is Verdict.WORSE
        assert dice.mean_rank == 4

    def test_equivalent_needs_the_stricter_interval(self) -> None:
        tight = [result(seed, (0, 0.0, 0.0), sd=0.05) for seed in range(6)]
        assert [each.verdict for each in pool(tight)] == [Verdict.EQUIVALENT] * 2
        [one, _] = pool(tight)
        assert one.low is not None
        assert one.high is not None
        reach = max(-one.low, one.high)
        between = [replace(each, smallest_effect=reach * 1.001) for each in tight]
        assert pool(between)[0].verdict is not Verdict.EQUIVALENT

    def test_the_family_decides(self) -> None:
        """A p of 0.02 alone is 0.04 or 0.06 in a family of two or three."""
        results = [result(seed) for seed in range(6)]
        effects = {each.loss: each for each in pool(results)}
        assert effects["lovasz"].p_adjusted is not None
        assert effects["lovasz"].p is not None
        assert effects["lovasz"].p_adjusted >= effects["lovasz"].p
        for each in effects.values():
            assert each.p_adjusted is not None
            decided = each.verdict in (Verdict.BETTER, Verdict.WORSE)
            assert decided == (each.p_adjusted < 0.05) or each.verdict is Verdict.EQUIVALENT

    def test_what_has_no_standard_error_takes_no_part(self) -> None:
        one_seed = result(9, seeds=1)
        assert one_seed.effects[0].se is None
        results = [result(0), one_seed]
        [focal, *_] = pool(results)
        assert focal.blocks == 1
        assert focal.delta == results[0].effects[0].delta
        assert (focal.low, focal.p, focal.p_adjusted, focal.tau) == (None, None, None, None)
        assert focal.verdict is Verdict.NO_VERDICT
        assert focal.verdicts[Verdict.NO_VERDICT] == 1
        assert np.isnan(pool([one_seed])[0].delta)

    def test_losses_that_some_blocks_lack(self) -> None:
        pooled = pool([result(0, (0, 1)), result(1, (0, 1, 1, 2)), result(2, (0, 1, 1, 2))])
        assert [(each.loss, each.blocks) for each in pooled] == [("focal", 3), ("lovasz", 2), ("dice", 2)]

    def test_ranks(self) -> None:
        focal, lovasz, dice = pool([result(seed, (0, 1, -2, 3), sd=0.1) for seed in range(4)])
        assert [focal.mean_rank, lovasz.mean_rank, dice.mean_rank] == [2, 4, 1]
        for each in (focal, lovasz, dice):
            assert each.rank_low is not None
            assert each.rank_high is not None
            assert 1 <= each.rank_low <= each.mean_rank <= each.rank_high <= 4
            assert each.rank_high - each.rank_low > 1, "four blocks that agree are no certainty"
        single = pool([result(0)])[0]
        assert (single.rank_low, single.rank_high) == (None, None)

    def test_bad_seeds_that_are_missing_make_no_better_rank(self) -> None:
        """Worse by 1 at each seed that it shares with the others; better by mean, as it lost the two bad seeds."""
        by_seed = np.array([0.0, 6.0, 0.0, 6.0])
        results = []
        for seed in range(3):
            values = 50 + by_seed + 0.1 * np.random.default_rng(seed).normal(size=(3, 4))
            values[1] -= 1
            values[1, [0, 2]] = np.nan
            results.append(compare(BlockData(LOSSES[:3], "ce", (0, 1, 2, 3), values), smallest_effect=0.3))
        assert results[0].arms[1].mean > results[0].arms[0].mean
        assert pool(results)[0].mean_rank == 3
        assert block_ranks(results)[1][:, 1].tolist() == [3, 3, 3]

    def test_a_loss_of_one_seed_has_no_rank(self) -> None:
        values = 50 + np.random.default_rng(0).normal(size=(3, 4))
        values[1, 1:] = np.nan
        result = compare(BlockData(LOSSES[:3], "ce", (0, 1, 2, 3), values), smallest_effect=0.3)
        assert np.isnan(pool([result])[0].mean_rank)
        assert block_ranks([result])[0] == ("ce", "lovasz")

    def test_nothing(self) -> None:
        assert pool([]) == ()

    @pytest.mark.parametrize("change", [{"higher_is_better": False}, {"smallest_effect": 1.0}, {"baseline": "focal"}])
    def test_what_does_not_belong_together(self, change: dict[str, object]) -> None:
        with pytest.raises(ValueError, match="differ in baseline"):
            pool([result(0), replace(result(1), **change)])  # type: ignore[arg-type]


def test_the_interval_of_the_mean_rank_covers() -> None:
    """Losses half a noise SD apart over 8 blocks: the mean rank's interval holds the expected rank, 95% or more."""
    rng = np.random.default_rng(3)
    shift = np.array([0.0, 0.5, 1.0, 1.5])
    expected = np.mean([rank(shift + rng.normal(size=4)) for _ in range(20_000)], axis=0)
    template = [result(seed) for seed in range(8)]
    hits = []
    for _ in range(300):
        drawn = shift + rng.normal(size=(8, 4))
        results = [
            replace(one, arms=tuple(replace(arm, adjusted_mean=float(x)) for arm, x in zip(one.arms, row, strict=True)))
            for one, row in zip(template, drawn, strict=True)
        ]
        for each, true in zip(pool(results), expected[1:], strict=True):
            assert each.rank_low is not None
            assert each.rank_high is not None
            hits.append(each.rank_low <= true <= each.rank_high)
    assert np.mean(hits) >= 0.95


def models(
    count: int, *, common: float = 2.0, datasets: int = 1, holes: int = 0, **more: object
) -> list[tuple[BlockResult, Floats]]:
    """Blocks of two losses and the draws of their effect; all models of a dataset err alike on its images."""
    rng = np.random.default_rng(5)
    images, resamples = 80, 400
    weights = [rng.multinomial(images, np.full(images, 1 / images), size=resamples).T / images for _ in range(datasets)]
    shared = common * rng.normal(size=(datasets, images))
    blocks = []
    for n in range(count):
        dataset = n % datasets
        values = 60 + 0.1 * rng.normal(size=(2, 3))
        pixels = rng.normal(size=(2, 3, images)) + shared[dataset] * np.array([0, 1])[:, None, None]
        replicates = values[..., None] + pixels @ weights[dataset]
        replicates[..., :holes] = np.nan
        here = {"dataset": f"set{dataset}", "images_digest": f"images{dataset}", "images": images} | more
        data = BlockData(LOSSES[:2], "ce", (0, 1, 2), values + pixels.mean(axis=2), replicates, **here)  # type: ignore[arg-type]
        blocks.append((compare(data, smallest_effect=0.3), (replicates[1] - replicates[0]).mean(axis=0)))
    return blocks


class TestSharedImages:
    def test_the_covariances_of_the_blocks_are_added(self) -> None:
        blocks = models(4, datasets=2)
        results, draws = [result for result, _ in blocks], np.array([drawn for _, drawn in blocks])
        covariance = np.cov(draws) * 80 / 79
        same = np.array([[i != j and i % 2 == j % 2 for j in range(4)] for i in range(4)])
        shares = np.array([0.1, 0.2, 0.3, 0.4])
        found = shared_images([(result, result.effects[0]) for result in results])
        assert found.variance(shares) == pytest.approx(shares @ (covariance * same) @ shares, rel=1e-4)
        assert not found.unknown

    def test_noise_in_common_makes_the_interval_wider(self) -> None:
        """Blocks that err alike are worth little more than one of them."""
        results = [result for result, _ in models(6, common=4.0)]
        [known], [taken_as_independent] = pool(results), pool([replace(each, images_digest=None) for each in results])
        in_common = np.sqrt(4.0**2 / 80)
        assert known.low is not None
        assert taken_as_independent.low is not None
        assert known.delta - known.low > stats.t.ppf(0.975, 5) * in_common * 0.8
        assert taken_as_independent.delta - taken_as_independent.low < 0.6 * (known.delta - known.low)

    def test_nothing_in_common_changes_nothing(self) -> None:
        results = [result for result, _ in models(4, datasets=4)]
        assert pool(results) == pool([replace(each, images_digest=None, dataset="") for each in results])

    def test_the_spread_that_common_noise_hides(self) -> None:
        """Tau is that of the effects on other images: what the blocks have in common does not lower it."""
        rng = np.random.default_rng(2)
        taus, variances = [], []
        for _ in range(400):
            common, images = rng.normal(), SharedImages((), unknown=False)
            drawn = np.tile(rng.normal(size=2000), (6, 1))
            images = SharedImages(((np.arange(6), drawn - drawn.mean()),), unknown=False)
            effects = common + 1.5 * rng.normal(size=6) + 0.1 * rng.normal(size=6)
            found = random_effects(effects, np.full(6, 1.01), images)
            assert found.tau is not None
            assert found.se is not None
            taus.append(found.tau**2)
            variances.append(found.se**2)
        assert np.mean(taus) == pytest.approx(1.5**2, rel=0.1)
        assert np.mean(variances) == pytest.approx(1 + (1.5**2 + 0.01) / 6, rel=0.1)

    def test_resamples_that_lack_the_metric(self) -> None:
        few, many = (models(3, holes=holes) for holes in (100, 300))
        results = [result for result, _ in few]
        draws = np.array([drawn[100:] for _, drawn in few])
        found = shared_images([(result, result.effects[0]) for result in results])
        covariance = np.cov(draws) * 80 / 79
        assert found.variance(np.full(3, 1 / 3)) == pytest.approx(
            (covariance.sum() - np.trace(covariance)) / 9, rel=1e-4
        )
        assert not found.unknown
        assert pool([result for result, _ in many])[0].shares_images

    @pytest.mark.parametrize(
        ("change", "unknown"),
        [
            ({}, False),
            ({"images_digest": None}, True),
            ({"images_digest": None, "dataset": ""}, False),
            ({"images": 1}, True),
        ],
    )
    def test_whether_it_is_known_what_they_share(self, change: dict[str, object], unknown: bool) -> None:
        assert pool([result for result, _ in models(3, **change)])[0].shares_images is unknown  # type: ignore[arg-type]

    def test_one_block_without_counts_is_enough_not_to_know(self) -> None:
        results = [result for result, _ in models(3)]
        blind = replace(results[0], effects=tuple(replace(each, image_draws=None) for each in results[0].effects))
        assert pool([blind, *results[1:]])[0].shares_images
        assert not pool([replace(blind, dataset="another"), *results[1:]])[0].shares_images
        other_images = replace(results[0], images_digest="others")
        assert pool([other_images, *results[1:]])[0].shares_images


# Demsar (2006), table 6: ranks of C4.5, with tuned m, with tuned confidence, with both, on 14 data sets.
RANKS = np.array(
    [
        [4, 3, 2, 1],
        [1, 2, 3, 4],
        [4, 1, 2, 3],
        [4, 1, 3, 2],
        [4, 2, 3, 1],
        [1, 2.5, 4, 2.5],
        [3, 2, 4, 1],
        [2.5, 2.5, 4, 1],
        [4, 3, 2, 1],
        [2.5, 2.5, 2.5, 2.5],
        [4, 2.5, 1, 2.5],
        [3, 2, 4, 1],
        [4, 1, 2, 3],
        [3, 1, 4, 2],
    ]
)


class TestCriticalDifference:
    def test_demsar_s_example(self) -> None:
        found = critical_difference(RANKS)
        assert found is not None
        assert found.mean_ranks == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=0.0005)
        assert found.critical == pytest.approx(1.25, abs=0.005)
        deviations = np.array(found.mean_ranks) - 2.5
        assert 12 * 14 / (4 * 5) * (deviations**2).sum() == pytest.approx(9.28, abs=0.01), "his chi squared"
        assert found.blocks == 14
        wider = critical_difference(RANKS, confidence=0.90)
        assert wider is not None
        assert wider.critical == pytest.approx(1.12, abs=0.005)

    def test_friedman_s_statistic_is_scipy_s(self) -> None:
        chi2 = stats.friedmanchisquare(*RANKS.T).statistic
        f = 13 * chi2 / (14 * 3 - chi2)
        found = critical_difference(RANKS)
        assert found is not None
        assert found.p == pytest.approx(stats.f.sf(f, 3, 39), rel=1e-9)

    def test_groups(self) -> None:
        """Three clear levels, the middle one of two losses that are alike."""
        order = np.array([2, 0, 3, 1])
        ranks = np.array([[1, 2, 3, 4], [1, 3, 2, 4]] * 40, float)[:, np.argsort(order)]
        found = critical_difference(ranks)
        assert found is not None
        assert found.critical < 1
        assert found.groups == ((0, 3),)
        overlapping = critical_difference(np.tile([1.0, 2.0, 3.0], (10, 1)))
        assert overlapping is not None
        assert 1 < overlapping.critical < 2
        assert overlapping.groups == ((0, 1), (1, 2))

    def test_all_blocks_agree_or_none_does(self) -> None:
        agree = critical_difference(np.tile([1.0, 2.0, 3.0], (10, 1)))
        assert agree is not None
        assert agree.p == pytest.approx(6.0**-9)
        tied = critical_difference(np.full((10, 3), 2.0))
        assert tied is not None
        assert (tied.p, tied.groups) == (1.0, ((0, 1, 2),))

    def test_too_few(self) -> None:
        assert critical_difference(np.tile([1.0, 2.0], (9, 1))) is None
        assert critical_difference(np.ones((12, 1))) is None
        assert critical_difference(np.zeros((0, 0))) is None


@settings(max_examples=50)
@given(st.lists(st.sampled_from([1.0, 2.0, 2.5, 7.0, float("nan")]), max_size=9))
def test_rank_is_scipy_s(values: list[float]) -> None:
    array = np.array(values, float)
    assert rank(array, higher_is_better=False) == pytest.approx(stats.rankdata(array, nan_policy="omit"), nan_ok=True)
    assert rank(array) == pytest.approx(stats.rankdata(-array, nan_policy="omit"), nan_ok=True)


def test_block_ranks_ranks_what_all_blocks_have() -> None:
    results = [result(0, (0, 1, 2, 3), sd=0.01), result(1, (0, 1, -2), sd=0.01)]
    losses, ranks = block_ranks(results)
    assert losses == ("ce", "focal", "lovasz")
    assert ranks.tolist() == [[3, 2, 1], [2, 1, 3]]
    without = replace(results[0], arms=(replace(results[0].arms[0], adjusted_mean=float("nan")), *results[0].arms[1:]))
    assert block_ranks([without, results[1]])[1].tolist() == [[2, 1, 3]]
    assert block_ranks([without])[0] == ()


def test_comparing_imports_nothing_heavy() -> None:
    heavy = ("scipy.stats", "statsmodels", "pandas", "matplotlib", "torch")
    code = (
        "import sys; import prove.stats.block, prove.stats.pool, prove.stats.power, prove.stats.ranks; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
