"""Mixed batches under the wiring proof: does the model minimise the objective on what the strategy makes of a batch?

The proof on plain batches has shown what each head does with one map of labels. Here the same batch is mixed by the
training loop's own mix, and held against what CutMix and MixUp are, written out a second time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from prove.build.objective import HeadPlan
from prove.catalog.strategies import StrategyEntry
from prove.training.evidence import Evidence, MixEvidence
from prove.training.fused_heads import require_mixable
from prove.training.guard import WiringError
from prove.training.mixing import SECOND_LABELS, Mix
from prove.training.objective import labels_of, set_progress
from prove.training.seeding import generator
from prove.training.wiring import Step, finite, moments_of, take_step, undisturbed, unexpected_keys, view_of
from prove.training.wiring_checks import (
    IGNORE,
    TOLERANCE,
    HeadView,
    evaluated,
    expected_of,
    relabelled,
    value_problems,
)
from prove.training.wiring_criterion import restore_random_state

VISIBLE = (0.2, 0.8)
"""Shares between which both images count for enough that a mistake shows."""


def prove_mix(
    evidence: Evidence,
    model: nn.Module,
    batch: Any,
    mix: Mix | None,
    planned: StrategyEntry | None,
    heads: Sequence[HeadPlan],
    *,
    class_weight: tuple[float, ...] | None,
) -> Evidence:
    """The evidence with what mixed batches showed. The model is left as it was.

    Args:
        evidence: of `prove.training.wiring.prove_wiring` on the plain batch.
        batch: the plain batch, of two images at least.
        mix: what the training loop does to every batch.
        planned: what the strategy says that it does.

    Raises:
        ProveError: a head that MixUp can't be used with.
    """
    problems = _plan_problems(mix, planned)
    if problems or mix is None or not evidence.ok:
        return replace(evidence, problems=(*evidence.problems, *problems))
    name = type(mix).__name__
    if name == "MixUp":
        for plan in heads:
            require_mixable(plan.path, model.get_submodule(plan.path))
    mixed = _visibly_mixed(mix, batch)
    share = _share(mixed)
    problems = _batch_problems(name, batch, mixed, share)
    total = formula = math.nan
    with undisturbed(model):
        for progress in moments_of(heads):
            try:
                found, *sums = _examine(model, mixed, heads, progress, class_weight, f"on a batch mixed by {name}")
            except WiringError as error:
                problems += error.problems
                break
            problems += [problem for problem in found if problem not in problems]
            total, formula = (total, formula) if math.isfinite(total) else sums
    seen = MixEvidence(name, mix.alpha, share, finite(total), finite(formula))
    return replace(evidence, mix=seen, problems=(*evidence.problems, *problems))


def _plan_problems(mix: Mix | None, planned: StrategyEntry | None) -> list[str]:
    actual = None if mix is None else {"type": type(mix).__name__, "alpha": mix.alpha}
    said = None if planned is None else dict(planned.mix)
    if actual == said:
        return []
    return [f"the strategy mixes batches by {said or 'nothing'}, the training loop by {actual or 'nothing'}"]


def _visibly_mixed(mix: Mix, batch: Any) -> Any:
    """The batch, mixed by shares that let both images show; the last try where there are none."""
    for attempt in range(200):
        mixed = mix(batch, generator("wiring mix", attempt))
        if VISIBLE[0] <= _share(mixed) <= VISIBLE[1]:
            break
    return mixed


def _share(mixed: Any) -> float:
    return float(mixed["data_samples"][0].metainfo.get("mix_share", 1.0))


def _batch_problems(name: str, plain: Any, mixed: Any, share: float) -> list[str]:
    """The pixels and the labels of a mixed batch must be those of its two images, in these shares."""
    if not VISIBLE[0] <= share <= VISIBLE[1]:
        return [f"{name}: of 200 batches, none was mixed by more than a fifth"]
    problems = []
    count = len(plain["inputs"])
    for index in range(count):
        sample = mixed["data_samples"][index]
        image, label = mixed["inputs"][index], sample.gt_sem_seg.data.squeeze(0)
        own, partner = (_Framed(plain, each, label) for each in (index, (index - 1) % count))
        if name == "CutMix":
            top, left, bottom, right = sample.metainfo.get("mix_box", (0, 0, 0, 0))
            inside = torch.zeros(label.shape, dtype=torch.bool)
            inside[top:bottom, left:right] = True
            wanted = torch.where(inside, partner.label, own.label)
            pixels = torch.where(inside, partner.image, own.image)
            area = 1.0 - float(inside.double().mean())
            sound = torch.equal(label, wanted) and abs(area - share) < 1e-9
        else:
            pixels = share * own.image + (1.0 - share) * partner.image
            second = getattr(sample, SECOND_LABELS).data.squeeze(0) if SECOND_LABELS in sample else None
            sound = torch.equal(label, own.label) and second is not None and torch.equal(second, partner.label)
        if not sound:
            problems.append(f"{name}: the labels of a mixed image are not those of its two images")
        seen = own.there & partner.there
        if not torch.allclose(image.float()[:, seen], pixels[:, seen], atol=1e-3):
            problems.append(f"{name}: the pixels of a mixed image are not those of its two images")
    return list(dict.fromkeys(problems))


class _Framed:
    """A plain image, its label, and where they are, in the frame of a mixed one."""

    def __init__(self, batch: Any, index: int, like: Tensor) -> None:
        image, label = batch["inputs"][index], batch["data_samples"][index].gt_sem_seg.data
        height, width = image.shape[-2:]
        self.image = torch.zeros((len(image), *like.shape))
        self.image[:, :height, :width] = image
        self.label = torch.full_like(like, IGNORE)
        self.label[:height, :width] = label
        self.there = torch.zeros(like.shape, dtype=torch.bool)
        self.there[:height, :width] = True


def _examine(
    model: nn.Module,
    mixed: Any,
    heads: Sequence[HeadPlan],
    progress: float,
    class_weight: tuple[float, ...] | None,
    where: str,
) -> tuple[list[str], float, float]:
    """Problems, the loss that is minimised, and the formula."""
    set_progress(model, progress)
    samples = mixed["data_samples"]
    share = _share(mixed)
    maps = [(1.0, labels_of(samples))]
    if SECOND_LABELS in samples[0]:
        second = torch.stack([getattr(sample, SECOND_LABELS).data.squeeze(0) for sample in samples])
        maps = [(share, maps[0][1]), (1.0 - share, second)]
    views = [view_of(model, plan, progress, class_weight) for plan in heads]
    step = take_step(model, mixed, views)
    problems = unexpected_keys(step, views)
    formula, total = 0.0, float(step.total.detach())
    for view in views:
        problems += _label_problems(view, maps, where)
        pieces = _pieces(view, maps, progress, class_weight)
        formula += sum(pieces.values.values())
        for key, value in pieces.values.items():
            if key in step.losses:  # else it is reported as missing
                problems += value_problems(f"{view.plan.path}, {key} ({where})", step.losses[key], value)
        problems += _gradient_problems(view, step, maps, pieces, where)
    if not math.isclose(total, formula, rel_tol=TOLERANCE, abs_tol=1e-5):
        problems.append(f"{where}, {total:.6g} is minimised, and the objective's formula gives {formula:.6g}")
    return problems, total, formula


Maps = Sequence[tuple[float, Tensor]]
"""The label maps of a mixed batch, [N, H, W], with their weights."""


def _label_problems(view: HeadView, maps: Maps, where: str) -> list[str]:
    """A head must be given the labels of the mixed batch."""
    samples: Any = view.samples  # type: ignore[attr-defined] # of either view
    received = [labels_of(samples)]
    if all(SECOND_LABELS in sample for sample in samples):
        received.append(torch.stack([getattr(sample, SECOND_LABELS).data.squeeze(0) for sample in samples]))
    same = len(received) == len(maps) and all(
        torch.equal(mine, labels.to(mine.device)) for mine, (_, labels) in zip(received, maps, strict=True)
    )
    return [] if same else [f"{view.plan.path}: {where}, the labels it is given are not the mixed ones"]


@dataclass(frozen=True)
class _Pieces:
    """A head's losses on each label map of a mixed batch, on leaves in place of its outputs.

    Attributes:
        leaves: one per output of the head.
        losses: of each map, by key, with their graphs: gradients of all together would be large.
        values: what each key must be on the mixed batch; from the references for per-pixel heads.
    """

    leaves: Sequence[Tensor]
    losses: Sequence[Mapping[str, Tensor]]
    values: Mapping[str, float]


def _pieces(view: Any, maps: Maps, progress: float, class_weight: tuple[float, ...] | None) -> _Pieces:
    plan, outputs = view.plan, view.outputs()
    leaves = [output.detach().clone().requires_grad_() for output in outputs]
    losses: list[Mapping[str, Tensor]] = []
    if plan.kind == "per_pixel":
        values = {plan.key(label): 0.0 for label, _ in plan.terms}
        full = nn.functional.interpolate(
            leaves[0].detach().float(),
            size=maps[0][1].shape[-2:],
            mode="bilinear",
            align_corners=view.head.align_corners,
        )
        for weight, labels in maps:
            labels = labels.to(full.device)
            samples = relabelled(view.samples, labels)
            found = evaluated(plan, lambda: view.head.loss_by_feat(leaves[0], samples))  # noqa: B023 - called at once
            losses.append({f"{plan.prefix}.{name}": value for name, value in found.items()})
            for label, term in plan.terms:
                values[plan.key(label)] += weight * expected_of(term, progress, full, labels, class_weight)[1]
        return _Pieces(leaves, losses, values)
    layers = len(outputs) // 2
    restore_random_state(view.random_state)  # the criterion draws its points, for one map after the other
    values = {}
    for weight, labels in maps:
        labels = labels.to(outputs[0].device)
        found = evaluated(plan, lambda: view.head.losses_for(leaves[:layers], leaves[layers:], labels))  # noqa: B023
        losses.append({f"{plan.prefix}.{name}": value for name, value in found.items()})
        for key, value in losses[-1].items():
            values[key] = values.get(key, 0.0) + weight * float(value.detach())
    return _Pieces(leaves, losses, values)


def _gradient_problems(view: HeadView, step: Step, maps: Maps, pieces: _Pieces, where: str) -> list[str]:
    """The gradient of every loss on a head's outputs must be that of both label maps, in their shares."""
    outputs = view.outputs()
    problems = []
    together: Gradient = [None] * len(outputs)
    for key in sorted(view.expected_keys() & set(step.tensors)):
        parts = [
            _scaled(weight, _gradient(losses[key], pieces.leaves))
            for (weight, _), losses in zip(maps, pieces.losses, strict=True)
            if key in losses
        ]
        if len(parts) < len(maps):
            problems.append(f"{view.plan.path}, {key}: {where}, one of the label maps has no such loss")
            continue
        smallest = min((norm for part in parts if (norm := _norm(part)) > 0), default=0.0)
        expected = functools.reduce(_sum, parts)
        difference = _norm(_sum(_gradient(step.tensors[key], outputs), _scaled(-1.0, expected)))
        if not difference <= max(1e-2 * smallest, 1e-6 * _norm(expected)):
            problems.append(f"{view.plan.path}, {key}: {where}, its gradient is not that of the mixed labels")
        together = _sum(together, expected)
    if not problems:
        difference = _norm(_sum(_gradient(step.total, outputs), _scaled(-1.0, together)))
        if not difference <= 1e-3 * _norm(together):
            problems.append(f"{view.plan.path}: {where}, what reaches backward is not the sum of its losses' gradients")
    return problems


Gradient = Sequence[Tensor | None]
"""On each output of a head, float64; None where it has no influence."""


def _gradient(value: Tensor, outputs: Sequence[Tensor]) -> Gradient:
    if not value.requires_grad:
        return [None] * len(outputs)
    found = torch.autograd.grad(value, outputs, retain_graph=True, allow_unused=True)
    return [None if each is None else each.double() for each in found]


def _scaled(factor: float, gradient: Gradient) -> Gradient:
    return [None if each is None else factor * each for each in gradient]


def _sum(one: Gradient, other: Gradient) -> Gradient:
    return [b if a is None else a if b is None else a + b for a, b in zip(one, other, strict=True)]


def _norm(gradient: Gradient) -> float:
    return math.hypot(*(float(each.norm()) for each in gradient if each is not None))
