"""Which query is trained to be which class: bipartite matching of least cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from prove.errors import ProveError
from prove.losses.set_criterion.points import PointLabels, sample_all
from prove.losses.set_criterion.settings import CriterionSettings
from prove.losses.set_criterion.targets import Targets

COSTS = ("class", "mask", "dice")
ELEMENTS_AT_ONCE = {True: 2**22, False: 2**26}
"""Sampled mask logits, N * Q * P per layer, from which costs are computed together: few on a CPU, so that they stay in
its cache; otherwise 0.5 GB with their sigmoid."""


class Assignment(NamedTuple):
    """The matched pairs of one layer and image, on the host.

    Attributes:
        queries: [min(Q, T)] int64, ascending.
        targets: the index of each one's class among the classes of the image, in ascending order of these.
    """

    queries: Tensor
    targets: Tensor


def match(
    scores: Tensor, mask_logits: Sequence[Tensor], targets: Targets, points: Tensor, settings: CriterionSettings
) -> list[list[Assignment]]:
    """The assignment of least total cost of every layer and image; the device is waited for once.

    With more classes than queries each query gets a class, and the classes that cost most go without.

    Args:
        scores: [L, N, Q, C + 1], the class logits, of the type to compute in.
        mask_logits: L tensors [N, Q, h, w] of any floating type.
        points: [L, N, P, 2].

    Raises:
        ProveError: a cost that is not finite: it says which, in which layer and image.
    """
    on_host = matching_costs(scores, mask_logits, targets, points, settings).cpu().double().numpy()
    found = []
    for layer in range(len(scores)):
        row = []
        for image, count in enumerate(targets.counts):
            costs = on_host[:, layer, image, :, :count]
            _check(costs, layer, image, len(scores), targets.class_lists[image])
            queries, chosen = linear_sum_assignment(costs.sum(axis=0))
            row.append(Assignment(torch.from_numpy(queries), torch.from_numpy(chosen)))
        found.append(row)
    return found


@torch.no_grad()
def matching_costs(
    scores: Tensor, mask_logits: Sequence[Tensor], targets: Targets, points: Tensor, settings: CriterionSettings
) -> Tensor:
    """The weighted costs of every query for every class: [3, L, N, Q, T], in the order of `COSTS`.

    What stands beyond an image's own number of classes means nothing.
    """
    layers, images, queries, _ = scores.shape
    at_once = max(1, ELEMENTS_AT_ONCE[points.device.type == "cpu"] // (images * queries * points.shape[2]))
    parts = []
    for first in range(0, layers, at_once):
        some = slice(first, first + at_once)
        parts.append(_costs(scores[some], mask_logits[some], targets, points[some], settings))
    return torch.cat(parts, dim=1)


def _costs(
    scores: Tensor, mask_logits: Sequence[Tensor], targets: Targets, points: Tensor, settings: CriterionSettings
) -> Tensor:
    layers, images, num_points = points.shape[:3]
    queries, longest = scores.shape[2], targets.classes.shape[1]
    classes = targets.classes.repeat(layers, 1)
    # logits above, their sigmoid below: both meet the targets in one product
    both = scores.new_empty(layers * images, 2 * queries, num_points)
    logits, probs = both[:, :queries], both[:, queries:]
    for layer, maps in enumerate(mask_logits):
        sample_all(maps.to(scores.dtype), points[layer], out=logits[layer * images : (layer + 1) * images])
    torch.sigmoid(logits, out=probs)
    image_of = torch.arange(images, device=points.device).repeat(layers)
    truth = PointLabels.at(targets, image_of, points.flatten(0, 1)).share_of_each(longest)
    products = both @ truth.mT
    # -log p(t) summed over points is the sum of softplus(x) - x * t
    mask = (_softplus(logits).sum(2, keepdim=True) - products[:, :queries]) / num_points
    sizes = probs.sum(2, keepdim=True) + truth.sum(2)[:, None] + 1.0
    dice = 1.0 - (2.0 * products[:, queries:] + 1.0) / sizes
    cls = -scores.flatten(0, 1).softmax(2).gather(2, classes[:, None].expand(-1, queries, -1))
    weights = (settings.class_weight, settings.mask_weight, settings.dice_weight)
    costs = torch.stack([weight * cost for weight, cost in zip(weights, (cls, mask, dice), strict=True)])
    return costs.view(3, layers, images, queries, longest)


def _softplus(x: Tensor) -> Tensor:
    return F.softplus(x, threshold=40.0)  # from 20 on PyTorch would give x, 2e-9 too little


def _check(costs: np.ndarray[Any, Any], layer: int, image: int, layers: int, classes: Sequence[int]) -> None:
    if np.isfinite(costs).all():
        return
    part, query, target = np.argwhere(~np.isfinite(costs))[0].tolist()
    name = "the final layer" if layer == layers - 1 else f"layer {layer}"
    raise ProveError(
        f"The {COSTS[part]} cost is {costs[part, query, target]} in {name}, image {image} (query {query}, class "
        f"{classes[target]}): nothing can be matched.",
        hint="The model's outputs overflowed or hold NaN: lower the learning rate, or train in float32 or bfloat16.",
    )
