"""Compare the losses of one block: effects against the baseline, intervals of the means, which may be best."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from prove.stats.additive import Additive, fit_additive, noisier, seed_correlation
from prove.stats.effects import Arm, BlockData, BlockResult, Effect, Verdict
from prove.stats.images import ImageNoise, degrees_of_freedom, image_draws, image_noise, percentiles, usable
from prove.stats.multiplicity import dunnett_p, dunnett_quantile, dunnett_quantiles, hsu_quantile
from prove.stats.resampling import FEWEST_CROSSED, FEWEST_FLIPPED, crossed_interval, sign_flip_p
from prove.stats.verdict import verdict

Floats = NDArray[np.float64]

_SAME = 1e-9
"""Percentage points: a standard deviation below it is rounding."""
_UNEQUAL = 0.05
"""Level at which the baseline, and any of the losses, is found to scatter more than the rest."""
_GRID = 20
"""Correlations are rounded down to 1/20: a little conservative, and the same law serves many blocks."""


def compare(data: BlockData, *, smallest_effect: float, confidence: float = 0.95) -> BlockResult:
    """What the block's runs say about each loss.

    With several seeds: the additive loss + seed model (cells may be missing), one noise variance for all losses,
    plus the variance that the images bring and seeds don't lower; Satterthwaite's degrees of freedom; intervals that
    hold together for all losses of the block (Dunnett). A loss that shares one seed with the baseline is judged by the
    noise of the others: it gets an interval and no verdict. With one seed, or seeds that all gave the same numbers:
    a percentile interval over resampled images, each for itself, and no verdict.

    Args:
        data: the block.
        smallest_effect: of interest, in percentage points; 0 or more.
        confidence: of all intervals, in (0.5, 1).

    Raises:
        ValueError: shapes that don't fit, a baseline that is not among the losses, options out of range.
    """
    values = _checked(data, smallest_effect, confidence)
    replicates = usable(values, data.replicates, data.images)
    fit = fit_additive(values)
    there, base = np.isfinite(values), data.losses.index(data.baseline)
    noisy = noisier(values, fit, np.where(np.arange(len(values)) == base, _UNEQUAL, _UNEQUAL / max(1, len(values) - 1)))
    noise = None if replicates is None else image_noise(values, replicates, data.images)
    spread = _spread(values, fit, noisy, noise) if fit.variance is not None else None
    paired = np.count_nonzero(there & there[base], axis=1)
    block = _Block(data, values, base, paired, replicates, fit, noise, spread, smallest_effect, confidence)
    family = _family(block)
    return BlockResult(
        baseline=data.baseline,
        arms=_arms(block),
        effects=_effects_of_seeds(block, family) if spread is not None else _effects_of_images(block),
        residual_sd=None if fit.variance is None else float(np.sqrt(fit.variance)),
        residual_df=fit.df,
        seed_correlation=seed_correlation(values),
        critical=None if not family.losses else dunnett_quantile(len(family.losses), fit.df, family.rho, confidence),
        confidence=confidence,
        smallest_effect=smallest_effect,
        higher_is_better=data.higher_is_better,
        correlation=family.rho if len(family.losses) > 1 else None,
        noisier=tuple(loss for loss, more in zip(data.losses, noisy, strict=True) if more),
        dataset=data.dataset,
        images_digest=data.images_digest,
    )


@dataclass(frozen=True, eq=False)
class _Spread:
    """Of the difference of every two losses, ``[L, L]``: variances in squared points and degrees of freedom.

    Attributes:
        correlations: ``[L, L, L]`` of two losses' differences (second and third axis) with a third (first axis); NaN
            where there is none.
    """

    seeds: Floats
    images: Floats
    total: Floats
    df: Floats
    correlations: Floats


@dataclass(frozen=True, eq=False)
class _Block:
    data: BlockData
    values: Floats
    baseline: int
    paired: NDArray[np.intp]
    replicates: NDArray[np.floating] | None
    fit: Additive
    noise: ImageNoise | None
    spread: _Spread | None
    smallest_effect: float
    confidence: float


@dataclass(frozen=True)
class _Family:
    """The comparisons with the baseline that hold together.

    Attributes:
        losses: their indices.
        rho: smallest correlation of two of the effects, on the grid.
    """

    losses: tuple[int, ...]
    rho: float


def _checked(data: BlockData, smallest_effect: float, confidence: float) -> Floats:
    values = np.asarray(data.values, float)
    shape = (len(data.losses), len(data.seeds))
    if values.shape != shape or (data.replicates is not None and data.replicates.shape[:2] != shape):
        raise ValueError(f"Values must be {shape} (losses, seeds) like the replicates, not {values.shape}.")
    if data.baseline not in data.losses or len(set(data.losses)) < len(data.losses):
        raise ValueError(f"The baseline {data.baseline!r} must be one of the losses {data.losses}, each named once.")
    if not smallest_effect >= 0 or not 0.5 < confidence < 1:
        raise ValueError(f"Out of range: {smallest_effect=} (at least 0), {confidence=} (between 0.5 and 1).")
    return np.where(np.isfinite(values), values, np.nan)


def _spread(values: Floats, fit: Additive, noisy: NDArray[np.bool_], noise: ImageNoise | None) -> _Spread:
    assert fit.variance is not None
    seeds, df = fit.unit_variance * fit.variance, np.full_like(fit.unit_variance, fit.df)
    for loss in np.flatnonzero(noisy):
        _widen(values, int(loss), seeds, df)
    images = np.zeros_like(seeds) if noise is None else noise.difference
    total = seeds + images
    df = df if noise is None else degrees_of_freedom(seeds, df, images, noise.df)
    return _Spread(seeds, images, total, df, _correlations(total))


def _widen(values: Floats, loss: int, seeds: Floats, df: Floats) -> None:
    """Give a noisier loss's differences their own variance over the seeds, where that is larger than the common one."""
    for other in range(len(values)):
        differences = _paired(values, other, loss)
        if other == loss or len(differences) < 2:
            continue
        own = float(differences.var(ddof=1)) / len(differences)
        if own > seeds[loss, other]:
            seeds[loss, other] = seeds[other, loss] = own
            df[loss, other] = df[other, loss] = len(differences) - 1


