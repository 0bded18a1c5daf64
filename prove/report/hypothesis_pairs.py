"""Which objectives of a block a hypothesis compares: the two differ in what it is about, and in nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from prove.catalog.losses import ALIASES, LOSSES, resolve, short
from prove.errors import ProveError, unknown
from prove.spec import LossExpr, LossTerm, Value, WeightSchedule, parse
from prove.spec.hypothesis import Hypothesis, Matcher

SAME_WEIGHT = 2.0
"""A constant weight is a control for a schedule whose mean over training is within this factor of it."""

SUGGESTED_WEIGHT = 0.3
"""Weight of a term that a report suggests to add."""

_TAGGED = re.compile(r"(?P<text>.*\S) \[(?P<tag>[^\[\]]*)\]")


@dataclass(frozen=True)
class Known:
    """An objective, as a report compares it.

    Attributes:
        label: its text, the same on every model: a plain ``ce`` stands for a mask-classification model's criterion.
        terms: with every default, in canonical order.
        tag: what tells it apart from another objective of the same text.
        loss: what the block calls it.
    """

    label: str
    terms: tuple[LossTerm, ...]
    tag: str = ""
    loss: str = ""


@dataclass(frozen=True)
class Pair:
    """A treatment and its control.

    Attributes:
        control: ``loss`` is empty where the block has no such objective.
        note: what a reader must know of the choice of control.
    """

    treatment: Known
    control: Known
    note: str = ""


@lru_cache(maxsize=4096)
def known(loss: str) -> Known | None:
    """An objective from the text that a report calls it by; None where it can't be read."""
    text, tag = loss, ""
    try:
        expr = parse(text)
    except ProveError:
        tagged = _TAGGED.fullmatch(loss)
        if tagged is None:
            return None
        text, tag = tagged["text"], tagged["tag"]
        try:
            expr = parse(text)
        except ProveError:
            return None
    expr = LossExpr(tuple(_resolved(term) for term in expr.terms))
    if not any(term.body == _plain("ce").body for term in expr.terms):
        terms = (_common(term) for term in expr.terms)
        expr = LossExpr(tuple(terms))
    label = _short(expr) + (f" [{tag}]" if tag else "")
    return Known(label, expr.terms, tag, loss)


def common_name(loss: str) -> str:
    """A loss as pooled effects call it: the plain ``m2f`` stands in for ``ce`` on a mask-classification model."""
    found = known(loss) if "m2f" in loss else None
    return loss if found is None else found.label


def _common(term: LossTerm) -> LossTerm:
    """A criterion as other models' losses call it: ``m2f`` is ``ce``, while ``m2f(cls=focal)`` is an arm of its own."""
    return replace(_plain("ce"), weight=term.weight) if term.body == _plain("m2f").body else term


@lru_cache(maxsize=2)
def _plain(name: str) -> LossTerm:
    """A term with all its defaults and weight 1."""
    return _resolved(LossTerm(name))


def _resolved(term: LossTerm) -> LossTerm:
    """A term with its defaults; one of a user's own that is not known here stays as it is written."""
    try:
        return resolve(LossExpr((term,))).primary
    except ProveError:
        return term


def _short(expr: LossExpr) -> str:
    try:
        return short(expr)
    except ProveError:
        return " + ".join(_short_term(term) for term in expr.terms)


def _short_term(term: LossTerm) -> str:
    try:
        return short(LossExpr((term,)))
    except ProveError:
        return str(term)


def check_names(hypothesis: Hypothesis, losses: Iterable[str]) -> None:
    """Refuse a hypothesis about a loss that neither PROVE nor the study knows.

    Args:
        losses: every objective of the study.

    Raises:
        ProveError: names the nearest.
    """
    there = {term.name for loss in losses if (found := known(loss)) for term in found.terms}
    for matcher in (hypothesis.treatment, hypothesis.control):
        for term in parse(matcher.text).terms if matcher else ():
            names = {*LOSSES.names, *ALIASES, *there}
            if term.name not in names:
                raise unknown("loss", term.name, names, where=f"in the hypothesis {hypothesis.name!r}")
            if term.name in LOSSES or term.name in ALIASES:
                try:
                    resolve(LossExpr((term,)))
                except ProveError as error:
                    raise ProveError(f"Hypothesis {hypothesis.name!r}: {error.message}", hint=error.hint) from None


