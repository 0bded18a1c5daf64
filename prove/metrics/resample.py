"""The image bootstrap: a metric on resampled validation images, from the counts that are kept of each image.

Metrics of a dataset are not means over its images: the counts of the drawn images are summed first, then reduced as
`prove.metrics.reduce` does. With the draws as weights W ``[B, N]`` the sums of all resamples are one product, ``W @
counts``. One W serves all runs that were evaluated on the same images, so that they stay paired image by image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prove.errors import ProveError, unknown
from prove.metrics.counts import BOUNDARY_FIELDS, check_arrays
from prove.metrics.reduce import METRICS, Floats, boundary_of_totals, ece_of_totals, iou_of_totals, rows_by_condition

RESAMPLES = 1000

SCOPES = ("overall", "condition", "class")

CLASS_METRICS = ("IoU", "Acc", "bIoU", "bF1")
"""The metrics of a class; `METRICS` are those of a set of images."""

_OF_CONFUSION = frozenset({"mIoU", "aAcc", "mAcc", "fwIoU", "IoU", "Acc"})
_OF_BOUNDARY = frozenset({"bIoU", "bF1"})


def images_digest(ids: Sequence[str] | NDArray[np.str_]) -> str:
    """SHA-256 of a set of image ids, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(map(str, ids)):
        digest.update(b"%d " % len(name.encode()) + name.encode())
    return digest.hexdigest()


def weights(ids: Sequence[str] | NDArray[np.str_], resamples: int = RESAMPLES) -> Floats:
    """How often each image is drawn in each resample: N draws with replacement out of N images.

    Args:
        ids: of the images, without duplicates.
        resamples: B.

    Returns:
        ``[B, N]``, whole numbers in float64, each row sums to N. They depend on the set of ids alone, on any machine
        and with any version of numpy: the column of an image is the same in whatever order the ids stand.

    Raises:
        ProveError: no images, or one of them twice.
    """
    names = np.asarray(ids, dtype=np.str_)
    count = len(names)
    if not count or len(np.unique(names)) != count:
        raise ProveError("Images can't be resampled: there are none, or one of them is listed twice.")
    seed = int.from_bytes(bytes.fromhex(images_digest(names))[:16], "big")
    # Raw bits, which numpy promises to keep; an index takes 32 of them, and the bias is below N / 2^32.
    bits = np.random.PCG64(seed).random_raw(resamples * count) >> np.uint64(32)
    drawn = ((bits * np.uint64(count)) >> np.uint64(32)).astype(np.intp).reshape(resamples, count)
    drawn += np.arange(resamples)[:, None] * count
    in_order = np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count)
    place = np.empty(count, np.intp)
    place[sorted(range(count), key=lambda index: str(names[index]))] = np.arange(count)
    return in_order[:, place].astype(np.float64)


def scope_names(arrays: Mapping[str, NDArray[Any]], scope: str) -> tuple[str, ...]:
    """What `replicates` has a row for: one of no name overall, the conditions (sorted), the classes (their order).

    Args:
        arrays: of `prove.metrics.stack_counts`, with ``classes`` for their scope.
    """
    if scope == "overall":
        return ("",)
    if scope == "condition":
        return tuple(rows_by_condition(arrays["conditions"]))
    return tuple(str(name) for name in arrays["classes"])


def needed(metric: str, scope: str) -> tuple[str, ...]:
    """The arrays of counts that a metric is made from.

    Raises:
        ProveError: there is no such metric in this scope.
    """
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    if metric not in (CLASS_METRICS if scope == "class" else METRICS):
        raise unknown("metric", metric, CLASS_METRICS if scope == "class" else METRICS)
    if metric in _OF_CONFUSION:
        return ("confusion",)
    return tuple(f"boundary_{name}" for name in BOUNDARY_FIELDS) if metric in _OF_BOUNDARY else ("calibration",)


def replicates(arrays: Mapping[str, NDArray[Any]], drawn: Floats, metric: str, scope: str = "overall") -> Floats:
    """A metric on every resample.

    Args:
        arrays: the counts of N images, as `prove.metrics.stack_counts` makes them; only those that are `needed`.
        drawn: W ``[B, N]``; its columns are in the order of ``arrays["ids"]``. A row of ones gives the metric itself.
        metric: one of `METRICS`; for classes one of `CLASS_METRICS`.
        scope: ``overall``, ``condition`` or ``class``.

    Returns:
        ``[K, B]`` in percent, a row for each of `scope_names`; NaN where a resample leaves the metric undefined, as
        for a class that is labelled in none of its images.

    Raises:
        ProveError: there is no such metric, or the arrays are not of this version or not of the images of W.
    """
    counts = needed(metric, scope)
    check_arrays(arrays, counts)
    if drawn.ndim != 2 or drawn.shape[1] != len(arrays["ids"]):
        raise ProveError(f"Weights {list(drawn.shape)} are not of the {len(arrays['ids'])} images that were counted.")
    per_image = np.concatenate([_per_image(name, arrays[name]) for name in counts], axis=1)
    if scope == "condition":
        rows = rows_by_condition(arrays["conditions"]).values()
        found = [_reduced(metric, scope, drawn[:, which] @ per_image[which]) for which in rows]
        return np.stack(found) if found else np.empty((0, len(drawn)))
    values = _reduced(metric, scope, drawn @ per_image)
    return values.T if scope == "class" else values[None]


def _per_image(name: str, counts: NDArray[Any]) -> Floats:
    """What has to be summed over images, flat: ``[N, ...]``. Sums of counts are exact in float64."""
    if name == "confusion":
        parts = (np.diagonal(counts, axis1=1, axis2=2), counts.sum(1), counts.sum(2))
        return np.concatenate(parts, axis=1).astype(np.float64)
    return counts.reshape(len(counts), -1).astype(np.float64)


def _reduced(metric: str, scope: str, totals: Floats) -> Floats:
    """The metric of summed counts ``[B, ...]``."""
    if metric in _OF_CONFUSION:
        return iou_of_totals(*_parts(totals, 3))[metric]
    if metric in _OF_BOUNDARY:
        return boundary_of_totals(*_parts(totals, len(BOUNDARY_FIELDS)))[
            metric if scope == "class" else f"mean {metric}"
        ]
    return ece_of_totals(totals.reshape(len(totals), 3, -1))


def _parts(totals: Floats, parts: int) -> list[Floats]:
    return np.split(totals, parts, axis=1)