def _correlations(total: Floats) -> Floats:
    own = np.sqrt(total)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = own[:, :, None] / own[:, None, :]
        table = (ratio + ratio.transpose(0, 2, 1) - total / (own[:, :, None] * own[:, None, :])) / 2
    table[:, np.arange(len(total)), np.arange(len(total))] = np.nan
    return np.asarray(table)


def _family(block: _Block) -> _Family:
    if block.spread is None:
        return _Family((), 0.5)
    base, total = block.baseline, block.spread.total[block.baseline]
    losses = tuple(i for i in range(len(total)) if i != base and block.paired[i] and np.isfinite(total[i]))
    return _Family(losses, _smallest_correlation(block.spread, (base,), losses))


def _smallest_correlation(spread: _Spread, controls: tuple[int, ...], losses: tuple[int, ...]) -> float:
    """Of any two differences with one control; at least 0, rounded down.

    The law with equal correlations at the smallest one gives intervals that are too wide rather than too narrow.
    """
    table = spread.correlations[np.ix_(controls, losses, losses)]
    known = table[np.isfinite(table)]
    return max(0.0, float(np.floor(min(known.min(), 0.95) * _GRID + 1e-6) / _GRID)) if known.size else 0.5


def _effects_of_seeds(block: _Block, family: _Family) -> tuple[Effect, ...]:
    spread, fit, base = block.spread, block.fit, block.baseline
    assert spread is not None
    chosen = list(family.losses)
    rest = set(range(len(block.data.losses))) - {base, *chosen}
    effects = {loss: _without_interval(block, loss) for loss in rest}
    if chosen:
        se, df = np.sqrt(spread.total[base, chosen]), spread.df[base, chosen]
        delta = fit.means[chosen] - fit.means[base]
        reach = _quantiles(len(chosen), df, family.rho, block.confidence) * se
        alone = 2 * special.stdtr(df, -np.abs(delta / se))
        together = dunnett_p(delta / se, len(chosen), df, family.rho)
        draws = None if block.noise is None else _image_draws(block)
        for n, loss in enumerate(chosen):
            seeds = int(block.paired[loss])
            low, high = float(delta[n] - reach[n]), float(delta[n] + reach[n])
            effects[loss] = Effect(
                loss=block.data.losses[loss],
                delta=float(delta[n]),
                low=low,
                high=high,
                p=float(alone[n]),
                p_adjusted=float(together[n]),
                se=float(se[n]),
                seed_se=float(np.sqrt(spread.seeds[base, loss])),
                image_se=None if block.noise is None else float(np.sqrt(spread.images[base, loss])),
                df=float(df[n]),
                seeds=seeds,
                p_sign_flip=sign_flip_p(_paired(block.values, base, loss)) if seeds >= FEWEST_FLIPPED else None,
                crossed=_crossed(block, loss) if seeds >= FEWEST_CROSSED else None,
                basis="seeds" if block.noise is None else "seeds and images",
                verdict=verdict(low, high, block.smallest_effect, higher_is_better=block.data.higher_is_better)
                if seeds > 1
                else Verdict.NO_VERDICT,
                image_draws=None if draws is None else draws[loss],
            )
    return tuple(effects[loss] for loss in sorted(effects))


