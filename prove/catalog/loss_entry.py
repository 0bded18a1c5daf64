"""What the catalogue says about a loss, and which values its parameters take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prove.spec.expr import Value, text_of
from prove.spec.schedule import number

Form = Literal["flag", "integer", "number", "numbers", "classes", "word"]


@dataclass(frozen=True)
class Param:
    """One parameter of a loss.

    Attributes:
        default: the value when it is not written.
        forms: what may be written: ``flag`` (true or false), ``integer``, ``number``, ``numbers`` (a list with one
            entry per class, entries may be 0 but not all), ``classes`` (a list of class indices), ``word``.
        low, high: the range of a number, and of each entry of a list; ``above_low`` and ``below_high`` exclude the end.
        words: the words it takes; ``none`` stands for None.
        synonyms: ``(written, meant)`` pairs: a second spelling of a word, replaced by `resolve`.
        only_with: ``(parameter, value)`` without which this parameter means nothing; it is refused there, and
            absent from a resolved term.
        high_with: ``(parameter, value, high)``: a lower upper end of the range with that value.
    """

    name: str
    default: Value
    forms: tuple[Form, ...]
    doc: str
    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    below_high: bool = False
    words: tuple[str, ...] = ()
    synonyms: tuple[tuple[str, str], ...] = ()
    only_with: tuple[str, Value] | None = None
    high_with: tuple[str, Value, float] | None = None

    @property
    def expected(self) -> str:
        """What may be written, in words: ``a number in [0, 1)``."""
        parts = {
            "flag": "true or false",
            "integer": f"a whole number{self._range()}",
            "number": f"a number{self._range()}",
            "numbers": "a list of numbers >= 0, one per class, not all 0",
            "classes": "a list of different class indices, as in [0, 3]",
            "word": ", ".join((*self.words, *(written for written, _ in self.synonyms))),
        }
        return " or ".join(parts[form] for form in self.forms)

    def _range(self) -> str:
        if math.isinf(self.low) and math.isinf(self.high):
            return ""
        if math.isinf(self.high):
            return f" {'>' if self.above_low else '>='} {number(self.low)}"
        left, right = "(" if self.above_low else "[", ")" if self.below_high else "]"
        return f" in {left}{number(self.low)}, {number(self.high)}{right}"

    def read(self, value: Value) -> Value:
        """The value in its one canonical form: floats for numbers, sorted class indices.

        Raises:
            ValueError: when it is not what `expected` says.
        """
        for form in self.forms:
            if self._has_form(form, value):
                return self._canonical(form, value)
        raise ValueError(f"{self.name}={text_of(value)} is not {self.expected}")

    def complaint(self, values: Mapping[str, Value]) -> str:
        """What is wrong with this parameter beside the others, all of them read; empty when nothing is."""
        if self.high_with is None or values[self.high_with[0]] != self.high_with[1]:
            return ""
        value = values[self.name]
        highest = max(_real(entry) for entry in (value if isinstance(value, tuple) else (value,)))
        if highest <= self.high_with[2]:
            return ""
        other = f"{self.high_with[0]}={text_of(self.high_with[1])}"
        return f"{self.name}={text_of(value)} exceeds {number(self.high_with[2])}, the most with {other}"

    def _has_form(self, form: Form, value: Value) -> bool:
        if form == "flag":
            return isinstance(value, bool)
        if form == "word":
            return (value is None or isinstance(value, str)) and text_of(value) in {*self.words, *dict(self.synonyms)}
        if form == "numbers":
            if not isinstance(value, tuple):
                return False
            entries = [_real(item) for item in value]
            return len(entries) > 1 and all(0 <= entry < math.inf for entry in entries) and any(entries)
        if form == "classes":
            if not isinstance(value, tuple):
                return False
            indices = [_real(item) for item in value]
            whole = all(index >= 0 and index.is_integer() for index in indices)
            return bool(indices) and whole and len(set(indices)) == len(indices)
        real = _real(value)
        above = real > self.low if self.above_low else real >= self.low
        below = real < self.high if self.below_high else real <= self.high
        return math.isfinite(real) and above and below and (form == "number" or real.is_integer())

    def _canonical(self, form: Form, value: Value) -> Value:
        if form == "word":
            text = text_of(value)
            text = dict(self.synonyms).get(text, text)
            return None if text == "none" else text
        if form == "numbers" and isinstance(value, tuple):
            return tuple(_real(item) + 0.0 for item in value)
        if form == "classes" and isinstance(value, tuple):
            return tuple(sorted(int(_real(item)) for item in value))
        if form == "integer":
            return int(_real(value))
        return value if form == "flag" else _real(value) + 0.0  # -0.0 + 0.0 is 0.0


@dataclass(frozen=True)
class LossEntry:
    """One loss of the catalogue.

    Attributes:
        kind: ``per_pixel`` (a function of logits and labels, a module in `prove.losses`) or ``criterion`` (the
            model computes it itself).
        averages: over what the mean runs.
        pixel_weight: how a weight per pixel enters, or why it is refused.
        cost: forward and backward, in words.
        avoid: when not to use it.
        fused: whether `prove.losses.Objective` computes it in one pass over the logits together with others.
        unfused_because: why it is computed on its own; with ``fused`` set, for which parameters it is.
        not_all_zero: parameters of which at least one must be above 0.
    """

    name: str
    summary: str
    formula: str
    params: tuple[Param, ...]
    paper: str
    kind: Literal["per_pixel", "criterion"] = "per_pixel"
    averages: str = ""
    pixel_weight: str = ""
    cost: str = ""
    avoid: str = ""
    fused: bool = False
    unfused_because: str = ""
    not_all_zero: tuple[str, ...] = ()

    def param(self, name: str) -> Param:
        """The parameter of that name; KeyError when there is none."""
        return {param.name: param for param in self.params}[name]


def _real(value: Value) -> float:
    """The value as a float; NaN when it is no number, so that every comparison with it fails."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return math.nan