@lru_cache(maxsize=4096)
def pairs(hypothesis: Hypothesis, losses: tuple[str, ...], baseline: str) -> tuple[Pair, ...]:
    """The comparisons that a hypothesis makes of a block's objectives, in their order.

    Args:
        losses: of the block.
        baseline: what it is compared with unless the hypothesis names a control.

    Returns:
        One for each treatment in the block. Its control need not be there.
    """
    there = [found for loss in losses if (found := known(loss))]
    control = hypothesis.control
    if control is not None and control.kind in ("constant", "scheduled"):
        return tuple(_paired_by_weight(hypothesis.treatment, control, there))
    base = _control(control, there, baseline)
    if base is None:
        return ()
    return tuple(
        Pair(each, base) for each in there if each.loss != base.loss and _is_treatment(hypothesis.treatment, each, base)
    )


def passed_over(hypothesis: Hypothesis, losses: Sequence[str], found: Sequence[Pair]) -> tuple[str, ...]:
    """Objectives of a block that have the treatment's term but differ from the control in something else as well."""
    if hypothesis.treatment.kind == "objective":
        return ()
    used = {each.loss for pair in found for each in (pair.treatment, pair.control)}
    pattern = _pattern(hypothesis.treatment)
    there = [each for loss in losses if loss not in used and (each := known(loss))]
    return tuple(each.label for each in there if any(pattern.fits(term) for term in each.terms))


def _control(control: Matcher | None, there: Sequence[Known], baseline: str) -> Known | None:
    meant = known(control.text if control else baseline)
    if meant is None:
        return None
    exact = next((each for each in there if each.loss == (control.text if control else baseline)), None)
    same = exact or next((each for each in there if each.terms == meant.terms), None)
    return same or replace(meant, loss="")


def _is_treatment(matcher: Matcher, treatment: Known, control: Known) -> bool:
    if matcher.kind == "objective":
        meant = known(matcher.text)
        return meant is not None and meant.terms == treatment.terms
    if treatment.tag and control.tag and treatment.tag != control.tag:
        return False
    pattern = _pattern(matcher)
    added, gone = _difference(treatment, control)
    if not gone:
        return bool(added) and all(pattern.fits(term) for term in added)
    return matcher.kind == "term" and len(added) == len(gone) == 1 and pattern.changes(gone[0], added[0])


def _difference(treatment: Known, control: Known) -> tuple[list[LossTerm], list[LossTerm]]:
    added, gone = list(treatment.terms), list(control.terms)
    for term in control.terms:
        if term in added:
            added.remove(term)
            gone.remove(term)
    return added, gone


@dataclass(frozen=True)
class _Pattern:
    """What a term must be.

    Attributes:
        params: that it must have.
        on: parameters that must be on (not 0, not false), whatever their value: what an alias stands for.
        weight: that it must have; None for any.
        changing: whether its weight must change over training, or must not; None for either.
    """

    name: str
    params: tuple[tuple[str, Value], ...] = ()
    on: tuple[str, ...] = ()
    weight: WeightSchedule | None = None
    changing: bool | None = None

    def fits(self, term: LossTerm) -> bool:
        weight = self.weight is None or term.weight == self.weight
        changing = self.changing is None or term.weight.is_constant is not self.changing
        return term.name == self.name and weight and changing and self.has_params(term)

    def has_params(self, term: LossTerm) -> bool:
        found = dict(term.params)
        return all(key in found and found[key] == value for key, value in self.params) and all(
            found.get(key) for key in self.on
        )

    def changes(self, before: LossTerm, after: LossTerm) -> bool:
        """Whether a term became this one by these parameters alone."""
        own = {*self.on, *(key for key, _ in self.params)}
        if after.name == "m2f" and before.body == _plain("ce").body:  # what a block calls its plain criterion
            before = replace(_plain("m2f"), weight=before.weight)
        if not own or before.weight != after.weight or before.name != after.name or self.has_params(before):
            return False
        old, new = dict(before.params), dict(after.params)
        return self.fits(after) and all(old[key] == new[key] for key in old.keys() & new.keys() - own)


@lru_cache(maxsize=256)
def _pattern(matcher: Matcher) -> _Pattern:
    written = parse(matcher.text).primary
    weighted = "*" in matcher.text
    name, preset = ALIASES.get(written.name, (written.name, {}))
    resolved = dict(_resolved(written).params)
    given = dict(written.params)
    return _Pattern(
        name=name,
        params=tuple((key, resolved.get(key, given[key])) for key in given),
        on=tuple(key for key in preset if key not in given),
        weight=written.weight if weighted else None,
        changing={"constant": False, "scheduled": True}.get(matcher.kind),
    )


