"""Figures as files and inside a page: the same bytes twice, letters that stay letters, nothing from outside."""

from __future__ import annotations

import csv
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from prove.errors import ProveError
from prove.report.figures import FIGURES, FORMATS, Drawn, draw, pictures
from prove.report.figures.picture import Picture, Undrawn
from prove.report.figures.style import FAINT, INK, MUTED, PAPER, WASH
from tests.report.studies import simulate

SVG = "{http://www.w3.org/2000/svg}"

HOSTILE = {
    "ce": 0.0,
    "ce + 0.3*a$b_c$\\alpha^{2}": 1.0,
    'ce + "><script>alert(1)</script>': -1.0,
    "ce + 路面*ü % # ~ \x07": 0.5,
}
DRAWABLE = ("forest", "classes", "conditions", "curves", "cost", "shares")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Drawn]:
    return draw(simulate(HOSTILE), tmp_path_factory.mktemp("figures"), which=DRAWABLE)


@pytest.fixture(scope="module")
def made() -> list[Picture]:
    return [each for each in pictures(simulate(HOSTILE), which=DRAWABLE) if isinstance(each, Picture)]


def file(each: Drawn, suffix: str) -> Path:
    return next(path for path in each.files if path.suffix == suffix)


def test_every_figure_has_its_files_and_words(drawn: list[Drawn]) -> None:
    assert [each.name for each in drawn] == list(DRAWABLE)
    for each in drawn:
        assert [path.name for path in each.files] == [f"{each.name}.{kind}" for kind in (*FORMATS, "csv")]
        assert all(path.stat().st_size > 0 for path in each.files)
        assert each.title
        assert each.caption.endswith(".")
        assert each.alt.endswith(".")
        assert not each.reason


def test_a_png_has_300_pixels_an_inch_and_a_papers_width(drawn: list[Drawn]) -> None:
    for each in drawn:
        content = file(each, ".png").read_bytes()
        wide, _ = struct.unpack(">II", content[16:24])
        assert wide in (round(3.25 * 300), int(6.875 * 300)), each.name


def test_a_pdf_embeds_letters_as_letters(drawn: list[Drawn]) -> None:
    for each in drawn:
        content = file(each, ".pdf").read_bytes()
        assert b"/Subtype /Type3" not in content, each.name
        assert b"/CIDFontType2" in content, each.name  # what a Type 42 font is in a PDF
        assert b"CreationDate" not in content
        streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
        assert any(b"Tj" in _inflated(stream) or b"TJ" in _inflated(stream) for stream in streams), each.name


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_the_same_study_makes_the_same_bytes(drawn: list[Drawn], tmp_path: Path) -> None:
    some = ("forest", "classes", "curves")
    again = draw(simulate(HOSTILE), tmp_path, which=some)
    for before, after in zip((each for each in drawn if each.name in some), again, strict=True):
        for one, other in zip(before.files, after.files, strict=True):
            assert one.read_bytes() == other.read_bytes(), one.name


def test_an_svg_file_stands_alone(drawn: list[Drawn]) -> None:
    for each in drawn:
        root = ElementTree.fromstring(file(each, ".svg").read_bytes())
        for element in root.iter():
            assert element.tag not in (f"{SVG}script", f"{SVG}foreignObject")
            for name, value in element.attrib.items():
                if name.endswith("href"):
                    assert value.startswith(("#", "data:image/")), each.name


def test_an_inline_svg_takes_the_pages_ink_and_brings_nothing(made: list[Picture]) -> None:
    seen: set[str] = set()
    for each in made:
        root = ElementTree.fromstring(each.svg)
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        assert "width" not in root.attrib
        assert "height" not in root.attrib
        labelled = [root.find(f"*[@id='{name}']") for name in root.attrib["aria-labelledby"].split()]
        assert [element.tag for element in labelled if element is not None] == [f"{SVG}title", f"{SVG}desc"]
        ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert len(ids) == len(set(ids))
        assert not seen & set(ids), "two figures of a page share an id"
        seen |= set(ids)
        _check_elements(root, set(ids))
        used = {element.get(paint, "").lower() for element in root.iter() for paint in ("fill", "stroke")}
        assert not used & {INK, MUTED, FAINT, WASH, PAPER}, "ink that would stay dark on a dark page"
        assert "currentColor".lower() in used


def _check_elements(root: ElementTree.Element, ids: set[str]) -> None:
    for element in root.iter():
        assert element.tag not in (f"{SVG}style", f"{SVG}script", f"{SVG}metadata", f"{SVG}foreignObject")
        assert "style" not in element.attrib
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on")
            if name.endswith("href"):
                assert value.startswith("data:image/") or value[1:] in ids
            for reference in re.findall(r"url\(([^)]*)\)", value):
                assert reference[0] == "#"
                assert reference[1:] in ids


def test_an_inline_svg_holds_names_as_text_and_never_as_markup(made: list[Picture]) -> None:
    forest = next(each for each in made if each.name == "forest")
    assert "<script" not in forest.svg
    words = "".join(
        text for element in ElementTree.fromstring(forest.svg).iter(f"{SVG}text") for text in element.itertext()
    )
    assert "a$b_c$\\alpha^{2}" in words, "taken for mathematics"
    assert "路面" in words
    assert "<script>" in words


def test_an_inline_svg_has_no_background(made: list[Picture]) -> None:
    for each in made:
        root = ElementTree.fromstring(each.svg)
        _, _, wide, high = (float(number) for number in root.attrib["viewBox"].split())
        whole = re.compile(rf"M 0 {high:g} ?\s*L {wide:g} {high:g}")
        painted = [
            element
            for element in root.iter(f"{SVG}path")
            if whole.search(element.get("d", "")) and element.get("fill", "black") != "none"
            and float(element.get("opacity", element.get("fill-opacity", 1))) > 0
        ]  # fmt: skip
        assert not painted, each.name


def test_a_csv_reads_back(drawn: list[Drawn]) -> None:
    with open(file(drawn[0], ".csv"), newline="", encoding="utf-8") as content:
        rows = list(csv.DictReader(content))
    assert [row["loss"] for row in rows] == list(HOSTILE)[1:]


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProveError, match="Unknown figure 'forrest'") as caught:
        draw(simulate(), tmp_path, which=["forrest"])
    assert "'forest'" in caught.value.hint
    with pytest.raises(ProveError, match="Unknown picture format 'gif'"):
        draw(simulate(), tmp_path, formats=["gif"])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProveError, match="can't be written"):
        draw(simulate(), tmp_path / "file" / "figures", which=["forest"], formats=["png"])


def test_every_name_has_a_module_and_a_title() -> None:
    everything = pictures(simulate())
    names = {re.sub(r"-\d+$", "", each.name) for each in everything}
    assert names == set(FIGURES)
    assert all(each.reason.endswith(".") for each in everything if isinstance(each, Undrawn))


def test_names_of_figures_cost_no_import_of_matplotlib() -> None:
    code = "import sys, prove.report.figures; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
