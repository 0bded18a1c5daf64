"""How an objective is laid over a model's heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prove.build.configs import head_configs
from prove.build.supported import check_head, is_mask_classification
from prove.catalog.losses import resolve
from prove.catalog.models import Kind
from prove.catalog.user_terms import USER_TERMS
from prove.errors import ProveError
from prove.spec import LossExpr, LossTerm, WeightSchedule, parse

CRITERION = "m2f"
"""Name of the term that stands for a mask-classification model's own set criterion."""

CRITERION_PARTS = ("loss_cls", "loss_mask", "loss_dice")
"""The parts of that criterion, as its losses in every decoder layer are called, and a config's own losses."""


def for_model(expr: LossExpr, kind: Kind, model: str) -> LossExpr:
    """The objective that a model of this kind minimises when this expression is asked for.

    A mask-classification model always has a set criterion, the term ``m2f`` with its parameters. In an expression
    without one, the plain ``ce`` stands for the model's own primary loss, so there it becomes ``m2f``; every other term
    is per-pixel and is applied to the semantic map beside the criterion: ``ce + 0.3*focal`` is ``m2f + 0.3*focal``.

    Args:
        expr: resolved (complete with defaults).

    Raises:
        ProveError: ``m2f`` for a model that has no set criterion.
    """
    names = [term.name for term in expr.terms]
    if kind == "per_pixel":
        if CRITERION in names:
            raise ProveError(
                f"The term 'm2f' is the set criterion of mask-classification models; {model} has per-pixel heads.",
                hint='Write for example "ce + 0.3*focal".',
            )
        return expr
    if CRITERION in names:
        return expr
    criterion = resolve(parse(CRITERION)).primary
    plain_ce = resolve(parse("ce")).primary
    return LossExpr((criterion, *(term for term in expr.terms if term != plain_ce)), text=expr.text)


@dataclass(frozen=True)
class HeadPlan:
    """One head of a model and what the objective must add up to there.

    Attributes:
        path: where the head sits in the model: ``decode_head``, ``auxiliary_head``, ``auxiliary_head.0``.
        prefix: how MMSegmentation prefixes the names of its losses: ``decode``, ``aux``, ``aux_0``.
        kind: per-pixel or mask classification.
        terms: the terms with the weights they have in this head, in the expression's order, with their labels.
        replaced: the types of the config's own losses, which the objective replaces.
    """

    path: str
    prefix: str
    kind: Kind
    terms: tuple[tuple[str, LossTerm], ...]
    replaced: str

    def key(self, label: str) -> str:
        """The name under which a term's loss enters the sum."""
        return f"{self.prefix}.{loss_name(label, self.kind)}"


def loss_name(label: str, kind: Kind) -> str:
    """MMSegmentation adds up what is named ``loss...``; the set criterion has a ``loss_dice`` of its own."""
    return f"loss_{label}" if kind == "per_pixel" else f"loss_semantic_{label}"


def plan_heads(model: Mapping[str, Any], expr: LossExpr) -> tuple[HeadPlan, ...]:
    """The heads of an unpatched config's model, each with its terms.

    The primary term is weighted by the head's own loss weight (decode head 1.0, auxiliary head 0.4 in the shipped
    configs); auxiliary terms keep their weight in every head.

    Raises:
        ProveError: a head that PROVE can't put an objective on.
    """
    plans = []
    for path, head in head_configs(model):
        kind: Kind = "mask_classification" if is_mask_classification(head) else "per_pixel"
        name, _, index = path.partition(".")
        prefix = {"decode_head": "decode", "auxiliary_head": "aux"}[name] + (f"_{index}" if index else "")
        check_head(path, head)
        own = head.get("loss_decode") or {"type": "CrossEntropyLoss", "loss_weight": 1.0}
        first = own[0] if isinstance(own, list | tuple) else own
        head_weight = float(first.get("loss_weight", 1.0)) if kind == "per_pixel" else 1.0
        terms = []
        for label, term in zip(expr.labels, expr.terms, strict=True):
            if term is expr.primary:
                term = replace(term, weight=scaled(term.weight, head_weight))
            terms.append((label, term))
        losses = own if isinstance(own, list | tuple) else [own]
        if kind == "mask_classification":
            losses = [head[part] for part in CRITERION_PARTS if head.get(part)]
        replaced = "+".join(str(each["type"]) for each in losses)
        plans.append(HeadPlan(path, prefix, kind, tuple(terms), replaced))
    return tuple(plans)


def scaled(weight: WeightSchedule, factor: float) -> WeightSchedule:
    """A schedule with all its weights multiplied."""
    return replace(weight, first=weight.first * factor, last=weight.last * factor)


def term_configs(head: HeadPlan, class_weight: tuple[float, ...] | None) -> list[dict[str, Any]]:
    """The MMSegmentation loss configs of a head's per-pixel terms."""
    configs = []
    for label, term in head.terms:
        if term.name == CRITERION:
            continue
        config: dict[str, Any] = {
            "type": "ProveTerm",
            "term": str(term),
            "loss_name": loss_name(label, head.kind),
        }
        if class_weight is not None and isinstance(dict(term.params).get("class_weight"), str):
            config["class_weight"] = list(class_weight)
        if term.name in USER_TERMS:
            config["definition"] = str(USER_TERMS.get(term.name).file)
        configs.append(config)
    return configs
