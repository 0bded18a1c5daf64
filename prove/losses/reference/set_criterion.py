"""The set criterion, straight from its definition: masks built one by one, loops over layers, images and masks.

The wiring proof compares `prove.losses.SetCriterion` with it, so it takes nothing from there but the settings and the
points, which are data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from prove.errors import ProveError
from prove.losses.set_criterion.points import Points
from prove.losses.set_criterion.settings import CriterionSettings

Pairs = Sequence[Sequence[tuple[Tensor, Tensor]]]
"""For each layer and image the matched queries and, for each, the index of its class among the image's, ascending."""

SLACK = 1e-4
"""How much a given assignment may cost more than the best, as a share of the costs' size: float32 decides near ties."""


def reference_criterion(
    cls_logits: Sequence[Tensor],
    mask_logits: Sequence[Tensor],
    labels: Tensor,
    settings: CriterionSettings,
    points: Points,
    *,
    ignore_index: int = 255,
    assignments: Pairs | None = None,
) -> dict[str, Tensor]:
    """The weighted parts by name, differentiable, in float64. On one process.

    Args:
        cls_logits, mask_logits, labels: as in `prove.losses.SetCriterion.forward`.
        points: all that is random.
        assignments: to be used in place of its own, after a check that none is better: where two cost nearly the same,
            rounding decides.

    Raises:
        ProveError: an assignment that is given is not among the best.
    """
    if not settings.deep_supervision:
        cls_logits, mask_logits = cls_logits[-1:], mask_logits[-1:]
    masks = [_masks(image, ignore_index) for image in labels]
    count = sum(min(len(found), cls_logits[0].shape[1]) for found in masks)
    values: dict[str, Tensor] = {}
    for layer, (cls, logits) in enumerate(zip(cls_logits, mask_logits, strict=True)):
        cls, logits = cls.double(), logits.double()
        final = layer == len(cls_logits) - 1
        pairs = []
        for image, found in enumerate(masks):
            costs = matching_cost(cls[image], logits[image], found, points.matching[layer, image], settings)
            queries, targets = (torch.as_tensor(each) for each in linear_sum_assignment(costs.numpy()))
            if assignments is not None:
                best = float(costs[queries, targets].sum())
                queries, targets = (each.cpu() for each in assignments[layer][image])
                _check_matching(costs, queries, targets, best, f"layer {layer}, image {image}")
            pairs.append(list(zip(queries.tolist(), targets.tolist(), strict=True)))
        cls_value = _classification(cls, [list(found) for found in masks], pairs, settings)
        mask_value, dice_value = _mask_parts(logits, masks, pairs, points, layer, settings)
        weight, prefix = (1.0, "") if final else (settings.deep_weight, f"d{layer}.")
        values[f"{prefix}loss_cls"] = weight * settings.class_weight * cls_value
        values[f"{prefix}loss_mask"] = weight * settings.mask_weight * mask_value / max(count, 1)
        values[f"{prefix}loss_dice"] = weight * settings.dice_weight * dice_value / max(count, 1)
    return values


def matching_cost(
    cls: Tensor, logits: Tensor, masks: dict[int, Tensor], points: Tensor, settings: CriterionSettings
) -> Tensor:
    """[Q, T] on the CPU, without a graph, from one image's [Q, C + 1] and [Q, h, w], its masks and points [P, 2]."""
    cls, logits = cls.detach().double(), logits.detach().double()
    probs = torch.softmax(cls, dim=1)
    sampled = torch.stack([_at(row, points) for row in logits])
    yes, no = torch.nn.functional.logsigmoid(sampled), torch.nn.functional.logsigmoid(-sampled)
    shares = torch.sigmoid(sampled)
    columns = []
    for c, mask in masks.items():
        truth = _at(mask, points)
        cross_entropy = -(truth * yes + (1 - truth) * no).mean(dim=1)
        dice = 1 - (2 * (shares * truth).sum(dim=1) + 1) / (shares.sum(dim=1) + truth.sum() + 1)
        cost = settings.mask_weight * cross_entropy + settings.dice_weight * dice - settings.class_weight * probs[:, c]
        columns.append(cost.cpu())
    return torch.stack(columns, dim=1) if columns else torch.zeros(len(cls), 0, dtype=torch.float64)


def _masks(labels: Tensor, ignore_index: int) -> dict[int, Tensor]:
    """Each class of an image, ascending, with its mask [H, W]: 1.0 where it is."""
    classes = sorted(set(labels.flatten().tolist()) - {ignore_index})
    return {c: (labels == c).double() for c in classes}


