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
_NOTHING = 1e-9
"""Percentage points: an interval narrower than this says that images don't matter here, not that nothing does."""


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


def usable(values: Floats, replicates: NDArray[np.floating] | None) -> Floats | None:
    """The replicates, as ``[L, S, B]`` doubles, without the resamples in which a run's metric is undefined.

    A class may be missing from a resample; then it is missing for every run, and the resample is dropped for all.

    Returns:
        None without replicates, or where fewer than half of the resamples are left.
    """
    if replicates is None or replicates.shape[-1] < 2:
        return None
    there = np.isfinite(values)
    cells = np.asarray(replicates, float)
    known = np.isfinite(cells[there].sum(axis=0))
    if known.mean() < _LEAST_SHARE:
        return None
    return cells if known.all() else cells[..., known]


def image_noise(values: Floats, replicates: Floats, images: int | None) -> ImageNoise:
    """Split the images' noise off, from resamples that all runs share.

    Args:
        values: ``[L, S]`` with NaN where there is no run.
        replicates: of `usable`.
        images: how many were resampled; None for many.
    """
    there = np.isfinite(values)
    losses, seeds = there.shape
    resamples = replicates.shape[-1]
    centred = np.where(there[..., None], replicates, 0.0)
    centred = centred - centred.mean(axis=-1, keepdims=True)
    flat = centred.reshape(losses * seeds, resamples)
    scale = 1 / (resamples - 1) * (1.0 if images is None or images < 2 else images / (images - 1))
    gram = (flat @ flat.T).reshape(losses, seeds, losses, seeds) * scale
    crossed = gram * (1 - np.eye(seeds))[:, None, :]
    cells = there.astype(float)
    runs = cells.sum(axis=1)
    return ImageNoise(
        arm=_arms(gram, crossed, runs),
        difference=_differences(gram, crossed, cells, runs),
        df=resamples - 1 if images is None else max(1, min(resamples, images) - 1),
    )


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


def percentiles(replicates: Floats, confidence: float) -> tuple[float, float] | None:
    """Interval from resamples of the images alone.

    Args:
        replicates: ``[B]`` of a metric or a difference.

    Returns:
        None where the resamples don't differ: then they tell nothing.
    """
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return (float(low), float(high)) if high - low > _NOTHING else None
