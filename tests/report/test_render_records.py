"""CSV and JSON: what they hold is read back exactly."""

import csv
import io
import json
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prove.errors import ProveError
from prove.report.render import FORMATS, render
from prove.report.table import Cell, Column, Table

VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec="utf-8")))


def with_records(*records: dict[str, object], name: str = "t") -> Table:
    return Table(name, "T", (Column("x"),), ((Cell("1"),),), records=records)


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(st.characters(codec="utf-8")))
def test_csv_is_read_back_exactly(number: float, text: str) -> None:
    out = render([with_records({"n": number, "text": text, "none": None, "nan": math.nan, "flag": True})], "csv")
    (row,) = csv.DictReader(io.StringIO(out, newline=""))
    assert float(row["n"]) == number
    shown = row["text"]
    assert text in (shown, shown.removeprefix("'"))
    assert (row["none"], row["nan"], row["flag"]) == ("", "", "true")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("@SUM(1)", "'@SUM(1)"),
        ("+1+1", "'+1+1"),
        ("-x", "'-x"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("-1.5", "-1.5"),
        ("+2e3", "+2e3"),
        ("ce + 0.3*focal", "ce + 0.3*focal"),
        ("", ""),
    ],
)
def test_csv_holds_no_formula(text: str, written: str) -> None:
    tables = [with_records({"x": text, text or "y": -1.5}, name=text), with_records({"x": text}, name="two")]
    header, first, second = csv.reader(io.StringIO(render(tables, "csv"), newline=""))
    assert header == ["table", "x", written or "y"]
    assert first == [written, written, "-1.5"]
    assert second == ["two", written, ""]


def test_csv_of_several_tables_says_which() -> None:
    tables = [with_records({"a": 1.5, "b": 2}, name="one"), with_records({"b": 3, "c": "x"}, name="two")]
    frame = pd.read_csv(io.StringIO(render(tables, "csv")))
    assert list(frame.columns) == ["table", "a", "b", "c"]
    assert list(frame["table"]) == ["one", "two"]
    assert list(frame["b"]) == [2, 3]
    assert math.isnan(frame["a"][1])


def test_csv_without_records_has_the_cells() -> None:
    table = Table("t", "T", (Column("loss", "left"), Column("mIoU")), ((Cell("ce"), Cell("33.3", 100 / 3)),))
    (row,) = csv.DictReader(io.StringIO(render([table], "csv")))
    assert row["loss"] == "ce"
    assert float(row["mIoU"]) == 100 / 3


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), VALUES, max_size=5))
def test_json_is_strict_and_exact(record: dict[str, object]) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = render([with_records(record)], "json")
    (table,) = json.loads(text, parse_constant=refuse)["tables"]
    if not record:
        assert table["records"] in ([], [{}])
        return
    (read,) = table["records"]
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
    assert read == finite


def test_json_has_all_of_a_table() -> None:
    table = Table(
        "t", "T", (Column("a", "left"), Column("b")), ((Cell("x", marks=("a",)), Cell("1\n2", 1.0)),), "C",
        (("a", "N"), ("", "W")),
    )  # fmt: skip
    (read,) = json.loads(render([table], "json"))["tables"]
    assert read == {
        "name": "t",
        "title": "T",
        "caption": "C",
        "notes": [{"mark": "a", "text": "N"}, {"mark": "", "text": "W"}],
        "columns": ["a", "b"],
        "rows": [[{"text": "x", "marks": ["a"]}, {"text": "1\n2", "marks": []}]],
        "records": [],
    }


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_is_a_document_too(form: str) -> None:
    assert render([], form).count("\n") <= 4
    assert render([Table("t", "T", (Column("x"),), ())], form).endswith("\n")


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(ProveError, match="latex"):
        render([], "latx")