def _paired_by_weight(treatment: Matcher, control: Matcher, there: Sequence[Known]) -> Iterable[Pair]:
    """Each treatment with the control whose weight is nearest in its mean over training.

    The rule does not look at results, and not at whether the control's runs have finished.
    """
    of = _pattern(control)
    by = _pattern(replace(control, kind="scheduled" if control.kind == "constant" else "constant"))
    exact = known(treatment.text) if treatment.kind == "objective" else None
    for each in there:
        moving = [term for term in each.terms if by.fits(term)]
        if len(moving) != 1 or (exact is not None and exact.terms != each.terms):
            continue
        mean = mean_weight(moving[0].weight)
        found = []
        for other in there:
            added, gone = _difference(each, other)
            if len(gone) != 1 or added != moving or each.tag != other.tag:
                continue
            if of.fits(gone[0]) and gone[0].params == moving[0].params:
                weight = mean_weight(gone[0].weight)
                found.append((abs(math.log(weight / mean)), other.label, other, weight))
        if found and (best := min(found))[0] <= math.log(SAME_WEIGHT) + 1e-9:
            _, _, chosen, weight = best
            yield Pair(each, chosen, _weights(moving[0], mean, weight, control.kind))
        else:
            yield Pair(each, _counterpart(each, moving[0], mean, control.kind))


def _weights(term: LossTerm, mean: float, other: float, kind: str) -> str:
    one, two = f"{mean:.3g}", f"{other:.3g}"
    if one == two:
        return ""
    return f"The weight of {term.name} is {one} on average over training, that of the {kind} control {two}."


def _counterpart(objective: Known, term: LossTerm, mean: float, kind: str) -> Known:
    """The same objective with a weight of the other kind and about the same mean."""
    level = _rounded(mean)
    if kind == "constant":
        weight = WeightSchedule("constant", level, level)
    else:
        weight = WeightSchedule("cosine", _rounded(5 * level / 3), _rounded(level / 3))
    terms = tuple(replace(each, weight=weight) if each == term else each for each in objective.terms)
    expr = LossExpr(terms)
    return Known(_short(expr), expr.terms)


def _rounded(weight: float) -> float:
    return float(f"{weight:.2g}")


@lru_cache(maxsize=1024)
def mean_weight(schedule: WeightSchedule) -> float:
    """A weight's mean over training."""
    if schedule.is_constant:
        return schedule.first
    steps = 2000
    return sum(schedule.at((i + 0.5) / steps) for i in range(steps)) / steps


def suggestions(hypothesis: Hypothesis, losses: Iterable[str], baseline: str) -> tuple[str, ...]:
    """Objectives to add where none of a study is a treatment: texts that ``--loss`` takes, the control included."""
    there = {found.label for loss in losses if (found := known(loss))}
    treatment, control = hypothesis.treatment, hypothesis.control
    if control is not None and control.kind in ("constant", "scheduled"):
        constants = [found for loss in losses if (found := known(loss)) and _single(control, found)]
        base = constants[0] if constants else known(_sum(baseline, control.text))
        if treatment.kind == "objective" or base is None:
            wanted = [treatment.text]
        else:
            term = _single(control, base) or base.terms[-1]
            wanted = [base.label, _counterpart(base, term, mean_weight(term.weight), treatment.kind).label]
    else:
        base_text = control.text if control else baseline
        wanted = [base_text, _with_term(base_text, treatment)]
    labels = [found.label if (found := known(text)) else text for text in wanted]
    return tuple(label for label in labels if label not in there)


def _single(matcher: Matcher, objective: Known) -> LossTerm | None:
    found = [term for term in objective.terms if _pattern(matcher).fits(term)]
    return found[0] if len(found) == 1 and len(objective.terms) > 1 else None


def _sum(base: str, term: str) -> str:
    return f"{base} + {SUGGESTED_WEIGHT:g}*{term}"


def _with_term(base: str, treatment: Matcher) -> str:
    if treatment.kind == "objective":
        return treatment.text
    if treatment.kind == "scheduled":
        return f"{base} + cosine(0.5->0.1)*{treatment.text}"
    written = parse(treatment.text).primary
    name, preset = ALIASES.get(written.name, (written.name, {}))
    found = known(base)
    if name == "m2f" and found is not None:  # it stands where the plain criterion stood
        new = _resolved(written)
        return _short(LossExpr(tuple(new if term.body == _plain("ce").body else term for term in found.terms)))
    if preset and found is not None and "*" not in treatment.text:
        same = [term for term in found.terms if term.name == name]
        if same:
            changed = _resolved(written).params
            terms = tuple(
                term.with_params({**dict(changed), **_kept(term, changed)}) if term == same[0] else term
                for term in found.terms
            )
            return _short(LossExpr(terms))
    return f"{base} + {treatment.text}" if "*" in treatment.text else _sum(base, treatment.text)


def _kept(term: LossTerm, changed: tuple[tuple[str, Value], ...]) -> dict[str, Value]:
    """Parameters of a term that another spelling of it leaves alone."""
    plain = dict(_resolved(LossTerm(term.name)).params)
    on = {key for key, value in changed if plain.get(key) != value}
    return {key: value for key, value in term.params if key not in on}
