"""The loss x seed analysis of variance: what the losses differ by, and one run's noise. Cells may be missing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

_SAME = 1e-9
"""Percentage points. Repetitions whose residual SD is below it are copies of each other, not repetitions."""


@dataclass(frozen=True, eq=False)
class Additive:
    """Least squares of value = loss + seed + noise, over the cells of a block that are there.

    Attributes:
        means: ``[L]`` what the losses' means over all seeds would be; NaN where there is no run. Of losses that the
            runs don't connect, each over the seeds that it is connected with.
        unit_variance: ``[L, L]`` variance of the difference of two of them, in units of one run's noise variance: 2/S
            in a complete block of S seeds. NaN where the runs don't connect the two losses.
        df: of the residuals.
        squares: ``[L]`` sum of a loss's squared residuals.
    """

    means: Floats
    unit_variance: Floats
    df: int
    squares: Floats

    @cached_property
    def variance(self) -> float | None:
        """Of one run's noise, in squared percentage points: the mean square of the residuals.

        None without degrees of freedom, or where the residuals are nil: such seeds are not repetitions, and nothing
        about noise can be learned from them.
        """
        variance = float(self.squares.sum()) / self.df if self.df > 0 else 0.0
        return variance if variance > _SAME**2 else None


def fit_additive(values: Floats) -> Additive:
    """Fit the two-way additive model.

    A complete block gives the losses' means over the seeds. With cells missing, a loss's estimate is what it differs
    from the others at the seeds that it shares with them.

    Args:
        values: ``[L, S]`` with NaN where there is no run.
    """
    there = np.isfinite(values)
    has_runs = np.asarray(there.any(axis=1))
    filled = np.where(there, values, 0.0)
    if not there.any():
        nothing = np.full(len(values), np.nan)
        return Additive(nothing, np.full((len(values), len(values)), np.nan), 0, np.zeros(len(values)))
    centre = filled.sum() / np.count_nonzero(there)
    filled = np.where(there, values - centre, 0.0)
    if there.all():
        return _complete(filled, centre)
    inverse, projection, df = _design(there)
    squares, means = _least_squares(filled, there, inverse)
    unit_variance = _differences(inverse, projection, has_runs)
    seeds = (np.isfinite(unit_variance) @ there) > 0
    by_seed = np.where(there, filled - means[:, None], 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    means = means + (seeds * by_seed).sum(axis=1) / np.maximum(seeds.sum(axis=1), 1)
    return Additive(
        means=np.where(has_runs, means + centre, np.nan),
        unit_variance=unit_variance,
        df=int(df),
        squares=squares,
    )


def _design(there: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Of blocks ``[..., L, S]``: the inverse information about the losses ``[..., L, L]``, its projection, and the
    residuals' degrees of freedom."""
    cells = there.astype(float)
    per_seed = cells.sum(axis=-2, keepdims=True)
    information = -cells @ np.swapaxes(cells / np.maximum(per_seed, 1), -1, -2)
    diagonal = np.arange(cells.shape[-2])
    information[..., diagonal, diagonal] += cells.sum(axis=-1)
    inverse = np.linalg.pinv(information, hermitian=True)
    projection = information @ inverse
    rank = np.round(np.trace(projection, axis1=-2, axis2=-1))
    return inverse, projection, cells.sum(axis=(-1, -2)) - np.count_nonzero(per_seed[..., 0, :], axis=-1) - rank


def _least_squares(filled: Floats, there: NDArray[np.bool_], inverse: Floats) -> tuple[Floats, Floats]:
    """Sum of squared residuals by loss and the losses' estimates, both ``[..., L]``; values ``filled`` with 0."""
    cells = there.astype(float)
    per_seed = np.maximum(cells.sum(axis=-2, keepdims=True), 1)
    adjusted = (cells * (filled - filled.sum(axis=-2, keepdims=True) / per_seed)).sum(axis=-1)
    means = (inverse @ adjusted[..., None])[..., 0]
    rest = cells * (filled - means[..., None])
    rest = cells * (rest - rest.sum(axis=-2, keepdims=True) / per_seed)
    return (rest**2).sum(axis=-1), means


