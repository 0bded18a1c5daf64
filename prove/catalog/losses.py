"""The losses PROVE knows: definitions, parameters, ranges and sources. `resolve` completes and checks an expression."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NoReturn

from prove.catalog.loss_entry import LossEntry, Param
from prove.catalog.registry import Registry
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

SCHEMES = ("median_frequency", "inverse", "effective_number")
"""Values of ``class_weight`` that are computed from the pixel counts of the training set."""

_CLASSES_DOC = "which classes the mean runs over: all, present (in the labels {where}), or a list of class indices"

LOSSES: Registry[LossEntry] = Registry(
    "loss",
    (
        LossEntry(
            name="ce",
            summary="Cross-entropy, with class weights, label smoothing and online hard example mining.",
            formula="sum(v * w_y * -log p_y) / sum(v * w_y), with v = 1 at valid pixels; label smoothing as in PyTorch",
            params=(
                Param(
                    "class_weight",
                    None,
                    ("word", "numbers"),
                    "weight per class: a list, or computed from the training set's pixel counts (auto means "
                    "median_frequency), mean 1",
                    words=("none", *SCHEMES),
                    synonyms=(("auto", "median_frequency"),),
                ),
                Param(
                    "beta",
                    0.9999999,
                    ("number",),
                    "effective_number only: pixels count up to about 1 / (1 - beta) (Cui 2019)",
                    low=0.0,
                    high=1.0,
                    above_low=True,
                    below_high=True,
                    only_with=("class_weight", "effective_number"),
                ),
                Param(
                    "label_smoothing",
                    0.0,
                    ("number",),
                    "share of the target spread evenly over all classes",
                    low=0.0,
                    high=1.0,
                    below_high=True,
                ),
                Param("ohem", False, ("flag",), "train on the hard pixels only"),
                Param(
                    "thresh",
                    0.7,
                    ("number",),
                    "ohem only: a pixel is hard when p_y is below it",
                    low=0.0,
                    high=1.0,
                    above_low=True,
                    only_with=("ohem", True),
                ),
                Param(
                    "min_kept",
                    100_000,
                    ("integer",),
                    "ohem only: pixels kept at least, times the images of the batch",
                    low=1,
                    only_with=("ohem", True),
                ),
            ),
            paper="Shrivastava 2016 (OHEM), Szegedy 2016 (label smoothing), Eigen & Fergus 2015 (median frequency), "
            "Cui 2019 (effective number)",
            averages="valid pixels, weighted by class and pixel weight",
            pixel_weight="multiplies the class weight, above and below the line",
            cost="one softmax; with ohem a sort of the valid pixels as well",
            avoid="alone, when rare classes matter: frequent classes dominate the mean",
        ),
        LossEntry(
            name="focal",
            summary="Cross-entropy that fades out on pixels that are right already (softmax form).",
            formula="sum(v * alpha_y * (1 - p_y)^gamma * -log p_y) / sum(v)",
            params=(
                Param("gamma", 2.0, ("number",), "how fast easy pixels fade; 0 is cross-entropy", low=0.0),
                Param(
                    "alpha",
                    0.5,
                    ("number", "numbers"),
                    "scale, or one weight per class; it does not enter the divisor",
                    low=0.0,
                    above_low=True,
                ),
            ),
            paper="Lin 2017, Focal Loss for Dense Object Detection, arXiv:1708.02002, eq. 5",
            averages="valid pixels",
            pixel_weight="multiplies each pixel, above and below the line",
            cost="one softmax",
            avoid="with noisy labels: it dwells on exactly the pixels that are labelled wrong",
        ),
        LossEntry(
            name="lovasz",
            summary="Lovász-Softmax: the convex surrogate of the Jaccard loss, 1 - IoU, exact.",
            formula="mean over classes of dot(sorted errors, Lovász gradient); error = |[y = c] - p_c|",
            params=(
                Param(
                    "classes",
                    "all",
                    ("word", "classes"),
                    _CLASSES_DOC.format(where="of the image, or of the batch when per_image=false"),
                    words=("all", "present"),
                ),
                Param("per_image", True, ("flag",), "one IoU per image, then the mean; otherwise one for the batch"),
            ),
            paper="Berman 2018, The Lovász-Softmax loss, arXiv:1705.08790, Alg. 1",
            averages="classes, then images that have a valid pixel",
            pixel_weight="refused: a ranking of pixels has no per-pixel weight",
            cost="one sort per present class and image: many times cross-entropy on a CPU",
            avoid="as the only term from random weights: its gradient is weak when everything is wrong",
        ),
        LossEntry(
            name="boundary",
            summary="Cross-entropy between the Sobel edges of the prediction and those of the labels.",
            formula="weighted mean of BCE(S(p_c), S([y = c])), S = Sobel magnitude / sqrt(20)",
            params=(
                Param(
                    "pos_weight",
                    "balanced",
                    ("word", "number"),
                    "weight of an edge pixel; balanced gives edges and the rest half of the mean each",
                    words=("balanced",),
                    low=0.0,
                    above_low=True,
                ),
            ),
            paper="Sobel edges as in gated shape supervision, Takikawa 2019, arXiv:1907.05740; 3x3 Sobel operator",
            averages="all classes and all pixels whose 3x3 neighbourhood is valid, pooled",
            pixel_weight="multiplies the weight of each pixel in the mean",
            cost="one softmax and a dozen passes over it",
            avoid="with polygon labels whose contours are off by pixels",
        ),
        LossEntry(
            name="dice",
            summary="Soft Dice loss per class over the batch: 1 - F1, without thresholds.",
            formula="mean over classes of 1 - (2*I + s) / (P + G + s); I = sum(v*p*g), P = sum(v*p), G = sum(v*g)",
            params=(
                Param("smooth", 1.0, ("number",), "s, in pixels: keeps tiny classes from swinging", low=0.0),
                Param("squared", False, ("flag",), "P = sum(v*p^2), as in V-Net"),
                Param(
                    "classes",
                    "present",
                    ("word", "classes"),
                    _CLASSES_DOC.format(where="of the batch"),
                    words=("all", "present"),
                ),
            ),
            paper="Milletari 2016, V-Net, arXiv:1606.04797 (squared=true); Sudre 2017, arXiv:1707.03237",
            averages="classes, over the whole batch",
            pixel_weight="multiplies each pixel in I, P and G",
            cost="one softmax",
            avoid="with classes=all on crops: classes that are not in the batch add a gradient against themselves",
        ),
        LossEntry(
            name="m2f",
            summary="The set criterion of a mask-classification model such as Mask2Former, as the model defines it.",
            formula="Hungarian matching, then classification, mask and dice loss of each matched query",
            params=(),
            paper="Cheng 2022, Mask2Former, arXiv:2112.01527",
            kind="criterion",
            averages="queries and sampled points, as the model's configuration says",
            pixel_weight="refused: computed inside the model",
            cost="the model's own",
            avoid="with any other model: only mask classification has it",
        ),
    ),
)

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
            weight that is 0 throughout, or the same term twice.
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
        ProveError: as `parse` and `resolve`; and for ``ce``, which is there already.
    """
    primary = LossTerm("ce")
    if aux.strip().lower() == "none":
        return resolve(LossExpr((primary,)))
    expr = parse(aux)
    terms = []
    for term in expr.terms:
        if term.name in {"ce", "m2f"} and not term.params:
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
        if param.only_with is None or values[param.only_with[0]] == param.only_with[1]:
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
