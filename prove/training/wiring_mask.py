"""A mask-classification head under the wiring proof."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prove.build.objective import CRITERION, HeadPlan, loss_name
from prove.training.evidence import BatchEvidence
from prove.training.seeding import seed_torch
from prove.training.wiring_checks import (
    IGNORE,
    Seen,
    describe_batch,
    doubled,
    evaluated,
    expected_of,
    flat_gradient,
    gradient_problems,
    labels_of,
    largest,
    patch,
    record,
    value_problems,
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
        undo = patch(self.head, "loss", lambda *args, **kwargs: evaluated(self.plan, lambda: original(*args, **kwargs)))

        def restore() -> None:
            handle.remove()
            undo()

        return restore

    def expected_keys(self) -> set[str]:
        layers = [""] + [f"d{i}." for i in range(len(self.cls_scores) - 1)]
        criterion = {f"{self.plan.prefix}.{layer}{part}" for layer in layers for part in self._PARTS}
        return criterion | {self.plan.key(label) for label, term in self.plan.terms if term.name != CRITERION}

    def outputs(self) -> list[Tensor]:
        return [self.cls_scores[-1], self.mask_preds[-1]]

    def batch(self) -> BatchEvidence:
        return describe_batch(labels_of(self.samples))

    def look(self, losses: Mapping[str, float]) -> Seen:
        seen = Seen()
        labels = labels_of(self.samples)
        cls, masks = (output.detach().clone().requires_grad_() for output in self.outputs())
        criterion = self._criterion(cls, masks)
        semantic = evaluated(self.plan, lambda: self.head.semantic_losses(cls, masks, labels))
        sums: dict[str, Any] = {}
        for label, term in self.plan.terms:
            if term.name == CRITERION:
                sums[label] = sum(criterion.values())
            else:
                sums[label] = semantic.get(loss_name(label, self.plan.kind))
        gradients = {label: flat_gradient(value, [cls, masks]) for label, value in sums.items() if value is not None}
        logits = _semantic_map(cls.detach(), masks.detach(), labels).requires_grad_()
        for label, term in self.plan.terms:
            where, weight = f"{self.plan.path}, {label}", term.weight.at(self.progress)
            ignored: float | None = None
            reference_value: float | None = None
            if term.name == CRITERION:
                contribution = sum(v for k, v in losses.items() if self._is_criterion(k))
                seen.formula += contribution
                valid = largest(gradients[label].abs())
                doubling = self._double_criterion(cls, masks, seen.problems) if weight > 0 else 2.0
                if weight > 0 and valid == 0:
                    seen.problems.append(f"{where}: its gradient is zero")
            else:
                reference_value, expected, _ = expected_of(term, self.progress, logits, labels, self.class_weight)
                seen.formula += expected
                name = loss_name(label, self.plan.kind)
                if label not in gradients or self.plan.key(label) not in losses:
                    continue  # reported as missing from the sum
                contribution = losses[self.plan.key(label)]
                seen.problems += value_problems(where, contribution, expected)
                modules = [m for m in self.head.semantic_terms if m.loss_name == name]
                own = flat_gradient(self._on_map(modules, logits, labels), [logits])
                by_pixel = own.view_as(logits).abs().amax(dim=1)
                ignored, valid = largest(by_pixel[labels == IGNORE]), largest(by_pixel[labels != IGNORE])
                seen.problems += gradient_problems(where, weight, ignored, valid)
                doubling = (
                    self._double_semantic(modules, name, cls, masks, labels, semantic, seen.problems, where)
                    if weight
                    else 2.0
                )
            seen.terms[label] = record(
                label, term, self.progress, contribution, reference_value, gradients, self.plan,
                doubling=doubling, valid_gradient=valid, ignored_gradient=ignored,
            )  # fmt: skip
        return seen

    def _on_map(self, modules: Sequence[Any], logits: Tensor, labels: Tensor) -> Any:
        """The terms evaluated on a semantic map that stands in for the head's."""
        ignore = self.head.ignore_index
        return evaluated(self.plan, lambda: sum(module(logits, labels, ignore_index=ignore) for module in modules))

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
                    doubled(
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
            return doubled(
                modules,
                lambda: {k: float(v.detach()) for k, v in self.head.semantic_losses(cls, masks, labels).items()},
                lambda key: key == name,
                {key: float(value.detach()) for key, value in before.items()},
                problems,
                where,
            )


def _semantic_map(cls: Tensor, masks: Tensor, labels: Tensor) -> Tensor:
    """The semantic map's logits, written out a second time."""
    full = nn.functional.interpolate(masks.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    scores = torch.stack(
        [torch.tensordot(c[:, :-1].T, m, dims=1) for c, m in zip(cls.float().softmax(-1), full.sigmoid(), strict=True)]
    )
    return (scores + 1e-6).log()
