"""How every figure looks: sizes, ink, one colour, marker and line per loss, and texts that fit. Needs matplotlib."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import matplotlib
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.textpath import text_to_path

from prove.report.hypothesis_pairs import common_name
from prove.report.study import Measure, Study

NARROW, WIDE = 3.25, 6.875
"""Widths in inches: one column and two columns of a paper."""

TALLEST = 9.0
"""Most height in inches: a page of a paper."""

TEXT, SMALL = 8.0, 7.0
"""Sizes of letters in points."""

INK, MUTED, FAINT, WASH, PAPER = "#16181d", "#5b606b", "#c9ccd3", "#e9ebef", "#fffffe"
"""What is no data: text and axes, lesser text, grid, cells without a finding, what is behind. `svg` tells them by
exactly these values and lets them follow the colours of the page."""

OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The palette of Okabe and Ito (2008) without its black, which is the baseline's, and its yellow, which is too light
on white; in this order."""

BETTER, WORSE = "#0072b2", "#d55e00"

_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "*", "8")
_LINES: tuple[tuple[float, ...], ...] = ((5, 1.6), (1.2, 1.2), (6, 1.5, 1.2, 1.5), (9, 2), (3, 1, 1, 1, 1, 1), (2.5, 1))

_FALLBACKS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "Arial Unicode MS", "Microsoft YaHei",
              "PingFang SC", "Hiragino Sans", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei")  # fmt: skip
"""Fonts for letters that DejaVu Sans, which comes with matplotlib, does not have."""


@dataclass(frozen=True)
class Look:
    """How a loss is drawn, in every figure of a study.

    Attributes:
        color: ``#rrggbb``.
        marker: matplotlib's name of its symbol.
        dashes: lengths of ink and gap in line widths; empty for a solid line.
    """

    color: str
    marker: str
    dashes: tuple[float, ...]

    @property
    def line(self) -> tuple[float, tuple[float, ...]] | Literal["-"]:
        """Matplotlib's ``linestyle``."""
        return (0.0, self.dashes) if self.dashes else "-"


BASELINE = Look(INK, "o", ())


def look(index: int) -> Look:
    """The look of the loss number ``index``, from 0, not counting the baseline; the first 78 all differ."""
    return Look(
        OKABE_ITO[index % len(OKABE_ITO)],
        _MARKERS[index % len(_MARKERS)],
        _LINES[index % len(_LINES)],
    )


def looks(study: Study) -> dict[str, Look]:
    """Loss -> its look: the baseline in ink, the others in the order in which the study has them; `common_name` too."""
    baselines = {block.baseline for block in study.blocks} | {study.options.baseline}
    losses = dict.fromkeys(loss for block in study.blocks for loss in block.losses)
    others = [loss for loss in losses if loss not in baselines]
    made = {loss: BASELINE for loss in losses if loss in baselines} | {x: look(i) for i, x in enumerate(others)}
    for loss in losses:
        made.setdefault(common_name(loss), made[loss])
    return made


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's settings for making and for writing a figure, whatever the user's own are."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # boxes, where no font has the letter
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings())
        yield


@cache
def _settings() -> dict[Any, Any]:
    installed = set(fontManager.get_font_names())
    return {
        "font.family": ["DejaVu Sans", *(name for name in _FALLBACKS if name in installed)],
        "font.size": TEXT,
        "axes.titlesize": TEXT,
        "axes.labelsize": TEXT,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "figure.dpi": 100,
        "savefig.dpi": 300,
        "text.usetex": False,
        "text.parse_math": False,  # a name with two dollars is a name
        "axes.formatter.use_mathtext": False,
        "axes.unicode_minus": True,
        "pdf.fonttype": 42,
        "svg.hashsalt": "prove",
        "figure.facecolor": "none",
        "savefig.facecolor": "white",
        "axes.facecolor": "none",
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titlepad": 4.0,
        "axes.labelpad": 3.0,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.5,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.major.pad": 2.5,
        "ytick.major.pad": 2.5,
        "lines.linewidth": 1.1,
        "lines.markersize": 4.5,
        "legend.frameon": False,
        "legend.handlelength": 2.6,
        "legend.columnspacing": 1.6,
        "legend.borderaxespad": 0.0,
        "patch.linewidth": 0.6,
    }


def clean(text: str) -> str:
    """A text from outside as one line that every format can hold: nothing invisible, no halves of letters."""
    made = []
    for letter in " ".join(text.split()):
        kind = unicodedata.category(letter)
        if kind != "Cf":  # such as marks that turn the direction of what follows
            made.append("\ufffd" if kind in ("Cc", "Cs", "Cn") else letter)
    return "".join(made)


