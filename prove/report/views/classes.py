"""Class by class: where a loss gains and where it loses. Exploratory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

import numpy as np

from prove.errors import unknown
from prove.report.study import Block, Floats, Measure, Study
from prove.report.table import Cell, Column, Table
from prove.report.views.about import Images, count_images, rests_on
from prove.report.views.entries import ONE_SEED, Entry, entries, record
from prove.report.views.footnotes import Footnotes, runs_missing
from prove.report.views.numbers import DASH, decimals, half_width, probability, signed
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
    found = {each: entries(study, block, Measure(metric, "class", each)) for each in names}
    support = study.support(block)
    q = q_values(found)
    footnotes = Footnotes()
    others = [loss for loss in block.losses if loss != block.baseline]
    shown = [block.baseline, *others] if block.baseline else others
    places = decimals(
        half_width(entry.effect.low, entry.effect.high) for each in found.values() for entry in each if entry.effect
    )
    rows = tuple(
        _row(footnotes, each, found[each], support, [q.get((each, loss)) for loss in block.losses], places, study)
        for each in names
    )
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
        rows=rows,
        caption=_caption(study, block, q, images, len(names)),
        notes=footnotes.notes,
        records=tuple(
            {
                **record(study, block, entry, Measure(metric, "class", each)),
                "q": q.get((each, entry.loss)),
                "support": support.get(each),
            }
            for each in names
            for entry in found[each]
        ),
    )


def q_values(found: Mapping[str, Sequence[Entry]]) -> dict[tuple[str, str], float]:
    """(class, loss) → q over all classes and losses together (Benjamini-Hochberg); only where there is a p."""
    known = [
        ((name, entry.loss), entry.effect.p)
        for name, each in found.items()
        for entry in each
        if entry.effect is not None and entry.effect.p is not None and not isnan(entry.effect.p)
    ]
    adjusted: Floats = benjamini_hochberg(np.array([p for _, p in known]))
    return dict(zip([place for place, _ in known], adjusted.tolist(), strict=True))


def _row(
    footnotes: Footnotes,
    name: str,
    found: Sequence[Entry],
    support: Mapping[str, int],
    q: Sequence[float | None],
    places: int,
    study: Study,
) -> tuple[Cell, ...]:
    cells = [Cell(name), _support(name, support)]
    for entry, each in sorted(zip(found, q, strict=True), key=lambda pair: not pair[0].is_baseline):
        if entry.is_baseline or entry.effect is None:
            cells.append(Cell(entry.mean_text, entry.arm.mean, muted=entry.is_empty, runs=entry.runs))
        else:
            cells.append(_delta(footnotes, entry, each, places, 1 - study.options.confidence))
    return tuple(cells)


def _delta(footnotes: Footnotes, entry: Entry, q: float | None, places: int, alpha: float) -> Cell:
    effect = entry.effect
    assert effect is not None
    if isnan(effect.delta):
        return Cell(DASH, muted=True)
    if q is None:
        marks = (footnotes.mark(ONE_SEED),) if effect.basis == "images" else ()
        return Cell(entry.delta_text, effect.delta, muted=True, marks=marks, runs=entry.runs)
    text = f"{signed(effect.delta, places)} q {probability(q, alpha)}"
    better = q < alpha and effect.delta > 0
    return Cell(text, effect.delta, bold=better, muted=q >= alpha, runs=entry.runs)


def _support(name: str, support: Mapping[str, int]) -> Cell:
    total = sum(support.values())
    if name not in support or not total:
        return Cell(DASH, muted=True)
    return Cell(f"{100 * support[name] / total:.2g}%", float(support[name]))


def _caption(study: Study, block: Block, q: Mapping[tuple[str, str], float], images: Images, classes: int) -> str:
    said = ["Exploratory: for ideas, not for claims.", rests_on(study, [block], images)]
    if block.baseline is not None:
        said.append(f"Δ to {block.baseline}, paired by seed, in percentage points.")
    if q:
        alpha = 1 - study.options.confidence
        said.append(
            f"q: Benjamini-Hochberg over the {len(q)} comparisons of this table ({classes} classes); bold: better with "
            f"q < {alpha:.2g}."
        )
    said.append("Pixels: share of the labelled pixels of the validation images.")
    return " ".join(said)
