"""What the wiring proof asks of a head, and how it measures the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from prove.build.objective import HeadPlan
from prove.catalog.losses import short
from prove.errors import ProveError
from prove.losses.reference import reference
from prove.losses.user_terms import has_reference
from prove.spec import LossExpr, LossTerm
from prove.spec.event import FailureKind
from prove.training.evidence import BatchEvidence, PartEvidence, TermEvidence
from prove.training.failures import kind_of
from prove.training.guard import WiringError

IGNORE = 255
TOLERANCE = 1e-3
"""Largest relative difference between a term in the model and its reference, float32 against float64."""


@dataclass
class Seen:
    """What one head showed.

    Attributes:
        formula: what its terms must add to the total.
        gradients: of each term on the head's outputs, flattened; empty when a term is missing.
    """

    problems: list[str] = field(default_factory=list)
    formula: float = 0.0
    terms: dict[str, TermEvidence] = field(default_factory=dict)
    gradients: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What each term of a head adds to the loss, and its weighted gradient on the head's outputs, flat."""

    contributions: Mapping[str, float]
    gradients: Mapping[str, Tensor]


class HeadView(Protocol):
    """Watches one head during a training step, then asks it questions."""

    plan: HeadPlan
    head: Any
    was_used: bool

    def watch(self) -> Callable[[], None]: ...
    def expected_keys(self) -> set[str]: ...
    def outputs(self) -> list[Tensor]: ...
    def look(self, losses: Mapping[str, float]) -> Seen: ...
    def measured(self) -> Measured: ...
    def labels(self) -> Tensor: ...


def evaluated(plan: HeadPlan, evaluate: Callable[[], Any]) -> Any:
    """Evaluate a head's losses; what its terms refuse is a fault of the wiring."""
    try:
        return evaluate()
    except (ProveError, ValueError, TypeError, IndexError, RuntimeError) as error:
        if kind_of(error) is FailureKind.OUT_OF_MEMORY:
            raise
        raise WiringError([f"{plan.path}: its losses can't be evaluated: {type(error).__name__}: {error}"]) from error


def patch(module: nn.Module, name: str, replacement: Any) -> Callable[[], None]:
    """Put something in place of a method; returns what puts the method back."""
    own = module.__dict__.get(name)
    setattr(module, name, replacement)

    def undo() -> None:
        if own is None:
            delattr(module, name)
        else:
            setattr(module, name, own)

    return undo


def relabelled(samples: Sequence[Any], labels: Tensor) -> list[SegDataSample]:
    """Copies of a batch's samples with other labels, [N, H, W]."""
    copies = []
    for sample, label in zip(samples, labels, strict=True):
        copy = SegDataSample(metainfo=sample.metainfo)
        copy.gt_sem_seg = PixelData(data=label[None])
        copies.append(copy)
    return copies


def describe_batch(labels: Tensor) -> BatchEvidence:
    """How much of a batch is ignored."""
    return BatchEvidence(len(labels), labels.numel(), int((labels == IGNORE).sum()), planted=False)


def expected_of(
    term: LossTerm, progress: float, logits: Tensor, labels: Tensor, class_weight: tuple[float, ...] | None
) -> tuple[float, float, Tensor]:
    """The reference's value, the contribution it must make, and the reference's gradient (unweighted, flat)."""
    leaf = logits.detach().clone().requires_grad_()
    value = reference(term, leaf, labels, IGNORE, class_weight)
    number = float(value.detach())
    return number, term.weight.at(progress) * number, flat_gradient(value, [leaf])


def flat_gradient(value: Any, leaves: Sequence[Tensor]) -> Tensor:
    """Flat gradient in float64; zeros where a leaf has no influence."""
    if not isinstance(value, Tensor) or not value.requires_grad:
        return torch.cat([torch.zeros_like(leaf, dtype=torch.float64).flatten() for leaf in leaves])
    gradients = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(leaf) if g is None else g).double().flatten()
            for g, leaf in zip(gradients, leaves, strict=True)
        ]
    )


def _written(term: LossTerm) -> str:
    """A term as a user writes it, without its defaults."""
    return short(LossExpr((term,)))


def record(
    label: str,
    term: LossTerm,
    progress: float,
    contribution: float,
    reference_value: float | None,
    gradients: Mapping[str, Tensor],
    plan: HeadPlan,
    *,
    doubling: float,
    valid_gradient: float,
    ignored_gradient: float | None,
    parts: tuple[PartEvidence, ...] = (),
) -> TermEvidence:
    """What was seen of one term; its share of the loss is known only when all heads have been seen."""
    weight, gradient = term.weight.at(progress), gradients[label]
    return TermEvidence(
        term=label,
        text=_written(term),
        progress=progress,
        weight=weight,
        value=contribution / weight if weight else reference_value or 0.0,
        reference_value=reference_value,
        contribution=contribution,
        loss_share=0.0,
        gradient_norm=float(gradient.norm()),
        gradient_share=share_of(gradient, gradients.values()),
        cosine_to_primary=cosine_to_primary(label, gradients, plan),
        doubling=doubling,
        valid_gradient=valid_gradient,
        ignored_gradient=ignored_gradient,
        second_implementation=has_reference(term.name),
        parts=parts,
    )


