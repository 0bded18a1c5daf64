"""Where things stand in a figure that is laid out by hand, in inches."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prove.report.figures.style import MUTED, SMALL


@dataclass(frozen=True)
class Frame:
    """A figure with one plot inside.

    Attributes:
        width: of the figure, in inches as everything else.
        left, right, top, bottom: margins around the plot.
        inner: height of the plot.
    """

    width: float
    left: float
    right: float
    top: float
    bottom: float
    inner: float

    @property
    def height(self) -> float:
        """Of the figure."""
        return self.top + self.inner + self.bottom

    @property
    def inner_width(self) -> float:
        """Of the plot."""
        return self.width - self.left - self.right

    def from_top(self, inches: float) -> float:
        """The figure's y coordinate, 0 to 1, of a point so far below the plot's upper edge."""
        return 1 - (self.top + inches) / self.height


def inches_axes(figure: Figure, frame: Frame) -> Axes:
    """The plot of a frame."""
    return figure.add_axes((
        frame.left / frame.width,
        frame.bottom / frame.height,
        frame.inner_width / frame.width,
        frame.inner / frame.height,
    ))  # fmt: skip


def header(figure: Figure, frame: Frame, *, better: bool, x: float) -> None:
    """Say above the plot on which side of 0, which stands at ``x`` inches, a loss is better.

    Args:
        better: higher is better.
    """
    y = frame.from_top(-0.14)
    sides = ("worse", "better") if better else ("better", "worse")
    for text, at, anchor in ((f"← {sides[0]}", x - 0.06, "right"), (f"{sides[1]} →", x + 0.06, "left")):
        figure.text(at / frame.width, y, text, size=SMALL, color=MUTED, ha=anchor, va="center_baseline")
