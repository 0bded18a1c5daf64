"""The legend of the losses below a figure's plots, and the grid that the plots stand in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from prove.report.figures.style import SMALL, Look, fit_all, widest

_HANDLE = 0.49
"""Inches beside a legend's text that its symbol and the gaps take."""


def grid(width: float, height: float, rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    """A figure of plots that make room for each other's texts.

    Args:
        width, height: in inches.
    """
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05, wspace=0.02, hspace=0.02))
    return figure, [list(row) for row in figure.subplots(rows, columns, squeeze=False)]


def legend(figure: Figure, losses: Sequence[str], styles: Mapping[str, Look], *, markers: bool, lines: bool) -> None:
    """Name the losses below the plots, in as many columns as fit."""
    texts, columns = _layout(losses, figure.get_figwidth())
    handles = [
        Line2D(
            [], [], color=styles[loss].color, linestyle=styles[loss].line if lines else "",
            marker=styles[loss].marker if markers else "",
        )
        for loss in losses
    ]  # fmt: skip
    figure.legend(
        handles, texts, loc="outside lower center", ncols=columns, fontsize=SMALL,
    )  # fmt: skip


def legend_height(losses: Sequence[str], width: float) -> float:
    """Inches that `legend` will take."""
    texts, columns = _layout(losses, width)
    return 0.1 + 0.145 * math.ceil(len(texts) / columns)


def _layout(losses: Sequence[str], width: float) -> tuple[list[str], int]:
    """The texts, and how many columns of them fit."""
    room = width - 0.1
    texts = fit_all(losses, min(2.6, room - _HANDLE), SMALL)
    return texts, max(1, min(len(texts), int(room / (widest(texts, SMALL) + _HANDLE))))
