"""Tables as one JSON document."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prove.report.table import Table


def render_json(tables: Sequence[Table]) -> str:
    """See `document`."""
    return json.dumps(document(tables), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def document(tables: Sequence[Table]) -> dict[str, Any]:
    """``{"tables": [...]}``, each with ``name, title, caption, notes, columns, rows, records``.

    A row is the list of its cells, each ``{"text": ..., "marks": [...]}``, the marks being those of its notes;
    ``records`` hold the unrounded numbers. A number that is not finite is null: JSON has no NaN.
    """
    return {"tables": [_table(table) for table in tables]}


def _table(table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "notes": [{"mark": mark, "text": text} for mark, text in table.notes],
        "columns": [column.name for column in table.columns],
        "rows": [[{"text": cell.text, "marks": list(cell.marks)} for cell in row] for row in table.rows],
        "records": [_finite(record) for record in table.records],
    }


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
