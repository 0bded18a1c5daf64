"""Ranks of the losses over blocks, and the critical difference where there are blocks enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial

import numpy as np
from numpy.typing import NDArray

from prove.stats.effects import BlockResult

Floats = NDArray[np.float64]

FEWEST_BLOCKS = 10
"""Below, the chi-squared and range laws of rank sums are poor (Demsar 2006)."""


@dataclass(frozen=True)
class CriticalDifference:
    """Friedman's test over blocks and Nemenyi's comparison of all pairs.

    Attributes:
        mean_ranks: by loss, in the order of the ranks' columns; 1 is best.
        critical: mean ranks that differ by less can't be told apart.
        p: that all losses rank alike: Friedman's statistic in the F form of Iman and Davenport (1980).
        groups: sets of losses, as indices from best to worst, within which no pair differs by more than `critical`;
            none lies within another. The bars of the diagram.
        blocks: how many were ranked.
    """

    mean_ranks: tuple[float, ...]
    critical: float
    p: float
    groups: tuple[tuple[int, ...], ...]
    blocks: int


def rank(values: Floats, *, higher_is_better: bool = True) -> Floats:
    """Ranks, 1 is best; equal values share the mean of their ranks; NaN has none and stays NaN.

    Args:
        values: ``[L]``.
    """
    sign = -1.0 if higher_is_better else 1.0
    known = np.isfinite(values)
    keys = sign * np.asarray(values, float)[known]
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    ranks = np.full(len(values), np.nan)
    ranks[known] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def block_ranks(results: Sequence[BlockResult]) -> tuple[tuple[str, ...], Floats]:
    """The losses that all blocks have, and their ranks among each other by adjusted mean, ``[blocks, losses]``.

    Blocks that lack the baseline's adjusted mean are left out; so is, from all blocks, any loss that one of the rest
    lacks.
    """
    tables = [{arm.loss: arm.adjusted_mean for arm in each.arms if np.isfinite(arm.adjusted_mean)} for each in results]
    kept = [(each, table) for each, table in zip(results, tables, strict=True) if each.baseline in table]
    if not kept:
        return (), np.zeros((0, 0))
    losses = tuple(loss for loss in kept[0][1] if all(loss in table for _, table in kept))
    return losses, np.array(
        [
            rank(np.array([table[loss] for loss in losses]), higher_is_better=each.higher_is_better)
            for each, table in kept
        ]
    )


def critical_difference(ranks: Floats, confidence: float = 0.95) -> CriticalDifference | None:
    """Friedman and Nemenyi (Demsar 2006).

    Args:
        ranks: ``[N, L]``, of `block_ranks`; every row ranks the same losses.
        confidence: that no pair of equal losses is told apart.

    Returns:
        None with fewer than 10 blocks or 2 losses.
    """
    blocks, losses = ranks.shape
    if blocks < FEWEST_BLOCKS or losses < 2:
        return None
    from scipy import stats  # 0.8 s: only who draws the diagram pays for it

    means = ranks.mean(axis=0)
    between = blocks * float(((means - (losses + 1) / 2) ** 2).sum())
    within = float(((ranks - (losses + 1) / 2) ** 2).sum()) - between
    if between <= 1e-12:
        p = 1.0
    elif within <= 1e-12:  # all blocks agree: the chance of that
        p = factorial(losses) ** (1.0 - blocks)
    else:
        p = float(stats.f.sf(between / within * (blocks - 1), losses - 1, (losses - 1) * (blocks - 1)))
    # The range of L independent normal variables: infinitely many degrees of freedom.
    quantile = float(stats.studentized_range.isf(1 - confidence, losses, np.inf))
    critical = quantile / np.sqrt(2) * np.sqrt(losses * (losses + 1) / (6 * blocks))
    order = np.argsort(means, kind="stable")
    return CriticalDifference(
        tuple(map(float, means)), float(critical), p, _groups(order, means[order], critical), blocks
    )


def _groups(order: NDArray[np.intp], means: Floats, critical: float) -> tuple[tuple[int, ...], ...]:
    groups: list[tuple[int, ...]] = []
    reached = -1
    for start in range(len(means)):
        end = int(np.searchsorted(means, means[start] + critical, side="right")) - 1
        if end > start and end > reached:
            groups.append(tuple(int(i) for i in order[start : end + 1]))
        reached = max(reached, end)
    return tuple(groups)
