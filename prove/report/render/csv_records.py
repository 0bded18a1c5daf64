"""Tidy, unrounded records as CSV.

A spreadsheet takes a field that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return for a formula, and
what a loss, a class or a failure is called comes from outside. Such a text, unless it is a number, is written with an
apostrophe before it: ``'=SUM(A1)``. A program that needs the text as it was reads JSON instead.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prove.report.table import Table


def render_csv(tables: Sequence[Table]) -> str:
    """The records of the tables, a line each, below a line of names.

    Floats have as many digits as it takes to read them back exactly; what is not there or not a number is empty. With
    several tables the first column is ``table``, the table's name; a key that only some tables have is empty in the
    others. A table without records gives its cells: the number, or the text.
    """
    found = [(table.name, record) for table in tables for record in tidy(table)]
    names = list(dict.fromkeys(name for _, record in found for name in record))
    several = len(tables) > 1
    lines = [_line([*(["table"] if several else []), *map(harmless, names)])]
    for table, record in found:
        row = [_field(record.get(name)) for name in names]
        lines.append(_line([harmless(table), *row] if several else row))
    return "".join(lines)


def _line(fields: Sequence[Any]) -> str:
    """A row. The writer puts quotes around a carriage return only where lines end with one."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(fields)
    return out.getvalue().removesuffix("\r\n") + "\n"


def tidy(table: Table) -> Sequence[Mapping[str, Any]]:
    """Its records; made from its cells where it has none."""
    if table.records:
        return table.records
    return [
        {
            column.name: cell.text if cell.value is None else cell.value
            for column, cell in zip(table.columns, row, strict=True)
        }
        for row in table.rows
    ]


def _field(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return harmless(value)
    return repr(float(value)) if isinstance(value, float) else value


def harmless(text: str) -> str:
    """The text, with an apostrophe before it where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
