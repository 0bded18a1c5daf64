"""Tables as a fragment of HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from prove.report.render.plain import printable
from prove.report.table import Cell, Column, Table


def render_html(tables: Sequence[Table], *, links: bool = False) -> str:
    """A ``<table>`` for each, without a style of its own; every text is escaped.

    The title and the caption are its ``<caption>``, the first cell of a row is a header. A number's unrounded value
    is in ``data-value``; classes are ``number`` for columns of numbers and ``muted``; better is ``<strong>``, the best
    mean ``<u>``.

    Args:
        links: the runs a cell came from follow it, as links to ``#run-KEY`` of the same document.
    """
    return "\n".join(_table(table, links) for table in tables)


def _table(table: Table, links: bool) -> str:
    identity = _text(table.name)
    caption = f'<span class="title">{_text(table.title)}</span>'
    if table.caption:
        caption += f' <span class="about">{_text(table.caption)}</span>'
    lines = [f'<div class="table" id="table-{identity}">', "<table>", f"<caption>{caption}</caption>", "<thead><tr>"]
    lines += [f'<th scope="col"{_class(column.align == "right")}>{_text(column.name)}</th>' for column in table.columns]
    lines += ["</tr></thead>", "<tbody>"]
    for row in table.rows:
        cells = zip(row, table.columns, strict=True)
        lines.append(f"<tr>{''.join(_cell(cell, column, not i, links) for i, (cell, column) in enumerate(cells))}</tr>")
    lines += ["</tbody>", "</table>"]
    if table.notes:
        items = (f"<li>{f'<sup>{_text(mark)}</sup> ' if mark else ''}{_text(note)}</li>" for mark, note in table.notes)
        lines += ['<ul class="notes">', *items, "</ul>"]
    return "\n".join([*lines, "</div>", ""])


def _class(number: bool, muted: bool = False) -> str:
    names = ["number"] * number + ["muted"] * muted
    return f' class="{" ".join(names)}"' if names else ""


def _cell(cell: Cell, column: Column, is_header: bool, links: bool) -> str:
    lines = [_text(line) for line in cell.text.splitlines()] or [""]
    if cell.underline and lines[0]:
        lines[0] = f"<u>{lines[0]}</u>"
    if cell.bold and lines[0]:
        lines[0] = f"<strong>{lines[0]}</strong>"
    if cell.marks:
        lines[0] += f"<sup>{_text(', '.join(cell.marks))}</sup>"
    text = "<br>".join(lines)
    if links and cell.runs:
        text += _runs(cell.runs)
    value = ""
    if cell.value is not None and math.isfinite(cell.value):
        value = f' data-value="{float(cell.value)!r}"'
    attributes = _class(column.align == "right", cell.muted) + value
    return f'<th scope="row"{attributes}>{text}</th>' if is_header else f"<td{attributes}>{text}</td>"


def _runs(keys: Sequence[str]) -> str:
    """The runs behind a cell, out of sight until they are asked for."""
    links = " ".join(f'<a href="#run-{_text(key)}">{_text(key)}</a>' for key in keys)
    return f' <details class="runs"><summary>{len(keys)} run{"s" * (len(keys) > 1)}</summary>{links}</details>'


def _text(text: str) -> str:
    return escape(printable(text))