def _check_matching(costs: Tensor, queries: Tensor, targets: Tensor, best: float, where: str) -> None:
    size = min(costs.shape)
    once = len(set(queries.tolist())) == len(set(targets.tolist())) == len(queries) == len(targets) == size
    if not once:
        raise ProveError(f"In {where} {len(queries)} pairs are matched; expected {size}, each query and class once.")
    found = float(costs[queries, targets].sum())
    if found - best > SLACK * max(1.0, float(costs.abs().max()) if size else 0.0):
        raise ProveError(f"In {where} the matching costs {found:.6g}; the best costs {best:.6g}.")


def _classification(
    cls: Tensor, classes: list[list[int]], pairs: list[list[tuple[int, int]]], settings: CriterionSettings
) -> Tensor:
    no_object = cls.shape[2] - 1
    over, under = torch.zeros((), dtype=cls.dtype, device=cls.device), 0.0
    for image, logits in enumerate(cls):
        wanted = {query: classes[image][target] for query, target in pairs[image]}
        for query, row in enumerate(logits):
            c = wanted.get(query, no_object)
            weight = settings.no_object if c == no_object else 1.0
            value = torch.logsumexp(row, dim=0) - row[c]
            if settings.cls == "focal":
                value = value * (1.0 - torch.softmax(row, dim=0)[c]) ** 2
            over = over + weight * value
            under += weight
    return over / under if under > 0 else over


def _mask_parts(
    logits: Tensor, masks: list[dict[int, Tensor]], pairs: list[list[tuple[int, int]]], points: Points, layer: int,
    settings: CriterionSettings,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Sums over the matched masks of cross-entropy and dice."""
    cross_entropy = dice = logits.flatten()[:0].sum()
    drawn = points.loss[layer]
    index = 0
    for image, matched in enumerate(pairs):
        for query, target in sorted(matched):
            row, mask = logits[image, query], list(masks[image].values())[target]
            if settings.points == "full":
                values, truth = _resized(row, mask.shape).flatten(), mask.flatten()
            else:
                chosen = drawn.random[index].double()
                if settings.points == "uncertain":
                    candidates = drawn.candidates[index].double()
                    count = math.floor(settings.importance_sample_ratio * settings.num_points)
                    order = _at(row.detach(), candidates).abs().argsort()
                    chosen = torch.cat((candidates[order[:count]], chosen))
                values, truth = _at(row, chosen), _at(mask, chosen)
            cross_entropy = cross_entropy + _cross_entropy(values, truth)
            dice = dice + _dice(values, truth)
            index += 1
    return cross_entropy, dice


def _cross_entropy(x: Tensor, truth: Tensor) -> Tensor:
    return -(truth * torch.nn.functional.logsigmoid(x) + (1 - truth) * torch.nn.functional.logsigmoid(-x)).mean()


def _dice(x: Tensor, truth: Tensor) -> Tensor:
    p = torch.sigmoid(x)
    return 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)


def _at(image: Tensor, points: Tensor) -> Tensor:
    """An image [h, w] at points [P, 2]: bilinear between the centres of pixels, 0 outside of it."""
    height, width = image.shape
    framed = torch.nn.functional.pad(image, (1, 1, 1, 1))
    x, y = points[:, 0].to(image.dtype) * width + 0.5, points[:, 1].to(image.dtype) * height + 0.5
    left, top = x.floor().long().clamp(0, width), y.floor().long().clamp(0, height)
    u, v = x - left, y - top
    above = (1 - u) * framed[top, left] + u * framed[top, left + 1]
    below = (1 - u) * framed[top + 1, left] + u * framed[top + 1, left + 1]
    return (1 - v) * above + v * below


def _resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """An image [h, w] at the centres of the pixels of a larger one, where the border's pixels reach to the edge."""
    rows, columns = (_weights(old, new).to(image) for old, new in zip(image.shape, size, strict=True))
    return rows @ image @ columns.T


def _weights(old: int, new: int) -> Tensor:
    """[new, old]: what each old pixel counts in each new one, along one side."""
    weights = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        centre = min(max((i + 0.5) * old / new - 0.5, 0.0), old - 1.0)
        low = min(int(centre), max(old - 2, 0))
        weights[i, low] += 1.0 - (centre - low)
        if old > 1:
            weights[i, low + 1] += centre - low
    return weights
