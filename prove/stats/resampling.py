"""Checks that assume no normal law, for designs with many seeds."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST_FLIPPED, MOST_FLIPPED = 6, 30
"""Below, no p reaches 5%; above, the enumeration takes too long."""
FEWEST_CROSSED = 8


def sign_flip_p(differences: Floats) -> float | None:
    """Exact two-sided p of the mean paired difference: how many of the 2^n choices of signs give one as large.

    It assumes only that each difference is as likely to be positive as negative, by the same amount, if the loss has
    no effect. All choices are counted, by halves.

    Args:
        differences: ``[n]`` one per seed.

    Returns:
        None with fewer than 6 or more than 30.
    """
    if not FEWEST_FLIPPED <= len(differences) <= MOST_FLIPPED:
        return None
    half = len(differences) // 2
    first, second = _signed_sums(differences[:half]), np.sort(_signed_sums(differences[half:]))
    least = abs(float(differences.sum())) - 1e-9 * float(np.abs(differences).sum())
    larger = len(second) - np.searchsorted(second, least - first, side="left")
    return float(min(1.0, 2 * larger.sum() / 2 ** len(differences)))


def _signed_sums(values: Floats) -> Floats:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def crossed_interval(differences: Floats, confidence: float) -> tuple[float, float] | None:
    """Percentile interval of the mean difference when seeds and images are resampled at once (Owen 2007).

    Args:
        differences: ``[n, B]`` paired differences by seed, each on the same B resamples of the images. The seeds are
            resampled anew for each, always in the same way.
        confidence: of this comparison alone.

    Returns:
        None with fewer than 8 seeds: resampling so few covers too little.
    """
    seeds, resamples = differences.shape
    if seeds < FEWEST_CROSSED:
        return None
    means = np.einsum("nb,nb->b", _seed_weights(seeds, resamples), differences)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@lru_cache(maxsize=64)
def _seed_weights(seeds: int, resamples: int) -> Floats:
    rng = np.random.default_rng((seeds, resamples))
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).T / seeds
