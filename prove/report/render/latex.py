"""Tables in LaTeX: bare booktabs tabulars for ``\\input``."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Sequence

from prove.report.table import Cell, Table

_HEAD = """\
% Written by PROVE. \\input it into a table environment; the caption below is a comment, to be copied.
% Needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}; compiles with pdflatex.
"""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # a row that starts with one would be taken for the option of the line break before
    "]": "{]}",
    "*": "{*}",
}

_MATHS = {
    "±": r"\pm", "×": r"\times", "÷": r"\div", "·": r"\cdot", "−": "-", "≤": r"\leq", "≥": r"\geq", "≠": r"\neq",
    "≈": r"\approx", "∞": r"\infty", "∓": r"\mp", "→": r"\to", "←": r"\leftarrow", "∈": r"\in", "∑": r"\sum",
    "∏": r"\prod", "√": r"\surd", "∂": r"\partial", "∇": r"\nabla", "∼": r"\sim", "²": "^2", "³": "^3", "¹": "^1",
    "µ": r"\mu", "∆": r"\Delta", "¬": r"\neg", "°": r"^\circ", "⁻": "^-",
    "ς": r"\varsigma", "ο": "o",
}  # fmt: skip

_TEXT = {
    "–": "--", "—": "---", "‐": "-", "‑": "-", "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\ldots{}",
    "†": r"\dag{}", "‡": r"\ddag{}", "§": r"\S{}", "¶": r"\P{}", "©": r"\copyright{}", "£": r"\pounds{}",
    "•": r"\textbullet{}", "€": r"\texteuro{}", "®": r"\textregistered{}", "™": r"\texttrademark{}", "\xa0": "~",
}  # fmt: skip

_GREEK = {
    char: "\\" + getattr(unicodedata.name(char).replace("LAMDA", "LAMBDA").split()[-1], case)()
    for letters, case in (("αβγδεζηθικλμνξπρστυφχψω", "lower"), ("ΓΔΘΛΞΠΣΥΦΨΩ", "capitalize"))
    for char in letters
}

_SYMBOLS = {
    **_SPECIAL,
    **{char: rf"\ensuremath{{{command}}}" for char, command in {**_MATHS, **_GREEK}.items()},
    **_TEXT,
}

_LETTERS = frozenset(map(chr, range(0xC0, 0x17F))) - set("×÷ĦħĸĿŀŉŦŧ")
"""What T1 has beyond ASCII, as it stands."""

_LIGATURE = re.compile(r"(?<=-)(?=-)|(?<=,)(?=,)")

NARROWEST_NOTE = 60
"""Characters on a line of a footnote, at least; it is as wide as the table otherwise."""


def render_latex(tables: Sequence[Table]) -> str:
    r"""Each table as a ``tabular`` with booktabs' rules, in an order in which ``\input`` takes them.

    Better is bold, the best mean underlined, footnote marks are raised and the footnotes stand below the last rule.
    The caption is a comment that can be copied into ``\caption``. With several tables each has its title above. A
    character that pdflatex has no glyph for is written as its code point, such as ``[U+6F22]``.
    """
    several = len(tables) > 1
    return _HEAD + "\n\\bigskip\n\n".join(_table(table, several) for table in tables)


def _table(table: Table, titled: bool) -> str:
    count = len(table.columns)
    layout = "".join("l" if column.align == "left" else "r" for column in table.columns)
    lines = [f"% {escape(table.title)}"]
    if table.caption:
        lines.append(rf"% \caption{{{escape(table.caption)}}}")
    lines.append(rf"\begin{{tabular}}{{@{{}}{layout}@{{}}}}")
    if titled:
        lines.append(rf"\multicolumn{{{count}}}{{@{{}}l@{{}}}}{{\textbf{{{escape(table.title)}}}}} \\[2pt]")
    lines += [r"\toprule", _row([escape(column.name) for column in table.columns]), r"\midrule"]
    for index, row in enumerate(table.rows):
        if index and any("\n" in cell.text for cell in row):
            lines.append(r"\addlinespace")
        cells = zip(row, table.columns, strict=True)
        lines.append(_row([_cell(cell, "l" if column.align == "left" else "r") for cell, column in cells]))
    lines.append(r"\bottomrule")
    for mark, note in table.notes:
        lines += _note(mark, note, count, max(_width(table), NARROWEST_NOTE))
    lines.append(r"\end{tabular}")
    return "\n".join([*lines, ""])


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell, align: str) -> str:
    lines = [escape(line) for line in cell.text.splitlines() if line.strip()] or [""]
    if cell.underline and lines[0]:
        lines[0] = rf"\underline{{{lines[0]}}}"
    if cell.bold and lines[0]:
        lines[0] = rf"\textbf{{{lines[0]}}}"
    if cell.marks:
        lines[0] += rf"\textsuperscript{{{escape(', '.join(cell.marks))}}}"
    if len(lines) < 2:
        return "".join(lines)
    stacked = r" \\ ".join(lines)
    return rf"\begin{{tabular}}[t]{{@{{}}{align}@{{}}}}{stacked}\end{{tabular}}"


def _note(mark: str, note: str, count: int, width: int) -> list[str]:
    raised = rf"\textsuperscript{{{escape(mark)}}} " if mark else ""
    lines = textwrap.wrap(" ".join(note.split()), width) or [""]
    return [
        rf"\multicolumn{{{count}}}{{@{{}}l@{{}}}}{{\footnotesize {raised if not i else ''}{escape(line)}}} \\"
        for i, line in enumerate(lines)
    ]


def _width(table: Table) -> int:
    """Of the table, in characters of a footnote."""
    texts = ([column.name for column in table.columns], *([cell.text for cell in row] for row in table.rows))
    widest = (max(map(_longest, parts)) for parts in zip(*texts, strict=True))
    return int(1.2 * sum(width + 2 for width in widest))


def _longest(text: str) -> int:
    return max((len(line) for line in text.splitlines()), default=0)


def escape(text: str) -> str:
    """Text that LaTeX typesets as it is, on one line."""
    line = unicodedata.normalize("NFC", " ".join(text.split()))
    return _LIGATURE.sub("{}", "".join(_typeset(line, place, char) for place, char in enumerate(line)))


def _typeset(line: str, place: int, char: str) -> str:
    if char == "-" and line[place + 1 : place + 2].isdigit() and not line[max(place - 1, 0) : place].isalnum():
        return "$-$"
    if char in _SYMBOLS:
        return _SYMBOLS[char]
    if " " <= char <= "~" or char in _LETTERS:
        return char
    return f"{{[}}U+{ord(char):04X}{{]}}"
