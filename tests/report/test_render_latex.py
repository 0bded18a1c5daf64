"""LaTeX is judged by pdflatex itself, and by what pdftotext reads back from the page."""

import shutil
import subprocess
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from prove.report.render import render
from prove.report.render.latex import escape
from prove.report.table import Cell, Column, Table
from prove.report.views.across import across
from prove.report.views.classes import classes
from prove.report.views.cost import cost
from prove.report.views.domains import domains
from prove.report.views.integrity import integrity
from prove.report.views.precision import precision
from prove.report.views.results import results
from tests.report.studies import simulate

needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")

HOSTILE = r"a_b%&#$~^\{}"
UNICODE = "± Δ é ß ø Ł τ ≤ − – † “q” µ²"
DOCUMENT = r"""\documentclass{article}
%s
\usepackage{booktabs}
\usepackage[margin=1cm,paperwidth=200cm,paperheight=200cm]{geometry}
\begin{document}
\pagestyle{empty}
\begin{table}\caption{%s}\input{table}\end{table}
\end{document}
"""
T1 = r"\usepackage{cmap}\usepackage[T1]{fontenc}"


def compiled(folder: Path, tables: Sequence[Table], preamble: str = T1) -> str:
    """The log of pdflatex over a document that takes the tables and the first caption in."""
    text = render(tables, "latex")
    (folder / "table.tex").write_text(text, encoding="utf-8")
    captions = [line[len(r"% \caption{") : -1] for line in text.splitlines() if line.startswith(r"% \caption{")]
    (folder / "whole.tex").write_text(DOCUMENT % (preamble, captions[0] if captions else ""), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error", "whole.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, "\n".join(line for line in log.splitlines() if "!" in line or ":" in line)[-2000:]
    assert "Missing character" not in (folder / "whole.log").read_text(errors="replace")
    return log


def read_back(folder: Path) -> str:
    """The text on the pages; an en dash is read as two hyphens."""
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    done = subprocess.run(["pdftotext", "-layout", "whole.pdf", "-"], cwd=folder, capture_output=True, check=True)
    return done.stdout.decode()


def hostile_table() -> Table:
    cell = Cell(f"{HOSTILE}\n-0.81 [-0.10, +1.72] p <.001", 0.81, bold=True, underline=True, marks=("†", "a"))
    return Table(
        "t",
        f"Title {HOSTILE} {UNICODE}\nsecond",
        (Column(f"loss {HOSTILE}", "left"), Column("n * [x]")),
        (
            (Cell(f"[starts with a bracket] {UNICODE}"), cell),
            (Cell("* starts with a star"), Cell("")),
            (Cell("--- ,, '' `` \"q\" 漢 \u200b \x1b[31m"), Cell("1", muted=True)),
        ),
        caption=f"Caption 100% of {HOSTILE} {UNICODE}\n\nnew paragraph",
        notes=(("a", f"Note {HOSTILE} " + "word " * 60), ("", "Of the whole table, 50%.")),
    )


@needs_latex
@pytest.mark.parametrize("preamble", [T1, ""], ids=["T1", "default fonts"])
def test_hostile_names_compile_and_are_read_back(tmp_path: Path, preamble: str) -> None:
    plain = hostile_table()
    compiled(tmp_path, [plain], preamble)
    if preamble:
        text = " ".join(unicodedata.normalize("NFKC", read_back(tmp_path)).split())
        assert r"loss a_b%&#$~^\{}" in text
        assert "[starts with a bracket] ± ∆ é ß ø Ł τ ≤ − --" in text
        assert "“q” μ" in text
        assert "* starts with a star" in text
        assert "−0.81 [−0.10, +1.72] p <.001" in text
        assert "[U+6F22]" in text
        assert r"Note a_b%&#$~^\{} word word" in text
        assert "Of the whole table, 50%." in text


@needs_latex
def test_every_letter_that_is_let_through_has_a_glyph(tmp_path: Path) -> None:
    codes = [*range(0x20, 0x7F), *range(0xA0, 0x250), *range(0x370, 0x400), *range(0x2010, 0x2300)]
    texts = [" ".join(f"x{chr(code)}x" for code in codes[start : start + 20]) for start in range(0, len(codes), 20)]
    compiled(tmp_path, [Table("t", "All", (Column("letter", "left"),), tuple((Cell(text),) for text in texts))])


@needs_latex
def test_all_tables_of_a_study_compile_in_one_file(tmp_path: Path) -> None:
    study = simulate(
        {"ce": 0.0, "ce + 0.3*my_loss%": 1.0, "ce + 0.3*lovasz[w_1=0.5]": -1.0},
        blocks=(("Data_1", "net_a"), ("Data_1", "net_b"), ("D&D", "net_a", "night")),
        outcomes={(0, "ce + 0.3*my_loss%", 1): "failed diverged", (1, "ce", 0): "not comparable: lr 0.1 & 100%"},
        classes=("road_1", "50%"),
        warnings=("2 of 9: another device: A_100 (2).",),
    )
    tables = [
        *across(study), *results(study), *classes(study), *domains(study), *precision(study), *integrity(study),
        *cost(study),
    ]  # fmt: skip
    compiled(tmp_path, tables)


def test_no_rule_is_drawn_by_hand() -> None:
    text = render([hostile_table()], "latex")
    assert r"\hline" not in text
    assert r"\cline" not in text
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1
    columns = text.split(r"\begin{tabular}{", 1)[1].split("\n", 1)[0]
    assert columns == "@{}lr@{}}"


def test_comments_can_not_be_left() -> None:
    """What follows a line break in a title or a caption would be typeset."""
    text = render([hostile_table()], "latex")
    before = text.split(r"\begin{tabular}", 1)[0]
    assert all(line.startswith("%") for line in before.splitlines() if line)


def test_a_minus_is_one_and_a_hyphen_stays() -> None:
    assert escape("-0.10") == "$-$0.10"
    assert escape("[-0.10, +1]") == r"{[}$-$0.10, +1{]}"
    assert escape("segformer_mit-b3 hr-48 2-5") == r"segformer\_mit-b3 hr-48 2-5"
