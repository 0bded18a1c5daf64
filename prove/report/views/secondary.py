"""The metrics that are not the study's own, at a glance."""

from __future__ import annotations

from collections.abc import Sequence

from prove.report.study import Block, Measure, Study
from prove.report.table import Cell, Column, Table
from prove.report.views.about import Images, count_images, family, of_effects, rests_on, spread
from prove.report.views.entries import entries, record, remarks
from prove.report.views.footnotes import Footnotes, mixed_runs, not_comparable
from prove.spec.job import METRICS


def secondary(study: Study, *, blocks: Sequence[Block] | None = None) -> tuple[Table, ...]:
    """A table for each block: losses by all metrics that are not among those of the study."""
    chosen = tuple(study.blocks if blocks is None else blocks)
    measures = [Measure(metric) for metric in METRICS if metric not in study.options.metrics]
    images = count_images(study, chosen)
    return tuple(
        _table(study, block, measures, images, f"secondary-{number}") for number, block in enumerate(chosen, 1)
    )


def _table(study: Study, block: Block, measures: Sequence[Measure], images: Images, name: str) -> Table:
    found = [entries(study, block, measure) for measure in measures]
    footnotes = Footnotes()
    rows = []
    for index, loss in enumerate(block.losses):
        said = dict.fromkeys(
            text for each, measure in zip(found, measures, strict=True) for text in remarks(block, each[index], measure)
        )
        head = Cell(loss, marks=tuple(footnotes.mark(text) for text in said))
        rows.append((head, *(each[index].stacked_cell(footnotes) for each in found)))
    if block.baseline is None:
        footnotes.whole(f"No Δ: {block.why.rstrip('.')}.")
    footnotes.whole(not_comparable(mixed_runs([block])))
    every = [entry for each in found for entry in each]
    by_metric = {measure.metric: each for measure, each in zip(measures, found, strict=True)}
    caption = [
        f"{spread(every)} (number of seeds), in percent; ECE is better when lower.",
        rests_on(study, [block], images),
        of_effects(study, every, family(by_metric, "in each column, not over the columns")),
    ]
    return Table(
        name=name,
        title=f"Other metrics: {block.key}",
        columns=(Column("loss", "left"), *(Column(measure.metric) for measure in measures)),
        rows=tuple(rows),
        caption=" ".join(part for part in caption if part),
        notes=footnotes.notes,
        records=tuple(
            record(study, block, entry, measure)
            for each, measure in zip(found, measures, strict=True)
            for entry in each
        ),
    )
