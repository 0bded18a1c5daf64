"""Which query the set criterion matches to which class: against costs built one by one, and every possible matching."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from set_criterion_batches import IGNORE, predictions, scene
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from prove.errors import ProveError
from prove.losses import SetCriterion, semantic_to_mask_targets
from prove.losses.reference.set_criterion import reference_criterion
from prove.losses.set_criterion.matching import Assignment, matching_costs
from prove.losses.set_criterion.points import PointLabels
from prove.losses.set_criterion.targets import Targets


def full_costs(criterion: SetCriterion, cls: Tensor, masks: Tensor, labels: Tensor, points: Tensor) -> np.ndarray:
    """[Q, T] of one image: every query with every class, at the points, from float masks and torch's own losses."""
    weights = criterion.settings
    classes, truth = semantic_to_mask_targets(labels)[0]
    grid = 2 * points.to(masks.dtype)[None, None] - 1

    def at(image: Tensor) -> Tensor:
        return F.grid_sample(image[None, None].to(masks.dtype), grid, align_corners=False).flatten()

    costs = np.zeros((len(cls), len(classes)))
    for query, target in np.ndindex(*costs.shape):
        x, t = at(masks[query]), at(truth[target])
        p = x.sigmoid()
        dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
        score = cls[query].exp()[classes[target]] / cls[query].exp().sum()
        cost = weights.mask_weight * F.binary_cross_entropy_with_logits(x, t) + weights.dice_weight * dice
        costs[query, target] = cost - weights.class_weight * score
    return costs


@pytest.mark.parametrize("queries", [3, 12])
@pytest.mark.parametrize("changed", [{}, {"class_weight": 9.0, "mask_weight": 0.5, "dice_weight": 1.5}], ids=str)
def test_is_the_assignment_of_least_cost(queries: int, changed: dict[str, float]) -> None:
    """With 12 queries scipy's on costs built one by one; with 3 for 5 classes, the best of all there are."""
    labels = scene(3, 8, (24, 32), kinds=5)
    cls, masks = predictions(2, 3, queries, 8, (6, 8), labels=labels, dtype=torch.float64)
    criterion = SetCriterion(8, num_points=50, **changed)
    points = criterion.draw_points(cls, labels)
    found = criterion(cls, masks, labels, points=points).assignments
    for layer, image in itertools.product(range(2), range(3)):
        with torch.no_grad():
            costs = full_costs(
                criterion, cls[layer][image], masks[layer][image], labels[image], points.matching[layer, image]
            )
        pairs = found[layer][image]
        if queries == 12:
            expected = linear_sum_assignment(costs)
        else:
            assert costs.shape[1] > queries
            every = itertools.permutations(range(costs.shape[1]), queries)
            expected = (range(queries), min(every, key=lambda chosen: costs[range(queries), list(chosen)].sum()))
        assert pairs.queries.tolist() == list(expected[0])
        assert pairs.targets.tolist() == list(expected[1])


def test_costs_are_those_built_one_by_one_however_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = scene(2, 8, (24, 32), kinds=5)
    labels[1, labels[1] == labels[1, -1, -1]] = IGNORE  # fewer classes than the other image
    cls, masks = predictions(5, 2, 6, 8, (6, 8), labels=labels, dtype=torch.float64)
    masks[3] = torch.randn(2, 6, 9, 5, dtype=torch.float64)  # layers may differ in size
    criterion = SetCriterion(8, num_points=50)
    points = criterion.draw_points(cls, labels)
    targets = Targets.of(labels, 8, IGNORE)
    assert targets.counts[0] > targets.counts[1]
    arguments = (torch.stack(cls), masks, targets, points.matching.double(), criterion.settings)
    together = matching_costs(*arguments)
    for layer, (image, count) in itertools.product(range(5), enumerate(targets.counts)):
        with torch.no_grad():
            expected = full_costs(
                criterion, cls[layer][image], masks[layer][image], labels[image], points.matching[layer, image]
            )
        np.testing.assert_allclose(together[:, layer, image, :, :count].sum(0), expected, rtol=0, atol=1e-12)
    for layers_at_once in (1, 2):
        monkeypatch.setattr("prove.losses.set_criterion.matching.ELEMENTS_AT_ONCE", {True: layers_at_once * 2 * 6 * 50})
        torch.testing.assert_close(matching_costs(*arguments), together, rtol=1e-14, atol=1e-15)


