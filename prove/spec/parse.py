"""The text form of an objective, read into a `LossExpr`.

    expression  term { "+" term }
    term        [ weight "*" ] name [ "(" [ option { "," option } ] ")" ]
    weight      number | number "->" number | shape "(" number [ "->" number ] { "," option } ")"
    option      name [ "=" value ]                          a bare name means name=true
    value       number | name | "[" value { "," value } "]"
    shape       "constant" | "linear" | "cosine" | "step"   with options start, end in [0, 1] of training

``0.5->0.1`` alone is linear; the arrow may be written ``→``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import cast

from prove.errors import ProveError
from prove.spec.expr import LossExpr, LossTerm, Value
from prove.spec.schedule import DEFAULT_END, SHAPES, Shape, WeightSchedule

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])|(?P<name>[A-Za-z_]\w*)|(?P<mark>->|→|[-+*(),=\[\]]))"
)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int


def malformed(text: str, column: int, message: str, hint: str = "") -> ProveError:
    """An error that quotes the expression and marks the position; columns count from 1."""
    return ProveError(
        f"Malformed objective at column {column}: {message}\n  {text}\n  {' ' * (column - 1)}^", hint=hint
    )


def parse(text: str) -> LossExpr:
    """Read an objective such as ``ce + 0.3*focal(gamma=2, alpha=0.5)``.

    Names and parameters are checked against the catalogue by `prove.catalog.losses.resolve`, not here.

    Raises:
        ProveError: when the text is not an expression; the position is marked.
    """
    return _Parser(text.replace("\t", " ").replace("\n", " ").strip()).expression()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._split())
        self.at = 0

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        position = 0
        while position < len(self.text):
            if self.text[position].isspace():
                position += 1
                continue
            match = _TOKEN.match(self.text, position)
            if match is None:
                raise malformed(self.text, position + 1, f"{self.text[position]!r} can't stand here.")
            kind = cast(str, match.lastgroup)
            token = match.group(kind)
            start = match.start(kind)
            after_operand = bool(tokens) and (tokens[-1].kind in {"number", "name"} or tokens[-1].text in ")]")
            if kind == "number" and token[0] in "+-" and after_operand:
                # "ce +2*dice": the sign is the operator of the sum, not part of the number
                tokens.append(_Token("mark", token[0], start + 1))
                position = start + 1
                continue
            tokens.append(_Token(kind, "->" if token == "→" else token, start + 1))
            position = match.end()
        tokens.append(_Token("end", "", len(self.text) + 1))
        return tokens

    @property
    def now(self) -> _Token:
        return self.tokens[self.at]

    def take(self, text: str) -> bool:
        if self.now.kind == "mark" and self.now.text == text:
            self.at += 1
            return True
        return False

    def need(self, text: str, purpose: str) -> None:
        if not self.take(text):
            raise malformed(self.text, self.now.column, f"expected {text!r} {purpose}, found {self._found()}.")

    def _found(self) -> str:
        return "the end" if self.now.kind == "end" else repr(self.now.text)

    def expression(self) -> LossExpr:
        if self.now.kind == "end":
            raise ProveError("The objective is empty.", hint='Write for example "ce" or "ce + 0.3*focal(gamma=2)".')
        terms = [self.term()]
        while self.now.kind != "end":
            if self.now.text == "-":
                raise malformed(self.text, self.now.column, "terms are added, never subtracted.")
            self.need("+", "between two terms")
            terms.append(self.term())
        for first, second in ((a, b) for i, a in enumerate(terms) for b in terms[i + 1 :]):
            if (first.name, first.params) == (second.name, second.params):
                raise malformed(
                    self.text, second.column, f"{second.body!r} stands twice.", "Write it once, with the summed weight."
                )
        return LossExpr(tuple(terms), text=self.text)

    def term(self) -> LossTerm:
        weight = WeightSchedule()
        if self.now.kind == "number" or (self.now.kind == "name" and self.now.text in SHAPES):
            weight = self.weight()
            self.need("*", "between the weight and the loss")
        if self.now.kind != "name":
            raise malformed(self.text, self.now.column, f"expected the name of a loss, found {self._found()}.")
        name = self.now
        self.at += 1
        params = self.options() if self.take("(") else {}
        return LossTerm(name.text, weight, tuple(sorted(params.items())), column=name.column)

    def weight(self) -> WeightSchedule:
        start = self.now
        if start.kind == "number":
            first = self.weight_number()
            if not self.take("->"):
                return WeightSchedule("constant", first, first)
            return WeightSchedule("linear", first, self.weight_number())
        self.at += 1
        shape = cast(Shape, start.text)
        self.need("(", f"after {shape!r}")
        first = last = self.weight_number()
        if shape != "constant":
            self.need("->", f"in a {shape} weight, as in {shape}(0.5->0.1)")
            last = self.weight_number()
        span: dict[str, Value] = {}
        if self.take(","):
            span = self.options()
        else:
            self.need(")", f"to close {start.text!r}")
        if shape == "constant" and "end" in span:
            raise malformed(
                self.text, start.column, "a constant weight has no end.", "To stop a term, write step(0.3->0, end=0.5)."
            )
        bad = sorted(set(span) - {"start", "end"})
        if bad:
            raise malformed(
                self.text, start.column, f"a weight schedule has no option {bad[0]!r}.", "Valid: start, end."
            )
        begin, end = span.get("start", 0.0), span.get("end", DEFAULT_END[shape])
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in (begin, end)):
            raise malformed(self.text, start.column, "start and end are shares of training, numbers in [0, 1].")
        begin, end = float(cast(float, begin)), float(cast(float, end))
        if not 0.0 <= begin < end <= 1.0:
            raise malformed(
                self.text,
                start.column,
                f"start={begin:g} and end={end:g} must satisfy 0 <= start < end <= 1.",
                "They are shares of training: start=0.2 begins after a fifth of max_iters.",
            )
        return WeightSchedule(shape, first, last, begin, 1.0 if shape == "constant" else end)

    def weight_number(self) -> float:
        token = self.now
        if token.kind != "number":
            raise malformed(self.text, token.column, f"expected a weight, found {self._found()}.")
        self.at += 1
        value = float(token.text)
        if not (math.isfinite(value) and value >= 0.0):
            raise malformed(self.text, token.column, f"the weight {token.text} is not a finite number >= 0.")
        return value

    def options(self) -> dict[str, Value]:
        options: dict[str, Value] = {}
        while not self.take(")"):
            if self.now.kind != "name":
                raise malformed(
                    self.text, self.now.column, f"expected the name of a parameter or ')', found {self._found()}."
                )
            name = self.now
            self.at += 1
            if name.text in options:
                raise malformed(self.text, name.column, f"{name.text!r} is set twice.")
            options[name.text] = self.value() if self.take("=") else True
            if self.now.text != ")":
                self.need(",", "between two parameters, or ')'")
        return options

    def value(self) -> Value:
        token = self.now
        if self.take("["):
            items: list[Value] = []
            while not self.take("]"):
                items.append(self.value())
                if self.now.text != "]":
                    self.need(",", "between two items, or ']'")
            return tuple(items)
        if token.kind not in {"number", "name"}:
            raise malformed(self.text, token.column, f"expected a value, found {self._found()}.")
        self.at += 1
        if token.kind == "number":
            number = float(token.text)
            if not math.isfinite(number):
                raise malformed(self.text, token.column, f"{token.text} is too large.")
            return int(number) if number.is_integer() and abs(number) < 1e15 else number
        return {"true": True, "false": False, "none": None}.get(token.text.lower(), token.text)
