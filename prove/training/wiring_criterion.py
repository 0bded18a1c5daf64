"""What the wiring proof asks of a set criterion: each part in each decoder layer, against a second implementation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prove.build.objective import CRITERION_PARTS
from prove.losses.reference.set_criterion import reference_criterion
from prove.losses.set_criterion import CriterionSettings, Points, SetCriterion, draw_points
from prove.training.evidence import PartEvidence
from prove.training.wiring_checks import IGNORE, flat_gradient

CLOSE = 1e-6
"""Largest relative difference between a criterion and its reference; both are evaluated in float64."""

MENTIONED = 4
"""Problems of a kind that are written out."""

FEW_POINTS = 200
"""Enough to see on a small batch that a number is wired."""

Criterion = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], Mapping[str, Tensor]]
"""Class scores and mask logits of all layers, and labels, to weighted losses by layer and part."""

RandomState = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Outputs:
    """What a criterion is given.

    Attributes:
        cls_scores: [N, Q, C + 1] of each layer; mask_preds: [N, Q, h, w] of each layer; labels: [N, H, W].
        state: of the random generators when it draws its points.
    """

    cls_scores: tuple[Tensor, ...]
    mask_preds: tuple[Tensor, ...]
    labels: Tensor
    state: RandomState

    def leaves(self, dtype: torch.dtype) -> Outputs:
        """The same as leaves of a graph."""
        cls, masks = (
            tuple(each.detach().to(dtype).clone().requires_grad_() for each in group)
            for group in (self.cls_scores, self.mask_preds)
        )
        return Outputs(cls, masks, self.labels, self.state)

    @property
    def flat(self) -> tuple[Tensor, ...]:
        return (*self.cls_scores, *self.mask_preds)


@dataclass(frozen=True)
class Beside:
    """A criterion beside the reference, on the same outputs in float64 and the same points.

    Attributes:
        own, expected: each loss by its name, weighted.
        own_gradients, expected_gradients: of each part, in each layer, flat.
    """

    own: Mapping[str, float]
    expected: Mapping[str, float]
    own_gradients: Mapping[str, Sequence[Tensor]]
    expected_gradients: Mapping[str, Sequence[Tensor]]

    @property
    def total(self) -> float:
        """What the reference adds up to."""
        return sum(self.expected.values())


def beside(criterion: Criterion, settings: CriterionSettings, weight: float, outputs: Outputs) -> Beside:
    """Evaluate a criterion and the reference of these settings, times a weight."""
    leaves = outputs.leaves(torch.float64)
    restore_random_state(outputs.state)
    own = criterion(leaves.cls_scores, leaves.mask_preds, leaves.labels)
    own_values, own_gradients = _numbers(own), _by_part(own, leaves)
    del own
    expected: dict[str, float] = {}
    gradients = {part: [torch.zeros_like(each) for each in own_gradients[part]] for part in CRITERION_PARTS}
    for layer, found in _reference(settings, weight, leaves):
        of_layer = (leaves.cls_scores[layer], leaves.mask_preds[layer])
        for name, value in found.items():
            expected[name] = float(value.detach())
            gradients[name.rpartition(".")[2]][layer] = flat_gradient(value, of_layer)
    return Beside(own_values, expected, own_gradients, gradients)


def reference_losses(settings: CriterionSettings, weight: float, outputs: Outputs) -> dict[str, Tensor]:
    """The reference on the points that a criterion draws from the outputs' random state, weighted."""
    return {name: value for _, found in _reference(settings, weight, outputs) for name, value in found.items()}


