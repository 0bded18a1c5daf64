"""Markdown is judged by another reader of it: markdown-it, with GitHub's tables."""

import re
from html import unescape

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from prove.report.render import render
from prove.report.table import Cell, Column, Table

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TEXT = st.text(
    st.one_of(st.sampled_from("|\\`*_{}[]()#+-.!<>&$~^'\" abAB01\n"), st.characters(codec="utf-8")), max_size=30
)


def shown(inline: Token) -> str:
    """What a reader sees of an inline token: raised marks and line breaks as ``^`` and line feeds."""
    parts = []
    for child in inline.children or []:
        if child.type == "html_inline":
            parts.append({"<br>": "\n", "<sup>": "^"}.get(child.content, ""))
        elif child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
    return "".join(parts)


def read(text: str) -> tuple[list[list[str]], list[str], list[str]]:
    """Rows of the table, the header first; paragraphs and headings; items of the list."""
    rows: list[list[str]] = []
    outside: list[str] = []
    items: list[str] = []
    tokens = READER.parse(text)
    depth = 0
    for before, token in zip([Token("", "", 0), *tokens], tokens, strict=False):
        depth += (token.type == "list_item_open") - (token.type == "list_item_close")
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            if before.type in ("th_open", "td_open"):
                rows[-1].append(shown(token))
            else:
                (items if depth else outside).append(shown(token))
    return rows, outside, items


def plain(text: str) -> str:
    """On one line, as a table has it; what can't be printed replaced."""
    kept = "".join(char if char.isprintable() or char.isspace() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return " ".join(kept.split())


@settings(max_examples=300, deadline=None)
@given(TEXT, TEXT, TEXT, TEXT)
def test_any_text_is_read_back(title: str, name: str, cell: str, note: str) -> None:
    table = Table(
        "t",
        f"T{title}",
        (Column("loss", "left"), Column(f"c{name}")),
        ((Cell(f"r{plain(cell)}", bold=True, underline=True, marks=("a",)), Cell("1")),),
        caption=f"C{note}",
        notes=(("a", f"N{note}"),),
    )
    rows, outside, items = read(render([table], "md"))
    assert [unescape(text) for text in rows[0]] == ["loss", plain(f"c{name}")]
    assert rows[1:] == [[f"{plain(f'r{plain(cell)}')}^a", "1"]]
    assert outside == [plain(f"T{title}"), plain(f"C{note}")]
    assert items == [f"^a {plain(f'N{note}')}"]


def test_better_is_bold_and_the_best_underlined() -> None:
    cells = (Cell("[-1, +2]", bold=True), Cell("2 ± 1 (3)\n+0.8 p .01", bold=True, underline=True, marks=("†", "b")))
    text = render([Table("t", "T", (Column("a"), Column("b")), (cells,))], "md")
    inline = [token for token in READER.parse(text) if token.type == "inline"][-2:]
    first, second = (
        [child.type for child in token.children or [] if child.content or child.nesting] for token in inline
    )
    assert first[0] == "strong_open"
    assert first[-1] == "strong_close"
    assert second[0] == "strong_open"
    assert "<ins>2 ± 1 (3)</ins>" in text
    assert shown(inline[1]) == "2 ± 1 (3)^†, b\n+0.8 p .01"


def test_numbers_are_on_the_right() -> None:
    text = render([Table("t", "T", (Column("a", "left"), Column("b")), ((Cell("x"), Cell("1")),))], "md")
    assert re.search(r"^\| :--- \| ---: \|$", text, re.M)


def test_no_dollar_is_left_for_maths() -> None:
    text = render([Table("t", "$a$", (Column("$b$"),), ((Cell("$c$"),),), caption="$d$")], "md")
    assert "$" not in text
