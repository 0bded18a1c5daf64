"""Counts to percentages. numpy only: whatever a table shows can be recomputed on a machine without torch.

Everywhere: counts are summed over images first, then reduced per class, then averaged over the classes *present in the
ground truth*. A class without ground truth is NaN and left out of the means; predicting it still costs the classes
whose pixels it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from prove.errors import ProveError
from prove.metrics.counts import BOUNDARY_FIELDS, BoundaryCounts, check_arrays

METRICS = ("mIoU", "aAcc", "mAcc", "fwIoU", "bIoU", "bF1", "ECE")
"""Every scalar metric, by field name, in percent (0..100). ECE is better when lower, all others when higher."""

Floats = NDArray[np.float64]


class IoUSummary(TypedDict):
    """What a confusion matrix says. Percentages are float64, unrounded, NaN where undefined."""

    mIoU: float
    """mean of IoU over the classes present in the ground truth"""
    aAcc: float
    """correct pixels of all labelled pixels"""
    mAcc: float
    """mean of Acc over the classes present in the ground truth"""
    fwIoU: float
    """mean of IoU weighted by support"""
    IoU: Floats
    """``[C]``: intersection / union"""
    Acc: Floats
    """``[C]``: recall, correct pixels of the class's labelled pixels"""
    support: NDArray[np.int64]
    """``[C]``: labelled pixels"""


class BoundarySummary(TypedDict):
    """What boundary counts say, in percent; ``[C]`` arrays are NaN for classes without a labelled boundary."""

    bIoU: float
    """mean over classes of boundary IoU (Cheng et al., CVPR 2021)"""
    bF1: float
    """mean over classes of boundary F1 (Csurka et al., BMVC 2013)"""
    bIoU_class: Floats
    bF1_class: Floats


@dataclass(frozen=True, eq=False)
class MetricSet:
    """All metrics of a set of images.

    Attributes:
        images: how many.
        metrics: the names of `METRICS` → percent.
        per_class: ``IoU, Acc, support, bIoU, bF1`` → ``[C]``; percent, but for support (pixels).
        conditions: condition → the same for its images, sorted by name; empty on those.
    """

    images: int
    metrics: dict[str, float]
    per_class: dict[str, NDArray[Any]]
    conditions: dict[str, MetricSet]


def summarize(confusion: NDArray[np.integer]) -> IoUSummary:
    """Reduce confusion matrices to IoU and accuracy.

    Args:
        confusion: integer ``[..., C, C]``, rows are labels; leading axes (images) are summed.

    Raises:
        ProveError: not square, not of integers, or a negative count.
    """
    if confusion.ndim < 2 or confusion.shape[-1] != confusion.shape[-2]:
        raise ProveError(f"A confusion matrix has shape [..., C, C], got {list(confusion.shape)}.")
    if not np.issubdtype(confusion.dtype, np.integer):
        raise ProveError(f"A confusion matrix holds integer counts, got {confusion.dtype}.")
    if (confusion < 0).any():
        raise ProveError("A confusion matrix holds counts, got a negative number.")
    classes = confusion.shape[-1]
    total = confusion.reshape(-1, classes, classes).sum(0, dtype=np.int64)
    support = total.sum(1)
    found = iou_of_totals(total.diagonal(), total.sum(0), support)
    return IoUSummary(
        mIoU=float(found["mIoU"]),
        aAcc=float(found["aAcc"]),
        mAcc=float(found["mAcc"]),
        fwIoU=float(found["fwIoU"]),
        IoU=found["IoU"],
        Acc=found["Acc"],
        support=support,
    )


def iou_of_totals(
    correct: NDArray[np.number[Any]], predicted: NDArray[np.number[Any]], labelled: NDArray[np.number[Any]]
) -> dict[str, Floats]:
    """IoU and accuracy from summed counts.

    Args:
        correct, predicted, labelled: ``[..., C]`` pixels of each class, summed over images; leading axes are kept.

    Returns:
        ``mIoU, aAcc, mAcc, fwIoU`` ``[...]`` and ``IoU, Acc`` ``[..., C]``, in percent, NaN where undefined.
    """
    present = labelled > 0
    iou = _percent(correct, labelled + predicted - correct, present)
    accuracy = _percent(correct, labelled, present)
    pixels = labelled.sum(-1)
    weighted = np.where(present, labelled * iou, 0.0).sum(-1) / 100.0
    return {
        "mIoU": _mean(iou),
        "aAcc": _percent(correct.sum(-1), pixels, pixels > 0),
        "mAcc": _mean(accuracy),
        "fwIoU": _percent(weighted, pixels, pixels > 0),
        "IoU": iou,
        "Acc": accuracy,
    }


def by_condition(confusion: NDArray[np.integer], conditions: Sequence[str] | NDArray[np.str_]) -> dict[str, IoUSummary]:
    """`summarize` for the images of each condition.

    Args:
        confusion: ``[N, C, C]``.
        conditions: ``[N]``; images with "" (no known condition) belong to none.

    Returns:
        Condition → summary, sorted by name.
    """
    if len(confusion) != len(conditions):
        raise ProveError(f"{len(confusion)} confusion matrices but {len(conditions)} conditions.")
    return {name: summarize(confusion[rows]) for name, rows in rows_by_condition(conditions).items()}


def boundary_summary(counts: BoundaryCounts) -> BoundarySummary:
    """Boundary IoU and boundary F1 from boundary counts.

    Args:
        counts: ``[..., C]``; leading axes (images) are summed.
    """
    found = boundary_of_totals(*(_sum_images(getattr(counts, name)) for name in BOUNDARY_FIELDS))
    return BoundarySummary(
        bIoU=float(found["mean bIoU"]),
        bF1=float(found["mean bF1"]),
        bIoU_class=found["bIoU"],
        bF1_class=found["bF1"],
    )