def _reference(settings: CriterionSettings, weight: float, outputs: Outputs) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Each layer that is trained with its losses, one after the other: the graphs of all together would be large."""
    last = len(outputs.cls_scores) - 1
    counts = [len(set(image.unique().tolist()) - {IGNORE}) for image in outputs.labels]
    queries, device = outputs.cls_scores[0].shape[1], outputs.labels.device
    restore_random_state(outputs.state)
    points = draw_points(settings, last + 1, counts, queries, device)
    for index, layer in enumerate(range(last + 1) if settings.deep_supervision else [last]):
        found = reference_criterion(
            [outputs.cls_scores[layer]], [outputs.mask_preds[layer]], outputs.labels, settings,
            Points(points.matching[index : index + 1], (points.loss[index],)),
        )  # fmt: skip
        prefix, scale = ("", weight) if layer == last else (f"d{layer}.", weight * settings.deep_weight)
        yield layer, {prefix + name: scale * value for name, value in found.items()}


def losses_of(settings: CriterionSettings, layers: int) -> list[str]:
    """The names of all losses, layer by layer, the last one last."""
    before = [f"d{i}." for i in range(layers - 1)] if settings.deep_supervision else []
    return [layer + part for layer in (*before, "") for part in CRITERION_PARTS]


def comparison_problems(where: str, seen: Beside) -> list[str]:
    """Every loss must be the reference's, and so must the gradient of every part in every layer.

    A layer that is not trained gets a gradient of exactly zero.
    """
    problems = [f"{where}: {name} is not among its losses" for name in seen.expected if name not in seen.own]
    problems += [f"{where}: {name} is not asked for" for name in seen.own if name not in seen.expected]
    for name, expected in seen.expected.items():
        own = seen.own.get(name, expected)
        if not math.isclose(own, expected, rel_tol=CLOSE, abs_tol=1e-9):
            problems.append(f"{where}: {name} is {own:.6g}, the reference gives {expected:.6g}")
    gradients = []
    for part in CRITERION_PARTS:
        pairs = list(zip(seen.own_gradients[part], seen.expected_gradients[part], strict=True))
        for layer, (own_gradient, gradient) in enumerate(pairs):
            name = part if layer == len(pairs) - 1 else f"d{layer}.{part}"
            if gradient.count_nonzero() == 0:
                if own_gradient.count_nonzero():
                    gradients.append(f"{where}: {name} moves a layer that it must not move")
            elif not (own_gradient - gradient).norm() <= 1e-4 * gradient.norm():  # NaN is none either
                gradients.append(f"{where}: the gradient of {name} differs from the reference's")
    return [*shortened(where, problems), *shortened(where, gradients)]


def step_problems(
    where: str, losses: Mapping[str, float], again: Mapping[str, float], expected: Mapping[str, float]
) -> list[str]:
    """What the training step added must be what the criterion gives on the same outputs and points, and the reference.

    The last only roughly: the step is in float32, where rounding decides between matchings that cost the same.
    """
    problems = [
        f"{where}: {name} was {losses[name]:.6g} in the training step, its criterion gives {value:.6g}"
        for name, value in again.items()
        if name in losses and not math.isclose(losses[name], value, rel_tol=1e-4, abs_tol=1e-6)
    ]
    problems += [
        f"{where}: {name} was {losses[name]:.6g} in the training step, the reference gives {value:.6g}"
        for name, value in expected.items()
        if name in losses and not math.isclose(losses[name], value, rel_tol=1e-2, abs_tol=1e-5)
    ]
    return shortened(where, problems)


def shortened(where: str, problems: list[str]) -> list[str]:
    """A few problems of a kind: a model has ten layers of three losses each."""
    if len(problems) <= MENTIONED + 1:
        return problems
    return [*problems[:MENTIONED], f"{where}: {len(problems) - MENTIONED} more like this"]


def part_evidence(seen: Beside) -> tuple[PartEvidence, ...]:
    """What each part has of the criterion's loss and of its gradient."""
    norms = {part: math.hypot(*(float(each.norm()) for each in seen.own_gradients[part])) for part in CRITERION_PARTS}
    found = []
    for part in CRITERION_PARTS:
        # in the order of the reference: layer by layer, the last one last
        layers = tuple(seen.own.get(name, 0.0) for name in seen.expected if name.rpartition(".")[2] == part)
        found.append(
            PartEvidence(
                part=part,
                layers=layers,
                contribution=sum(layers),
                loss_share=_share(sum(layers), sum(seen.own.values())),
                gradient_norm=norms[part],
                gradient_share=_share(norms[part], sum(norms.values())),
            )
        )
    return tuple(found)


def made_up(classes: int, layers: int, device: torch.device) -> Outputs:
    """A small batch on which the matching is beyond doubt, whatever the parts weigh.

    Query k is fairly sure of a class of its own and of that class's stripe; two queries are sure of nothing. A corner
    is ignored, and in the second image a whole class.
    """
    generator = torch.Generator().manual_seed(2)
    kinds = torch.linspace(0, classes - 1, min(classes, 6)).long()
    columns = torch.arange(32) * len(kinds) // 32
    labels = kinds[columns].expand(2, 32, 32).clone()
    labels[1][labels[1] == kinds[-1]] = IGNORE
    labels[:, :7, :5] = IGNORE
    queries = len(kinds) + 2
    cls = torch.zeros(queries, classes + 1, dtype=torch.float64)
    cls[torch.arange(len(kinds)), kinds] = 3.0
    masks = torch.full((queries, 16, 16), -2.0, dtype=torch.float64)
    for query in range(len(kinds)):
        masks[query, :, columns[::2] == query] = 2.0

    def noisy(values: Tensor) -> Tensor:
        noise = torch.randn(2, *values.shape, generator=generator, dtype=torch.float64)
        return (values + 0.4 * noise).to(device)

    scores = tuple(noisy(cls) for _ in range(layers))
    predictions = tuple(noisy(masks) for _ in range(layers))
    return Outputs(scores, predictions, labels.to(device), random_state())