def _quantiles(comparisons: int, df: Floats, rho: float, confidence: float) -> Floats:
    if np.ptp(df) == 0:
        return np.full(len(df), dunnett_quantile(comparisons, float(df[0]), rho, confidence))
    return dunnett_quantiles(comparisons, df, rho, confidence)


def _effects_of_images(block: _Block) -> tuple[Effect, ...]:
    """One seed, or seeds that are copies: what other images would have given, for these checkpoints."""
    base = block.baseline
    draws = None if block.replicates is None else _image_draws(block)
    effects = []
    for loss in range(len(block.data.losses)):
        if loss == base:
            continue
        resampled = None if block.replicates is None else _paired(block.replicates, base, loss, block.values)
        interval = None if resampled is None or not len(resampled) else _percentiles(block, resampled.mean(axis=0))
        if resampled is None or interval is None or draws is None:
            effects.append(_without_interval(block, loss))
            continue
        se = float(resampled.mean(axis=0).std(ddof=1))
        effects.append(replace(_without_interval(block, loss, interval=interval, image_se=se), image_draws=draws[loss]))
    return tuple(effects)


def _without_interval(
    block: _Block, loss: int, *, interval: tuple[float, float] | None = None, image_se: float | None = None
) -> Effect:
    """An effect that seeds say nothing about; with an `interval`, images do."""
    differences = _paired(block.values, block.baseline, loss)
    low, high = interval or (None, None)
    return Effect(
        loss=block.data.losses[loss],
        delta=float(differences.mean()) if len(differences) else float("nan"),
        low=low,
        high=high,
        p=None,
        p_adjusted=None,
        se=image_se,
        seed_se=None,
        image_se=image_se,
        df=None,
        seeds=len(differences),
        p_sign_flip=None,
        crossed=None,
        basis="nothing" if interval is None else "images",
        verdict=Verdict.NO_VERDICT,
    )


def _image_draws(block: _Block) -> NDArray[np.float32]:
    assert block.data.replicates is not None
    return image_draws(block.values, block.data.replicates, block.baseline, block.data.images)


