"""How a report compares: from the experiment's ``report`` section and the flags, which win."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prove.errors import ProveError, unknown
from prove.report.study import Options
from prove.spec.job import METRICS

CHECKPOINTS = ("last", "best")


def options(
    section: Mapping[str, Any],
    *,
    baseline: str | None = None,
    metrics: Sequence[str] = (),
    checkpoint: str | None = None,
    smallest_effect: float | None = None,
    confidence: float | None = None,
    allow_mixed: bool = False,
) -> Options:
    """The options of a report.

    Args:
        section: the ``report`` of an experiment; empty where there is none.
        baseline, metrics, checkpoint, smallest_effect, confidence: flags; what is not given comes from the section.

    Raises:
        ProveError: an unknown metric or checkpoint, a number that can't be.
    """
    listed = section.get("metric", ())
    names = [*metrics] or ([listed] if isinstance(listed, str) else [*listed]) or ["mIoU"]
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    rule = checkpoint or section.get("checkpoint", "last")
    if rule not in CHECKPOINTS:
        raise unknown("checkpoint", rule, CHECKPOINTS)
    effect = float(section.get("smallest_effect", 0.3) if smallest_effect is None else smallest_effect)
    if not (math.isfinite(effect) and effect > 0):
        raise ProveError(f"The smallest effect must be a number > 0, in percentage points, not {effect:g}.")
    share = 0.95 if confidence is None else confidence
    if not 0.5 < share < 1:
        raise ProveError(f"The confidence must lie between 0.5 and 1, not at {share:g}.", hint="Usual is 0.95.")
    return Options(
        baseline=baseline or section.get("baseline", "ce"),
        metrics=tuple(dict.fromkeys(names)),
        checkpoint=rule,
        smallest_effect=effect,
        confidence=share,
        allow_mixed=allow_mixed,
    )


def finder(baseline: str) -> Callable[[Sequence[str]], str | None]:
    """What finds the baseline among the losses of a block.

    Its text may be written in any way: ``ce+focal`` finds ``ce + focal``. On a mask-classification model, whose own
    criterion stands in for a plain ``ce``, it finds that.

    Raises:
        ProveError: the text can't be an objective.
    """
    spellings = _spellings(baseline)

    def find(losses: Sequence[str]) -> str | None:
        there = set(losses)
        return next((each for each in spellings if each in there), None)

    return find


def _spellings(baseline: str) -> tuple[str, ...]:
    from prove.catalog.losses import resolve, short
    from prove.spec import LossExpr, parse

    written = parse(baseline)
    try:
        resolved = resolve(written)
    except ProveError:  # a term of the user's own, which only the runs know, or a mistake, which no run has
        return (baseline, str(written))
    criterion, plain_ce = resolve(parse("m2f")).primary, resolve(parse("ce")).primary
    if plain_ce not in resolved.terms or any(term.name == criterion.name for term in resolved.terms):
        return (baseline, short(resolved))  # beside a criterion that was asked for, ce is a term of its own
    masked = LossExpr((criterion, *(term for term in resolved.terms if term != plain_ce)))
    return (baseline, short(resolved), short(masked))
