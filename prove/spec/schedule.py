"""The weight of a loss term over training, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Shape = Literal["constant", "linear", "cosine", "step"]
DEFAULT_END: dict[Shape, float] = {"constant": 1.0, "linear": 1.0, "cosine": 1.0, "step": 0.5}
"""Where a weight reaches its last value unless ``end`` says otherwise."""

SHAPES: tuple[Shape, ...] = ("constant", "linear", "cosine", "step")


@dataclass(frozen=True)
class WeightSchedule:
    """A term's weight as a function of training progress.

    Progress is ``iteration / max_iters``, in [0, 1): the same expression means the same thing at any budget.

    Attributes:
        shape: ``constant`` (``first`` throughout), ``linear`` or ``cosine`` (from ``first`` to ``last`` between the
            progress ``start`` and ``end``, ``last`` afterwards), or ``step`` (``first`` until ``end``, then ``last``).
        first: the weight at ``start``, >= 0.
        last: the weight from ``end`` on, >= 0; equal to ``first`` when constant.
        start: progress in [0, 1] before which the weight is 0 (delayed start).
        end: progress in (start, 1] at which ``last`` is reached.
    """

    shape: Shape = "constant"
    first: float = 1.0
    last: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def at(self, progress: float) -> float:
        """The weight at a progress in [0, 1]."""
        if progress < self.start:
            return 0.0
        if self.shape == "constant":
            return self.first
        if self.shape == "step":
            return self.first if progress < self.end else self.last
        share = min(1.0, (progress - self.start) / (self.end - self.start))
        if self.shape == "cosine":
            share = (1.0 - math.cos(math.pi * share)) / 2.0
        return self.first + (self.last - self.first) * share

    @property
    def is_constant(self) -> bool:
        """Whether the weight is the same from the first iteration to the last."""
        return self.shape == "constant" and self.start == 0.0

    @property
    def peak(self) -> float:
        """The largest weight that the schedule ever takes."""
        return max(self.first, self.last)

    def __str__(self) -> str:
        """The canonical text: ``0.3``, ``constant(0.3, start=0.2)``, ``linear(0.5->0.1, end=0.8)``."""
        if self.shape == "constant":
            if self.start == 0.0:
                return number(self.first)
            return f"constant({number(self.first)}, start={number(self.start)})"
        options = ""
        if self.start != 0.0:
            options += f", start={number(self.start)}"
        if self.end != DEFAULT_END[self.shape]:
            options += f", end={number(self.end)}"
        return f"{self.shape}({number(self.first)}->{number(self.last)}{options})"


def number(value: float) -> str:
    """The shortest text that reads back as the same number: ``2`` for 2.0, ``0.3`` for 0.3."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
