"""One head under the wiring proof: per-pixel heads and mask-classification heads."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prove.build.objective import CRITERION, HeadPlan, loss_name
from prove.errors import ProveError
from prove.losses.reference import reference
from prove.spec import LossTerm
from prove.training.evidence import BatchEvidence, TermEvidence
from prove.training.guard import WiringError
from prove.training.seeding import seed_torch

IGNORE = 255
TOLERANCE = 1e-3


@dataclass
class Seen:
    """What one head showed.

    Attributes:
        formula: what its terms must add to the total.
        gradient: gradient of the sum of its terms on its outputs, flattened; None when it could not be had.
    """

    problems: list[str] = field(default_factory=list)
    formula: float = 0.0
    terms: dict[str, TermEvidence] = field(default_factory=dict)
    gradient: Tensor | None = None


class HeadView(Protocol):
    """Watches one head during a training step, then asks it questions."""

    plan: HeadPlan
    was_used: bool

    def watch(self) -> Callable[[], None]: ...
    def keys(self) -> set[str]: ...
    def outputs(self) -> list[Tensor]: ...
    def look(self, losses: Mapping[str, float]) -> Seen: ...
    def batch(self) -> BatchEvidence: ...


class PixelView:
    """A head that minimises its terms on per-pixel logits."""

    def __init__(
        self, plan: HeadPlan, head: nn.Module, progress: float, class_weight: tuple[float, ...] | None
    ) -> None:
        self.plan = plan
        self.head: Any = head
        self.progress = progress
        self.class_weight = class_weight
        self.was_used = False

    def watch(self) -> Callable[[], None]:
        original = self.head.loss_by_feat

        def watched(seg_logits: Tensor, batch_data_samples: Sequence[Any], *rest: Any) -> Any:
            self.was_used = True
            self.logits, self.samples = seg_logits, batch_data_samples
            return _evaluated(self.plan, lambda: original(seg_logits, batch_data_samples, *rest))

        return _patched(self.head, "loss_by_feat", watched)

    def keys(self) -> set[str]:
        return {self.plan.key(label) for label, _ in self.plan.terms}

    def outputs(self) -> list[Tensor]:
        return [self.logits]

    def batch(self) -> BatchEvidence:
        return _batch(_labels(self.samples))

    def look(self, losses: Mapping[str, float]) -> Seen:
        seen = Seen()
        labels = _labels(self.samples)
        full = nn.functional.interpolate(
            self.logits.detach().float(), size=labels.shape[-2:], mode="bilinear", align_corners=self.head.align_corners
        ).requires_grad_()
        mine = _evaluated(self.plan, lambda: self.head.loss_by_feat(full, self.samples))
        gradients = {
            label: _gradient(mine[name], [full])
            for label, _ in self.plan.terms
            if (name := loss_name(label, self.plan.kind)) in mine
        }
        for label, term in self.plan.terms:
            value, expected, direction = _expected(term, self.progress, full, labels, self.class_weight)
            seen.formula += expected
            name, where = loss_name(label, self.plan.kind), f"{self.plan.path}, {label}"
            if name not in mine or self.plan.key(label) not in losses:
                continue  # reported as missing from the sum
            contribution = losses[self.plan.key(label)]
            seen.problems += _value_problems(where, contribution, expected)
            weight = term.weight.at(self.progress)
            gradient = gradients[label]
            by_pixel = gradient.view_as(full).abs().amax(dim=1)
            ignored, valid = _largest(by_pixel[labels == IGNORE]), _largest(by_pixel[labels != IGNORE])
            seen.problems += _gradient_problems(where, term, weight, ignored, valid)
            seen.problems += _direction_problems(where, term, weight, gradient, direction)
            doubling = self._doubling(name, full, mine, seen.problems, where) if weight > 0 else 2.0
            seen.terms[label] = TermEvidence(
                term=label,
                text=str(term),
                progress=self.progress,
                weight=weight,
                value=contribution / weight if weight else value,
                reference_value=value,
                contribution=contribution,
                loss_share=0.0,
                gradient_norm=float(gradient.norm()),
                gradient_share=_share(gradient, gradients.values()),
                cosine_to_primary=_cosine(label, gradient, gradients, self.plan),
                doubling=doubling,
                valid_gradient=valid,
                ignored_gradient=ignored,
            )
        low = self.logits.detach().clone().requires_grad_()
        again = _evaluated(self.plan, lambda: self.head.loss_by_feat(low, self.samples))
        names = [loss_name(label, self.plan.kind) for label, _ in self.plan.terms]
        if all(name in again for name in names):
            seen.gradient = _gradient(sum(again[name] for name in names), [low])
        return seen

    def _doubling(
        self, name: str, full: Tensor, before: Mapping[str, Tensor], problems: list[str], where: str
    ) -> float:
        own = self.head.loss_decode
        modules = [
            m for m in (own if isinstance(own, nn.ModuleList) else [own]) if getattr(m, "loss_name", None) == name
        ]
        with torch.no_grad():
            return _double(
                modules,
                lambda: {k: float(v.detach()) for k, v in self.head.loss_by_feat(full.detach(), self.samples).items()},
                lambda key: key == name,
                {key: float(value.detach()) for key, value in before.items()},
                problems,
                where,
            )


class MaskView:
    """A mask-classification head: its set criterion, and per-pixel terms on its semantic map."""

    _CRITERION = re.compile(r"(d\d+\.)?loss_(cls|mask|dice)")
    _PARTS = ("loss_cls", "loss_mask", "loss_dice")

    def __init__(
        self, plan: HeadPlan, head: nn.Module, progress: float, class_weight: tuple[float, ...] | None
    ) -> None:
        self.plan = plan
        self.head: Any = head
        self.progress = progress
        self.class_weight = class_weight
        self.was_used = False

    def watch(self) -> Callable[[], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: tuple[list[Tensor], list[Tensor]]) -> None:
            self.was_used = True
            self.samples = inputs[1]
            self.cls_scores, self.mask_preds = output

        handle = self.head.register_forward_hook(hook)
        original = self.head.loss
        undo = _patched(
            self.head, "loss", lambda *args, **kwargs: _evaluated(self.plan, lambda: original(*args, **kwargs))
        )

        def restore() -> None:
            handle.remove()
            undo()

        return restore

    def keys(self) -> set[str]:
        layers = [""] + [f"d{i}." for i in range(len(self.cls_scores) - 1)]
        criterion = {f"{self.plan.prefix}.{layer}{part}" for layer in layers for part in self._PARTS}
        return criterion | {self.plan.key(label) for label, term in self.plan.terms if term.name != CRITERION}

    def outputs(self) -> list[Tensor]:
        return [self.cls_scores[-1], self.mask_preds[-1]]

    def batch(self) -> BatchEvidence:
        return _batch(_labels(self.samples))

    def look(self, losses: Mapping[str, float]) -> Seen:
        seen = Seen()
        labels = _labels(self.samples)
        cls, masks = (output.detach().clone().requires_grad_() for output in self.outputs())
        criterion = self._criterion(cls, masks)
        semantic = _evaluated(self.plan, lambda: self.head.semantic_losses(cls, masks, labels))
        sums = {label: sum(criterion.values()) if term.name == CRITERION else semantic.get(loss_name(label, self.plan.kind))
                for label, term in self.plan.terms}  # fmt: skip
        gradients = {label: _gradient(value, [cls, masks]) for label, value in sums.items() if value is not None}
        logits = _semantic_map(cls.detach(), masks.detach(), labels).requires_grad_()
        for label, term in self.plan.terms:
            where, weight = f"{self.plan.path}, {label}", term.weight.at(self.progress)
            ignored: float | None = None
            reference_value: float | None = None
            if term.name == CRITERION:
                contribution = sum(v for k, v in losses.items() if self._is_criterion(k))
                seen.formula += contribution
                valid = _largest(gradients[label].abs())
                doubling = self._double_criterion(cls, masks, seen.problems) if weight > 0 else 2.0
                if weight > 0 and valid == 0:
                    seen.problems.append(f"{where}: its gradient is zero")
            else:
                reference_value, expected, _ = _expected(term, self.progress, logits, labels, self.class_weight)
                seen.formula += expected
                name = loss_name(label, self.plan.kind)
                if label not in gradients or self.plan.key(label) not in losses:
                    continue  # reported as missing from the sum
                contribution = losses[self.plan.key(label)]
                seen.problems += _value_problems(where, contribution, expected)
                modules = [m for m in self.head.semantic_terms if m.loss_name == name]
                own = _gradient(sum(_evaluated(self.plan, lambda m=m: m(logits, labels, ignore_index=self.head.ignore_index))
                                    for m in modules), [logits])  # fmt: skip
                by_pixel = own.view_as(logits).abs().amax(dim=1)
                ignored, valid = _largest(by_pixel[labels == IGNORE]), _largest(by_pixel[labels != IGNORE])
                seen.problems += _gradient_problems(where, term, weight, ignored, valid)
                doubling = (
                    self._double_semantic(modules, name, cls, masks, labels, semantic, seen.problems, where)
                    if weight
                    else 2.0
                )
            gradient = gradients[label]
            seen.terms[label] = TermEvidence(
                term=label,
                text=str(term),
                progress=self.progress,
                weight=weight,
                value=contribution / weight if weight else reference_value or 0.0,
                reference_value=reference_value,
                contribution=contribution,
                loss_share=0.0,
                gradient_norm=float(gradient.norm()),
                gradient_share=_share(gradient, gradients.values()),
                cosine_to_primary=_cosine(label, gradient, gradients, self.plan),
                doubling=doubling,
                valid_gradient=valid,
                ignored_gradient=ignored,
            )
        return seen

    def _is_criterion(self, key: str) -> bool:
        prefix, _, name = key.partition(".")
        return prefix == self.plan.prefix and self._CRITERION.fullmatch(name) is not None

    def _criterion(self, cls: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """The criterion again, on leaves in place of the last layer's outputs; the same points are drawn each time."""
        instances, metas = self.head._seg_data_to_instance_data(self.samples)
        seed_torch("criterion")
        losses: dict[str, Tensor] = self.head.criterion(
            [*(s.detach() for s in self.cls_scores[:-1]), cls],
            [*(m.detach() for m in self.mask_preds[:-1]), masks],
            instances,
            metas,
        )
        return losses

    def _double_criterion(self, cls: Tensor, masks: Tensor, problems: list[str]) -> float:
        growth = []
        with torch.no_grad():
            before = {k: float(v.detach()) for k, v in self._criterion(cls, masks).items()}
            for part in self._PARTS:
                growth.append(
                    _double(
                        [getattr(self.head, part)],
                        lambda: {k: float(v.detach()) for k, v in self._criterion(cls, masks).items()},
                        lambda key, part=part: key.endswith(part),  # type: ignore[misc]
                        before,
                        problems,
                        f"{self.plan.path}, {part}",
                    )
                )
        return max(growth, key=lambda g: abs(g - 2.0))

    def _double_semantic(
        self, modules: Sequence[Any], name: str, cls: Tensor, masks: Tensor, labels: Tensor,
        before: Mapping[str, Tensor], problems: list[str], where: str,
    ) -> float:  # fmt: skip
        with torch.no_grad():
            return _double(
                modules,
                lambda: {k: float(v.detach()) for k, v in self.head.semantic_losses(cls, masks, labels).items()},
                lambda key: key == name,
                {key: float(value.detach()) for key, value in before.items()},
                problems,
                where,
            )


