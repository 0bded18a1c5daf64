"""One figure with its words and its data, and how it becomes files: the same bytes from the same study."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from prove.report.figures import Drawn
from prove.report.figures.inline import svg
from prove.report.figures.style import house_style
from prove.report.render.csv_records import harmless
from prove.rundir import write_atomically

_METADATA: Mapping[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None},
    "png": {},
}


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure that can be drawn.

    It is drawn when it is written or put into a page, and not kept: a report has dozens, each of many megabytes.

    Attributes:
        name: of its files: letters, digits and dashes.
        title: one line.
        caption: how to read it.
        alt: what it shows, for who can't see it.
        draw: makes it.
        data: what it shows, unrounded: flat mappings with the same keys.
    """

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[], Figure]
    data: tuple[Mapping[str, Any], ...]

    @property
    def figure(self) -> Figure:
        """As matplotlib has it; a new one each time."""
        with house_style():
            return self.draw()

    @cached_property
    def svg(self) -> str:
        """An ``<svg>`` element to put into a page."""
        return svg(self.figure, name=self.name, title=self.title, description=self.alt)

    @property
    def csv(self) -> str:
        """Its data; an empty field where there is no number.

        A text that a spreadsheet would take for a formula, such as a class named ``=1+1``, has a ``'`` before it;
        a carriage return, which `csv` would not quote, is a line feed.
        """
        text = StringIO()
        writer = csv.DictWriter(text, list(self.data[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _plain(value) for name, value in row.items()} for row in self.data)
        return text.getvalue()

    def write(self, folder: Path, formats: Sequence[str]) -> Drawn:
        """Write it in each format, at 300 pixels per inch, and its data beside them."""
        figure = self.figure
        contents = [(extension, _bytes(figure, extension, self.title)) for extension in formats]
        files = []
        for extension, content in (*contents, ("csv", self.csv.encode())):
            path = folder / f"{self.name}.{extension}"
            _write(path, content)
            files.append(path)
        return Drawn(self.name, self.title, self.caption, self.alt, tuple(files))


@dataclass(frozen=True)
class Undrawn:
    """A figure that can't be drawn.

    Attributes:
        name, title: of the figure.
        reason: a sentence.
    """

    name: str
    title: str
    reason: str

    def write(self, folder: Path, formats: Sequence[str]) -> Drawn:
        """Nothing to write but the reason."""
        return Drawn(self.name, self.title, "", "", (), self.reason)


Made = list[Picture | Undrawn]
"""What a figure's module makes: one picture or several, or the reason for none."""


def _bytes(figure: Figure, extension: str, title: str) -> bytes:
    buffer = BytesIO()
    metadata = dict(_METADATA[extension])
    if extension != "png":
        metadata["Title"] = title
    with house_style():
        figure.savefig(buffer, format=extension, metadata=metadata)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content), lasting=False)


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return harmless(value).replace("\r", "\n")
    return repr(float(value)) if isinstance(value, float) else value
