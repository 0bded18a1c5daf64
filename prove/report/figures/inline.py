"""A figure as an ``<svg>`` element of a page: it takes the page's ink, brings no style of its own, loads nothing."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from prove.report.figures.style import FAINT, INK, MUTED, PAPER, WASH, clean, house_style

_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_STRENGTH = {INK: 1.0, MUTED: 0.74, FAINT: 0.24, WASH: 0.1}
"""How much of the page's ink stands for each of ours."""

_FONT = re.compile(r"^(?P<before>.*?)(?P<size>[\d.]+)px\s+(?P<family>.+)$")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def svg(figure: Figure, *, name: str, title: str, description: str) -> str:
    """A figure as an ``<svg>`` element.

    It has no fixed size: it is as wide as what it stands in. Its ids begin with its name, so that several can stand in
    one page. Its background is transparent. Axes and texts have the colour of the surrounding text (``currentColor``);
    what was white is ``var(--figure-paper)``, or the canvas' colour. It is an image to a screen reader, with a title
    and a description. It has no ``style``, so that a content security policy may forbid them.

    Args:
        name: unique in the page: letters, digits and dashes.
    """
    buffer = BytesIO()
    with house_style(), matplotlib.rc_context({"svg.fonttype": "none", "savefig.facecolor": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    referred = set()
    for element in root.iter():
        _plain_attributes(element)
        if element.tag == f"{{{_SVG}}}image":
            element.set("href", _smaller(element.attrib["href"]))
        for value in element.attrib.values():
            referred.update(_REFERENCE.findall(value))
        if element.get("href", "").startswith("#"):
            referred.add(element.attrib["href"][1:])
    for element in root.iter():
        _prefix(element, f"figure-{name}-", referred)
    box = root.attrib["viewBox"]
    root.attrib.clear()
    wide = figure.get_figwidth() > 5
    root.attrib.update({
        "viewBox": box,
        "class": f"prove-figure {'wide' if wide else 'narrow'}",
        "role": "img",
        "aria-labelledby": f"figure-{name}-title figure-{name}-description",
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    })  # fmt: skip
    for tag, text in (("desc", description), ("title", title)):
        element = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"figure-{name}-{_LONG.get(tag, tag)}"})
        element.text = clean(text)
        root.insert(0, element)
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


_LONG = {"desc": "description"}


def _plain_attributes(element: ElementTree.Element) -> None:
    """Every declaration of ``style`` as an attribute, our ink as the page's."""
    if _HREF in element.attrib:
        element.set("href", element.attrib.pop(_HREF))
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            _font(element, value)
        elif name:
            element.set(name, value)
    for paint in ("fill", "stroke"):
        color = element.get(paint, "").lower()
        if color == PAPER:
            element.set(paint, "var(--figure-paper, Canvas)")
        elif color in _STRENGTH:
            element.set(paint, "currentColor")
            strength = _STRENGTH[color] * float(element.get(f"{paint}-opacity", 1))
            if strength < 1:
                element.set(f"{paint}-opacity", f"{strength:g}")
    if element.tag == f"{{{_SVG}}}text" and "fill" not in element.attrib:
        element.set("fill", "#000000")


def _font(element: ElementTree.Element, value: str) -> None:
    found = _FONT.match(value)
    if found is None:
        return
    element.set("font-size", found["size"])
    element.set("font-family", found["family"])
    for word in found["before"].split():
        element.set("font-style" if word in ("italic", "oblique") else "font-weight", word)


def _smaller(source: str) -> str:
    """An embedded picture with less in it that nobody sees: few colours as a palette, photographs as JPEG."""
    picture = Image.open(BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB")
    buffer = BytesIO()
    if picture.getcolors(256) is not None:
        kind = "png"
        picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(buffer, "PNG", optimize=True)
    else:
        kind = "jpeg"
        picture.save(buffer, "JPEG", quality=88)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _prefix(element: ElementTree.Element, prefix: str, referred: set[str]) -> None:
    identity = element.attrib.pop("id", None)
    if identity in referred:
        element.set("id", prefix + str(identity))
    for name, value in element.attrib.items():
        if name == "href" and value.startswith("#"):
            element.set(name, f"#{prefix}{value[1:]}")
        elif "url(#" in value:
            element.set(name, _REFERENCE.sub(rf"url(#{prefix}\1)", value))
