"""Tables in GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from prove.report.render.plain import printable
from prove.report.table import Cell, Table

_BACKSLASH = frozenset("\\`*_[]#|~")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"}  # a backslash does not keep GitHub's math off


def render_markdown(tables: Sequence[Table]) -> str:
    """Each table under a heading, with its caption and footnotes below.

    Better is bold, the best mean underlined (``<ins>``, the one way that GitHub shows), footnote marks are raised.
    """
    return "\n".join(_table(table) for table in tables)


def _table(table: Table) -> str:
    lines = [f"### {escape(table.title)}", ""]
    lines.append(_line([escape(column.name) for column in table.columns]))
    lines.append(_line([":---" if column.align == "left" else "---:" for column in table.columns]))
    lines += [_line([_cell(cell) for cell in row]) for row in table.rows]
    if table.caption:
        lines += ["", escape(table.caption)]
    if table.notes:
        lines.append("")
        lines += [f"- {f'<sup>{escape(mark)}</sup> ' if mark else ''}{escape(text)}" for mark, text in table.notes]
    return "\n".join([*lines, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    lines = [escape(line) for line in cell.text.splitlines() if line.strip()] or [""]
    if cell.underline and lines[0]:
        lines[0] = f"<ins>{lines[0]}</ins>"
    if cell.bold and lines[0]:
        lines[0] = f"**{lines[0]}**"
    if cell.marks:
        lines[0] += f"<sup>{escape(', '.join(cell.marks))}</sup>"
    return "<br>".join(lines)


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = " ".join(printable(text).split())
    return "".join("\\" + char if char in _BACKSLASH else _ENTITIES.get(char, char) for char in line)
