"""How much of a difference is owed to the choice of validation images, from resamples of them.

Images bring two kinds of noise: that of the loss on these images, whatever the seed, and that of the single run on
these images (another seed errs elsewhere). The second differs from run to run, so the scatter over seeds already holds
it. Only the first, which more seeds don't lower, is added to the seeds' variance: it is the covariance, over resamples,
of differences at *different* seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEAST_SHARE = 0.5
_NOTHING = 1e-5
"""Percentage points, about the rounding of a replicate that is kept in single precision. Resamples that differ by less
say that images don't matter here, not that nothing does."""


@dataclass(frozen=True, eq=False)
class ImageNoise:
    """Variances over the choice of images, in squared percentage points.

    Attributes:
        arm: ``[L]`` of a loss's mean; with one run, all of that run's. NaN without a run.
        difference: ``[L, L]`` of two losses' difference. Where they share no two seeds, that of the difference of
            their means, which is too large rather than too small. NaN where one has no run.
        df: degrees of freedom of the variances.
    """

    arm: Floats
    difference: Floats
    df: int


def usable(values: Floats, replicates: NDArray[np.floating] | None, images: int | None) -> NDArray[np.floating] | None:
    """The replicates ``[L, S, B]`` without the resamples in which a run's metric is undefined.

    A class may be missing from a resample; then it is missing for every run, and the resample is dropped for all.

    Returns:
        None without replicates, with fewer than two images, or where fewer than half of the resamples, or two, are
        left.
    """
    if replicates is None or (images is not None and images < 2):
        return None
    there = np.isfinite(values)
    runs = replicates.reshape(there.size, -1) if there.all() else replicates[there]
    known = np.isfinite(runs.sum(axis=0))
    if np.count_nonzero(known) < max(2, _LEAST_SHARE * len(known)):
        return None
    return replicates if known.all() else replicates[..., known]


def image_noise(values: Floats, replicates: NDArray[np.floating], images: int | None) -> ImageNoise | None:
    """Split the images' noise off, from resamples that all runs share.

    Args:
        values: ``[L, S]`` with NaN where there is no run.
        replicates: of `usable`.
        images: how many were resampled; None for many.

    Returns:
        None where no run's resamples differ: then they tell nothing.
    """
    there = np.isfinite(values)
    losses, seeds = there.shape
    resamples = replicates.shape[-1]
    flat = replicates.reshape(losses * seeds, resamples)
    flat = flat if there.all() else np.where(there.reshape(-1, 1), flat, 0)
    flat = flat - flat.mean(axis=-1, keepdims=True, dtype=float).astype(flat.dtype)
    gram = np.asarray(flat @ flat.T, float) * _larger(images) / (resamples - 1)
    if gram.diagonal().max(initial=0.0) <= _NOTHING**2:
        return None
    gram = gram.reshape(losses, seeds, losses, seeds)
    crossed = gram * (1 - np.eye(seeds))[:, None, :]
    cells = there.astype(float)
    runs = cells.sum(axis=1)
    return ImageNoise(
        arm=_arms(gram, crossed, runs),
        difference=_differences(gram, crossed, cells, runs),
        df=resamples - 1 if images is None else max(1, min(resamples, images) - 1),
    )


def _larger(images: int | None) -> float:
    """A resample of n images varies as if the sample were the population: by (n - 1) / n too little."""
    return 1.0 if images is None else images / (images - 1)


def image_draws(
    values: Floats, replicates: NDArray[np.floating], baseline: int, images: int | None
) -> NDArray[np.float32]:
    """``[L, B]`` mean difference to the baseline over the paired seeds, on each resample: centred, and scaled so that
    its variance is that over the choice of images. NaN where a run's metric is undefined, 0 without a pair.

    Args:
        values: ``[L, S]`` with NaN where there is no run.
        replicates: ``[L, S, B]``, all of them.
        baseline: its index.
        images: how many were resampled, 2 or more; None for many.
    """
    there = np.isfinite(values)
    paired = there & there[baseline]
    if paired.all():
        means = replicates.mean(axis=1)
        means = means - means[baseline]
    else:
        differences = np.where(paired[..., None], replicates - replicates[baseline], 0)
        means = differences.sum(axis=1) / np.maximum(np.count_nonzero(paired, axis=1), 1)[:, None]
    centred = means - means.mean(axis=1, keepdims=True, where=np.isfinite(means))
    return np.asarray(centred * np.sqrt(_larger(images)), np.float32)


def _arms(gram: Floats, crossed: Floats, runs: Floats) -> Floats:
    between = np.einsum("aiaj->a", crossed) / np.maximum(runs * (runs - 1), 1)
    alone = np.einsum("aiai->a", gram)
    return np.where(runs > 1, np.maximum(between, 0.0), np.where(runs == 1, alone, np.nan))


def _differences(gram: Floats, crossed: Floats, cells: Floats, runs: Floats) -> Floats:
    both = cells[:, None, :] * cells
    pairs = both.sum(axis=2)
    within = np.einsum("aiaj,abi,abj->ab", crossed, both, both)
    mixed = np.einsum("aibj,abi,abj->ab", crossed, both, both)
    between = (within + within.T - mixed - mixed.T) / np.maximum(pairs * (pairs - 1), 1)
    weights = cells / np.maximum(runs, 1)[:, None]
    means = np.einsum("aibj,ai,bj->ab", gram, weights, weights)
    whole = np.diag(means)[:, None] + np.diag(means) - 2 * means
    variance = np.maximum(np.where(pairs > 1, between, whole), 0.0)
    has_runs = runs > 0
    return np.where(has_runs[:, None] & has_runs, variance, np.nan)


def degrees_of_freedom(seeds: Floats, seed_df: Floats, images: Floats, image_df: float) -> Floats:
    """Satterthwaite's (1946), of the seeds' variance plus the images'; elementwise, at least the fewer of the two.

    With few degrees of freedom, a variance that came out small by chance gets too little weight in the plain formula,
    and the sum too many degrees: 7.5% false alarms instead of 5% at 2 degrees. Here the seeds' variance is weighted
    by (1 + 2 / seed_df)^2, with which they stay between 3.3% and 5% (5.9% at 1), whatever the shares.

    Args:
        seeds, images: the variances; NaN gives `seed_df`.
        seed_df, image_df: their degrees of freedom.
    """
    weighted = seeds * (1 + 2 / seed_df) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        df = (weighted + images) ** 2 / (weighted**2 / seed_df + images**2 / image_df)
    return np.maximum(np.where(np.isfinite(df), df, seed_df), np.minimum(seed_df, image_df))


def percentiles(replicates: NDArray[np.floating], confidence: float) -> tuple[float, float] | None:
    """Interval from resamples of the images alone.

    Args:
        replicates: ``[B]`` of a metric or a difference.

    Returns:
        None where the resamples don't differ: then they tell nothing.
    """
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return (float(low), float(high)) if high - low > _NOTHING else None
