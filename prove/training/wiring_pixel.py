"""A per-pixel head under the wiring proof."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from prove.build.objective import HeadPlan, loss_name
from prove.losses.reference import reference
from prove.training.fused_heads import methods, terms_of
from prove.training.objective import labels_of
from prove.training.wiring_checks import (
    IGNORE,
    Measured,
    Seen,
    direction_problems,
    doubled,
    evaluated,
    expected_of,
    flat_gradient,
    gradient_problems,
    largest,
    patch,
    record,
    relabelled,
    trial,
    untied,
    value_problems,
)


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
            return evaluated(self.plan, lambda: original(seg_logits, batch_data_samples, *rest))

        return patch(self.head, "loss_by_feat", watched)

    def expected_keys(self) -> set[str]:
        return {self.plan.key(label) for label, _ in self.plan.terms}

    def outputs(self) -> list[Tensor]:
        return [self.logits]

    def labels(self) -> Tensor:
        return labels_of(self.samples)

    def look(self, losses: Mapping[str, float]) -> Seen:
        seen = Seen()
        labels = self.labels()
        full, mine, gradients = self._at_full_size()
        trial_logits, trial_labels = trial(full, labels)
        tried = evaluated(
            self.plan, lambda: self.head.loss_by_feat(trial_logits, relabelled(self.samples, trial_labels))
        )
        for label, term in self.plan.terms:
            value, expected, _ = expected_of(term, self.progress, full, labels, self.class_weight)
            seen.formula += expected
            name, where = loss_name(label, self.plan.kind), f"{self.plan.path}, {label}"
            if name not in mine or name not in tried or self.plan.key(label) not in losses:
                continue  # reported as missing from the sum
            contribution = losses[self.plan.key(label)]
            seen.problems += value_problems(where, contribution, expected)
            weight = term.weight.at(self.progress)
            gradient = gradients[label]
            by_pixel = gradient.view_as(full).abs().amax(dim=1)
            ignored, valid = largest(by_pixel[labels == IGNORE]), largest(by_pixel[labels != IGNORE])
            seen.problems += gradient_problems(where, weight, ignored, valid)
            _, expected, direction = expected_of(term, self.progress, trial_logits, trial_labels, self.class_weight)
            seen.problems += value_problems(f"{where} (on a made-up batch)", float(tried[name].detach()), expected)
            seen.problems += direction_problems(where, weight, flat_gradient(tried[name], [trial_logits]), direction)
            doubling = self._doubling(name, full, mine, seen.problems, where) if weight > 0 else 2.0
            seen.terms[label] = record(
                label, term, self.progress, contribution, value, gradients, self.plan,
                doubling=doubling, valid_gradient=valid, ignored_gradient=ignored,
            )  # fmt: skip
        low = self.logits.detach().clone().requires_grad_()
        again = evaluated(self.plan, lambda: self.head.loss_by_feat(low, self.samples))
        names = {label: loss_name(label, self.plan.kind) for label, _ in self.plan.terms}
        if all(name in again for name in names.values()):
            seen.gradients = {label: flat_gradient(again[name], [low]) for label, name in names.items()}
        seen.problems += self._upsampling_problems()
        self._note_methods(seen)
        return seen

    def measured(self) -> Measured:
        _, mine, gradients = self._at_full_size()
        names = {label: loss_name(label, self.plan.kind) for label in gradients}
        return Measured({label: float(mine[name].detach()) for label, name in names.items()}, gradients)

    def _at_full_size(self) -> tuple[Tensor, Mapping[str, Tensor], dict[str, Tensor]]:
        """The logits upsampled to the labels' size, the head's losses of them, and each term's gradient there."""
        full = nn.functional.interpolate(
            self.logits.detach().float(),
            size=self.labels().shape[-2:],
            mode="bilinear",
            align_corners=self.head.align_corners,
        ).requires_grad_()
        mine = evaluated(self.plan, lambda: self.head.loss_by_feat(full, self.samples))
        gradients = {
            label: flat_gradient(mine[name], [full])
            for label, _ in self.plan.terms
            if (name := loss_name(label, self.plan.kind)) in mine
        }
        return full, mine, gradients

    def _note_methods(self, seen: Seen) -> None:
        terms = terms_of(self.head)
        if terms and not seen.problems:
            how = methods(terms, self.logits.detach(), self.labels(), self.head.align_corners)
            for label, term in seen.terms.items():
                seen.terms[label] = replace(term, method=how[loss_name(label, self.plan.kind)])

    def _upsampling_problems(self) -> list[str]:
        """The gradient must be the reference's on the logits as the head gives them, through their upsampling too."""
        labels = self.labels()
        if self.logits.shape[-2:] == labels.shape[-2:]:
            return []
        low = untied(self.logits.float())
        mine = evaluated(self.plan, lambda: self.head.loss_by_feat(low, self.samples))
        problems = []
        for label, term in self.plan.terms:
            name, weight = loss_name(label, self.plan.kind), term.weight.at(self.progress)
            if name not in mine:
                continue
            leaf = low.detach().double().requires_grad_()
            full = nn.functional.interpolate(
                leaf, size=labels.shape[-2:], mode="bilinear", align_corners=self.head.align_corners
            )
            direction = flat_gradient(reference(term, full, labels, IGNORE, self.class_weight), [leaf])
            where = f"{self.plan.path}, {label} (through upsampling)"
            problems += direction_problems(where, weight, flat_gradient(mine[name], [low]), direction)
        return problems

    def _doubling(
        self, name: str, full: Tensor, before: Mapping[str, Tensor], problems: list[str], where: str
    ) -> float:
        own = self.head.loss_decode
        modules = [
            m for m in (own if isinstance(own, nn.ModuleList) else [own]) if getattr(m, "loss_name", None) == name
        ]
        with torch.no_grad():
            return doubled(
                modules,
                lambda: {k: float(v.detach()) for k, v in self.head.loss_by_feat(full.detach(), self.samples).items()},
                lambda key: key == name,
                {key: float(value.detach()) for key, value in before.items()},
                problems,
                where,
            )
