"""Quantiles and adjusted p against published tables, scipy, statsmodels and direct integration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats
from statsmodels.stats.multitest import multipletests

from prove.stats.multiplicity import (
    benjamini_hochberg,
    dunnett_p,
    dunnett_quantile,
    dunnett_quantiles,
    holm,
    hsu_quantile,
)

# Dunnett (1964), table II: two-sided 5%, correlation 0.5; rows: df, columns: comparisons 1..9.
TWO_SIDED = {
    5: (2.57, 3.03, 3.29, 3.48, 3.62, 3.73, 3.82, 3.90, 3.97),
    10: (2.23, 2.57, 2.76, 2.89, 2.99, 3.07, 3.14, 3.19, 3.24),
    20: (2.09, 2.38, 2.54, 2.65, 2.73, 2.80, 2.86, 2.90, 2.95),
    10**7: (1.96, 2.21, 2.35, 2.44, 2.51, 2.57, 2.61, 2.65, 2.69),
}
# Dunnett (1955), table 1a: one-sided 5%.
ONE_SIDED = {
    10: (1.81, 2.15, 2.34, 2.47, 2.56, 2.64, 2.70, 2.76, 2.81),
    20: (1.72, 2.03, 2.19, 2.30, 2.39, 2.46, 2.51, 2.56, 2.60),
    10**7: (1.64, 1.92, 2.06, 2.16, 2.23, 2.29, 2.34, 2.38, 2.42),
}


@pytest.mark.parametrize("df", TWO_SIDED)
def test_dunnett_s_table(df: int) -> None:
    found = [dunnett_quantile(k, df) for k in range(1, 10)]
    assert found == pytest.approx(TWO_SIDED[df], abs=0.0051)


@pytest.mark.parametrize("df", ONE_SIDED)
def test_one_sided_table(df: int) -> None:
    found = [hsu_quantile(k, df) for k in range(1, 10)]
    assert found == pytest.approx(ONE_SIDED[df], abs=0.0051)


def _by_integration(t: float, comparisons: int, df: float, correlation: float) -> float:
    """P(max |T| > t) by adaptive quadrature of the definition, in the plain variables."""
    q, r = np.sqrt(1 - correlation), np.sqrt(correlation)

    def none_beyond(u: float) -> float:
        def share(z: float) -> float:
            inside = special.ndtr((r * z + u) / q) - special.ndtr((r * z - u) / q)
            return float(np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * inside**comparisons)

        return float(integrate.quad(share, 0, 9, epsabs=1e-12, epsrel=1e-11, limit=200)[0]) * 2

    scale, law = np.sqrt(df), stats.chi(df)
    low, high = law.ppf(1e-13) / scale, law.isf(1e-13) / scale

    def beyond(s: float) -> float:
        density = np.exp(df * np.log(scale) + (df - 1) * np.log(s) - df * s * s / 2 - special.gammaln(df / 2))
        return float(density * 2 ** (1 - df / 2) * (1 - none_beyond(t * s)))

    return float(integrate.quad(beyond, low, high, epsabs=1e-11, epsrel=1e-10, limit=200)[0])


@pytest.mark.parametrize(
    ("t", "comparisons", "df", "correlation"),
    [
        (2.5, 5, 4, 0.5),
        (3.0, 3, 9.7, 0.0),
        (2.2, 9, 40, 0.9),
        (2.8, 20, 12, 0.25),
        (4.0, 2, 1, 0.5),
        (1.0, 4, 2.3, 0.7),
    ],
)
def test_p_is_the_integral(t: float, comparisons: int, df: float, correlation: float) -> None:
    expected = _by_integration(t, comparisons, df, correlation)
    assert float(dunnett_p(t, comparisons, df, correlation)) == pytest.approx(expected, abs=2e-9)


@pytest.mark.parametrize(("comparisons", "df", "correlation"), [(2, 6, 0.5), (4, 15, 0.5), (3, 8, 0.2)])
def test_agrees_with_multivariate_t(comparisons: int, df: int, correlation: float) -> None:
    matrix = np.full((comparisons, comparisons), correlation) + (1 - correlation) * np.eye(comparisons)
    law = stats.multivariate_t(shape=matrix, df=df, seed=1)
    t = 2.4
    inside = law.cdf(np.full(comparisons, t), lower_limit=np.full(comparisons, -t), maxpts=400_000)
    assert float(dunnett_p(t, comparisons, df, correlation)) == pytest.approx(1 - inside, abs=3e-4)


def test_agrees_with_dunnett_s_test_of_scipy() -> None:
    rng = np.random.default_rng(5)
    groups = [rng.normal(shift, 1, 6) for shift in (0, 0.3, 1.2, 1.8)]
    theirs = stats.dunnett(*groups[1:], control=groups[0], rng=np.random.default_rng(0))
    ours = dunnett_p(theirs.statistic, 3, 4 * 5)
    assert ours == pytest.approx(theirs.pvalue, abs=2e-3)


@settings(max_examples=40)
@given(st.floats(0, 30), st.floats(1, 500))
def test_one_comparison_is_student_s_t(t: float, df: float) -> None:
    assert float(dunnett_p(t, 1, df)) == pytest.approx(2 * stats.t.sf(t, df), abs=1e-12)
    assert dunnett_quantile(1, df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-9)


@pytest.mark.parametrize("comparisons", [2, 5, 12])
def test_independent_comparisons_of_known_variance_are_sidak_s(comparisons: int) -> None:
    t = np.array([0.5, 1.5, 2.5, 3.5])
    sidak = 1 - (1 - 2 * stats.norm.sf(t)) ** comparisons
    assert dunnett_p(t, comparisons, 1e8, 0.0) == pytest.approx(sidak, abs=1e-7)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 12), st.floats(1, 200), st.sampled_from([0.0, 0.3, 0.5, 0.8]), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_quantile_is_where_p_is_the_level(k: int, df: float, correlation: float, confidence: float) -> None:
    quantile = dunnett_quantile(k, df, correlation, confidence)
    assert float(dunnett_p(quantile, k, df, correlation)) == pytest.approx(1 - confidence, abs=1e-9)


def test_quantiles_of_several_degrees_of_freedom() -> None:
    df = np.array([4.0, 7.5, 30.0, 999.0])
    assert dunnett_quantiles(5, df, 0.4, 0.9) == pytest.approx([dunnett_quantile(5, each, 0.4, 0.9) for each in df])


def test_p_lies_between_that_alone_and_bonferroni_s() -> None:
    t = np.linspace(0, 60, 200)
    p, alone = dunnett_p(t, 6, 5.0), 2 * stats.t.sf(t, 5)
    assert (alone <= p).all()
    assert (p <= np.minimum(1, 6 * alone) + 1e-15).all()
    assert (np.diff(p) <= 0).all()
    assert p[-1] > 0


def test_shape_and_sign_of_the_statistics() -> None:
    t = np.array([[1.0, -2.0, 3.0], [-1.0, 2.0, -3.0]])
    p = dunnett_p(t, 4, np.array([5.0, 6.0, 7.0]))
    assert p.shape == (2, 3)
    assert np.array_equal(p[0], p[1])


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 5.0, 0.5, 0.95),
        (3, 0.5, 0.5, 0.95),
        (3, 5.0, 1.0, 0.95),
        (3, 5.0, -0.1, 0.95),
        (3, 5.0, 0.5, 1.0),
        (3, np.nan),
    ],
)
def test_what_has_no_law(arguments: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="No Dunnett law"):
        dunnett_quantile(*arguments)


SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@settings(max_examples=12, deadline=None)  # theirs collects garbage at every call
@given(SHARES)
def test_holm_is_that_of_statsmodels(p: list[float]) -> None:
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)


@settings(max_examples=40)
@given(SHARES)
def test_benjamini_hochberg_is_that_of_scipy_and_statsmodels(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p), abs=1e-12)
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1], abs=1e-12)


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_what_is_missing_is_no_part_of_the_family(adjust: object) -> None:
    assert callable(adjust)
    whole = adjust([0.01, 0.04, 0.2])
    assert adjust([np.nan, 0.01, np.nan, 0.04, 0.2]) == pytest.approx(
        [np.nan, *whole[:1], np.nan, *whole[1:]], nan_ok=True
    )
    assert np.isnan(adjust([np.nan, np.nan])).all()
    assert len(adjust([])) == 0
