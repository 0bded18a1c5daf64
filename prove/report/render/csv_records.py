"""Tidy, unrounded records as CSV."""

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
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", *names] if several else names)
    for table, record in found:
        row = [_field(record.get(name)) for name in names]
        writer.writerow([table, *row] if several else row)
    return out.getvalue()


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
    return repr(float(value)) if isinstance(value, float) else value