def knob_problems(head: Any, where: str, settings: CriterionSettings, weight: float, outputs: Outputs) -> list[str]:
    """Turn each number of the criterion on a `made_up` batch: what it weighs must follow, and nothing else move."""
    problems = comparison_problems(f"{where} (on a made-up batch)", beside(head.criterion, settings, weight, outputs))
    if problems:
        return problems
    few = settings.changed({"num_points": FEW_POINTS})
    before = _values(head, few, outputs)
    for name, factor, follows in _knobs(settings, len(outputs.cls_scores)):
        changed = few.changed({name: factor * getattr(few, name)})
        after = _values(head, changed, outputs)
        if follows is None:
            planned = _numbers(reference_losses(changed, weight, outputs))
        else:
            planned = {loss: value * (factor if follows(loss) else 1.0) for loss, value in before.items()}
        wrong = [
            f"{where} (on a made-up batch): {factor:g} times {name} makes {loss} {after.get(loss, math.nan):.6g}, "
            f"it must become {value:.6g}"
            for loss, value in planned.items()
            if not math.isclose(after.get(loss, math.nan), value, rel_tol=CLOSE, abs_tol=1e-9)
        ]
        if after == before:
            wrong = [f"{where} (on a made-up batch): {name} moves nothing"]
        problems += shortened(where, wrong)
    return problems


def _knobs(settings: CriterionSettings, layers: int) -> Iterator[tuple[str, float, Callable[[str], bool] | None]]:
    """A number, what to multiply it by, and which losses follow in proportion; None where only the reference knows."""
    for part in CRITERION_PARTS:
        name = f"{part.removeprefix('loss_').replace('cls', 'class')}_weight"
        if getattr(settings, name) > 0:
            yield name, 2.0, lambda loss, part=part: loss.endswith(part)  # type: ignore[misc]
    yield "no_object", 2.0, None  # it is in the divisor of the mean as well
    if settings.deep_supervision and layers > 1:
        yield "deep_weight", 0.5, lambda loss: loss.startswith("d")


def _values(head: Any, settings: CriterionSettings, outputs: Outputs) -> dict[str, float]:
    """The losses of a head whose criterion has these settings."""
    with _criterion_of(head, settings), torch.no_grad():
        restore_random_state(outputs.state)
        return _numbers(head.criterion(outputs.cls_scores, outputs.mask_preds, outputs.labels))


@contextmanager
def _criterion_of(head: Any, settings: CriterionSettings) -> Iterator[None]:
    own = head.set_criterion
    head.set_criterion = SetCriterion(head.num_classes, settings, ignore_index=IGNORE)
    try:
        yield
    finally:
        head.set_criterion = own


def random_state() -> RandomState:
    """Of the generators that points are drawn from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def restore_random_state(state: RandomState) -> None:
    """Put the generators back."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])


def _by_part(losses: Mapping[str, Tensor], leaves: Outputs) -> dict[str, Sequence[Tensor]]:
    """The gradient of each part's sum over the layers, in each layer: on its class scores and masks, flat."""
    count = len(leaves.cls_scores)
    found: dict[str, Sequence[Tensor]] = {}
    for part in CRITERION_PARTS:
        mine = [value for name, value in losses.items() if name.rpartition(".")[2] == part and value.requires_grad]
        gradients: Sequence[Tensor | None] = [None] * (2 * count)
        if mine:
            gradients = torch.autograd.grad(torch.stack(mine).sum(), leaves.flat, retain_graph=True, allow_unused=True)
        full = [
            torch.zeros_like(leaf).flatten() if gradient is None else gradient.flatten()
            for gradient, leaf in zip(gradients, leaves.flat, strict=True)
        ]
        found[part] = [torch.cat((full[i], full[count + i])) for i in range(count)]
    return found


def _numbers(losses: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in losses.items()}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
