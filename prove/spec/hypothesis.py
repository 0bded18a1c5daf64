"""Hypotheses of a study, as data: which objectives, against which, change what, and in which direction."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

from prove.errors import ProveError, unknown
from prove.spec.job import METRICS
from prove.spec.located import Node, kind_of
from prove.spec.parse import parse

Direction = Literal["raises", "lowers"]
Kind = Literal["term", "objective", "constant", "scheduled"]

CLASS_METRICS = ("IoU", "Acc", "bIoU", "bF1")
"""Metrics of one class."""

DERIVED = ("rare_IoU", "oscillation")
"""Measures that a report makes of what is recorded; `prove.report.hypothesis_measures` defines them."""

KEYS = ("name", "claim", "treatment", "control", "measure", "direction", "smallest_effect")

_OWN_KIND = re.compile(r"(only|constant|scheduled)\s+(?=[A-Za-z_0-9.])(.+)", re.DOTALL)
_SCOPED = re.compile(r"(\S+)\s+(of|in)\s+(\S.*)", re.DOTALL)


@dataclass(frozen=True)
class Quantity:
    """One number per run.

    Attributes:
        name: a metric, or one of `DERIVED`.
        scope: ``overall``, ``class`` or ``condition``.
        of: the class or the condition; empty for overall.
    """

    name: str
    scope: Literal["overall", "class", "condition"] = "overall"
    of: str = ""

    def __str__(self) -> str:
        """The text that `read_quantity` reads: ``mIoU``, ``IoU of rider``, ``mIoU in night``."""
        return f"{self.name} {'of' if self.scope == 'class' else 'in'} {self.of}" if self.of else self.name


@dataclass(frozen=True)
class Matcher:
    """Which objectives are meant.

    Attributes:
        kind: ``term``: the control with this term added, or with its term changed in these parameters;
            ``objective``: exactly this one; ``constant`` and ``scheduled``: those with this term under a weight that
            stays, or that changes over training.
        text: a term or an objective, as it is written in an expression.
    """

    kind: Kind
    text: str

    def __str__(self) -> str:
        """The text that `read_matcher` reads as a treatment."""
        if self.kind == "objective":
            return self.text if len(parse(self.text).terms) > 1 else f"only {self.text}"
        return self.text if self.kind == "term" else f"{self.kind} {self.text}"


@dataclass(frozen=True)
class Hypothesis:
    """A claim that runs can support or not.

    Attributes:
        name: what a report and an experiment file call it; unique.
        claim: a sentence.
        treatment: the objectives that the claim is about; each is tested on its own.
        control: what they are compared with; None for the baseline of the report.
        direction: what the treatment is said to do to the measure.
        smallest_effect: of interest, in percentage points; for oscillation in percent of it. None for the default.
        built_in: PROVE's own.
    """

    name: str
    claim: str
    treatment: Matcher
    control: Matcher | None
    measure: Quantity
    direction: Direction
    smallest_effect: float | None = None
    built_in: bool = False


def _built_in(
    name: str, claim: str, treatment: Matcher, measure: str, direction: Direction, control: Matcher | None = None
) -> Hypothesis:
    return Hypothesis(name, claim, treatment, control, Quantity(measure), direction, built_in=True)


BUILT_IN: tuple[Hypothesis, ...] = (
    _built_in(
        "focal_rare", "Focal loss raises the IoU of rare classes.", Matcher("term", "focal"), "rare_IoU", "raises"
    ),
    _built_in("lovasz_miou", "Lovász loss raises mIoU.", Matcher("term", "lovasz"), "mIoU", "raises"),
    _built_in(
        "lovasz_oscillates",
        "Lovász loss at constant weight oscillates.",
        Matcher("constant", "lovasz"),
        "oscillation",
        "raises",
    ),
    _built_in("boundary_bf1", "Boundary loss raises boundary F1.", Matcher("term", "boundary"), "bF1", "raises"),
    _built_in("boundary_biou", "Boundary loss raises boundary IoU.", Matcher("term", "boundary"), "bIoU", "raises"),
    _built_in(
        "smoothing_ece",
        "Label smoothing lowers the calibration error.",
        Matcher("term", "label_smoothing"),
        "ECE",
        "lowers",
    ),
    _built_in(
        "lovasz_schedule",
        "A weight schedule calms Lovász loss.",
        Matcher("scheduled", "lovasz"),
        "oscillation",
        "lowers",
        Matcher("constant", "lovasz"),
    ),
)
"""The hypotheses of the study that PROVE comes from."""


def with_built_in(own: Iterable[Hypothesis]) -> tuple[Hypothesis, ...]:
    """PROVE's hypotheses and a user's; a user's own takes the place of a built-in of its name."""
    mine = {each.name: each for each in own}
    return (*(mine.pop(each.name, each) for each in BUILT_IN), *mine.values())


