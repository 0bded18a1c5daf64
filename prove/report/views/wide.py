"""Losses by models, datasets by losses, and so on: a cell holds what a table by loss has a line for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prove.report.study import Block, Measure, Study
from prove.report.table import Cell, Column, Table
from prove.report.views.about import Images, family, of_effects, rests_on, spread
from prove.report.views.entries import SEEDS_ALONE, Entry, entries, record, remarks
from prove.report.views.footnotes import Footnotes, mixed_runs, not_comparable
from prove.report.views.numbers import DASH

AXES = ("loss", "model", "dataset", "strategy", "settings")
"""What may stand on the rows or on the columns."""


@dataclass(frozen=True, eq=False)
class Group:
    """What makes up one table.

    Attributes:
        title: values of the other axes.
        cells: (row, column) → (its block, its loss).
        rows, columns: in order of appearance.
    """

    rows_axis: str
    columns_axis: str
    title: str
    cells: dict[tuple[str, str], tuple[Block, str]]

    @property
    def rows(self) -> list[str]:
        """Names of the rows."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(dict.fromkeys(column for _, column in self.cells))

    @property
    def blocks(self) -> list[Block]:
        """Every block once."""
        return list({block.key: block for block, _ in self.cells.values()}.values())


def grouped(blocks: Sequence[Block], rows: str, columns: str) -> tuple[Group, ...]:
    """One group for each combination of the axes that are neither on the rows nor on the columns."""
    others = [axis for axis in AXES if axis not in (rows, columns)]
    groups: dict[tuple[str, ...], Group] = {}
    for block in blocks:
        for loss in block.losses:
            at = {axis: loss if axis == "loss" else str(getattr(block.key, axis)) for axis in AXES}
            rest = tuple(at[axis] for axis in others)
            if rest not in groups:
                groups[rest] = Group(rows, columns, _title(dict(zip(others, rest, strict=True))), {})
            groups[rest].cells[at[rows], at[columns]] = (block, loss)
    return tuple(groups.values())


def _title(at: dict[str, str]) -> str:
    plain = {"strategy": "baseline", "settings": ""}
    named = [value for axis, value in at.items() if value != plain.get(axis)]
    return ", ".join(named)


def wide_table(study: Study, group: Group, measure: Measure, images: Images, name: str) -> Table:
    """A table of one measure.

    The first line of a cell is mean ± SD (seeds), the second Δ with its interval and p.
    """
    found: dict[tuple[str, str], Entry] = {}
    by_block = {block.key: {entry.loss: entry for entry in entries(study, block, measure)} for block in group.blocks}
    for place, (block, loss) in group.cells.items():
        found[place] = by_block[block.key][loss]
    together = family(
        {str(block.key): by_block[block.key].values() for block in group.blocks},
        "of a block (dataset, model, strategy)",
    )
    footnotes = Footnotes()
    rows = []
    for row in group.rows:
        cells = [Cell(row or DASH)]
        for column in group.columns:
            entry = found.get((row, column))
            if entry is None:
                cells.append(Cell(DASH, muted=True))
            else:
                block = group.cells[row, column][0]
                cells.append(entry.stacked_cell(footnotes, remarks(block, entry, measure)))
        rows.append(tuple(cells))
    _whole(footnotes, study, group, list(found.values()))
    return Table(
        name=name,
        title=": ".join(part for part in (measure.metric, group.title) if part) + f", by {group.columns_axis}",
        columns=(Column(group.rows_axis, "left"), *(Column(column or DASH) for column in group.columns)),
        rows=tuple(rows),
        caption=_caption(study, group, measure, list(found.values()), together, images),
        notes=footnotes.notes,
        records=tuple(record(study, group.cells[place][0], entry, measure) for place, entry in found.items()),
    )


def _whole(footnotes: Footnotes, study: Study, group: Group, found: Sequence[Entry]) -> None:
    if any(entry.effect is not None and entry.effect.basis == "seeds" for entry in found):
        footnotes.whole(SEEDS_ALONE)
    footnotes.whole(not_comparable(mixed_runs(group.blocks)))
    for block in group.blocks:
        if block.baseline is None:
            footnotes.whole(f"No Δ for {block.key}: {block.why.rstrip('.')}.")
        for sentence in block.warnings:
            footnotes.whole(f"{block.key}: {sentence}")
    for sentence in study.notes:
        footnotes.whole(sentence)


def _caption(
    study: Study, group: Group, measure: Measure, found: Sequence[Entry], together: str, images: Images
) -> str:
    effects = of_effects(study, found, together)
    below = "; below it Δ, interval, p" if any(entry.delta_text for entry in found) else ""
    cell = f"{spread(found)} (number of seeds) of {measure.metric} in percent{below}."
    return " ".join(part for part in (cell, rests_on(study, group.blocks, images), effects) if part)