def boundary_of_totals(
    intersection: NDArray[np.number[Any]],
    band_predicted: NDArray[np.number[Any]],
    band_labelled: NDArray[np.number[Any]],
    predicted: NDArray[np.number[Any]],
    predicted_matched: NDArray[np.number[Any]],
    labelled: NDArray[np.number[Any]],
    labelled_matched: NDArray[np.number[Any]],
) -> dict[str, Floats]:
    """Boundary IoU and boundary F1 from summed counts, which come in the order of `BOUNDARY_FIELDS`.

    Precision and recall are those of the summed counts; a class with a labelled but no predicted contour has F1 0.

    Args:
        All are ``[..., C]``, summed over images; leading axes are kept.

    Returns:
        ``bIoU, bF1`` ``[..., C]`` by class and ``mean bIoU, mean bF1`` ``[...]``, in percent, NaN where undefined.
    """
    iou = _percent(intersection, band_predicted + band_labelled - intersection, band_labelled > 0)
    recall = _percent(labelled_matched, labelled, labelled > 0)
    precision = np.where(predicted > 0, _percent(predicted_matched, predicted, predicted > 0), 0.0)
    either = precision + recall
    f1 = np.where(either == 0, 0.0, _percent(precision * recall, 50.0 * either, either > 0))
    return {"bIoU": iou, "bF1": f1, "mean bIoU": _mean(iou), "mean bF1": _mean(f1)}


def ece(histogram: NDArray[np.floating[Any]]) -> float:
    """Expected calibration error in percent (Guo et al., ICML 2017, eq. 3): Σ_b n_b/n · |accuracy_b − confidence_b|.

    Args:
        histogram: ``[..., 3, bins]`` (pixels, sum of confidences, correct pixels); leading axes (images) are summed.

    Returns:
        0..100; NaN when no pixel was counted.
    """
    if histogram.ndim < 2 or histogram.shape[-2] != 3:
        raise ProveError(f"A calibration histogram has shape [..., 3, bins], got {list(histogram.shape)}.")
    return float(ece_of_totals(histogram.reshape(-1, *histogram.shape[-2:]).sum(0, dtype=np.float64)))


def ece_of_totals(histogram: NDArray[np.floating[Any]]) -> Floats:
    """`ece` ``[...]`` of histograms ``[..., 3, bins]`` that are summed over images; leading axes are kept."""
    count, confidence, correct = (histogram[..., row, :] for row in range(3))
    pixels = count.sum(-1)
    return _percent(np.abs(correct - confidence).sum(-1), pixels, pixels > 0)


def summarize_arrays(arrays: Mapping[str, NDArray[Any]]) -> MetricSet:
    """All metrics, overall, per class and per condition, from the arrays of `stack_counts` alone.

    Args:
        arrays: the dict, or the file that ``numpy.load`` opened.

    Raises:
        ProveError: arrays are missing, do not belong together, or are of another metric version.
    """
    loaded = dict(arrays)  # an open .npz decompresses an array each time it is asked for
    check_arrays(loaded)
    groups = rows_by_condition(loaded["conditions"])
    conditions = {name: _metric_set(loaded, rows, {}) for name, rows in groups.items()}
    return _metric_set(loaded, np.arange(len(loaded["ids"])), conditions)


def _metric_set(
    arrays: Mapping[str, NDArray[Any]], rows: NDArray[np.intp], conditions: dict[str, MetricSet]
) -> MetricSet:
    iou = summarize(arrays["confusion"][rows])
    boundary = boundary_summary(BoundaryCounts(**{name: arrays[f"boundary_{name}"][rows] for name in BOUNDARY_FIELDS}))
    return MetricSet(
        images=len(rows),
        metrics={
            "mIoU": iou["mIoU"],
            "aAcc": iou["aAcc"],
            "mAcc": iou["mAcc"],
            "fwIoU": iou["fwIoU"],
            "bIoU": boundary["bIoU"],
            "bF1": boundary["bF1"],
            "ECE": ece(arrays["calibration"][rows]),
        },
        per_class={
            "IoU": iou["IoU"],
            "Acc": iou["Acc"],
            "support": iou["support"],
            "bIoU": boundary["bIoU_class"],
            "bF1": boundary["bF1_class"],
        },
        conditions=conditions,
    )


def rows_by_condition(conditions: Sequence[str] | NDArray[np.str_]) -> dict[str, NDArray[np.intp]]:
    """Which images have which condition, sorted by its name."""
    names = np.asarray(conditions, dtype=np.str_)
    return {str(name): np.flatnonzero(names == name) for name in np.unique(names) if name}


def _sum_images(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    total: NDArray[np.int64] = counts.reshape(-1, counts.shape[-1]).sum(0, dtype=np.int64)
    return total


def _percent(part: Any, whole: Any, defined: Any) -> Floats:
    """100 · part / whole where defined, NaN elsewhere."""
    percent: Floats = np.divide(100.0 * part, whole, out=np.full(np.shape(part), np.nan), where=defined)
    return percent


def _mean(per_class: Floats) -> Floats:
    """The mean over the defined classes ``[..., C]``; NaN when there is none."""
    undefined = np.isnan(per_class)
    defined = per_class.shape[-1] - undefined.sum(-1)
    total = np.where(undefined, 0.0, per_class).sum(-1)
    mean: Floats = np.divide(total, defined, out=np.full(total.shape, np.nan), where=defined > 0)
    return mean
