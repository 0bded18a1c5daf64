"""What would settle an open hypothesis: more seeds in a block, or more blocks."""

from __future__ import annotations

from dataclasses import replace

from scipy import special

from prove.stats.effects import BlockResult, Effect, Verdict
from prove.stats.power import precision

POWER = 0.8
MOST = 100
"""Seeds or blocks beyond which a plan is none."""


def seeds_needed(result: BlockResult, effect: Effect, confidence: float) -> int | None:
    """Seeds per objective at which a comparison would be settled with 80% power, if its effect is what it looks like.

    Args:
        result: the block with all its arms, whose residual noise is used.
        effect: the comparison; it is planned on its own, not together with the block's others.
        confidence: of the interval that has to exclude 0.

    Returns:
        None where more than `MOST` would be needed.
    """
    alone = replace(
        result,
        effects=(replace(effect, verdict=Verdict.INCONCLUSIVE),),
        confidence=confidence,
    )
    return precision(alone, power=POWER, limit=MOST).seeds_needed.get(effect.loss)


def blocks_needed(
    effect: float, half_width: float, blocks: int, smallest_effect: float, confidence: float, strict: float
) -> int | None:
    """Blocks at which a pooled comparison would be settled with about 80% power, if its effect is what it looks like.

    Args:
        effect, half_width: of the present interval, at `confidence`, over `blocks` >= 2 blocks.
        strict: confidence of the interval that has to exclude 0.

    Returns:
        None where more than `MOST` would be needed.
    """
    one = half_width / -float(special.stdtrit(blocks - 1, (1 - confidence) / 2)) * blocks**0.5
    for count in range(blocks + 1, MOST + 1):
        se = one / count**0.5
        lucky = -float(special.stdtrit(count - 1, 1 - POWER))
        zero = (-float(special.stdtrit(count - 1, (1 - strict) / 2)) + lucky) * se
        small = (-float(special.stdtrit(count - 1, (1 - confidence) / 2)) + lucky) * se
        if zero <= abs(effect) or small <= smallest_effect - abs(effect):
            return count
    return None