class Counting(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_operations_do_not_grow_with_queries_and_classes() -> None:
    counts = set()
    for queries, classes in ((4, 2), (40, 2), (40, 9)):
        labels = scene(2, 12, (24, 32), kinds=classes)
        cls, masks = predictions(3, 2, queries, 12, (6, 8))
        criterion = SetCriterion(12, num_points=50)
        with Counting() as counting:
            criterion(cls, masks, labels).total.backward()
        counts.add(counting.count)
    assert len(counts) == 1


@pytest.mark.parametrize("size", [(24, 32), (6, 8), (7, 5)])
def test_labels_at_points_are_what_sampling_each_mask_gives(size: tuple[int, int]) -> None:
    labels = scene(2, 8, size, kinds=5)
    targets = Targets.of(labels, 8, IGNORE)
    edge = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0 - 2**-24, 0.0], [0.5, 0.0], [0.5 / size[1], 0.5 / size[0]]])
    points = torch.cat((torch.rand(2, 300, 2), edge.expand(2, -1, -1)), dim=1)
    found = PointLabels.at(targets, torch.arange(2), points)
    shares = found.share_of_each(targets.classes.shape[1])
    for image, (classes, masks) in enumerate(semantic_to_mask_targets(labels)):
        grid = 2 * points[image][None, :, None] - 1
        expected = F.grid_sample(masks[None].float(), grid, align_corners=False)[0, :, :, 0]
        assert 0.1 < expected.mean() < 0.4
        torch.testing.assert_close(shares[image, : len(classes)], expected, rtol=0, atol=2e-6)
        for slot in range(len(classes)):
            alone = found.share_of(torch.full((2,), slot))[image]
            torch.testing.assert_close(alone, expected[slot], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("layer", "image", "part", "message"),
    [
        (1, 0, "masks", "The mask cost is nan in the final layer, image 0 \\(query 2"),
        (0, 1, "masks", "The mask cost is nan in layer 0, image 1 \\(query 2"),
        (0, 0, "cls", "The class cost is nan in layer 0, image 0 \\(query 2"),
    ],
)
def test_a_cost_that_is_not_a_number_is_named(layer: int, image: int, part: str, message: str) -> None:
    labels = scene(2, 8, (24, 32), kinds=5)
    cls, masks = predictions(2, 2, 6, 8, (6, 8))
    (cls if part == "cls" else masks)[layer].data[image, 2] = float("nan")
    with pytest.raises(ProveError, match=message):
        SetCriterion(8, num_points=50)(cls, masks, labels)
    if layer == 0:  # not looked at
        SetCriterion(8, num_points=50, deep_supervision=False)(cls, masks, labels)


def test_infinite_logits_are_named_too() -> None:
    labels = scene(1, 8, (24, 32), kinds=5)
    cls, masks = predictions(1, 1, 6, 8, (6, 8))
    masks[0].data[0, 4] = float("-inf")
    with pytest.raises(ProveError, match="The mask cost is nan in the final layer, image 0 \\(query 4, class"):
        SetCriterion(8, num_points=50)(cls, masks, labels)


def test_the_reference_takes_an_assignment_only_if_none_is_better() -> None:
    labels = scene(1, 8, (24, 32), kinds=5)
    cls, masks = predictions(1, 1, 6, 8, (6, 8), labels=labels)
    criterion = SetCriterion(8, num_points=50)
    points = criterion.draw_points(cls, labels)
    ((pairs,),) = criterion(cls, masks, labels, points=points).assignments

    def reference(assigned: Assignment) -> dict[str, Tensor]:
        return reference_criterion(cls, masks, labels, criterion.settings, points, assignments=[[assigned]])

    assert reference(pairs) == reference_criterion(cls, masks, labels, criterion.settings, points)
    with pytest.raises(ProveError, match="layer 0, image 0 the matching costs"):
        reference(Assignment(pairs.queries, pairs.targets.roll(1)))
    with pytest.raises(ProveError, match="4 pairs are matched; expected 5"):
        reference(Assignment(pairs.queries[:-1], pairs.targets[:-1]))
    with pytest.raises(ProveError, match="each query and class once"):
        reference(Assignment(pairs.queries, pairs.targets[[0, 0, 1, 2, 3]]))


def _two_processes(rank: int, store: str, sender: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    cls, masks, labels = _of_rank(rank)
    out = SetCriterion(8, num_points=50)(cls, masks, labels, generator=torch.Generator().manual_seed(rank))
    sender.send({name: value.item() for name, value in out.terms.items()})
    torch.distributed.destroy_process_group()


def _of_rank(rank: int) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """One process has images of 5 classes, the other nothing but ignored pixels."""
    labels = scene(2, 8, (24, 32), kinds=5, seed=rank)
    if rank == 1:
        labels[:] = IGNORE
    return *predictions(2, 2, 6, 8, (6, 8), seed=rank), labels


def test_the_number_of_masks_is_averaged_over_processes_once(tmp_path: Path) -> None:
    """10 masks in one process and none in the other: both divide by 5, and a process without masks takes part."""
    context = multiprocessing.get_context("fork")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    processes = [
        context.Process(target=_two_processes, args=(rank, str(tmp_path / "store"), pipes[rank][1]))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    found = [receiver.recv() if receiver.poll(60) else None for receiver, _ in pipes]
    for process in processes:
        process.join(10)
    for rank, terms in enumerate(found):
        cls, masks, labels = _of_rank(rank)
        alone = SetCriterion(8, num_points=50)(cls, masks, labels, generator=torch.Generator().manual_seed(rank))
        assert sum(len(pairs.queries) for pairs in alone.assignments[0]) == (10, 0)[rank]
        for name, value in alone.terms.items():
            assert terms[name] == pytest.approx(value.item() * (1 if name.endswith("cls") else 2), rel=1e-6)
