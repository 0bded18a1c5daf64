"""Terminal: no line too long, nothing cut, nothing that commands the terminal."""

import re
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from prove.report.render import render
from prove.report.render.terminal import MOST_ROWS, render_terminal
from prove.report.table import Cell, Column, Table

WORDS = st.text(st.sampled_from("abc_*+-漢é .:%"), max_size=70)
CELLS = st.builds(
    Cell,
    WORDS,
    bold=st.booleans(),
    underline=st.booleans(),
    muted=st.booleans(),
    marks=st.sampled_from([(), ("a", "†")]),
)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@st.composite
def tables(draw: st.DrawFn) -> Table:
    width = draw(st.integers(1, 12))
    columns = tuple(Column(draw(WORDS), draw(st.sampled_from(["left", "right"]))) for _ in range(width))
    rows = tuple(tuple(draw(CELLS) for _ in range(width)) for _ in range(draw(st.integers(0, 3))))
    notes = (("a", draw(WORDS)), ("", draw(WORDS)))
    return Table("t", draw(WORDS), columns, rows, draw(WORDS), notes)


def visible(text: str) -> Counter[str]:
    return Counter(char for char in text if not char.isspace())


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from([40, 80, 100, 10_000]), st.booleans())
def test_no_line_too_long_and_nothing_cut(table: Table, width: int, colour: bool) -> None:
    text = render([table], "rich", width=width, colour=colour)
    bare = ANSI.sub("", text)
    assert colour or text == bare
    assert max(map(cell_len, bare.splitlines()), default=0) <= width
    own = [
        table.title, table.caption, *(note for _, note in table.notes), *(column.name for column in table.columns),
        *(cell.text for row in table.rows for cell in row),
    ]  # fmt: skip
    assert visible("".join(own)) <= visible(bare)


def test_a_wide_table_repeats_its_first_column() -> None:
    columns = (Column("loss", "left"), *(Column(f"column {i}") for i in range(20)))
    rows = tuple((Cell(loss), *(Cell(f"{row}.{i:02}") for i in range(20))) for row, loss in enumerate(("ce", "focal")))
    text = render([Table("t", "T", columns, rows)], "rich")
    parts = text.split("\n\n")
    assert len(parts) == 3
    lines = [line for line in text.splitlines() if line.startswith("ce ")]
    assert len(lines) == 3
    assert " ".join(lines).split() == [word for part in lines for word in part.split()]
    assert [word for line in lines for word in line.split()[1:]] == [f"0.{i:02}" for i in range(20)]


def test_a_table_of_100_columns_is_not_split() -> None:
    table = Table("t", "T", (Column("a" * 50, "left"), Column("b" * 48)), ((Cell("x"), Cell("1")),))
    assert render([table], "rich").splitlines()[1] == "a" * 50 + "  " + "b" * 48
    assert len(render([table], "rich", width=99).split("\n")[1]) <= 99


def test_numbers_stand_below_each_other_beside_marks() -> None:
    cells = [Cell("1.50", marks=("a",)), Cell("22.50"), Cell("3.50", marks=("†", "b"))]
    text = render(
        [Table("t", "T", (Column("loss", "left"), Column("n")), tuple((Cell("x"), cell) for cell in cells))], "rich"
    )
    lines = text.splitlines()[2:5]
    assert len({line.index(".50") for line in lines}) == 1
    assert [line.split()[2:] for line in lines] == [["[a]"], [], ["†", "[b]"]]


def test_what_is_bold_shows_with_and_without_colour() -> None:
    cell = Cell("59.6\n+1.6", bold=True, underline=True)
    table = Table("t", "T", (Column("loss", "left"), Column("mIoU")), ((Cell("x"), cell),))
    plain = render([table], "rich")
    assert "*_59.6_*" in plain
    assert "*bold*, _underlined_" in plain
    coloured = render([table], "rich", colour=True)
    assert "\x1b[1;4m59.6\x1b[0m" in coloured
    assert "*" not in coloured
    assert "\x1b" not in plain


def test_a_name_can_not_command_the_terminal() -> None:
    name = "\x1b[31mred\x1b]0;title\x07\x9b2J\r\t"
    table = Table("t", name, (Column(name),), ((Cell(name, marks=("a",)),),), name, (("a", name),))
    text = render([table], "rich")
    assert all(char.isprintable() for line in text.split("\n") for char in line)


def test_many_rows_end_with_how_to_see_the_rest() -> None:
    table = Table("t", "T", (Column("n"),), tuple((Cell(str(i)),) for i in range(MOST_ROWS + 30)))
    text = render_terminal([table, table, table])
    assert text.splitlines()[-1].startswith("... and 30 more rows and 2 more tables.")
    assert str(MOST_ROWS - 1) in text.split()
    assert str(MOST_ROWS) not in text.split()
    short = Table("t", "T", (Column("n"),), ((Cell("1"),),))
    assert render_terminal([short] * 4).count("T\n") == 4
    assert "more" not in render_terminal([short] * 4)
