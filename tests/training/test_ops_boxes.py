"""Boxes through mmcv, against rules written out over pixels and lists, and torchvision."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.training import ops as supplied
from prove.training.stack import load_stack

load_stack()

from mmcv import ops  # noqa: E402

pytestmark = pytest.mark.skipif(
    not isinstance(sys.modules[supplied.EXTENSION], supplied._Extension), reason="mmcv has its own compiled operators"
)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


def pixel_iou(a: list[int], b: list[int], offset: int) -> float:
    """IoU of integer boxes by counting the pixels that they cover."""

    def covered(box: list[int]) -> set[tuple[int, int]]:
        return set(itertools.product(range(box[0], box[2] + offset), range(box[1], box[3] + offset)))

    first, second = covered(a), covered(b)
    return len(first & second) / len(first | second) if first | second else 0.0


def greedy_nms(boxes: list[list[int]], scores: list[float], threshold: float, offset: int) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(pixel_iou(boxes[index], boxes[other], offset) <= threshold for other in kept):
            kept.append(index)
    return kept


@st.composite
def integer_boxes(draw: st.DrawFn) -> list[list[int]]:
    number = st.integers(0, 12)
    corner = st.tuples(number, number, st.integers(1, 8), st.integers(1, 8))
    return [[x, y, x + w, y + h] for x, y, w, h in draw(st.lists(corner, max_size=12))]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(boxes=integer_boxes(), offset=st.sampled_from([0, 1]), threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7]))
def test_nms_keeps_what_the_greedy_rule_keeps(boxes: list[list[int]], offset: int, threshold: float) -> None:
    scores = [((7 * i) % 13 + 1) / 14 for i in range(len(boxes))]
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    dets, indices = ops.nms(tensor, torch.tensor(scores), threshold, offset=offset)
    assert indices.tolist() == greedy_nms(boxes, scores, threshold, offset)
    assert indices.dtype == torch.long
    torch.testing.assert_close(dets[:, :4], tensor[indices])


def test_nms_compares_with_the_threshold_in_float32() -> None:
    # The IoU is 3 / 10; the float32 nearest to it lies above the double nearest to 0.3.
    boxes = torch.tensor([[0, 0, 6.5, 1], [3.5, 0, 10, 1]])
    assert ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.3)[1].tolist() == [0, 1]


def test_nms_half_precision_and_limits() -> None:
    boxes = torch.tensor([[0, 0, 8, 8], [0, 0, 8, 7], [20, 20, 30, 30]])
    scores = torch.tensor([0.5, 0.75, 0.25])
    assert ops.nms(boxes.half(), scores.half(), 0.5)[1].tolist() == [1, 2]
    assert ops.nms(boxes.double(), scores.double(), 0.5)[1].tolist() == [1, 2]
    assert ops.nms(boxes.float(), scores, 0.5, score_threshold=0.3)[1].tolist() == [1]
    assert ops.nms(boxes.float(), scores, 0.5, max_num=1)[1].tolist() == [1]
    dets, indices = ops.batched_nms(
        boxes.float(), scores, torch.tensor([0, 1, 0]), {"type": "nms", "iou_threshold": 0.5}
    )
    assert indices.tolist() == [1, 0, 2]
    assert dets.shape == (3, 5)


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("offset", [0, 1])
@settings(deadline=None, derandomize=True, max_examples=25)
@given(boxes=integer_boxes())
def test_soft_nms_follows_its_definition(method: str, offset: int, boxes: list[list[int]]) -> None:
    scores = {i: ((7 * i) % 13 + 1) / 14 for i in range(len(boxes))}
    dets, indices = ops.soft_nms(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(list(scores.values()), dtype=torch.float32),
        iou_threshold=0.3,
        sigma=0.5,
        min_score=0.1,
        method=method,
        offset=offset,
    )
    expected = []
    while scores:
        best = max(scores, key=lambda i: scores[i])
        expected.append((best, scores.pop(best)))
        for i in list(scores):
            iou = pixel_iou(boxes[best], boxes[i], offset)
            if method == "gaussian":
                scores[i] *= math.exp(-(iou**2) / 0.5)
            elif iou >= 0.3:
                scores[i] *= 1 - iou if method == "linear" else 0
            if scores[i] < 0.1:
                del scores[i]
    # Two scores may become equal: then the order between them is free.
    assert sorted(indices.tolist()) == sorted(i for i, _ in expected)
    np.testing.assert_allclose(dets[:, 4], [score for _, score in expected], rtol=1e-5)
    np.testing.assert_array_equal(dets[:, :4], np.array(boxes).reshape(-1, 4)[indices.numpy()])


def test_nms_match_groups_each_box_with_the_one_that_suppresses_it() -> None:
    boxes = torch.rand(60, 2) * 20
    dets = torch.cat([boxes, boxes + 2 + torch.rand(60, 2) * 10, torch.rand(60, 1)], dim=1)
    groups = ops.nms_match(dets, 0.4)
    kept = ops.nms(dets[:, :4].contiguous(), dets[:, 4].contiguous(), 0.4)[1]
    assert [int(group[0]) for group in groups] == kept.tolist()
    assert sorted(int(i) for group in groups for i in group) == list(range(60))
    assert max(len(group) for group in groups) > 2
    iou = torchvision.ops.box_iou(dets[:, :4], dets[:, :4])
    for group in groups:
        assert (iou[group[0], group[1:]] >= 0.4).all()
        assert (dets[group, 4].diff() <= 0).all()
    assert ops.nms_match(torch.zeros(0, 5), 0.4) == []


@settings(deadline=None, derandomize=True, max_examples=40)
@given(first=integer_boxes(), second=integer_boxes(), offset=st.sampled_from([0, 1]))
def test_bbox_overlaps_counts_pixels(first: list[list[int]], second: list[list[int]], offset: int) -> None:
    expected = np.array([[pixel_iou(a, b, offset) for b in second] for a in first]).reshape(len(first), len(second))
    tensors = [torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4) for boxes in (first, second)]
    np.testing.assert_allclose(ops.bbox_overlaps(*tensors, offset=offset), expected)
    count = min(len(first), len(second))
    aligned = ops.bbox_overlaps(tensors[0][:count], tensors[1][:count], aligned=True, offset=offset)
    np.testing.assert_allclose(aligned, np.diag(expected[:count, :count]))


def test_bbox_overlaps_over_the_first_box() -> None:
    a, b = torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[2.0, 0, 10, 10]])
    assert ops.bbox_overlaps(a, b, mode="iof").item() == 0.5
    assert ops.bbox_overlaps(b, a, mode="iof").item() == pytest.approx(4 / 80)
