"""Tables in the forms that people and programs read."""

from __future__ import annotations

from collections.abc import Sequence

from prove.errors import unknown
from prove.report.render.csv_records import render_csv
from prove.report.render.html_fragment import render_html
from prove.report.render.json_document import render_json
from prove.report.render.latex import render_latex
from prove.report.render.markdown import render_markdown
from prove.report.render.terminal import render_terminal
from prove.report.table import Table

FORMATS = ("rich", "md", "latex", "csv", "html", "json")
"""``rich`` is for the terminal."""


def render(tables: Sequence[Table], form: str, *, width: int = 100, colour: bool = False) -> str:
    """Tables as text, with a line break at the end.

    Args:
        form: one of `FORMATS`.
        width: columns of the terminal, for ``rich`` alone.
        colour: with ANSI codes, for ``rich`` alone.

    Raises:
        ProveError: there is no such format.
    """
    match form:
        case "rich":
            return render_terminal(tables, width=width, colour=colour)
        case "md":
            return render_markdown(tables)
        case "latex":
            return render_latex(tables)
        case "csv":
            return render_csv(tables)
        case "html":
            return render_html(tables)
        case "json":
            return render_json(tables)
    raise unknown("format", form, FORMATS)
