"""Findings as tables: one row per hypothesis and treatment; a second table by block where there are several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prove.report.hypothesis_finding import BlockTest, Finding, Outcome
from prove.report.hypothesis_measures import is_ratio
from prove.report.table import Cell, Column, Table
from prove.report.views.footnotes import Footnotes
from prove.report.views.numbers import (
    DASH,
    confidence_text,
    decimals,
    half_width,
    interval,
    listed,
    plural,
    probability,
    signed,
)

MOST_ROWS = 200
"""Rows of the table by block; its records are complete."""

ESTIMATED = (
    "Where runs are missing, the effect is the least-squares estimate of the additive loss + seed model, to which the "
    "other losses contribute, and not the mean of the paired differences."
)


def hypotheses(findings: Sequence[Finding], *, confidence: float = 0.95) -> tuple[Table, ...]:
    """The tables of hypotheses; none without a finding."""
    if not findings:
        return ()
    by_block = [finding for finding in findings if len(finding.by_block) > 1]
    return (_overview(findings, confidence), *([_blocks(by_block, confidence)] if by_block else []))


def _overview(findings: Sequence[Finding], confidence: float) -> Table:
    notes = Footnotes()
    rows = [_row(finding, notes, 1 - confidence) for finding in findings]
    return Table(
        name="hypotheses",
        title="Hypotheses",
        columns=(
            Column("Claim", "left"),
            Column(f"Effect [{confidence_text(confidence)} interval]"),
            Column("p"),
            Column("p (Holm)"),
            Column("Seeds"),
            Column("Outcome", "left"),
        ),
        rows=tuple(rows),
        caption=_caption(findings, confidence),
        notes=notes.notes,
        records=tuple(_record(finding) for finding in findings),
    )


def _row(finding: Finding, notes: Footnotes, alpha: float) -> tuple[Cell, ...]:
    hypothesis = finding.hypothesis
    arms = f"{finding.treatment} against {finding.control}" if finding.treatment else "no run of it"
    why = "" if finding.outcome is Outcome.SUPPORTED else finding.why
    said = " ".join(part for part in (why, finding.settle and f"To settle it: {finding.settle}") if part)
    marks = tuple(notes.mark(text) for text in (said, *finding.notes) if text)
    outcome = finding.outcome
    interval = effect_text(finding, finding.effect, finding.low, finding.high)
    return (
        Cell(f"{hypothesis.claim}\n{arms}", runs=finding.runs),
        Cell(
            interval,
            value=_shown(finding, finding.effect),
            runs=finding.runs,
            muted=finding.p is None or bool(finding.withheld),
        ),
        _p(finding.p, alpha),
        _p(finding.p_adjusted, alpha),
        Cell(_seeds(finding), value=finding.seeds),
        Cell(outcome.value, bold=outcome is Outcome.SUPPORTED, muted=outcome is Outcome.OPEN, marks=marks),
    )


def _seeds(finding: Finding) -> str:
    return f"{finding.seeds}\n{plural(finding.blocks, 'block')}" if len(finding.by_block) > 1 else str(finding.seeds)


def effect_text(finding: Finding, effect: float | None, low: float | None, high: float | None) -> str:
    """An effect with its interval: points with a sign, oscillation as a ratio."""
    if effect is None:
        return DASH
    if is_ratio(finding.hypothesis.measure):
        bounds = "" if low is None or high is None else f" [{_ratio(low)}, {_ratio(high)}]"
        return f"×{_ratio(effect)}{bounds}"
    places = decimals([half_width(low, high)])
    return f"{signed(effect, places)} {interval(low, high, places)}".rstrip()


def _ratio(logarithm: float) -> str:
    """``1.42``; what is not 1 never looks like it."""
    value = _exp(logarithm)
    if not 0.01 <= value < 100:
        return f"{value:.1e}"
    return next((text for places in (2, 3, 4) if float(text := f"{value:.{places}f}") != 1 or value == 1), "1.0000")


def _exp(logarithm: float) -> float:
    return math.exp(min(logarithm / 100.0, 700.0))


def _p(p: float | None, alpha: float) -> Cell:
    return Cell(probability(p, alpha) or DASH, value=p)


def _caption(findings: Sequence[Finding], confidence: float) -> str:
    family = sum(finding.p is not None for finding in findings)
    several = any(finding.tau is not None for finding in findings)
    by = "over several blocks: random effects, Hartung-Knapp" if several else "loss and seed as factors"
    sizes = sorted({_smallest(finding) for finding in findings if finding.treatment})
    estimated = any(test.estimated for finding in findings for test in finding.by_block if test.counts)
    withheld = any(finding.withheld and finding.p is not None for finding in findings)
    said = (
        "Treatment minus control, paired by seed, in percentage points; oscillation as a ratio.",
        ESTIMATED if estimated else "",
        f"Intervals and p of each comparison alone ({by}); Holm's p over the {plural(family, 'comparison')} that could "
        "be made.",
        "Supported: the interval lies on the claimed side of no effect, not within the smallest effect of interest, "
        f"and Holm's p is at most {1 - confidence:g}.",
        "Not supported: no effect on that side as large as the smallest of interest is left"
        f"{f' ({listed(sizes)})' if sizes else ''}.",
        "Neither is said of runs that are not comparable or stand still." if withheld else "",
    )
    return " ".join(each for each in said if each)


def _smallest(finding: Finding) -> str:
    measure = finding.hypothesis.measure
    if is_ratio(measure):
        return f"oscillation ×{_ratio(finding.smallest_effect)}"
    return f"{measure} {finding.smallest_effect:g} points"


def _shown(finding: Finding, effect: float | None) -> float | None:
    """What a table shows as a number: points, or a ratio."""
    if effect is None:
        return None
    return _exp(effect) if is_ratio(finding.hypothesis.measure) else effect


def _record(finding: Finding) -> Mapping[str, Any]:
    hypothesis = finding.hypothesis
    return {
        "hypothesis": hypothesis.name,
        "claim": hypothesis.claim,
        "measure": str(hypothesis.measure),
        "direction": hypothesis.direction,
        "treatment": finding.treatment or None,
        "control": finding.control,
        "outcome": finding.outcome.value,
        "unit": "ratio" if is_ratio(hypothesis.measure) else "points",
        "effect": _shown(finding, finding.effect),
        "low": _shown(finding, finding.low),
        "high": _shown(finding, finding.high),
        "p": finding.p,
        "p_adjusted": finding.p_adjusted,
        "smallest_effect": _shown(finding, finding.smallest_effect),
        "tau": _shown(finding, finding.tau),
        "seeds": finding.seeds,
        "blocks": finding.blocks,
        "mixed": finding.mixed,
        "why": finding.why,
        "settle": finding.settle,
        "notes": " ".join(finding.notes),
        "runs": " ".join(finding.runs),
    }


def _blocks(findings: Sequence[Finding], confidence: float) -> Table:
    rows, records = [], []
    for finding in findings:
        for test in finding.by_block:
            rows.append(
                (
                    Cell(f"{finding.hypothesis.claim}\n{finding.treatment} against {finding.control}"),
                    Cell(test.block, runs=test.runs),
                    Cell(
                        effect_text(finding, test.effect, test.low, test.high),
                        value=_shown(finding, test.effect),
                        muted=test.p is None,
                        runs=test.runs,
                    ),
                    _p(test.p, 1 - confidence),
                    Cell(str(test.seeds), value=test.seeds),
                    Cell(_remark(test), muted=True),
                )
            )
            records.append(_block_record(finding, test))
    shown = [test for finding in findings for test in finding.by_block]
    estimated = f" {ESTIMATED}" if any(test.estimated for test in shown) else ""
    return Table(
        name="hypotheses-blocks",
        title="Hypotheses by block",
        columns=(
            Column("Claim", "left"),
            Column("Block", "left"),
            Column(f"Effect [{confidence_text(confidence)} interval]"),
            Column("p"),
            Column("Seeds"),
            Column("Remark", "left"),
        ),
        rows=tuple(rows[:MOST_ROWS]),
        notes=(("", f"{len(rows) - MOST_ROWS:,} more rows are in the CSV and JSON forms."),)
        if len(rows) > MOST_ROWS
        else (),
        caption=f"Each block on its own: interval and p of that comparison alone, not adjusted.{estimated}",
        records=tuple(records),
    )


def _remark(test: BlockTest) -> str:
    why = test.why if test.counts or not test.why else f"Not counted: {test.why}"
    return " ".join(each for each in (why, *test.cautions) if each)


def _block_record(finding: Finding, test: BlockTest) -> Mapping[str, Any]:
    return {
        "hypothesis": finding.hypothesis.name,
        "treatment": finding.treatment,
        "control": finding.control,
        "block": test.block,
        "unit": "ratio" if is_ratio(finding.hypothesis.measure) else "points",
        "effect": _shown(finding, test.effect),
        "low": _shown(finding, test.low),
        "high": _shown(finding, test.high),
        "p": test.p,
        "seeds": test.seeds,
        "control_mean": _shown(finding, test.control_mean),
        "treatment_mean": _shown(finding, test.treatment_mean),
        "counts": test.counts,
        "estimated": test.estimated,
        "mixed": test.mixed,
        "why": test.why,
        "notes": " ".join(test.cautions),
        "runs": " ".join(test.runs),
    }
