"""A table as data; `prove.report.render` writes it in each format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what it shows, plain text; a line break is allowed (several lines in a cell).
        value: unrounded number that a sortable table sorts by; None for text.
        bold: the verdict is better.
        underline: the highest (for ECE: lowest) mean.
        muted: of less weight: missing, not comparable.
        marks: symbols of the footnotes that belong to it, such as ``a``.
        runs: keys of the runs it came from.
    """

    text: str
    value: float | None = None
    bold: bool = False
    underline: bool = False
    muted: bool = False
    marks: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: plain text, with the unit where there is one: ``mIoU (%)``.
        align: text left, numbers right.
    """

    name: str
    align: Literal["left", "right"] = "right"


@dataclass(frozen=True)
class Table:
    """A table with what stands around it.

    Attributes:
        name: identifies it in a document: letters, digits and dashes, such as ``block-1``.
        title: one line.
        columns, rows: every row has a cell for each column.
        caption: how to read it: seeds, images, family of comparisons, method, code.
        notes: (mark, sentence): footnotes; a mark is ``""`` for a note on the whole table.
        records: the same content, tidy and unrounded, for CSV and JSON: one flat mapping per comparison or row, all
            with the same keys.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    records: tuple[Mapping[str, Any], ...] = ()
