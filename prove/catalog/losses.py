"""The losses PROVE knows: definitions, parameters, ranges and sources. `resolve` completes and checks an expression."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NoReturn

from prove.catalog.loss_entries import LOSSES, SCHEMES
from prove.catalog.loss_entry import LossEntry, Param
from prove.errors import ProveError, nearest, unknown
from prove.spec.expr import LossExpr, LossTerm, Value, text_of
from prove.spec.parse import malformed, parse
from prove.spec.schedule import WeightSchedule

__all__ = [
    "ALIASES",
    "LOSSES",
    "SCHEMES",
    "LossEntry",
    "Param",
    "class_weight_scheme",
    "from_aux",
    "resolve",
    "short",
]

ALIASES: Mapping[str, tuple[str, Mapping[str, Value]]] = {
    "ohem": ("ce", {"ohem": True}),
    "label_smoothing": ("ce", {"label_smoothing": 0.1}),
}
"""Terms that are another spelling of a catalogue entry with some parameters set."""


def resolve(expr: LossExpr) -> LossExpr:
    """Check an expression against the catalogue and fill in every default.

    The result is the complete definition: an alias is replaced by what it stands for, every parameter that has a
    meaning is present, and a schedule that never changes is a constant. Resolving twice changes nothing.

    Raises:
        ProveError: an unknown loss or parameter, a value out of its range, a parameter without meaning here, a
            weight that is 0 throughout, the same term twice, or two set criteria.
    """
    terms: dict[tuple[str, tuple[tuple[str, Value], ...]], LossTerm] = {}
    for written in expr.terms:
        term = _resolve_term(expr, written)
        if (term.name, term.params) in terms:
            _refuse(
                expr,
                written,
                f"{_without_defaults(term).body!r} stands twice.",
                "Write it once, with the summed weight.",
            )
        if LOSSES.get(term.name).kind == "criterion" and any(term.name == name for name, _ in terms):
            _refuse(
                expr,
                written,
                f"a model has one set criterion, and {term.name!r} is there already.",
                f"Set its parts in one term, as in {term.name}(cls=focal, no_object=0.05).",
            )
        terms[term.name, term.params] = term
    return LossExpr(tuple(terms.values()), text=expr.text)


def short(expr: LossExpr) -> str:
    """The canonical text: resolved, with parameters at their defaults left out, as in ``ce + 0.3*focal(gamma=3)``."""
    terms = resolve(expr).terms
    return " + ".join(str(_without_defaults(term)) for term in terms)


def from_aux(aux: str, weight: float = 0.3) -> LossExpr:
    """The objective behind the shorthand ``--aux-loss``: cross-entropy plus auxiliary terms, resolved.

    Args:
        aux: ``none`` (cross-entropy alone), a name, or terms: ``focal``, ``focal(gamma=3)``, ``0.5*focal``,
            ``focal+lovasz``.
        weight: of a term that is written without one.

    Raises:
        ProveError: as `parse` and `resolve`; for ``ce``, which is there already; and for a model's own criterion.
    """
    primary = LossTerm("ce")
    if aux.strip().lower() == "none":
        return resolve(LossExpr((primary,)))
    expr = parse(aux)
    terms = []
    for term in expr.terms:
        if term.name == "m2f":
            hint = f'Write the whole objective: --loss "{term.body} + 0.3*lovasz".'
            _refuse(
                expr, term, f"{term.name!r} is not an auxiliary loss: a model's criterion is its primary one.", hint
            )
        if term.name == "ce" and not term.params:
            _refuse(expr, term, f"{term.name!r} is not an auxiliary loss.", "Without an auxiliary loss, write none.")
        weighted = expr.text[: term.column - 1].rstrip().endswith("*")
        terms.append(term if weighted else replace(term, weight=WeightSchedule("constant", weight, weight)))
    # resolved on their own first: columns point into the text of the auxiliary terms
    resolved = resolve(LossExpr(tuple(terms), text=expr.text))
    return resolve(LossExpr((primary, *resolved.terms)))


def class_weight_scheme(expr: LossExpr) -> tuple[str, float | None] | None:
    """Which class weights an expression needs from the training set: ``(scheme, beta)``, or None when it needs none.

    ``beta`` is None but for ``effective_number``.

    Raises:
        ProveError: two terms ask for different ones; one objective is given one set.
    """
    asked = {}
    for term in resolve(expr).terms:
        params = dict(term.params)
        scheme, beta = params.get("class_weight"), params.get("beta")
        if isinstance(scheme, str):
            asked[scheme, beta if isinstance(beta, float) else None] = term
    if len(asked) > 1:
        raise ProveError(
            f"Two terms of {short(expr)!r} compute class weights in different ways.",
            hint="Use one scheme in an objective, or write the weights of one of them as a list.",
        )
    return next(iter(asked), None)


def _resolve_term(expr: LossExpr, written: LossTerm) -> LossTerm:
    name, preset = ALIASES.get(written.name, (written.name, {}))
    if name not in LOSSES:
        where = f'in "{expr.text}" (column {written.column})' if expr.text and written.column else ""
        raise unknown("loss", name, (*LOSSES.names, *ALIASES), where=where)
    entry = LOSSES.get(name)
    given = {**preset, **dict(written.params)}
    values: dict[str, Value] = {}
    known = {param.name: param for param in entry.params}
    for key in given:
        if key not in known:
            _refuse(expr, written, f"{name} has no parameter {key!r}.", _suggest(key, known))
    for param in entry.params:
        try:
            values[param.name] = param.read(given.get(param.name, param.default))
        except ValueError as error:
            _refuse(expr, written, f"{name}: {error}.", param.doc[0].upper() + param.doc[1:] + ".")
    for param in entry.params:
        complaint = param.complaint(values)
        if complaint:
            _refuse(expr, written, f"{name}: {complaint}.", param.doc[0].upper() + param.doc[1:] + ".")
    if entry.not_all_zero and not any(values[name] for name in entry.not_all_zero):
        _refuse(expr, written, f"{name}: {' and '.join(entry.not_all_zero)} can't all be 0.")
    for param in entry.params:
        # absent when it was itself refused above: what depends on it has no meaning either
        if param.only_with is None or values.get(param.only_with[0]) == param.only_with[1]:
            continue
        if param.name in given:
            other, needed = param.only_with
            message = f"{name}: {param.name} has a meaning only with {other}={text_of(needed)}."
            _refuse(expr, written, message, f"Add {other}={text_of(needed)} or leave {param.name} out.")
        del values[param.name]
    weight = _resolve_weight(expr, written)
    return replace(written, name=name, weight=weight).with_params(values)


def _resolve_weight(expr: LossExpr, written: LossTerm) -> WeightSchedule:
    weight = written.weight
    numbers = (weight.first, weight.last, weight.start, weight.end)
    if not all(math.isfinite(value) and value >= 0 for value in numbers):
        _refuse(expr, written, f"the weight {weight} of {written.name} is not made of finite numbers >= 0.")
    never_steps = weight.shape == "step" and weight.end >= 1.0 and weight.first == 0.0
    if weight.peak == 0.0 or never_steps:
        _refuse(expr, written, f"the weight of {written.name} is 0 throughout.", "Leave the term out instead.")
    if weight.first == weight.last:
        return WeightSchedule("constant", weight.first, weight.first, weight.start)
    return weight


def _without_defaults(term: LossTerm) -> LossTerm:
    entry = LOSSES.get(term.name)
    return term.with_params({name: value for name, value in term.params if value != entry.param(name).default})


def _suggest(key: str, known: Iterable[str]) -> str:
    close = nearest(key, known)
    names = sorted(known)
    if not names:
        return "It has no parameters."
    return (f"Did you mean {close[0]!r}? " if close else "") + f"Valid: {', '.join(names)}."


def _refuse(expr: LossExpr, term: LossTerm, message: str, hint: str = "") -> NoReturn:
    if expr.text and term.column:
        raise malformed(expr.text, term.column, message, hint)
    raise ProveError(f"Objective {str(expr)!r}: {message}", hint=hint)
