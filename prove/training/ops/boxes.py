"""Boxes: overlap and suppression. Boxes are (x1, y1, x2, y2) in pixels, a width is ``x2 - x1 + offset``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from torch import Tensor

from prove.training.ops.gradient import at_least_float32

FloatArray = npt.NDArray[np.floating]


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, *, mode: int, aligned: bool, offset: int) -> None:
    """Writes the overlap of every pair, shape (M, N), or of matching rows, shape (N,), into ``ious``.

    Args:
        mode: 0 intersection over union, 1 intersection over the area of the first box.
        aligned: pair row i with row i instead of every row with every row.
    """
    first = bboxes1 if aligned else bboxes1[:, None]
    top_left = torch.maximum(first[..., :2], bboxes2[..., :2])
    bottom_right = torch.minimum(first[..., 2:], bboxes2[..., 2:])
    intersection = (bottom_right - top_left + offset).clamp(min=0).prod(-1)
    area = (first[..., 2:] - first[..., :2] + offset).prod(-1)
    if mode == 0:
        area = area + (bboxes2[..., 2:] - bboxes2[..., :2] + offset).prod(-1) - intersection
    ious.copy_(intersection / area)


def nms(boxes: Tensor, scores: Tensor, *, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes kept, best score first; a box goes when its IoU with a kept one exceeds the threshold."""
    if boxes.numel() == 0:
        return boxes.new_empty(0, dtype=torch.long)
    corners = at_least_float32(boxes)
    if offset:
        corners = corners + corners.new_tensor([0, 0, offset, offset])
    if corners.dtype == torch.float32:
        # mmcv compares in float32: an IoU of exactly 0.3f does not exceed 0.3.
        iou_threshold = float(np.float32(iou_threshold))
    kept: Tensor = torchvision.ops.nms(corners, scores.to(corners.dtype), iou_threshold)
    return kept


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    *,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., ICCV 2017) on CPU tensors: lowers the scores of overlapping boxes, drops low ones.

    Args:
        dets: (N, 5), receives the boxes and the lowered scores of the K boxes kept in its first K rows.
        method: 0 drops a box at the threshold, 1 multiplies its score by 1 - IoU there, 2 by exp(-IoU² / sigma)
            everywhere.

    Returns:
        Indices of the boxes kept, (K,), highest lowered score first.
    """
    box = at_least_float32(boxes).numpy()
    score = at_least_float32(scores).numpy().copy()
    order = np.arange(len(box))
    count = len(order)
    rank = 0
    while rank < count:
        best = rank + int(np.argmax(score[order[rank:count]]))
        order[[rank, best]] = order[[best, rank]]
        rest = order[rank + 1 : count]
        overlap = _overlap(box[order[rank]], box[rest], offset)
        if method == 2:
            weight = np.exp(-(overlap * overlap) / sigma)
        else:
            weight = np.where(overlap >= iou_threshold, (1 - overlap) * method, 1)
        score[rest] *= weight.astype(score.dtype)
        # A dropped box is replaced by the last one, as in the original: this decides between equal scores later on.
        position = rank + 1
        while position < count:
            if score[order[position]] < min_score:
                count -= 1
                order[position] = order[count]
            else:
                position += 1
        rank += 1
    kept = torch.from_numpy(order[:count])
    dets[:count, :4] = boxes[kept]
    dets[:count, 4] = torch.from_numpy(score)[kept].to(dets.dtype)
    return kept


def nms_match(dets: Tensor, *, iou_threshold: float) -> list[list[int]]:
    """Groups of indices, one per kept box: itself first, then those it suppresses (IoU >= threshold), by score.

    Args:
        dets: (N, 5) on CPU, the fifth column is the score.
    """
    box = at_least_float32(dets)[:, :4].numpy()
    waiting = torch.sort(dets[:, 4], descending=True, stable=True).indices.numpy()
    groups = []
    while len(waiting):
        matched = _overlap(box[waiting[0]], box[waiting[1:]], 0) >= iou_threshold
        groups.append([int(waiting[0]), *waiting[1:][matched].tolist()])
        waiting = waiting[1:][~matched]
    return groups


def _overlap(box: FloatArray, others: FloatArray, offset: int) -> FloatArray:
    """IoU of one box (4,) with others (N, 4); two boxes without area do not overlap."""
    width_height = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]) + offset
    intersection = np.maximum(width_height, 0).prod(-1)
    union = (box[2:] - box[:2] + offset).prod() + (others[:, 2:] - others[:, :2] + offset).prod(-1) - intersection
    overlap: FloatArray = np.divide(intersection, union, out=np.zeros_like(intersection), where=union != 0)
    return overlap
