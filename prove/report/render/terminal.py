"""Tables for a terminal: plain lines, with ANSI codes if wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, chop_cells

from prove.report.render.plain import printable
from prove.report.table import Cell, Table

GAP = "  "
"""Between two columns."""

NARROWEST = 24
"""To how many columns of the terminal a column of text may be wrapped before the table is split."""

MOST_ROWS = 120
"""Rows of all tables together that are shown."""

BOLD, DIM, UNDERLINE = "1", "2", "4"


def render_terminal(tables: Sequence[Table], *, width: int = 100, colour: bool = False) -> str:
    """The tables one below the other, no line longer than ``width``, and nothing cut.

    A table that is too wide is split by groups of columns, each beginning with the first column again. Without colour
    better is ``*bold*`` and the best mean ``_underlined_``. Beyond `MOST_ROWS` rows the rest is left out, and the last
    line says how to see it.
    """
    lines: list[str] = []
    shown = _how_many(tables)
    for index, table in enumerate(tables[:shown]):
        lines += [""] * bool(index)
        lines += _table(replace(table, rows=table.rows[:MOST_ROWS]), width, colour)
    left = [("row", sum(len(table.rows[MOST_ROWS:]) for table in tables[:shown])), ("table", len(tables) - shown)]
    rest = " and ".join(f"{count:,} more {noun}{'s' * (count > 1)}" for noun, count in left if count)
    if rest:
        lines += ["", *wrap(f"... and {rest}. All: --format md, html, latex, csv or json, and -o FILE.", width)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _how_many(tables: Sequence[Table]) -> int:
    rows = 0
    for index, table in enumerate(tables):
        rows += len(table.rows)
        if rows > MOST_ROWS:
            return max(index, 1)
    return len(tables)


@dataclass(frozen=True)
class _Shown:
    """What a cell shows.

    Attributes:
        marks: of the footnotes, after the first line.
        style: ANSI codes of the first line.
    """

    lines: tuple[str, ...]
    marks: str = ""
    style: tuple[str, ...] = ()


def _table(table: Table, width: int, colour: bool) -> list[str]:
    header = [_Shown((printable(column.name),), style=(DIM,) if colour else ()) for column in table.columns]
    rows = [header, *([_shown(cell, colour) for cell in row] for row in table.rows)]
    lines = [_styled(line, (BOLD,) if colour else ()) for line in wrap(table.title, width)]
    for index, part in enumerate(_parts(rows, [column.align == "left" for column in table.columns], width)):
        lines += [""] * bool(index)
        for row in rows:
            lines += _row(row, part)
    for mark, note in table.notes:
        lines += wrap(note, width, lead=f"{raised(mark)} " if mark else "")
    if not colour:
        lines += _legend(table, width)
    lines += [_styled(line, (DIM,) if colour else ()) for line in wrap(table.caption, width)]
    return lines


def _shown(cell: Cell, colour: bool) -> _Shown:
    lines = [printable(line) for line in cell.text.splitlines()] or [""]
    marks = "".join(f" {raised(mark)}" for mark in cell.marks)
    if colour:
        codes = {BOLD: cell.bold, UNDERLINE: cell.underline, DIM: cell.muted}
        return _Shown(tuple(lines), marks, tuple(code for code, wanted in codes.items() if wanted))
    around = "*" * cell.bold + "_" * cell.underline
    if lines[0]:
        lines[0] = f"{around}{lines[0]}{around[::-1]}"
    return _Shown(tuple(lines), marks)


def raised(mark: str) -> str:
    """A mark where nothing can be raised: ``[a]``, but ``†``."""
    return f"[{mark}]" if mark.isalnum() else mark


def _legend(table: Table, width: int) -> list[str]:
    cells = [cell for row in table.rows for cell in row if cell.text]
    said = ["*bold*"] * any(cell.bold for cell in cells) + ["_underlined_"] * any(cell.underline for cell in cells)
    return wrap(f"Without colour: {', '.join(said)}.", width) if said else []


@dataclass(frozen=True)
class _Column:
    """How a column of a part is set.

    Attributes:
        width: without the marks.
        marks: room for the marks, so that numbers stay below each other.
    """

    index: int
    left: bool
    width: int
    marks: int


def _parts(rows: Sequence[Sequence[_Shown]], left: Sequence[bool], width: int) -> list[list[_Column]]:
    """Groups of columns that fit, each with the first column in front."""
    columns = [_measure(index, [row[index] for row in rows], left[index]) for index in range(len(left))]
    if not columns:
        return []
    first, *others = columns
    parts: list[list[_Column]] = []
    for column in others:
        if parts and _total([*parts[-1], column], narrow=True) <= width:
            parts[-1].append(column)
        else:
            parts.append([first, column])
    return [_fitted(part, width) for part in parts or [[first]]]


def _measure(index: int, cells: Iterable[_Shown], left: bool) -> _Column:
    cells = list(cells)
    widest = max((cell_len(line) for cell in cells for line in cell.lines), default=0)
    return _Column(index, left, widest, max((cell_len(cell.marks) for cell in cells), default=0))


def _total(part: Sequence[_Column], *, narrow: bool = False) -> int:
    widths = (min(each.width, NARROWEST) if narrow and each.left else each.width for each in part)
    return sum(widths) + sum(each.marks for each in part) + len(GAP) * (len(part) - 1)


def _fitted(part: Sequence[_Column], width: int) -> list[_Column]:
    """The columns of a part with what each gets: columns of text give way first, the widest first."""
    widths = [each.width for each in part]
    excess = _total(part) - width
    for floors in ([NARROWEST if each.left else each.width for each in part], [1] * len(part)):
        while excess > 0:
            candidates = [place for place, floor in enumerate(floors) if widths[place] > floor]
            if not candidates:
                break
            widths[max(candidates, key=lambda place: widths[place])] -= 1
            excess -= 1
    return [_Column(each.index, each.left, width, each.marks) for each, width in zip(part, widths, strict=True)]


def _row(row: Sequence[_Shown], part: Sequence[_Column]) -> list[str]:
    cells = [_set(row[column.index], column) for column in part]
    height = max(len(cell) for cell in cells)
    padded = [
        [*cell, *[" " * (column.width + column.marks)] * (height - len(cell))]
        for cell, column in zip(cells, part, strict=True)
    ]
    return [GAP.join(line) for line in zip(*padded, strict=True)]


def _set(cell: _Shown, column: _Column) -> list[str]:
    """The lines of a cell, each as wide as its column."""
    lines = [part for line in cell.lines for part in wrap(line, column.width)] or [""]
    done = []
    first = len(wrap(cell.lines[0], column.width)) if cell.lines else 1
    for index, line in enumerate(lines):
        marks = cell.marks if not index else ""
        spare = " " * (column.width - cell_len(line))
        after = " " * (column.marks - cell_len(marks))
        text = _styled(line, cell.style) if index < first else line
        done.append(f"{text}{marks}{spare}{after}" if column.left else f"{spare}{text}{marks}{after}")
    return done


def _styled(text: str, codes: Sequence[str]) -> str:
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if codes and text else text


def wrap(text: str, width: int, *, lead: str = "") -> list[str]:
    """Text on lines of at most ``width`` columns, broken between words; longer words are broken too.

    Args:
        lead: before the first line; the others are indented as far.
    """
    if not lead and cell_len(text) <= width and text.isprintable():
        return [text] if text else []
    room = max(width - cell_len(lead), 1)
    lines: list[str] = []
    for word in printable(text).split():
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= room:
            lines[-1] += f" {word}"
        else:
            lines += chop_cells(word, room)
    return [f"{lead if not index else ' ' * cell_len(lead)}{line}" for index, line in enumerate(lines)]
