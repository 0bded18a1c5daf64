"""Several comparisons at once: Dunnett's many-to-one, Hsu's with the best, Holm, Benjamini-Hochberg.

Dunnett's statistics T_1..T_k share one variance estimate and have the same correlation r >= 0 with each other. With a
common factor z and the ratio s of estimated to true standard deviation (s^2 ~ chi^2 / df),

    P(max |T_j| <= t) = E_s G(t s),   G(u) = int phi(z) [Phi((sqrt(r) z + u) / q) - Phi((sqrt(r) z - u) / q)]^k dz,

with q = sqrt(1 - r) (Dunnett 1955, 1964). Hsu's comparison with the best (1984) needs the one-sided law, where the
bracket is Phi((sqrt(r) z + u) / q). Both integrals are trapezoid sums, over z and over log s: the integrands are
analytic and die out at both ends, so the sums converge geometrically. The result is deterministic, and right to about
1e-9. `scipy.stats.multivariate_t` gives the same to its Monte Carlo error and takes far longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]
Sides = Literal["one", "two"]

_STEP = 1 / 64
_REACH = 10.0
"""1 - G is nothing in double precision beyond it."""
_SCALES, _SCALES_FEW_DF = 96, 400
_DEPTH = 34.0
"""exp(-34), the density of log s at the ends of its sum as a share of its peak, is nothing in double precision."""


def dunnett_quantile(comparisons: int, df: float, correlation: float = 0.5, confidence: float = 0.95) -> float:
    """By what the standard error is multiplied in simultaneous two-sided intervals of several losses against one.

    Args:
        comparisons: k losses, without the baseline.
        df: degrees of freedom of the standard error, at least 1.
        correlation: of the estimates with each other: 0.5 in a complete block; in [0, 1).
        confidence: that all intervals hold, in (0.5, 1).
    """
    return _quantile(comparisons, float(df), float(correlation), float(confidence), "two")


def dunnett_quantiles(comparisons: int, df: ArrayLike, correlation: float = 0.5, confidence: float = 0.95) -> Floats:
    """`dunnett_quantile` for each of several degrees of freedom."""
    return _quantiles(comparisons, np.asarray(df, float), float(correlation), float(confidence), "two")


def hsu_quantile(comparisons: int, df: float, correlation: float = 0.5, confidence: float = 0.95) -> float:
    """The one-sided Dunnett quantile: arm i may be best if no arm j beats it by more than this many standard errors.

    Args:
        comparisons: number of the other arms.
    """
    return _quantile(comparisons, float(df), float(correlation), float(confidence), "one")


def dunnett_p(t: ArrayLike, comparisons: int, df: ArrayLike, correlation: float = 0.5) -> Floats:
    """Adjusted two-sided p: the chance, if no loss differs, that any of the comparisons has so large a statistic.

    Args:
        t: the statistics, of either sign; any shape that broadcasts with `df`.

    Returns:
        As many values, each between the p of the comparison alone and that times `comparisons` (Bonferroni).
    """
    statistic, freedom = np.broadcast_arrays(np.abs(np.asarray(t, float)), np.asarray(df, float))
    alone = 2 * special.stdtr(freedom, -statistic)
    _check(comparisons, freedom, correlation, 0.95)
    if comparisons == 1:
        return np.asarray(alone)
    one = freedom.size and freedom.flat[0] == freedom.min() == freedom.max()
    scales = _scales(freedom.flat[:1] if one else freedom.ravel())
    tail, _ = _tails(_law(comparisons, float(correlation), "two"), statistic.ravel(), *scales)
    return np.clip(tail.reshape(statistic.shape), alone, np.minimum(1.0, comparisons * alone))


@dataclass(frozen=True, eq=False)
class _Law:
    """1 - G and its slope at 0, `_STEP`, ..., `_REACH`."""

    tail: Floats
    slope: Floats


@lru_cache(maxsize=512)
def _law(comparisons: int, correlation: float, sides: Sides) -> _Law:
    u = np.arange(0, _REACH + _STEP / 2, _STEP)[:, None]
    width, factor = np.sqrt(1 - correlation), np.sqrt(correlation)
    h = min(0.125, 0.5 * width)
    z = np.arange(-np.ceil(8.5 / h), np.ceil(8.5 / h) + 1) * h
    if sides == "two":
        z = z[z >= 0]
    weights = np.exp(-(z**2) / 2)
    weights[0] *= 0.5 if sides == "two" else 1.0
    weights /= weights.sum()
    upper = (factor * z + u) / width
    inside, density = special.ndtr(upper), _density(upper)
    if sides == "two":
        lower = (factor * z - u) / width
        inside, density = inside - special.ndtr(lower), density + _density(lower)
    inside = np.maximum(inside, 0.0)
    power = inside ** (comparisons - 1)
    return _Law(1 - (power * inside) @ weights, -comparisons / width * ((power * density) @ weights))


def _density(x: Floats) -> Floats:
    return np.asarray(np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))


def _scales(df: Floats) -> tuple[Floats, Floats]:
    """Values of s and their weights, a row for each of n degrees of freedom."""
    return _computed_scales(np.asarray(df, float).tobytes())


@lru_cache(maxsize=256)
def _computed_scales(df: bytes) -> tuple[Floats, Floats]:
    freedom = np.minimum(np.frombuffer(df), 1e8)[:, None]
    a = np.sqrt(_DEPTH / freedom)
    low, high = -(a + a**2), 0.5 * np.log1p(2 * a**2 + 2 * a)
    x = low + (high - low) * np.linspace(0, 1, _SCALES if freedom.min() >= 3 else _SCALES_FEW_DF)
    weights = np.exp(freedom * (x - np.expm1(2 * x) / 2))
    return np.exp(x), weights / weights.sum(axis=1, keepdims=True)


def _tails(law: _Law, t: Floats, scales: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """P(max > t) and its derivative, by cubic Hermite interpolation of the law."""
    u = np.minimum(t[:, None] * scales, _REACH - _STEP / 2) / _STEP
    index = u.astype(np.intp)
    x = u - index
    y0, y1 = law.tail[index], law.tail[index + 1]
    m0, m1 = law.slope[index] * _STEP, law.slope[index + 1] * _STEP
    c2, c3 = 3 * (y1 - y0) - 2 * m0 - m1, 2 * (y0 - y1) + m0 + m1
    tail = y0 + x * (m0 + x * (c2 + x * c3))
    slope = (m0 + x * (2 * c2 + x * 3 * c3)) / _STEP
    return (weights * tail).sum(axis=1), (weights * scales * slope).sum(axis=1)


@lru_cache(maxsize=4096)
def _quantile(comparisons: int, df: float, correlation: float, confidence: float, sides: Sides) -> float:
    return float(_quantiles(comparisons, np.array([df]), correlation, confidence, sides)[0])


def _quantiles(comparisons: int, df: Floats, correlation: float, confidence: float, sides: Sides) -> Floats:
    """Newton's method on log tail over log t, from Bonferroni's quantile, which is a little too large."""
    _check(comparisons, df, correlation, confidence)
    alpha = 1 - confidence
    start = -special.stdtrit(df, alpha / comparisons / (2 if sides == "two" else 1))
    if comparisons == 1:
        return np.asarray(start)
    law, (scales, weights) = _law(comparisons, correlation, sides), _scales(df)
    log_t = np.log(start)
    for _ in range(50):
        t = np.exp(log_t)
        tail, slope = _tails(law, t, scales, weights)
        step = (np.log(tail) - np.log(alpha)) * tail / (slope * t)
        log_t = log_t - step
        if np.abs(step).max() < 1e-11:
            break
    return np.asarray(np.exp(log_t))


def _check(comparisons: int, df: Floats, correlation: float, confidence: float) -> None:
    if comparisons < 1 or not 0 <= correlation < 1 or not 0.5 < confidence < 1 or not np.all(df >= 1):
        raise ValueError(f"No Dunnett law for {comparisons=}, {df=}, {correlation=}, {confidence=}.")


def holm(p: ArrayLike) -> Floats:
    """p adjusted by Holm (1979): the chance of any false positive stays at the level, whatever the dependence.

    Args:
        p: ``[m]`` in [0, 1]; NaN is not part of the family and stays NaN.
    """
    values, order = _family(p)
    factors = np.arange(len(order), 0, -1.0)
    return _placed(values, order, np.maximum.accumulate(values[order] * factors))


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """q by Benjamini and Hochberg (1995): the expected share of false positives among those below the level.

    Args:
        p: ``[m]`` in [0, 1]; NaN is not part of the family and stays NaN.
    """
    values, order = _family(p)
    factors = len(order) / np.arange(1.0, len(order) + 1)
    return _placed(values, order, np.minimum.accumulate((values[order] * factors)[::-1])[::-1])


def _family(p: ArrayLike) -> tuple[Floats, NDArray[np.intp]]:
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    return values, order[: np.count_nonzero(~np.isnan(values))]


def _placed(values: Floats, order: NDArray[np.intp], adjusted: Floats) -> Floats:
    placed = np.full_like(values, np.nan)
    placed[order] = np.minimum(adjusted, 1.0)
    return placed