def _complete(centred: Floats, centre: float) -> Additive:
    losses, seeds = centred.shape
    means = centred.mean(axis=1)
    residuals = centred - means[:, None] - (centred.mean(axis=0) - means.mean())
    df = (losses - 1) * (seeds - 1)
    unit = 2 / seeds * (1 - np.eye(losses))
    return Additive(means + centre, unit, df, (residuals**2).sum(axis=1))


def _differences(inverse: Floats, projection: Floats, has_runs: NDArray[np.bool_]) -> Floats:
    diagonal = np.diag(inverse)
    variance = diagonal[:, None] + diagonal - 2 * inverse
    # A difference can be estimated if the runs connect the two losses: then projecting it changes nothing. The
    # projection's rows are constant within a connected group, up to the identity.
    offset = projection - np.eye(len(projection))
    connected = np.abs(offset[:, None, :] - offset[None, :, :]).max(axis=2) < 1e-6
    return np.where(connected & has_runs[:, None] & has_runs, np.maximum(variance, 0.0), np.nan)


def noisier(values: Floats, fit: Additive, level: Floats) -> NDArray[np.bool_]:
    """Which losses scatter more than the others: the residuals that a loss adds to those of the rest.

    Under equal noise, (squares with the loss - squares without) / (degrees of freedom it adds), over the variance
    without it, follows the F law exactly (after Shukla 1972).

    Args:
        values: ``[L, S]`` with NaN where there is no run.
        fit: of the values.
        level: ``[L]`` chance that the loss is named though all have the same noise.

    Returns:
        ``[L]``; all False with fewer than three losses: two paired losses have one common scatter.
    """
    losses, seeds = values.shape
    if losses < 3 or fit.df < 1:
        return np.zeros(losses, bool)
    if np.isfinite(values).all():
        added = np.full(losses, seeds - 1.0)
        squares = fit.squares * losses / (losses - 1)
    else:
        there = np.isfinite(values)
        without = there & ~np.eye(losses, dtype=bool)[:, :, None]
        inverse, _, rest_df = _design(without)
        filled = np.where(there, values - values[there].mean(), 0.0)
        added = fit.df - rest_df
        squares = fit.squares.sum() - _least_squares(filled * without, without, inverse)[0].sum(axis=-1)
    others, other_df = fit.squares.sum() - squares, fit.df - added
    testable = (added > 0) & (other_df > 0) & (others > _SAME**2) & (squares > 0)
    found = np.zeros(losses, bool)
    ratio = squares[testable] / added[testable] / (others[testable] / other_df[testable])
    found[testable] = special.fdtrc(added[testable], other_df[testable], ratio) < level[testable]
    return found


def seed_correlation(values: Floats) -> float | None:
    """How much two losses' results at the same seed have in common: what pairing by seed is worth.

    The covariance of two losses over the seeds they share, as a share of their mean variance, averaged over the pairs
    of losses; for a complete block the intraclass correlation of consistency (Shrout and Fleiss 1979, ICC(3,1)).

    Args:
        values: ``[L, S]`` with NaN where there is no run.

    Returns:
        In [-1, 1]; None without two losses that share two seeds, or where nothing varies.
    """
    there = np.isfinite(values)
    losses, seeds = values.shape
    if there.all() and losses > 1 and seeds > 1:
        centred = values - values.mean(axis=1, keepdims=True)
        own = float((centred**2).sum())
        both = float((centred.sum(axis=0) ** 2).sum()) - own
        return both / (losses - 1) / own if own > _SAME**2 else None
    cells = there.astype(float)
    x = np.where(there, values - values[there].mean(), 0.0) if there.any() else cells
    shared = cells @ cells.T
    sums = x @ cells.T
    pairs = np.triu(shared >= 2, 1)
    count = np.maximum(shared, 1)
    together = (x @ x.T - sums * sums.T / count)[pairs].sum()
    squares = x**2 @ cells.T - sums**2 / count
    alone = (squares + squares.T)[pairs].sum() / 2
    return float(together / alone) if alone > _SAME**2 else None
