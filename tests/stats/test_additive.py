"""The analysis of variance against statsmodels' least squares."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.formula.api as smf
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.anova import anova_lm

from prove.stats.additive import fit_additive, noisier, seed_correlation

Floats = NDArray[np.float64]


def _block(losses: int, seeds: int, missing: float = 0.0, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    values = 60 + rng.normal(size=(1, seeds)) + rng.normal(size=(losses, 1)) + 0.4 * rng.normal(size=(losses, seeds))
    values[rng.random(values.shape) < missing] = np.nan
    return np.asarray(values)


def _ols(values: Floats):  # type: ignore[no-untyped-def]
    pd = pytest.importorskip("pandas")
    loss, seed = np.nonzero(np.isfinite(values))
    frame = pd.DataFrame({"y": values[loss, seed], "loss": loss, "seed": seed})
    return smf.ols("y ~ C(loss) + C(seed)", frame).fit()


@pytest.mark.parametrize(
    ("losses", "seeds", "missing"), [(4, 3, 0.0), (2, 2, 0.0), (6, 5, 0.2), (5, 4, 0.35), (3, 10, 0.1)]
)
def test_is_least_squares(losses: int, seeds: int, missing: float) -> None:
    values = _block(losses, seeds, missing, seed=3)
    fit, reference = fit_additive(values), _ols(values)
    assert np.isfinite(values).any(axis=1).all()
    assert fit.df == reference.df_resid
    assert fit.variance == pytest.approx(reference.mse_resid, rel=1e-9)
    for loss in range(1, losses):
        name = f"C(loss)[T.{loss}]"
        assert fit.means[loss] - fit.means[0] == pytest.approx(reference.params[name], abs=1e-9)
        assert np.sqrt(fit.unit_variance[0, loss] * fit.variance) == pytest.approx(reference.bse[name], rel=1e-9)


def test_a_complete_block_gives_the_means() -> None:
    values = _block(4, 3)
    fit = fit_additive(values)
    assert fit.means == pytest.approx(values.mean(axis=1), abs=1e-12)
    assert fit.df == 6
    assert fit.unit_variance[0, 1] == pytest.approx(2 / 3)


@pytest.mark.parametrize("missing", [0.15, 0.35])
def test_the_means_are_those_over_all_seeds(missing: float) -> None:
    """statsmodels' predictions for all cells, also those without a run, averaged over the seeds."""
    pd = pytest.importorskip("pandas")
    values = _block(5, 5, missing, seed=3)
    there = np.isfinite(values)
    assert there.any(axis=0).all()
    loss, seed = np.indices(values.shape).reshape(2, -1)
    predicted = _ols(values).predict(pd.DataFrame({"loss": loss, "seed": seed})).to_numpy().reshape(values.shape)
    fit = fit_additive(values)
    assert fit.means == pytest.approx(predicted.mean(axis=1), abs=1e-9)
    whole = there.all(axis=1)
    assert whole.any()
    assert fit.means[whole] == pytest.approx(values[whole].mean(axis=1), abs=1e-9)


def test_a_run_more_that_connects_nothing_changes_nothing() -> None:
    values = _block(3, 3)
    wider = np.column_stack([values, [np.nan, 58.0, np.nan]])
    fit, same = fit_additive(wider), fit_additive(values)
    assert fit.means - fit.means[0] == pytest.approx(same.means - same.means[0], abs=1e-9)
    assert (fit.df, fit.variance) == (same.df, pytest.approx(same.variance))


def test_losses_that_no_seed_connects() -> None:
    nan = np.nan
    fit = fit_additive(
        np.array([[1.0, 2.0, nan, nan], [2.0, 4.0, nan, nan], [nan, nan, 5.0, 1.0], [nan, nan, 1.0, 1.0]])
    )
    finite = np.isfinite(fit.unit_variance)
    assert np.array_equal(finite, np.kron(np.eye(2), np.ones((2, 2))).astype(bool))
    assert fit.df == 2


def test_losses_connected_through_another() -> None:
    nan = np.nan
    values = np.array([[1.0, nan, 1.5], [nan, 4.0, nan], [2.0, 3.0, 2.6]])
    fit = fit_additive(values)
    assert fit.means[1] - fit.means[0] == pytest.approx(_ols(values).params["C(loss)[T.1]"], abs=1e-9)


def test_nothing_and_one() -> None:
    empty = fit_additive(np.full((2, 3), np.nan))
    assert (empty.df, empty.variance) == (0, None)
    assert np.isnan(empty.means).all()
    single = fit_additive(np.array([[1.0], [2.0]]))
    assert (single.df, single.variance) == (0, None)
    assert single.means[1] - single.means[0] == pytest.approx(1)


@pytest.mark.parametrize("values", [np.full((3, 4), 55.0), np.tile([[50.1], [60.2], [0.3]], (1, 4))])
def test_copies_are_no_repetitions(values: Floats) -> None:
    fit = fit_additive(values)
    assert fit.df == 6
    assert fit.variance is None


def test_seed_correlation_is_the_intraclass_correlation() -> None:
    values = _block(4, 6)
    table = anova_lm(_ols(values))
    between, within = table["mean_sq"]["C(seed)"], table["mean_sq"]["Residual"]
    expected = pytest.approx((between - within) / (between + 3 * within), rel=1e-9)
    assert seed_correlation(values) == expected
    assert seed_correlation(np.column_stack([values, np.full(4, np.nan)])) == expected


def test_seed_correlation_of_two_losses_with_missing_runs() -> None:
    values = np.array([[1.0, 2.0, 3.0, 9.0], [1.0, 2.0, 3.0, np.nan]])
    assert seed_correlation(values) == pytest.approx(1)
    assert seed_correlation(values * [[1], [-1]]) == pytest.approx(-1)
    assert seed_correlation(values[:, :1]) is None
    assert seed_correlation(values[:1]) is None
    assert seed_correlation(np.ones((3, 3))) is None


def test_noisier_is_the_f_test_of_leaving_a_loss_out() -> None:
    for missing in (0.0, 0.2):
        values = _block(5, 6, missing, seed=11)
        values[2] += np.random.default_rng(1).normal(size=6) * 2
        whole = _ols(values)
        for loss in range(5):
            rest = _ols(np.delete(values, loss, axis=0))
            added = whole.df_resid - rest.df_resid
            p = stats.f.sf((whole.ssr - rest.ssr) / added / rest.mse_resid, added, rest.df_resid)
            just_above, just_below = np.zeros(5), np.zeros(5)
            just_above[loss], just_below[loss] = p * (1 + 1e-6), p * (1 - 1e-6)
            assert noisier(values, fit_additive(values), just_above)[loss]
            assert not noisier(values, fit_additive(values), just_below).any()


def test_noisier_needs_three_losses_and_noise() -> None:
    level = np.full(2, 0.9)
    values = _block(2, 8)
    assert not noisier(values, fit_additive(values), level).any()
    copies = np.full((3, 4), 55.0)
    assert not noisier(copies, fit_additive(copies), np.full(3, 0.9)).any()
