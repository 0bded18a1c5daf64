"""A loss over several blocks: random effects, Hartung-Knapp, Holm over the losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from prove.stats.effects import BlockResult, Effect, PooledEffect, Verdict
from prove.stats.multiplicity import holm
from prove.stats.ranks import rank
from prove.stats.shared_images import NOTHING_SHARED, SharedImages, shared_images
from prove.stats.verdict import verdict

Floats = NDArray[np.float64]


def pool(results: Sequence[BlockResult]) -> tuple[PooledEffect, ...]:
    """Every loss over all blocks, in the order in which they first appear, without the baseline.

    A block's effect is taken as one draw from the effects that the loss has on such blocks. Their spread, tau, is
    estimated by Paule and Mandel (1982); the mean's interval by Hartung and Knapp (2001), never narrower than the
    one without their correction. Blocks that are judged on the same images err together: what their resamples have in
    common is added to the mean's variance. An effect without a standard error takes no part; one from a single seed
    does if its images give one: the spread over the blocks then holds the seeds' noise.

    The verdict is about the family of all losses: better or worse needs Holm's p below the level, equivalent needs
    the interval at Bonferroni's level to lie within the smallest effect.

    Args:
        results: of one metric, all with the same baseline, confidence and smallest effect.

    Raises:
        ValueError: results of different baselines, metrics' directions, confidences or smallest effects.
    """
    shared = {(each.baseline, each.higher_is_better, each.confidence, each.smallest_effect) for each in results}
    if len(shared) > 1:
        raise ValueError(f"Blocks that differ in baseline, direction, confidence or smallest effect: {shared}.")
    if not results:
        return ()
    [(baseline, higher_is_better, confidence, smallest_effect)] = shared
    losses = list(dict.fromkeys(arm.loss for each in results for arm in each.arms if arm.loss != baseline))
    means, in_common = zip(*(_mean(loss, results) for loss in losses), strict=True) if losses else ((), ())
    adjusted = holm([np.nan if each.p is None else each.p for each in means])
    family = int(np.isfinite(adjusted).sum())
    ranks = _ranks(results)
    pooled = []
    for loss, mean, images, p_adjusted in zip(losses, means, in_common, adjusted, strict=True):
        low, high = mean.interval(confidence) or (None, None)
        rank_mean, rank_low, rank_high = _mean_rank(ranks, loss, confidence)
        pooled.append(
            PooledEffect(
                loss=loss,
                delta=mean.value,
                low=low,
                high=high,
                p=mean.p,
                p_adjusted=None if np.isnan(p_adjusted) else float(p_adjusted),
                tau=mean.tau,
                blocks=mean.blocks,
                verdicts=_verdicts(loss, results),
                mean_rank=rank_mean,
                rank_low=rank_low,
                rank_high=rank_high,
                verdict=_verdict(mean, float(p_adjusted), family, confidence, smallest_effect, higher_is_better),
                shares_images=images.unknown,
            )
        )
    return tuple(pooled)


@dataclass(frozen=True)
class RandomEffects:
    """The mean of a random-effects meta-analysis.

    Attributes:
        value: NaN without an effect.
        se: Hartung and Knapp's, and what the effects have in common; None with fewer than two effects.
        tau: SD of the true effects; None with fewer than two.
        blocks: number of effects.
    """

    value: float
    se: float | None
    tau: float | None
    blocks: int

    @property
    def p(self) -> float | None:
        """Two-sided."""
        return None if self.se is None else float(2 * special.stdtr(self.blocks - 1, -abs(self.value / self.se)))

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Of the mean, by the t law with one degree of freedom fewer than effects."""
        if self.se is None:
            return None
        reach = float(special.stdtrit(self.blocks - 1, (1 + confidence) / 2)) * self.se
        return self.value - reach, self.value + reach


def random_effects(effects: Floats, variances: Floats, images: SharedImages = NOTHING_SHARED) -> RandomEffects:
    """Mean of effects that differ truly and by noise.

    Noise in common does not show in the scatter of the effects. It makes the mean's variance larger than their scatter
    says, and their scatter smaller than if each erred on its own; both are put right.

    Args:
        effects: ``[n]``.
        variances: ``[n]`` of the noise, each above 0.
        images: what the noise has in common.
    """
    count = len(effects)
    if count < 2:
        return RandomEffects(float(effects[0]) if count else float("nan"), None, None, count)
    tau2, common = paule_mandel(effects, variances), 0.0
    for _ in range(2):  # what is in common changes the weights, and they change a little what is in common
        weights = 1 / (variances + tau2)
        common = images.variance(weights / weights.sum())
        if common == 0:
            break
        tau2 = paule_mandel(effects, variances, common)
    weights = 1 / (variances + tau2)
    whole = float(weights.sum())
    mean = float(weights @ effects) / whole
    scatter = (float(weights @ (effects - mean) ** 2) + whole * common) / (count - 1)
    return RandomEffects(mean, float(np.sqrt(max(scatter, 1.0) / whole + common)), float(np.sqrt(tau2)), count)