def largest(values: Tensor) -> float:
    """The largest value, 0 of none."""
    return float(values.max()) if values.numel() else 0.0


def value_problems(where: str, contribution: float, expected: float) -> list[str]:
    """A term must add its weight times its reference value."""
    if not math.isfinite(contribution):
        return [f"{where}: its loss is {contribution}"]
    if not math.isclose(contribution, expected, rel_tol=TOLERANCE, abs_tol=1e-5):
        return [f"{where}: it adds {contribution:.6g} to the loss, weight times reference is {expected:.6g}"]
    return []


def gradient_problems(where: str, weight: float, ignored: float, valid: float) -> list[str]:
    """A term must move valid pixels, and ignored ones not at all."""
    problems = []
    if not math.isfinite(valid):
        problems.append(f"{where}: its gradient is not finite")
    if weight > 0 and valid == 0:
        problems.append(f"{where}: its gradient is zero on every valid pixel")
    if ignored != 0:
        problems.append(f"{where}: ignored pixels get a gradient, up to {ignored:.3g}; it must be exactly 0")
    return problems


def direction_problems(where: str, weight: float, gradient: Tensor, direction: Tensor) -> list[str]:
    """The gradient must be the reference's."""
    if weight == 0 or direction.norm() == 0:
        return []
    if not (gradient - weight * direction).norm() <= 1e-2 * weight * direction.norm():  # NaN is none either
        return [f"{where}: its gradient differs from the reference's"]
    return []


def untied(values: Tensor) -> Tensor:
    """A leaf close to these values in which no two are equal: Lovász has several valid gradients where errors tie."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(values.shape, generator=generator).to(values.device, values.dtype)
    spread = values.detach().std() + 1e-3
    return (values.detach() + 1e-2 * spread * noise).requires_grad_()


def trial(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A made-up batch beside the real one, [N, C, H, W] and [N, H, W], ignored where that is.

    Every class occurs, half of the pixels are confidently right and no two errors tie: here a class weight that the
    real batch has no pixel for, or a hard-pixel mining that keeps all at first, shows.
    """
    count = logits.shape[1]
    made_up = (torch.arange(labels.numel(), device=labels.device) % count).view_as(labels)
    generator = torch.Generator().manual_seed(1)
    right = (torch.rand(labels.shape, generator=generator) < 0.5).to(labels.device)
    sharpened = logits.detach() + 6.0 * right[:, None] * nn.functional.one_hot(made_up, count).movedim(-1, 1)
    return untied(sharpened.to(logits.dtype)), torch.where(labels == IGNORE, IGNORE, made_up)


def share_of(gradient: Tensor, all_gradients: Iterable[Tensor]) -> float:
    """A gradient's share of the sum of all norms."""
    total = sum(float(g.norm()) for g in all_gradients)
    return float(gradient.norm()) / total if total else 0.0


def cosine_to_primary(label: str, gradients: Mapping[str, Tensor], plan: HeadPlan) -> float | None:
    """Cosine between a term's gradient and the primary term's; None for the primary term itself."""
    primary = plan.terms[0][0]
    if label == primary or primary not in gradients:
        return None
    gradient = gradients[label]
    norms = float(gradient.norm() * gradients[primary].norm())
    return float(gradient @ gradients[primary]) / norms if norms else None


def doubled(
    modules: Sequence[Any],
    evaluate: Callable[[], Mapping[str, float]],
    belongs: Callable[[str], bool],
    before: Mapping[str, float],
    problems: list[str],
    where: str,
) -> float:
    """Double the modules' weight: their entries must double and no other may move. Returns the growth."""
    if not modules or not all(isinstance(getattr(module, "loss_weight", None), float | int) for module in modules):
        problems.append(f"{where}: it has no weight that could be changed")
        return 1.0
    for module in modules:
        module.loss_weight *= 2
    try:
        after = evaluate()
    finally:
        for module in modules:
            module.loss_weight /= 2
    losses = {key for key in before if "loss" in key}
    mine = [key for key in losses if belongs(key)]
    old, new = sum(before[key] for key in mine), sum(after.get(key, 0.0) for key in mine)
    growth = new / old if old else 1.0
    if not math.isclose(growth, 2.0, rel_tol=1e-4):
        problems.append(f"{where}: doubling its weight multiplies what it adds by {growth:.4g}, not by 2")
    moved = [
        key
        for key in losses
        if not belongs(key) and not math.isclose(after.get(key, math.nan), before[key], rel_tol=1e-4, abs_tol=1e-7)
    ]
    if moved:
        problems.append(f"{where}: doubling its weight changes {', '.join(sorted(moved))}")
    return growth