def _evaluated(plan: HeadPlan, evaluate: Callable[[], Any]) -> Any:
    """Evaluate a head's losses; what its terms refuse is a fault of the wiring."""
    try:
        return evaluate()
    except torch.OutOfMemoryError:
        raise
    except (ProveError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise WiringError([f"{plan.path}: its losses can't be evaluated: {type(error).__name__}: {error}"]) from error


def _patched(module: nn.Module, name: str, replacement: Any) -> Callable[[], None]:
    own = module.__dict__.get(name)
    setattr(module, name, replacement)

    def undo() -> None:
        if own is None:
            delattr(module, name)
        else:
            setattr(module, name, own)

    return undo


def _labels(samples: Sequence[Any]) -> Tensor:
    return torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in samples])


def _batch(labels: Tensor) -> BatchEvidence:
    return BatchEvidence(len(labels), labels.numel(), int((labels == IGNORE).sum()), planted=False)


def _semantic_map(cls: Tensor, masks: Tensor, labels: Tensor) -> Tensor:
    """The semantic map's logits, written out a second time."""
    full = nn.functional.interpolate(masks.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    scores = torch.stack(
        [torch.tensordot(c[:, :-1].T, m, dims=1) for c, m in zip(cls.float().softmax(-1), full.sigmoid(), strict=True)]
    )
    return (scores + 1e-6).log()


def _expected(
    term: LossTerm, progress: float, logits: Tensor, labels: Tensor, class_weight: tuple[float, ...] | None
) -> tuple[float, float, Tensor]:
    """The reference's value, the contribution it must make, and the reference's gradient (unweighted, flat)."""
    leaf = logits.detach().clone().requires_grad_()
    value = reference(term, leaf, labels, IGNORE, class_weight)
    number = float(value.detach())
    return number, term.weight.at(progress) * number, _gradient(value, [leaf])


def _gradient(value: Any, leaves: Sequence[Tensor]) -> Tensor:
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


def _largest(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0


def _value_problems(where: str, contribution: float, expected: float) -> list[str]:
    if not math.isfinite(contribution):
        return [f"{where}: its loss is {contribution}"]
    if not math.isclose(contribution, expected, rel_tol=TOLERANCE, abs_tol=1e-5):
        return [f"{where}: it adds {contribution:.6g} to the loss, weight times reference is {expected:.6g}"]
    return []


def _gradient_problems(where: str, term: LossTerm, weight: float, ignored: float, valid: float) -> list[str]:
    problems = []
    if not math.isfinite(valid):
        problems.append(f"{where}: its gradient is not finite")
    if weight > 0 and valid == 0:
        problems.append(f"{where}: its gradient is zero on every valid pixel")
    if ignored != 0:
        problems.append(f"{where}: ignored pixels get a gradient, up to {ignored:.3g}; it must be exactly 0")
    return problems


def _direction_problems(where: str, term: LossTerm, weight: float, gradient: Tensor, direction: Tensor) -> list[str]:
    """The gradient must be the reference's; Lovász has several valid subgradients where errors tie."""
    if weight == 0 or term.name == "lovasz" or direction.norm() == 0:
        return []
    if (gradient - weight * direction).norm() > 1e-2 * weight * direction.norm():
        return [f"{where}: its gradient differs from the reference's"]
    return []


def _share(gradient: Tensor, all_gradients: Any) -> float:
    total = sum(float(g.norm()) for g in all_gradients)
    return float(gradient.norm()) / total if total else 0.0


def _cosine(label: str, gradient: Tensor, gradients: Mapping[str, Tensor], plan: HeadPlan) -> float | None:
    primary = plan.terms[0][0]
    if label == primary or primary not in gradients:
        return None
    norms = float(gradient.norm() * gradients[primary].norm())
    return float(gradient @ gradients[primary]) / norms if norms else None


def _double(
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
    growth = new / old if old else 2.0
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