def paule_mandel(effects: Floats, variances: Floats, common: float = 0.0) -> float:
    """Variance of the true effects: the one with which the weighted squares sum to their expectation; else 0.

    Args:
        common: variance that the mean has because the noise of the effects has something in common (`SharedImages`);
            times the sum of the weights, it is missing from the squares. Their expectation is n - 1 without it.
    """

    def excess(tau2: float) -> tuple[float, float]:
        weights = 1 / (variances + tau2)
        squares = (effects - weights @ effects / weights.sum()) ** 2 + common
        return float(weights @ squares) - (len(effects) - 1), float(weights**2 @ squares)

    tau2 = 0.0
    for _ in range(100):
        # Convex and falling: from the left, Newton's method comes up to the root without passing it.
        over, slope = excess(tau2)
        if over <= 1e-12 * len(effects):
            break
        tau2 += over / slope
    return tau2


def _mean(loss: str, results: Sequence[BlockResult]) -> tuple[RandomEffects, SharedImages]:
    found = [
        (each, effect)
        for each in results
        for effect in each.effects
        if effect.loss == loss and effect.se is not None and effect.se > 0 and np.isfinite(effect.delta)
    ]
    images = shared_images(found)
    deltas = np.array([effect.delta for _, effect in found])
    return random_effects(deltas, _variances([effect for _, effect in found]), images), images


def _variances(effects: Sequence[Effect]) -> Floats:
    """Noise variances to weight effects by: of the seeds with the blocks' common unit variance, and of the images.

    A block of few seeds knows its own noise badly. Weighted by it, blocks that came out calm by chance count most, and
    the interval is too narrow (two losses, three seeds, 16 blocks: 13% false alarms). With a common unit variance the
    weights say how many seeds stand behind an effect; true differences in noise show in the scatter of the effects,
    which the interval rests on.
    """
    known = [each for each in effects if each.seed_se is not None and each.df is not None]
    information = sum(each.df or 0.0 for each in known)
    unit = sum((each.df or 0.0) * each.seeds * (each.seed_se or 0.0) ** 2 for each in known) / max(information, 1e-12)
    return np.array(
        [
            (each.se or 0.0) ** 2
            if each.seed_se is None or each.df is None
            else unit / each.seeds + (each.image_se or 0.0) ** 2
            for each in effects
        ]
    )


def _verdicts(loss: str, results: Sequence[BlockResult]) -> dict[Verdict, int]:
    counts = Counter(effect.verdict for each in results for effect in each.effects if effect.loss == loss)
    return {each: counts[each] for each in Verdict if counts[each]}


def _verdict(
    mean: RandomEffects,
    p_adjusted: float,
    family: int,
    confidence: float,
    smallest_effect: float,
    higher_is_better: bool,
) -> Verdict:
    strict = mean.interval(1 - (1 - confidence) / max(family, 1))
    if strict is None:
        return Verdict.NO_VERDICT
    if verdict(*strict, smallest_effect) is Verdict.EQUIVALENT:
        return Verdict.EQUIVALENT
    if p_adjusted < 1 - confidence:
        return Verdict.BETTER if (mean.value > 0) == higher_is_better else Verdict.WORSE
    return Verdict.INCONCLUSIVE


def _ranks(results: Sequence[BlockResult]) -> list[dict[str, tuple[float, int]]]:
    """Per block: loss -> (its rank among the losses that have an adjusted mean, how many these are)."""
    tables = []
    for each in results:
        ranks = rank(np.array([arm.adjusted_mean for arm in each.arms]), higher_is_better=each.higher_is_better)
        known = int(np.isfinite(ranks).sum())
        tables.append({arm.loss: (float(r), known) for arm, r in zip(each.arms, ranks, strict=True) if r == r})
    return tables


def _mean_rank(
    ranks: list[dict[str, tuple[float, int]]], loss: str, confidence: float
) -> tuple[float, float | None, float | None]:
    """Mean rank with a normal interval.

    Its variance is the observed one, and at least that of ranks drawn at random, (L^2 - 1) / 12: a few blocks that
    agree are no proof that the next will.
    """
    found = [table[loss] for table in ranks if loss in table]
    if not found:
        return float("nan"), None, None
    values = np.array([value for value, _ in found])
    mean = float(values.mean())
    if len(found) < 2:
        return mean, None, None
    sizes = np.array([size for _, size in found], float)
    variance = max(float(values.var(ddof=1)), float(((sizes**2 - 1) / 12).mean()))
    reach = float(special.ndtri((1 + confidence) / 2)) * float(np.sqrt(variance / len(found)))
    return mean, max(1.0, mean - reach), min(float(sizes.max()), mean + reach)
