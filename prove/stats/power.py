"""What a design can see: the smallest effect it detects, and the seeds that would settle what is open."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from prove.stats.effects import BlockResult, Effect, Precision, Verdict
from prove.stats.images import degrees_of_freedom
from prove.stats.multiplicity import dunnett_quantile, dunnett_quantiles

Floats = NDArray[np.float64]

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
        `detectable` is the largest over the comparisons of two seeds or more: every such effect is seen. Without a
        noise estimate (one seed), `detectable` is None and `seeds_needed` empty. `seeds` is the fewest seeds that a
        comparison has, of those that have two or more; the block's most where none has.
    """
    if not 0 < power < 1 or limit < 1:
        raise ValueError(f"Out of range: {power=} (between 0 and 1), {limit=} (at least 1).")
    judged = [effect for effect in result.effects if effect.seed_se is not None]
    settled = [effect for effect in judged if effect.seeds > 1] or judged
    images = [effect.image_se for effect in result.effects if effect.image_se is not None]
    alone = [_detectable(effect, result, power, 1) for effect in settled]
    together = [_detectable(effect, result, power, len(judged)) for effect in settled]
    still_open = [effect for effect in judged if effect.verdict in (Verdict.INCONCLUSIVE, Verdict.NO_VERDICT)]
    return Precision(
        detectable=max(together, default=None),
        power=power,
        seeds=min((effect.seeds for effect in settled), default=max((arm.seeds for arm in result.arms), default=0)),
        seeds_needed={effect.loss: _seeds_needed(effect, result, power, limit, len(judged)) for effect in still_open},
        limit=limit,
        image_sd=max(images, default=None),
        detectable_alone=max(alone, default=None),
    )


def detectable_effect(se: float, df: float, critical: float, power: float = 0.8) -> float:
    """Smallest true effect, in the unit of `se`, whose interval leaves 0 out with a chance of `power`.

    Args:
        se: standard error of the estimated effect.
        df: its degrees of freedom.
        critical: by what `se` is multiplied in the interval.
    """
    low, high = 0.0, critical + 50.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if chance_to_see(middle, df, critical) < power else (low, middle)
    return high * se


def chance_to_see(standardised: float | Floats, df: float | Floats, critical: float | Floats) -> Floats:
    """P(|T| > critical) where T follows the noncentral t.

    Args:
        standardised: true effect over its standard error.
    """
    effect = np.abs(standardised)
    return np.asarray(1 - special.nctdtr(df, effect, critical) + special.nctdtr(df, effect, -np.asarray(critical)))


def _detectable(effect: Effect, result: BlockResult, power: float, family: int) -> float:
    assert effect.se is not None
    assert effect.df is not None
    rho = 0.5 if result.correlation is None else result.correlation
    critical = dunnett_quantile(family, effect.df, rho, result.confidence)
    return detectable_effect(effect.se, effect.df, critical, power)


def _seeds_needed(effect: Effect, result: BlockResult, power: float, limit: int, family: int) -> int | None:
    """Fewest seeds, more than now, with which the interval likely leaves 0 out or lies within the smallest effect."""
    assert result.residual_sd is not None
    seeds = np.arange(max(effect.seeds + 1, 2), limit + 1, dtype=np.float64)
    if not len(seeds):
        return None
    assert effect.seed_se is not None
    common, own = 2 * result.residual_sd**2, effect.seed_se**2 * effect.seeds
    judged_alone = own > 1.001 * common
    seed_df = (1 if judged_alone else len([arm for arm in result.arms if arm.seeds]) - 1) * (seeds - 1)
    seed_variance = max(common, own) / seeds
    image_variance = (effect.image_se or 0.0) ** 2 if effect.seeds > 1 else 0.0
    se = np.sqrt(seed_variance + image_variance)
    df = degrees_of_freedom(seed_variance, seed_df, np.full(len(seeds), image_variance), _MANY)
    rho = 0.5 if result.correlation is None else result.correlation
    critical = dunnett_quantiles(family, df, rho, result.confidence)
    seen = chance_to_see(effect.delta / se, df, critical)
    room = (result.smallest_effect - critical * se) / se
    within = special.ndtr(room - effect.delta / se) - special.ndtr(-room - effect.delta / se)
    enough = (seen >= power) | ((room > 0) & (within >= power))
    return int(seeds[enough.argmax()]) if enough.any() else None
