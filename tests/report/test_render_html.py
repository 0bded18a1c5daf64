"""HTML is judged by the parser of the standard library: the elements that we meant, and all texts as they were."""

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.report.render import render
from prove.report.render.html_fragment import render_html
from prove.report.table import Cell, Column, Table

TEXT = st.text(st.one_of(st.sampled_from("<>&'\"/= -!scriptonload"), st.characters(codec="utf-8")), max_size=30)


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "br":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.texts and data.strip("\n"):
            self.texts.append(data)
        elif data.strip("\n"):
            self.texts = [data]

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def plain(text: str) -> str:
    kept = (char if char.isprintable() else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return "".join(kept)


@settings(max_examples=300, deadline=None)
@given(TEXT, TEXT, TEXT, TEXT)
def test_any_text_is_text(title: str, name: str, cell: str, note: str) -> None:
    cell = plain(cell)
    table = Table(
        "t",
        f"T{title}",
        (Column("loss", "left"), Column(f"c{name}")),
        ((Cell(f"r{cell}"), Cell(f"v{cell}", 1.5)),),
        caption=f"C{note}",
        notes=(("a", f"N{note}"),),
    )
    found = Reader(render([table], "html"))
    tags = [tag for tag, _ in found.elements]
    assert tags == [
        "div", "table", "caption", "span", "span", "thead", "tr", "th", "th", "tbody", "tr", "th", "td", "ul", "li",
        "sup",
    ]  # fmt: skip
    texts = "".join(found.texts)
    for text in (f"T{title}", f"c{name}", f"r{cell}", f"v{cell}", f"N{note}", f"C{note}"):
        assert plain(text) in texts


def test_structure() -> None:
    rows = (
        (Cell("ce"), Cell("1 ± 2\n+3", 1 / 3, bold=True, underline=True, marks=("a", "†"), runs=("k1", "k2"))),
        (Cell("x", muted=True), Cell("–", float("nan"), muted=True)),
    )
    table = Table("results-1", "T", (Column("loss", "left"), Column("mIoU")), rows)
    text = render([table], "html")
    found = Reader(text)
    assert found.all("div") == [{"class": "table", "id": "table-results-1"}]
    scopes = [(attributes["scope"], attributes.get("class")) for attributes in found.all("th")]
    assert scopes == [("col", None), ("col", "number"), ("row", None), ("row", "muted")]
    number, missing = found.all("td")
    assert float(number["data-value"] or "") == 1 / 3
    assert missing == {"class": "number muted"}
    assert "<strong><u>1 ± 2</u></strong><sup>a, †</sup><br>+3</td>" in text
    assert not found.all("a")


def test_links_to_the_runs() -> None:
    cells = (Cell("ce", runs=('a"b',)), Cell("1", runs=("k1", "k2")))
    found = Reader(render_html([Table("t", "T", (Column("loss"), Column("n")), (cells,))], links=True))
    assert [attributes["href"] for attributes in found.all("a")] == ['#run-a"b', "#run-k1", "#run-k2"]
    assert len(found.all("details")) == len(found.all("summary")) == 2
    assert [text.strip() for text in found.texts if "run" in text] == ["1 run", "2 runs"]


@pytest.mark.parametrize(
    "hostile", ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\x00\x1b"]
)
def test_hostile_names(hostile: str) -> None:
    table = Table(hostile, hostile, (Column(hostile),), ((Cell(hostile, marks=(hostile,), runs=(hostile,)),),), hostile)
    text = render_html([table], links=True)
    found = Reader(text)
    assert {tag for tag, _ in found.elements} <= {
        "div", "table", "caption", "span", "thead", "tr", "th", "tbody", "sup", "details", "summary", "a",
    }  # fmt: skip
    assert "\x00" not in text
    assert "\x1b" not in text
