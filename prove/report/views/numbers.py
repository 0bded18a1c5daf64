"""Numbers as text: rounded by their interval, never against their verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

DASH = "–"
"""Where there is nothing to say."""

FEWEST, MOST = 1, 3
"""Decimals of a percentage."""


def decimals(half_widths: Iterable[float | None]) -> int:
    """Decimals with which the median half-width of some intervals has two significant digits, from 1 to 3.

    Args:
        half_widths: in percentage points; None and NaN don't count. Without any, 2.
    """
    known = [width for width in half_widths if width is not None and math.isfinite(width) and width > 0]
    if not known:
        return 2
    return min(max(1 - math.floor(math.log10(median(known))), FEWEST), MOST)


def half_width(low: float | None, high: float | None) -> float | None:
    """Of an interval; None where there is none."""
    return None if low is None or high is None else (high - low) / 2


def fixed(value: float | None, places: int) -> str:
    """``34.21``, or a dash for what is not a number; never ``-0.00``."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value + 0.0:.{places}f}" if round(value, places) else f"{0:.{places}f}"


def signed(value: float | None, places: int) -> str:
    """``+0.81``; 0 where it rounds to it has no sign."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:+.{places}f}" if round(value, places) else f"{0:.{places}f}"


def interval(low: float | None, high: float | None, places: int) -> str:
    """``[-0.10, +1.72]``; empty where there is none.

    A bound that is not 0 never looks like 0: it gets more digits, or a sign, so that it agrees with the verdict.
    """
    return "" if low is None or high is None else f"[{_bound(low, places)}, {_bound(high, places)}]"


def _bound(value: float, places: int) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:.{places}f}"
    more = next((digits for digits in range(places, MOST + 2) if round(value, digits)), MOST + 1)
    return f"{value:+.{more}f}"


def probability(p: float | None, alpha: float) -> str:
    """``.08``, ``.003`` or ``<.001``; empty where there is none.

    Args:
        alpha: it is never rounded across it.
    """
    if p is None or math.isnan(p):
        return ""
    if p < 0.001:
        return "<.001"
    if p > 0.995:
        return ">.99"
    for digits in range(2 if p >= 0.1 else 3, 7):
        text = f"{p:.{digits}f}"
        if (float(text) < alpha) == (p < alpha):
            return text.removeprefix("0")
    return text.removeprefix("0")


def confidence_text(share: float) -> str:
    """``95%``, ``97.5%``, ``99.9%``: a confidence, or a power, with all the digits that were asked for."""
    return f"{100 * share:g}%"


def mean_and_sd(mean: float, sd: float | None, places: int) -> str:
    """``34.21 ± 0.52``; the mean alone where there is no SD."""
    return fixed(mean, places) if sd is None or math.isnan(mean) else f"{fixed(mean, places)} ± {fixed(sd, places)}"


def plural(count: int, noun: str) -> str:
    """``1 run``, ``3 runs``, ``2 losses``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"


def listed(names: Iterable[str], most: int = 6) -> str:
    """``a, b and 4 more``."""
    known = list(names)
    if len(known) <= most:
        return ", ".join(known)
    return f"{', '.join(known[: most - 1])} and {len(known) - most + 1} more"