def read_hypotheses(value: Any) -> tuple[Hypothesis, ...]:
    """The hypotheses that an experiment's ``report`` section adds.

    Args:
        value: a list of mappings, or a mapping of names to the rest; a `Node` of a file, whose errors name file, line
            and column, or plain data, whose errors name the entry.

    Raises:
        ProveError: something in it can't be a hypothesis.
    """
    item = _Item.of(value, "hypotheses")
    if isinstance(item.value, dict):
        found = [_hypothesis(item.at(name), name) for name in item.value]
    elif isinstance(item.value, list):
        found = [_hypothesis(item.at(index), None) for index in range(len(item.value))]
    else:
        raise item.error(
            f"hypotheses must be a list or a mapping, not {kind_of(item.value)}.", f"Write for example {_EXAMPLE}."
        )
    names: set[str] = set()
    for index, each in enumerate(found):
        if each.name in names:
            raise item.at(index).error(f"Two hypotheses are called {each.name!r}.", "Give one of them another name.")
        names.add(each.name)
    return tuple(found)


_EXAMPLE = "hypotheses: {dice_rider: {treatment: dice, measure: IoU of rider, direction: raises}}"


def read_matcher(text: str, role: Literal["treatment", "control"]) -> Matcher:
    """Which objectives a text means.

    ``focal``, ``0.3*focal`` and ``focal(gamma=3)`` are terms as a treatment and objectives as a control; a sum is an
    objective; ``only dice`` is an objective of one term; ``constant lovasz`` and ``scheduled lovasz`` go by the weight.

    Raises:
        ProveError: it can't be read.
    """
    own = _OWN_KIND.fullmatch(text.strip())
    kind, rest = (own[1], own[2]) if own else ("", text.strip())
    expr = parse(rest)
    if kind in ("constant", "scheduled"):
        if len(expr.terms) > 1 or "*" in rest:
            raise ProveError(f"After {kind!r} must stand one term without a weight, not {rest!r}.")
        return Matcher(cast(Kind, kind), rest)
    if kind == "only" or role == "control" or len(expr.terms) > 1:
        return Matcher("objective", rest)
    return Matcher("term", rest)


def read_quantity(text: str) -> Quantity:
    """The number that a text means: ``mIoU``, ``rare_IoU``, ``oscillation``, ``IoU of rider``, ``mIoU in night``.

    Raises:
        ProveError: there is no such measure.
    """
    text = text.strip()
    scoped = _SCOPED.fullmatch(text)
    if scoped is None:
        if text in CLASS_METRICS and text not in METRICS:
            raise ProveError(
                f"{text!r} is a metric of one class.", hint=f"Write {text} of CLASS, or mIoU for the mean."
            )
        if text not in (*METRICS, *DERIVED):
            raise unknown("measure", text, (*METRICS, *DERIVED, "IoU of CLASS", "mIoU in CONDITION"))
        return Quantity(text)
    name, word, of = scoped.groups()
    valid = CLASS_METRICS if word == "of" else METRICS
    if name not in valid:
        raise unknown("metric", name, valid, where=f"of a {'class' if word == 'of' else 'condition'}, in {text!r}")
    return Quantity(name, "class" if word == "of" else "condition", of.strip())


