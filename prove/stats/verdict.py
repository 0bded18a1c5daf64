"""From an interval to a word."""

from __future__ import annotations

from prove.stats.effects import Verdict


def verdict(low: float, high: float, smallest_effect: float, *, higher_is_better: bool = True) -> Verdict:
    """What an interval of an effect says.

    Args:
        low, high: the interval, in percentage points.
        smallest_effect: an effect within +- this is of no interest. With 0, nothing is equivalent.

    Returns:
        `EQUIVALENT` where the whole interval lies within +-`smallest_effect`, even if it leaves 0 out; else `BETTER` or
        `WORSE` where it leaves 0 out; else `INCONCLUSIVE`.
    """
    if -smallest_effect < low and high < smallest_effect:
        return Verdict.EQUIVALENT
    if low > 0 or high < 0:
        return Verdict.BETTER if (low > 0) == higher_is_better else Verdict.WORSE
    return Verdict.INCONCLUSIVE
