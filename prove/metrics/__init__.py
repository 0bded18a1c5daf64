"""From predictions to numbers: integer counts per image first, percentages from summed counts second.

| module | what it does | needs |
|---|---|---|
| `confusion`, `calibration` | counts from one image's tensors | torch |
| `boundary` | boundary counts from one image's label maps | OpenCV, scipy |
| `evaluate` | all counts of one image in one call | torch |
| `counts` | the counts as data, stacked over images for an ``.npz`` | numpy |
| `reduce` | summed counts to mIoU, aAcc, mAcc, fwIoU, bIoU, bF1, ECE | numpy |
| `resample` | the image bootstrap: a metric on resampled images | numpy |

Names resolve on first use: a report on a login node imports `summarize` and never torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prove.metrics.boundary import boundary_counts
    from prove.metrics.calibration import calibration_histogram
    from prove.metrics.confusion import confusion_matrix
    from prove.metrics.counts import METRIC_VERSION, BoundaryCounts, ImageCounts, stack_counts
    from prove.metrics.evaluate import count_image
    from prove.metrics.reduce import (
        METRICS,
        BoundarySummary,
        IoUSummary,
        MetricSet,
        boundary_summary,
        by_condition,
        ece,
        summarize,
        summarize_arrays,
    )

__all__ = [
    "METRICS",
    "METRIC_VERSION",
    "BoundaryCounts",
    "BoundarySummary",
    "ImageCounts",
    "IoUSummary",
    "MetricSet",
    "boundary_counts",
    "boundary_summary",
    "by_condition",
    "calibration_histogram",
    "confusion_matrix",
    "count_image",
    "ece",
    "stack_counts",
    "summarize",
    "summarize_arrays",
]

_HOME = {
    "boundary_counts": "boundary",
    "calibration_histogram": "calibration",
    "confusion_matrix": "confusion",
    "count_image": "evaluate",
    "METRIC_VERSION": "counts",
    "BoundaryCounts": "counts",
    "ImageCounts": "counts",
    "stack_counts": "counts",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'reduce')}"), name)