def _paired(cells: NDArray[np.floating], base: int, loss: int, values: Floats | None = None) -> Floats:
    """Differences at the seeds that both have, in their order.

    Args:
        cells: ``[L, S]`` or ``[L, S, B]``.
        values: ``[L, S]`` that says which cells are there; `cells` itself if None.
    """
    there = np.isfinite(cells if values is None else values)
    shared = there[base] & there[loss]
    return np.asarray(cells[loss, shared] - cells[base, shared], float)


def _crossed(block: _Block, loss: int) -> tuple[float, float] | None:
    if block.replicates is None:
        return None
    return crossed_interval(_paired(block.replicates, block.baseline, loss, block.values), block.confidence)


def _percentiles(block: _Block, resampled: NDArray[np.floating]) -> tuple[float, float] | None:
    return percentiles(resampled, block.confidence)


def _arms(block: _Block) -> tuple[Arm, ...]:
    values, ranked = block.values, list(_ranked(block))
    best = _may_be_best(block, ranked)
    adjusted = np.full(len(values), np.nan)
    adjusted[ranked] = block.fit.means[ranked]
    there = np.isfinite(values)
    seeds = np.count_nonzero(there, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(there, values, 0.0).sum(axis=1) / seeds
        sds = np.sqrt(np.where(there, (values - means[:, None]) ** 2, 0.0).sum(axis=1) / (seeds - 1))
        variance = sds**2 / seeds
    images, df = np.zeros(len(values)), np.maximum(seeds - 1.0, 1.0)
    if block.noise is not None:
        images, df = block.noise.arm, degrees_of_freedom(variance, df, block.noise.arm, block.noise.df)
    repeated = (seeds > 1) & (sds > _SAME)
    reach = special.stdtrit(df, (1 + block.confidence) / 2) * np.sqrt(variance + images)
    arms = []
    for n, loss in enumerate(block.data.losses):
        interval: tuple[float, float] | None = None
        if repeated[n]:
            interval = float(means[n] - reach[n]), float(means[n] + reach[n])
        elif seeds[n] and block.replicates is not None:
            interval = _percentiles(block, block.replicates[n, there[n]].mean(axis=0))
        low, high = interval or (None, None)
        sd = float(sds[n]) if seeds[n] > 1 else None
        arms.append(Arm(loss, int(seeds[n]), float(means[n]), sd, low, high, best[n], float(adjusted[n])))
    return tuple(arms)


def _ranked(block: _Block) -> tuple[int, ...]:
    """The losses whose means can be ranked: most that the seeds connect, those with the baseline where it is equal.

    Where a loss has two runs or more, those with one are not ranked: a run says too little about a loss.
    """
    runs = np.count_nonzero(np.isfinite(block.values), axis=1)
    several = (runs > 0) & (runs >= min(2, runs.max(initial=0)))
    connected = np.isfinite(block.fit.unit_variance) & several & several[:, None]
    group = connected[(connected.sum(axis=1) + 0.5 * connected[block.baseline]).argmax()]
    alone = np.count_nonzero(group) == 1 < np.count_nonzero(runs)
    return () if alone else tuple(int(i) for i in np.flatnonzero(group))


def _may_be_best(block: _Block, ranked: list[int]) -> list[bool | None]:
    """Hsu's comparison with the best, among the losses that are ranked."""
    answer: list[bool | None] = [None] * len(block.data.losses)
    spread = block.spread
    if spread is None or len(ranked) < 2:
        return answer
    total = spread.total[np.ix_(ranked, ranked)]
    df = float(spread.df[np.ix_(ranked, ranked)][~np.eye(len(ranked), dtype=bool)].min() // 1)
    rho = _smallest_correlation(spread, tuple(ranked), tuple(ranked))
    quantile = hsu_quantile(len(ranked) - 1, df, rho, block.confidence)
    means = block.fit.means[ranked] * (1 if block.data.higher_is_better else -1)
    beaten_by = means - means[:, None] - quantile * np.sqrt(total)
    np.fill_diagonal(beaten_by, -1.0)
    for n, arm in enumerate(ranked):
        answer[arm] = bool((beaten_by[n] <= 0).all())
    return answer
