"""Condition by condition (weather, time of day), and the gap between clear and adverse ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from prove.catalog.conditions import Split, split
from prove.report.study import Block, Floats, Measure, Study
from prove.report.table import Cell, Column, Table
from prove.report.views.about import Images, count_images, family, of_effects, rests_on, spread
from prove.report.views.entries import Entry, entries, from_result, record, remarks
from prove.report.views.footnotes import Footnotes, mixed_runs, not_comparable
from prove.report.views.numbers import listed, plural
from prove.stats.block import compare
from prove.stats.effects import BlockData, Verdict

FEWEST_IMAGES = 5
"""Of a condition; with fewer, its numbers are about these images and there is no verdict."""


def domains(study: Study, *, clear: str | None = None, blocks: Sequence[Block] | None = None) -> tuple[Table, ...]:
    """A table for each block that has results by condition, and each metric: losses by conditions, then the gap.

    The gap is how many points a run loses from the clear condition to the mean of the adverse ones; it is taken run by
    run and then compared between losses as any metric is. Smaller is better.

    Args:
        clear: the clear condition; recognised by its name without it.
        blocks: only these.

    Raises:
        ProveError: a block does not have `clear`.
    """
    chosen = tuple(study.blocks if blocks is None else blocks)
    images = count_images(study, chosen)
    made: list[Table] = []
    for block in chosen:
        names = study.names("condition", block)
        if not names or names == ("all",):
            continue
        for metric in study.options.metrics:
            name = f"domains-{len(made) + 1}"
            made.append(_table(study, block, _ordered(names, split(names, clear)), metric, clear, images, name))
    return tuple(made)


def _ordered(names: Sequence[str], parts: Split | None) -> tuple[str, ...]:
    return tuple(names) if parts is None else (parts.clear, *parts.adverse)


def _table(
    study: Study, block: Block, names: Sequence[str], metric: str, clear: str | None, images: Images, name: str
) -> Table:
    parts = split(names, clear)
    measures = {each: Measure(metric, "condition", each) for each in names}
    counts = {each: count_condition(study, block, measure) for each, measure in measures.items()}
    found = by_condition(study, block, metric, names)
    shown = dict(found)
    if parts is not None and block.baseline is not None:
        counts["gap"] = min((count for count in counts.values() if count is not None), default=None)
        shown["gap"] = gap(study, block, metric, parts, counts["gap"])
        measures["gap"] = Measure(metric, "gap", f"{parts.clear} to adverse")
    footnotes = Footnotes()
    rows = []
    for index, loss in enumerate(block.losses):
        said = dict.fromkeys(
            text for each, items in found.items() for text in remarks(block, items[index], measures[each])
        )
        head = Cell(loss, marks=tuple(footnotes.mark(text) for text in said))
        cells = (items[index].stacked_cell(footnotes, _too_few(counts[each])) for each, items in shown.items())
        rows.append((head, *cells))
    footnotes.whole(not_comparable(mixed_runs([block])))
    if block.baseline is None:
        footnotes.whole(f"No Δ: {block.why.rstrip('.')}.")
    if parts is None:
        footnotes.whole(f"No gap: none of {listed(names)} is known as the clear condition; name it with --clear.")
    return Table(
        name=name,
        title=f"{metric} by condition: {block.key}",
        columns=(Column("loss", "left"), *(Column(_heading(each, counts[each])) for each in shown)),
        rows=tuple(rows),
        caption=_caption(study, block, shown, parts, images),
        notes=footnotes.notes,
        records=tuple(
            {**record(study, block, entry, measures[each]), "images": counts[each]}
            for each, items in shown.items()
            for entry in items
        ),
    )


def _heading(name: str, images: int | None) -> str:
    return name if images is None or name == "gap" else f"{name} ({plural(images, 'image')})"


def by_condition(study: Study, block: Block, metric: str, names: Sequence[str]) -> dict[str, tuple[Entry, ...]]:
    """Condition → its entries; without p and verdict where it has fewer than `FEWEST_IMAGES`."""
    measures = {name: Measure(metric, "condition", name) for name in names}
    return {
        name: _withheld(entries(study, block, measure), count_condition(study, block, measure))
        for name, measure in measures.items()
    }


def count_condition(study: Study, block: Block, measure: Measure) -> int | None:
    """How many validation images a condition has; None where that is recorded nowhere."""
    known = study.images(block, measure)
    run = next(iter(block.runs.values()), None)
    if known is not None or run is None:
        return known
    points = study.curve(run, "val")
    return points[-1][1].get("conditions", {}).get(measure.name, {}).get("images") if points else None


def _too_few(images: int | None) -> list[str]:
    if images is None or images >= FEWEST_IMAGES:
        return []
    return [f"{plural(images, 'image')}, fewer than {FEWEST_IMAGES}: it may be otherwise on others; no p, no verdict."]


def _withheld(found: tuple[Entry, ...], images: int | None) -> tuple[Entry, ...]:
    if not _too_few(images):
        return found
    return tuple(
        replace(
            entry,
            arm=replace(entry.arm, may_be_best=None),
            effect=entry.effect
            and replace(entry.effect, p=None, p_adjusted=None, p_sign_flip=None, verdict=Verdict.NO_VERDICT),
        )
        for entry in found
    )


def gap(study: Study, block: Block, metric: str, parts: Split, images: int | None) -> tuple[Entry, ...]:
    """The gap of every loss: points lost from the clear condition to the mean of the adverse ones, run by run.

    Args:
        block: with a baseline.
        images: of the condition that has the fewest; None where unknown.
    """
    assert block.baseline is not None
    measures = [Measure(metric, "condition", name) for name in (parts.clear, *parts.adverse)]
    sign = 1.0 if Measure(metric).higher_is_better else -1.0
    values = sign * _gap([study.values(block, measure) for measure in measures])
    drawn = [study.replicates(block, measure) for measure in measures]
    known = [each for each in drawn if each is not None]
    data = BlockData(
        losses=block.losses,
        baseline=block.baseline,
        seeds=block.seeds,
        values=values,
        replicates=sign * _gap(known) if len(known) == len(measures) else None,
        higher_is_better=False,
        images=images,
    )
    options = study.options
    result = compare(data, smallest_effect=options.smallest_effect, confidence=options.confidence)
    return _withheld(from_result(block, values, result), images)


def conditions_trained_on(block: Block) -> tuple[str, ...]:
    """The conditions that the real training images of a block were filtered by; none where all were trained on."""
    found = {str(run.facts.get("domain_filter", "all")) for run in block.runs.values()}
    only = found.pop() if len(found) == 1 else "all"
    return () if only == "all" else tuple(only.split("+"))


def _gap(conditions: Sequence[Floats]) -> Floats:
    """The first minus the mean of the others."""
    difference: Floats = conditions[0] - np.mean(np.stack(conditions[1:]), axis=0)
    return difference


def _caption(
    study: Study, block: Block, shown: dict[str, tuple[Entry, ...]], parts: Split | None, images: Images
) -> str:
    every = [entry for items in shown.values() for entry in items]
    said = [f"{spread(every)} (number of seeds).", rests_on(study, [block], images)]
    if trained := conditions_trained_on(block):
        said.append(f"Trained on images of {listed(trained, 8)} alone, validated on all.")
    said.append(of_effects(study, every, family(shown, "in each column, not over the columns")))
    if parts is not None and block.baseline is not None:
        said.append(
            f"Gap: points lost from {parts.clear} to the mean of {listed(parts.adverse, 8)}, of each run; smaller is "
            "better."
        )
    return " ".join(part for part in said if part)
