"""The set criterion, straight from its definition: masks built one by one, loops over layers, images and masks.

The wiring proof compares `prove.losses.SetCriterion` with it, so it takes nothing from there but the settings and the
points, which are data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from prove.errors import ProveError
from prove.losses.set_criterion.points import Points
from prove.losses.set_criterion.settings import CriterionSettings

Pairs = Sequence[Sequence[tuple[Tensor, Tensor]]]
"""For each layer and image the matched queries and, for each, the index of its class among the image's, ascending."""


class Masks(NamedTuple):
    """The classes of an image, ascending, and their masks with a border of zeros, [T, H + 2, W + 2] bool."""

    classes: list[int]
    framed: Tensor


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
    count = sum(min(len(found.classes), cls_logits[0].shape[1]) for found in masks)
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
        cls_value = _classification(cls, [found.classes for found in masks], pairs, settings)
        mask_value, dice_value = _mask_parts(logits, masks, pairs, points, layer, settings)
        weight, prefix = (1.0, "") if final else (settings.deep_weight, f"d{layer}.")
        values[f"{prefix}loss_cls"] = weight * settings.class_weight * cls_value
        values[f"{prefix}loss_mask"] = weight * settings.mask_weight * mask_value / max(count, 1)
        values[f"{prefix}loss_dice"] = weight * settings.dice_weight * dice_value / max(count, 1)
    return values


def matching_cost(cls: Tensor, logits: Tensor, masks: Masks, points: Tensor, settings: CriterionSettings) -> Tensor:
    """[Q, T] on the CPU, without a graph, from one image's [Q, C + 1] and [Q, h, w], its masks and points [P, 2]."""
    cls, logits = cls.detach().double(), logits.detach().double()
    probs = torch.softmax(cls, dim=1)
    sampled, truth = _at(_framed(logits), points), _at(masks.framed, points)
    yes, no = torch.nn.functional.logsigmoid(sampled), torch.nn.functional.logsigmoid(-sampled)
    shares = torch.sigmoid(sampled)
    cross_entropy = -(yes @ truth.T + no @ (1 - truth).T) / len(points)
    dice = 1 - (2 * (shares @ truth.T) + 1) / (shares.sum(dim=1)[:, None] + truth.sum(dim=1) + 1)
    cost = settings.mask_weight * cross_entropy + settings.dice_weight * dice
    return (cost - settings.class_weight * probs[:, masks.classes]).cpu()


def _masks(labels: Tensor, ignore_index: int) -> Masks:
    """Each class of an image with its mask: true where it is."""
    classes = sorted(set(labels.flatten().tolist()) - {ignore_index})
    framed = _framed(labels[None] != ignore_index)[:0]
    return Masks(classes, torch.cat([framed, *(_framed(labels[None] == c) for c in classes)]))


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
    logits: Tensor, masks: list[Masks], pairs: list[list[tuple[int, int]]], points: Points, layer: int,
    settings: CriterionSettings,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Sums over the matched masks of cross-entropy and dice."""
    cross_entropy = dice = logits.flatten()[:0].sum()
    drawn = points.loss[layer]
    index = 0
    for image, matched in enumerate(pairs):
        # taken out together: the gradient of each taken alone would be as large as all logits
        rows = _framed(logits[image, [query for query, _ in sorted(matched)]])
        for row, (_, target) in zip(rows, sorted(matched), strict=True):
            mask = masks[image].framed[target]
            if settings.points == "full":
                inner = mask[1:-1, 1:-1].double()
                values, truth = _resized(row[1:-1, 1:-1], inner.shape).flatten(), inner.flatten()
            else:
                chosen = drawn.random[index].double()
                if settings.points == "uncertain":
                    candidates = drawn.candidates[index].double()
                    count = math.floor(settings.importance_sample_ratio * settings.num_points)
                    nearest = _at(row.detach(), candidates).abs().topk(count, largest=False, sorted=False).indices
                    chosen = torch.cat((candidates[nearest], chosen))
                values, truth = _at(row, chosen), _at(mask, chosen)
            cross_entropy = cross_entropy + _cross_entropy(values, truth)
            dice = dice + _dice(values, truth)
            index += 1
    return cross_entropy, dice


def _cross_entropy(x: Tensor, truth: Tensor) -> Tensor:
    yes = torch.nn.functional.logsigmoid(x)
    return -(truth * yes + (1 - truth) * (yes - x)).mean()  # the probability of no is that of yes times exp(-x)


def _dice(x: Tensor, truth: Tensor) -> Tensor:
    p = torch.sigmoid(x)
    return 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)


def _framed(images: Tensor) -> Tensor:
    """Images [..., h, w] with a border of zeros one pixel wide."""
    return torch.nn.functional.pad(images, (1, 1, 1, 1))


def _at(framed: Tensor, points: Tensor) -> Tensor:
    """Framed images [..., h + 2, w + 2] at points [P, 2]: bilinear between the centres of pixels; [..., P] float64."""
    height, width = framed.shape[-2] - 2, framed.shape[-1] - 2
    x, y = points[:, 0].double() * width + 0.5, points[:, 1].double() * height + 0.5
    left, top = x.floor().long().clamp(0, width), y.floor().long().clamp(0, height)
    u, v = x - left, y - top
    flat, first = framed.flatten(-2), top * (width + 2) + left

    def along(row: int) -> Tensor:
        start = first + row * (width + 2)
        return (1 - u) * flat.index_select(-1, start).double() + u * flat.index_select(-1, start + 1).double()

    return (1 - v) * along(0) + v * along(1)


def _resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """An image [h, w] at the centres of the pixels of a larger one, where the border's pixels reach to the edge."""
    rows, columns = (_weights(old, new).to(image) for old, new in zip(image.shape, size, strict=True))
    return rows @ image @ columns.T


@lru_cache(maxsize=8)
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