@lru_cache(maxsize=4096)
def width(text: str, size: float = TEXT, weight: str = "normal") -> float:
    """Width of a text's longest line in inches, with the 3% that hinting may add on a screen."""
    font = FontProperties(family=["DejaVu Sans"], size=size, weight=weight)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        points = [text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n")]
    return 1.03 * float(max(points)) / 72


def widest(texts: Sequence[str], size: float = TEXT) -> float:
    """Width of the widest of several texts in inches; 0 without one."""
    return max((width(text, size) for text in texts), default=0.0)


def fit(text: str, inches: float, size: float = TEXT, *, lines: int = 1) -> str:
    """A text in at most some lines of a width, broken at spaces; what is too long is cut in its middle, with ``…``."""
    inches += 1e-6
    words, line = clean(text).split(" "), ""
    made: list[str] = []
    for position, word in enumerate(words):
        longer = f"{line} {word}" if line else word
        if width(longer, size) <= inches or not line:
            line = longer
        elif len(made) + 1 < lines:
            made.append(line)
            line = word
        else:
            line = " ".join([line, *words[position:]])
            break
    return "\n".join(_cut(each, inches, size) for each in (*made, line))


def fit_all(texts: Sequence[str], inches: float, size: float = TEXT) -> list[str]:
    """Several texts in a line of a width; where `fit` would make two of them the same, what tells them apart stays."""
    whole = [clean(text) for text in texts]
    made = [fit(text, inches, size) for text in whole]
    alike: dict[str, dict[str, None]] = {}
    for short, text in zip(made, whole, strict=True):
        alike.setdefault(short, {})[text] = None
    for short, group in alike.items():
        if len(group) > 1:
            told = _told_apart(list(group), inches, size)
            made = [told[text] if each == short else each for each, text in zip(made, whole, strict=True)]
    return made


def _told_apart(texts: Sequence[str], inches: float, size: float) -> dict[str, str]:
    """Each text from a little before its first difference from any other; numbered where even that is too long."""
    start = _shared(texts)
    end = _shared([text[start:][::-1] for text in texts])
    made = {}
    for text in texts:
        low, high = start, len(text) - end
        while (low > 0 or high < len(text)) and width(_middle(text, low - 1, high + 1), size) <= inches:
            low, high = max(low - 1, 0), min(high + 1, len(text))
        made[text] = _middle(text, low, high)
    if len(set(made.values())) < len(texts) or any(width(each, size) > inches for each in made.values()):
        room = inches - width(f" {len(texts)}", size)
        return {text: f"{fit(text, room, size)} {number}" for number, text in enumerate(texts, 1)}
    return made


def _shared(texts: Sequence[str]) -> int:
    """How many letters all texts begin with in common."""
    different = (at for at, letters in enumerate(zip(*texts, strict=False)) if len(set(letters)) > 1)
    return next(different, min(map(len, texts)))


def _middle(text: str, low: int, high: int) -> str:
    return "…" * (low > 0) + text[max(low, 0) : high] + "…" * (high < len(text))


def _cut(text: str, inches: float, size: float) -> str:
    if width(text, size) <= inches:
        return text
    kept = len(text) - 1
    while kept > 2 and width(_without_middle(text, kept), size) > inches:
        kept -= 1
    return _without_middle(text, kept)


def _without_middle(text: str, kept: int) -> str:
    return text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]


def signed(value: float, decimals: int = 2) -> str:
    """A difference with its sign, ``+0.81``; what rounds to nothing has none."""
    rounded = round(value, decimals)
    if rounded == 0:
        return f"{0:.{decimals}f}"
    return f"{rounded:+.{decimals}f}".replace("-", "−")


def named(measure: Measure) -> str:
    """A measure in words: ``mIoU``, ``IoU of road``, ``mIoU in night``."""
    joint = {"class": " of ", "condition": " in "}.get(measure.scope, "")
    return f"{measure.metric}{joint}{clean(measure.name)}" if joint else measure.metric


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names in a sentence: ``a, b and c``; beyond the most, how many others."""
    cleaned = [clean(name) for name in names]
    if len(cleaned) > most:
        cleaned = [*cleaned[: most - 1], f"{len(cleaned) - most + 1} others"]
    return " and ".join([", ".join(cleaned[:-1]), cleaned[-1]]) if len(cleaned) > 1 else "".join(cleaned)
