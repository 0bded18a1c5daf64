"""A mask-classification head under the wiring proof."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmseg.models.decode_heads import Mask2FormerHead
from torch import Tensor, nn

from prove.build.objective import CRITERION, CRITERION_PARTS, HeadPlan, loss_name
from prove.spec import LossTerm
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
    labels_of,
    largest,
    patch,
    record,
    trial,
    untied,
    value_problems,
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
            self.random_state = _random_state()  # the criterion draws its points from here

        handle = self.head.register_forward_hook(hook)
        original = self.head.loss
        undo = patch(self.head, "loss", lambda *args, **kwargs: evaluated(self.plan, lambda: original(*args, **kwargs)))

        def restore() -> None:
            handle.remove()
            undo()

        return restore

    def expected_keys(self) -> set[str]:
        layers = [""] + [f"d{i}." for i in range(len(self.cls_scores) - 1)]
        criterion = {f"{self.plan.prefix}.{layer}{part}" for layer in layers for part in CRITERION_PARTS}
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
        """Its losses must be the planned weight times MMSegmentation's own criterion, its parts weighted as planned."""
        where, weight = f"{self.plan.path}, {label}", term.weight.at(self.progress)
        stock: Any = sum(self._stock_criterion().values())
        expected = weight * float(stock.detach())
        contribution = sum(value for key, value in losses.items() if self._is_criterion(key))
        seen.formula += expected
        seen.problems += value_problems(where, contribution, expected)
        direction = flat_gradient(stock, self.leaves)
        seen.problems += direction_problems(where, weight, gradients[label], direction)
        valid = largest(gradients[label].abs())
        if weight > 0 and valid == 0:
            seen.problems.append(f"{where}: its gradient is zero")
        for part, planned in self.plan.parts:
            actual = getattr(getattr(self.head, part), "loss_weight", None)
            if actual != planned:
                seen.problems.append(f"{where}: {part} is weighted {actual}, the config says {planned}")
        doubling = self._double_criterion(seen.problems) if weight > 0 else 2.0
        seen.terms[label] = record(
            label, term, self.progress, contribution, None, gradients, self.plan,
            doubling=doubling, valid_gradient=valid, ignored_gradient=None,
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

    def _criterion(self) -> dict[str, Tensor]:
        """The head's criterion again, on leaves in place of its outputs and with the points of the training step."""
        return self._with_its_points(self.head.criterion)

    def _stock_criterion(self) -> dict[str, Tensor]:
        """MMSegmentation's own, whatever stands in this head."""
        return self._with_its_points(lambda *arguments: Mask2FormerHead.loss_by_feat(self.head, *arguments))

    def _with_its_points(self, criterion: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
        instances, metas = self.head._seg_data_to_instance_data(self.samples)
        layers = len(self.cls_scores)
        _restore_random_state(self.random_state)
        losses: dict[str, Tensor] = evaluated(
            self.plan, lambda: criterion(self.leaves[:layers], self.leaves[layers:], instances, metas)
        )
        return losses

    def _double_criterion(self, problems: list[str]) -> float:
        growth = []
        with torch.no_grad():
            before = {k: float(v.detach()) for k, v in self._criterion().items()}
            for part in CRITERION_PARTS:
                growth.append(
                    doubled(
                        [getattr(self.head, part)],
                        lambda: {k: float(v.detach()) for k, v in self._criterion().items()},
                        lambda key, part=part: key.endswith(part),  # type: ignore[misc]
                        before,
                        problems,
                        f"{self.plan.path}, {part}",
                    )
                )
        return max(growth, key=lambda g: abs(g - 2.0))

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


def _random_state() -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _restore_random_state(state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
