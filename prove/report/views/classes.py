"""Class by class: where a loss gains and where it loses. Exploratory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

import numpy as np

from prove.errors import unknown
from prove.report.study import Block, Floats, Measure, Study
from prove.report.table import Cell, Column, Table
from prove.report.views.about import MODELLED, Images, count_images, rests_on
from prove.report.views.entries import Entry, entries, of_seeds, record
from prove.report.views.footnotes import (
    Footnotes,
    mixed_runs,
    not_comparable,
    runs_missing,
    runs_mixed,
    undefined,
)  # fmt: skip
from prove.report.views.numbers import DASH, decimals, half_width, plural, probability, signed
from prove.stats.multiplicity import benjamini_hochberg

CLASS_METRICS = ("IoU", "Acc", "bIoU", "bF1")
"""Metrics that a class has."""


def classes(study: Study, metric: str = "IoU", *, blocks: Sequence[Block] | None = None) -> tuple[Table, ...]:
    """A table for each block that has results by class: a line per class, a column per loss.

    Args:
        metric: one of `CLASS_METRICS`.
        blocks: only these.

    Raises:
        ProveError: there is no such metric of a class.
    """
    if metric not in CLASS_METRICS:
        raise unknown("metric of a class", metric, CLASS_METRICS)
    chosen = tuple(study.blocks if blocks is None else blocks)
    images = count_images(study, chosen)
    with_classes = [(block, names) for block in chosen if (names := study.names("class", block))]
    return tuple(
        _table(study, block, names, metric, images, f"classes-{number}")
        for number, (block, names) in enumerate(with_classes, 1)
    )


def _table(study: Study, block: Block, names: Sequence[str], metric: str, images: Images, name: str) -> Table:
    measures = {each: Measure(metric, "class", each) for each in names}
    found = {each: entries(study, block, measure) for each, measure in measures.items()}
    support = study.support(block)
    q = q_values(found)
    footnotes = Footnotes()
    others = [loss for loss in block.losses if loss != block.baseline]
    shown = [block.baseline, *others] if block.baseline else others
    places = decimals(
        half_width(entry.effect.low, entry.effect.high) for each in found.values() for entry in each if entry.effect
    )
    alpha = 1 - study.options.confidence
    rows = []
    for each, measure in measures.items():
        cells = [
            _cell(entry, q.get((each, entry.loss)), places, alpha, _marks(footnotes, block, entry, measure))
            for entry in sorted(found[each], key=lambda entry: not entry.is_baseline)
        ]
        rows.append((Cell(each), _support(each, support), *cells))
    footnotes.whole(not_comparable(mixed_runs([block])))
    for loss in block.losses:
        for said in runs_missing(block, loss):
            footnotes.whole(f"{loss}: {said}")
    if block.baseline is None:
        footnotes.whole(f"No Δ: {block.why.rstrip('.')}.")
    return Table(
        name=name,
        title=f"{metric} by class: {block.key}",
        columns=(
            Column("class", "left"),
            Column("pixels"),
            *(Column(f"{loss} (%)" if loss == block.baseline or not block.baseline else f"Δ {loss}") for loss in shown),
        ),
        rows=tuple(rows),
        caption=_caption(study, block, found, q, images),
        notes=footnotes.notes,
        records=tuple(
            {
                **record(study, block, entry, measure),
                **({} if counts(entry) else {"p": None, "p_adjusted": None}),
                "q": q.get((each, entry.loss)),
                "support": support.get(each),
            }
            for each, measure in measures.items()
            for entry in found[each]
        ),
    )


def counts(entry: Entry) -> bool:
    """Whether an effect may be called found: it rests on two or more seeds that it shares with the baseline."""
    effect = entry.effect
    return effect is not None and effect.seeds > 1 and effect.p is not None and not isnan(effect.p)


def q_values(found: Mapping[str, Sequence[Entry]]) -> dict[tuple[str, str], float]:
    """(class, loss) → q over all classes and losses together (Benjamini-Hochberg); only of the effects that count."""
    known = {
        (name, entry.loss): entry.effect.p
        for name, each in found.items()
        for entry in each
        if entry.effect is not None and counts(entry)
    }
    adjusted: Floats = benjamini_hochberg(np.array(list(known.values()), float))
    return dict(zip(known, adjusted.tolist(), strict=True))


def _marks(footnotes: Footnotes, block: Block, entry: Entry, measure: Measure) -> tuple[str, ...]:
    """Of what holds for this class; what is missing from all of them stands below the table."""
    said = [*runs_mixed(block, entry.loss), *undefined(block, entry.loss, entry.values, measure), *of_seeds(entry)]
    return tuple(footnotes.mark(each) for each in said)


def _cell(entry: Entry, q: float | None, places: int, alpha: float, marks: tuple[str, ...]) -> Cell:
    effect = entry.effect
    if effect is None:
        return Cell(entry.mean_text, entry.arm.mean, muted=entry.is_empty, marks=marks, runs=entry.runs)
    if isnan(effect.delta):
        return Cell(DASH, muted=True, marks=marks)
    if q is None:
        return Cell(entry.delta_text, effect.delta, muted=True, marks=marks, runs=entry.runs)
    text = f"{signed(effect.delta, places)} q {probability(q, alpha)}"
    better = q < alpha and effect.delta > 0
    return Cell(text, effect.delta, bold=better, muted=q >= alpha, marks=marks, runs=entry.runs)


def _support(name: str, support: Mapping[str, int]) -> Cell:
    total = sum(support.values())
    if name not in support or not total:
        return Cell(DASH, muted=True)
    return Cell(f"{100 * support[name] / total:.2g}%", float(support[name]))


def _caption(
    study: Study,
    block: Block,
    found: Mapping[str, Sequence[Entry]],
    q: Mapping[tuple[str, str], float],
    images: Images,
) -> str:
    said = ["Exploratory: for ideas, not for claims.", rests_on(study, [block], images)]
    if block.baseline is not None:
        modelled = any(entry.is_modelled for each in found.values() for entry in each)
        paired = "" if modelled else ", paired by seed"
        said.append(f"Δ to {block.baseline}{paired}, in percentage points.")
        said += [MODELLED] * modelled
    if q:
        said.append(
            f"q: Benjamini-Hochberg over the {plural(len(q), 'comparison')} of this table with two or more seeds "
            f"({plural(len({name for name, _ in q}), 'class')}); bold: better with q < "
            f"{1 - study.options.confidence:g}."
        )
    said.append("Pixels: share of the labelled pixels of the validation images.")
    return " ".join(said)
