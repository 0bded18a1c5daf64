"""A mask-classification head under the wiring proof."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prove.build.objective import CRITERION, CRITERION_PARTS, HeadPlan, loss_name
from prove.losses.set_criterion import CriterionSettings
from prove.spec import LossTerm
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
    trial,
    untied,
    value_problems,
)
from prove.training.wiring_criterion import (
    Beside,
    Outputs,
    beside,
    comparison_problems,
    knob_problems,
    losses_of,
    made_up,
    part_evidence,
    random_state,
    restore_random_state,
    step_problems,
)


class MaskView:
    """A mask-classification head: its set criterion, and per-pixel terms on its semantic map."""

    _CRITERION = re.compile(rf"(d\d+\.)?({'|'.join(CRITERION_PARTS)})")

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
            self.random_state = random_state()  # the criterion draws its points from here

        handle = self.head.register_forward_hook(hook)
        original = self.head.loss
        undo = patch(self.head, "loss", lambda *args, **kwargs: evaluated(self.plan, lambda: original(*args, **kwargs)))

        def restore() -> None:
            handle.remove()
            undo()

        return restore

    def expected_keys(self) -> set[str]:
        names = losses_of(self._settings(), len(self.cls_scores))
        criterion = {f"{self.plan.prefix}.{name}" for name in names}
        return criterion | {self.plan.key(label) for label, term in self.plan.terms if term.name != CRITERION}

    def outputs(self) -> list[Tensor]:
        return [*self.cls_scores, *self.mask_preds]

    def labels(self) -> Tensor:
        return labels_of(self.samples)

    def look(self, losses: Mapping[str, float]) -> Seen:
        """Ask all questions. The gradients are those on the outputs of all decoder layers, flattened."""
        seen = Seen()
        semantic, _, gradients = self._on_leaves()
        cls, masks = self.leaves[len(self.cls_scores) - 1], self.leaves[-1]
        for label, term in self.plan.terms:
            if term.name == CRITERION:
                self._look_at_criterion(seen, label, term, losses, gradients)
            else:
                self._look_at_term(seen, label, term, losses, gradients, semantic, cls, masks)
        if len(gradients) == len(self.plan.terms):
            seen.gradients = gradients
        return seen

    def measured(self) -> Measured:
        _, values, gradients = self._on_leaves()
        return Measured({label: float(value.detach()) for label, value in values.items()}, gradients)

    def _on_leaves(self) -> tuple[Mapping[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """On leaves in place of the head's outputs: the semantic losses, and each term's value and gradient."""
        self.truth = self.labels()
        self.leaves = [output.detach().clone().requires_grad_() for output in self.outputs()]
        cls, masks = self.leaves[len(self.cls_scores) - 1], self.leaves[-1]
        semantic = evaluated(self.plan, lambda: self.head.semantic_losses(cls, masks, self.truth))
        values: dict[str, Tensor] = {}
        for label, term in self.plan.terms:
            name = loss_name(label, self.plan.kind)
            if term.name == CRITERION:
                values[label] = torch.cat([value.reshape(1) for value in self._criterion().values()]).sum()
            elif name in semantic:
                values[label] = semantic[name]
        return semantic, values, {label: flat_gradient(value, self.leaves) for label, value in values.items()}

    def _look_at_criterion(
        self, seen: Seen, label: str, term: LossTerm, losses: Mapping[str, float], gradients: Mapping[str, Tensor]
    ) -> None:
        """Each part of each layer must be the reference's, on the training step's points and on a made-up batch."""
        where, weight = f"{self.plan.path}, {label}", term.weight.at(self.progress)
        settings = self._settings()
        outputs = Outputs(tuple(self.cls_scores), tuple(self.mask_preds), self.truth, self.random_state)
        found: Beside = evaluated(self.plan, lambda: beside(self.head.criterion, settings, weight, outputs))
        mine = {key.partition(".")[2]: value for key, value in losses.items() if self._is_criterion(key)}
        again = {name: float(value.detach()) for name, value in self._criterion().items()}
        contribution = sum(mine.values())
        seen.formula += found.total
        seen.problems += value_problems(where, contribution, found.total)
        seen.problems += step_problems(where, mine, again, found.expected)
        problems = comparison_problems(where, found)
        seen.problems += problems
        if weight > 0 and not problems:
            batch = made_up(self.cls_scores[0].shape[2] - 1, len(self.cls_scores), self.truth.device)
            seen.problems += evaluated(self.plan, lambda: knob_problems(self.head, where, settings, weight, batch))
        valid = largest(gradients[label].abs())
        if weight > 0 and valid == 0:
            seen.problems.append(f"{where}: its gradient is zero")
        doubling = self._double_criterion(seen.problems, where) if weight > 0 else 2.0
        reference_value = found.total / weight if weight else None
        seen.terms[label] = record(
            label, term, self.progress, contribution, reference_value, gradients, self.plan,
            doubling=doubling, valid_gradient=valid, ignored_gradient=None, parts=part_evidence(found),
        )  # fmt: skip

    def _look_at_term(
        self, seen: Seen, label: str, term: LossTerm, losses: Mapping[str, float], gradients: Mapping[str, Tensor],
        semantic: Mapping[str, Tensor], cls: Tensor, masks: Tensor,
    ) -> None:  # fmt: skip
        """A per-pixel term must be its reference, on a semantic map that is written out a second time."""
        where, weight = f"{self.plan.path}, {label}", term.weight.at(self.progress)
        logits = _semantic_map(cls.detach(), masks.detach(), self.truth).requires_grad_()
        value, expected, _ = expected_of(term, self.progress, logits, self.truth, self.class_weight)
        seen.formula += expected
        name = loss_name(label, self.plan.kind)
        if name not in semantic or self.plan.key(label) not in losses:
            return  # reported as missing from the sum
        contribution = losses[self.plan.key(label)]
        seen.problems += value_problems(where, contribution, expected)
        modules = [module for module in self.head.semantic_terms if module.loss_name == name]
        own = flat_gradient(self._on_map(modules, logits, self.truth), [logits])
        by_pixel = own.view_as(logits).abs().amax(dim=1)
        ignored, valid = largest(by_pixel[self.truth == IGNORE]), largest(by_pixel[self.truth != IGNORE])
        seen.problems += gradient_problems(where, weight, ignored, valid)
        seen.problems += direction_problems(where, weight, *self._directions(name, term, cls, masks))
        tried, trial_labels = trial(logits, self.truth)
        _, expected, direction = expected_of(term, self.progress, tried, trial_labels, self.class_weight)
        made_up = self._on_map(modules, tried, trial_labels)
        seen.problems += value_problems(
            f"{where} (on a made-up batch)", float(torch.as_tensor(made_up).detach()), expected
        )
        seen.problems += direction_problems(where, weight, flat_gradient(made_up, [tried]), direction)
        doubling = self._double_semantic(modules, name, semantic, seen.problems, where) if weight > 0 else 2.0
        seen.terms[label] = record(
            label, term, self.progress, contribution, value, gradients, self.plan,
            doubling=doubling, valid_gradient=valid, ignored_gradient=ignored,
        )  # fmt: skip

    def _directions(self, name: str, term: LossTerm, cls: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """A term's gradient on the head's outputs and its reference's, where no errors tie."""
        leaves = [untied(cls), untied(masks)]
        own = evaluated(self.plan, lambda: self.head.semantic_losses(*leaves, self.truth))
        on_leaves = _semantic_map(leaves[0], leaves[1], self.truth)
        _, _, on_map = expected_of(term, self.progress, on_leaves, self.truth, self.class_weight)
        through_map = (on_leaves * on_map.view_as(on_leaves).to(on_leaves.dtype)).sum()
        return flat_gradient(own[name], leaves), flat_gradient(through_map, leaves)

    def _on_map(self, modules: Sequence[Any], logits: Tensor, labels: Tensor) -> Any:
        """The terms evaluated on a semantic map that stands in for the head's."""
        ignore = self.head.ignore_index
        return evaluated(self.plan, lambda: sum(module(logits, labels, ignore_index=ignore) for module in modules))

    def _is_criterion(self, key: str) -> bool:
        prefix, _, name = key.partition(".")
        return prefix == self.plan.prefix and self._CRITERION.fullmatch(name) is not None

    def _settings(self) -> CriterionSettings:
        """What the criterion must be, as the plan says."""
        settings: dict[str, Any] = next(dict(term.params) for _, term in self.plan.terms if term.name == CRITERION)
        return CriterionSettings(**settings)

    def _criterion(self) -> dict[str, Tensor]:
        """The head's criterion again, on leaves in place of its outputs and with the points of the training step."""
        layers = len(self.cls_scores)
        restore_random_state(self.random_state)
        losses: dict[str, Tensor] = evaluated(
            self.plan, lambda: self.head.criterion(self.leaves[:layers], self.leaves[layers:], self.truth)
        )
        return losses

    def _double_criterion(self, problems: list[str], where: str) -> float:
        layers = len(self.cls_scores)

        def losses() -> dict[str, float]:
            restore_random_state(self.random_state)
            found = self.head.losses_for(self.leaves[:layers], self.leaves[layers:], self.truth)
            return {name: float(value.detach()) for name, value in found.items()}

        with torch.no_grad():
            before = evaluated(self.plan, losses)
            return doubled(
                [self.head], losses, lambda name: self._CRITERION.fullmatch(name) is not None, before, problems, where
            )

    def _double_semantic(
        self, modules: Sequence[Any], name: str, before: Mapping[str, Tensor], problems: list[str], where: str
    ) -> float:
        cls, masks = self.leaves[len(self.cls_scores) - 1], self.leaves[-1]
        with torch.no_grad():
            return doubled(
                modules,
                lambda: {k: float(v.detach()) for k, v in self.head.semantic_losses(cls, masks, self.truth).items()},
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
