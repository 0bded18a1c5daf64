"""What is minimised, as data: loss terms, their weights and parameters, and the text they are written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

from prove.spec.canonical import canonical_json, plain
from prove.spec.schedule import WeightSchedule, number

Value = bool | int | float | str | None | tuple["Value", ...]


@dataclass(frozen=True)
class LossTerm:
    """One loss: its name, the weight it enters the sum with, and its parameters.

    Attributes:
        name: name in the loss catalogue, such as ``focal``.
        weight: a constant or a schedule.
        params: the parameters as ``(name, value)`` pairs sorted by name. As written by the user before
            `prove.catalog.losses.resolve`, complete with every default after it.
        column: where the term's name starts in the text it was parsed from, counted from 1; not part of its identity.
    """

    name: str
    weight: WeightSchedule = field(default_factory=WeightSchedule)
    params: tuple[tuple[str, Value], ...] = ()
    column: int = field(default=0, compare=False, repr=False)

    def param(self, name: str) -> Value:
        """The value of one parameter; KeyError when it is not set."""
        return dict(self.params)[name]

    def with_params(self, params: Mapping[str, Value]) -> LossTerm:
        """The same term with these parameters in place of its own."""
        return replace(self, params=tuple(sorted(params.items())))

    @property
    def body(self) -> str:
        """The term without its weight: ``focal(gamma=2)``."""
        if not self.params:
            return self.name
        return f"{self.name}({', '.join(f'{key}={text_of(value)}' for key, value in self.params)})"

    def __str__(self) -> str:
        weight = str(self.weight)
        return self.body if weight == "1" else f"{weight}*{self.body}"


@dataclass(frozen=True)
class LossExpr:
    """A weighted sum of loss terms: the primary term first, the auxiliary terms after it.

    The order is canonical: ``ce`` (or the model's own criterion ``m2f``) is the primary term wherever it was
    written (of several, the one with the largest weight), otherwise the first term; auxiliary terms follow by
    text. Two spellings of one objective are equal.
    """

    terms: tuple[LossTerm, ...]
    text: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        named = [[t for t in self.terms if t.name == name] for name in PRIMARY_NAMES]
        candidates = next((terms for terms in named if terms), [self.terms[0]])
        head = min(candidates, key=lambda t: (-t.weight.peak, str(t)))
        rest = list(self.terms)
        rest.remove(head)
        object.__setattr__(self, "terms", (head, *sorted(rest, key=lambda t: (t.name, str(t)))))

    @property
    def primary(self) -> LossTerm:
        """The term that the others are added to."""
        return self.terms[0]

    @property
    def auxiliary(self) -> tuple[LossTerm, ...]:
        """The terms after the primary one."""
        return self.terms[1:]

    @property
    def labels(self) -> tuple[str, ...]:
        """A unique short name per term, in order: ``ce``, ``focal``, ``focal_2`` for a second focal term."""
        seen: dict[str, int] = {}
        names = []
        for term in self.terms:
            seen[term.name] = seen.get(term.name, 0) + 1
            names.append(term.name if seen[term.name] == 1 else f"{term.name}_{seen[term.name]}")
        return tuple(names)

    @cached_property
    def canonical(self) -> str:
        """The canonical JSON text: a list of name, weight and parameters per term."""
        return canonical_json(
            [
                {"name": term.name, "weight": plain(asdict(term.weight)), "params": plain(dict(term.params))}
                for term in self.terms
            ]
        )

    def __str__(self) -> str:
        """The text that parses back to this expression, ``ce + 0.3*focal(gamma=2)``."""
        return " + ".join(str(term) for term in self.terms)


PRIMARY_NAMES = ("m2f", "ce")


def text_of(value: Value) -> str:
    """A parameter's value as it is written in an expression."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, str):
        return value
    return f"[{', '.join(text_of(item) for item in value)}]"