@dataclass(frozen=True)
class _Item:
    """A value of the section and how an error about it is worded."""

    value: Any
    error: Callable[[str, str], ProveError]
    key_error: Callable[[str, str], ProveError]
    path: str

    @classmethod
    def of(cls, value: Any, path: str) -> _Item:
        if isinstance(value, Node):
            return cls(value.value, value.error, value.key_error, path)

        def error(message: str, hint: str = "") -> ProveError:
            return ProveError(f"{path}: {message}", hint=hint)

        return cls(list(value) if isinstance(value, tuple) else value, error, error, path)

    def at(self, key: Any) -> _Item:
        """An item of a mapping by its key; of a list, or a mapping, by its index."""
        if isinstance(self.value, dict):
            key = list(self.value)[key] if isinstance(key, int) and key not in self.value else key
            return _Item.of(self.value[key], f"{self.path}.{key}")
        return _Item.of(self.value[key], f"{self.path}[{key}]")

    def text(self, what: str) -> str:
        if not (isinstance(self.value, str) and self.value.strip()):
            raise self.error(f"{what} must be text, not {kind_of(self.value)}.", "")
        return self.value.strip()


def _hypothesis(item: _Item, name: str | None) -> Hypothesis:
    if not isinstance(item.value, dict):
        raise item.error(f"A hypothesis must be a mapping, not {kind_of(item.value)}.", f"Write {_EXAMPLE}.")
    valid = KEYS if name is None else KEYS[1:]
    for key in item.value:
        if key not in valid:
            wrong = unknown("key", str(key), valid, where="in a hypothesis")
            raise item.at(key).key_error(wrong.message, wrong.hint)
    for key in ("name", "treatment", "measure", "direction"):
        if key in valid and key not in item.value:
            raise item.error(f"A hypothesis needs {key}.", f"Write {_EXAMPLE}.")
    name = item.at("name").text("name") if name is None else str(name).strip()
    treatment = _read(item.at("treatment"), "treatment", lambda text: read_matcher(text, "treatment"))
    control = _control(item, treatment)
    measure = _read(item.at("measure"), "measure", read_quantity)
    direction = item.at("direction").text("direction")
    if direction not in ("raises", "lowers"):
        wrong = unknown("direction", direction, ("raises", "lowers"))
        raise item.at("direction").error(wrong.message, wrong.hint)
    against = "the baseline" if control is None else str(control)
    claim = f"{treatment} {direction} {measure} over {against}."
    return Hypothesis(
        name=name,
        claim=item.at("claim").text("claim") if "claim" in item.value else claim,
        treatment=treatment,
        control=control,
        measure=measure,
        direction=cast(Direction, direction),
        smallest_effect=_smallest_effect(item),
    )


def _read(item: _Item, what: str, read: Callable[[str], Any]) -> Any:
    text = item.text(what)
    try:
        return read(text)
    except ProveError as error:
        raise item.error(error.message, error.hint) from None


def _control(item: _Item, treatment: Matcher) -> Matcher | None:
    if "control" not in item.value or item.at("control").value in (None, "baseline"):
        return None
    at = item.at("control")
    control: Matcher = _read(at, "control", lambda text: read_matcher(text, "control"))
    if control.kind in ("constant", "scheduled"):
        opposite = "scheduled" if control.kind == "constant" else "constant"
        if treatment.kind != "objective" and treatment != Matcher(cast(Kind, opposite), control.text):
            raise at.error(
                f"The control {control} is that of the treatment {opposite} {control.text}, not of {treatment}.",
                "Name an objective, or leave control out to compare with the baseline.",
            )
    return control


def _smallest_effect(item: _Item) -> float | None:
    if "smallest_effect" not in item.value:
        return None
    at = item.at("smallest_effect")
    number = at.value
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number) or number <= 0:
        raise at.error(f"smallest_effect must be a number > 0, not {kind_of(number)}.", "")
    return float(number)
