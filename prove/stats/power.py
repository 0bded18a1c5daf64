"""What a design can see: the smallest effect it detects, and the seeds that would settle what is open."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from prove.stats.effects import BlockResult, Effect, Precision, Verdict
from prove.stats.images import degrees_of_freedom
from prove.stats.multiplicity import dunnett_quantile

_MANY = 1e6


def precision(result: BlockResult, *, power: float = 0.8, limit: int = 100) -> Precision:
    """What a block's design can see.

    Seeds lower their own part of the variance; the images' part stays. What a further seed would bring is planned as
    a complete block with this block's noise, and with the present delta as the true effect.

    Args:
        result: of `prove.stats.block.compare`.
        power: chance that the effect is seen, in (0, 1).
        limit: most seeds to think of.

    Returns:
        `detectable`, `detectable_alone` and `seeds` are those of the middle one of the comparisons of two seeds or
        more (they differ where runs are missing, or images blur some more); losses that are noisier than the rest are
        left out, unless all are or the baseline is. Without a noise estimate (one seed), `detectable` is None,
        `seeds_needed` empty, and `seeds` the block's.
    """
    if not 0 < power < 1 or limit < 1:
        raise ValueError(f"Out of range: {power=} (between 0 and 1), {limit=} (at least 1).")
    judged = [effect for effect in result.effects if effect.seed_se is not None]
    settled = [effect for effect in judged if effect.seeds > 1] or judged
    if result.baseline not in result.noisier:
        settled = [effect for effect in settled if effect.loss not in result.noisier] or settled
    images = [effect.image_se for effect in result.effects if effect.image_se is not None]
    middle = sorted(settled, key=lambda effect: _detectable(effect, power))[len(settled) // 2 :][:1]
    still_open = [effect for effect in judged if effect.verdict in (Verdict.INCONCLUSIVE, Verdict.NO_VERDICT)]
    return Precision(
        detectable=next((_detectable(effect, power) for effect in middle), None),
        power=power,
        seeds=next((effect.seeds for effect in middle), max((arm.seeds for arm in result.arms), default=0)),
        seeds_needed={effect.loss: _seeds_needed(effect, result, power, limit, len(judged)) for effect in still_open},
        limit=limit,
        image_sd=max(images, default=None),
        detectable_alone=next((_detectable_alone(effect, result.confidence, power) for effect in middle), None),
    )


def detectable_effect(se: float, df: float, critical: float, power: float = 0.8) -> float:
    """Smallest true effect, in the unit of `se`, whose interval leaves 0 out with a chance of `power`.

    Args:
        se: standard error of the estimated effect.
        df: its degrees of freedom.
        critical: by what `se` is multiplied in the interval.
    """
    return _standardised(df, critical, power) * se


@lru_cache(maxsize=4096)
def _standardised(df: float, critical: float, power: float) -> float:
    """By the secant method, held between bounds."""
    low, high = 0.0, critical + 60.0
    at, before = critical + float(special.ndtri(power)), critical
    missing, missing_before = chance_to_see(at, df, critical) - power, chance_to_see(before, df, critical) - power
    while high - low > 1e-9 and abs(missing) > 1e-12:
        low, high = (at, high) if missing < 0 else (low, at)
        step = (at - before) * missing / (missing - missing_before) if missing != missing_before else np.nan
        before, missing_before = at, missing
        at = at - step if low < at - step < high else (low + high) / 2
        missing = chance_to_see(at, df, critical) - power
    return at


def chance_to_see(standardised: float, df: float, critical: float) -> float:
    """P(|T| > critical) where T follows the noncentral t.

    Args:
        standardised: true effect over its standard error.
    """
    effect = abs(standardised)
    below, far_below = special.nctdtr(df, effect, critical), special.nctdtr(df, effect, -critical)
    # scipy gives NaN where the law's lower tail is smaller than a number can be.
    return float(1 - np.nan_to_num(below) + np.nan_to_num(far_below))


def _detectable(effect: Effect, power: float) -> float:
    assert effect.se is not None
    assert effect.df is not None
    assert effect.low is not None
    assert effect.high is not None
    return detectable_effect(effect.se, effect.df, (effect.high - effect.low) / 2 / effect.se, power)


def _detectable_alone(effect: Effect, confidence: float, power: float) -> float:
    assert effect.se is not None
    assert effect.df is not None
    return detectable_effect(effect.se, effect.df, float(special.stdtrit(effect.df, (1 + confidence) / 2)), power)


def _correlation(result: BlockResult) -> float:
    return 0.5 if result.correlation is None else result.correlation


@dataclass(frozen=True)
class _Plan:
    """A comparison in a complete block of more seeds.

    Attributes:
        one_seed: variance of the difference of two runs.
        df_per_seed: degrees of freedom that every seed but the first brings.
        images: variance that seeds don't lower.
    """

    delta: float
    one_seed: float
    df_per_seed: int
    images: float
    family: int

    def settled(self, seeds: int, result: BlockResult, power: float) -> bool:
        """Whether the interval then leaves 0 out, or lies within the smallest effect, with that chance."""
        variance, seed_df = self.one_seed / seeds, self.df_per_seed * (seeds - 1)
        se = float(np.sqrt(variance + self.images))
        df = float(degrees_of_freedom(np.array(variance), np.array(seed_df), np.array(self.images), _MANY) // 1)
        critical = dunnett_quantile(self.family, df, _correlation(result), result.confidence)
        effect = self.delta / se
        room = result.smallest_effect / se - critical
        inside = float(special.ndtr(room - effect) - special.ndtr(-room - effect)) if room > 0 else 0.0
        return inside >= power or chance_to_see(effect, df, critical) >= power


def _seeds_needed(effect: Effect, result: BlockResult, power: float, limit: int, family: int) -> int | None:
    """Fewest seeds, more than now, that settle the comparison. More seeds never settle less: by bisection."""
    assert result.residual_sd is not None
    assert effect.seed_se is not None
    common, own = 2 * result.residual_sd**2, effect.seed_se**2 * effect.seeds
    runs = sum(arm.seeds > 0 for arm in result.arms)
    images = [(each.image_se or 0.0) ** 2 for each in result.effects if each.seeds > 1 and each.seed_se is not None]
    plan = _Plan(
        effect.delta,
        max(common, own),
        1 if own > 1.001 * common else runs - 1,
        (effect.image_se or 0.0) ** 2 if effect.seeds > 1 else max(images, default=0.0),
        family,
    )
    low, high = max(effect.seeds, 1), limit
    if high <= low or not plan.settled(high, result, power):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if plan.settled(middle, result, power) else (middle, high)
    return high
