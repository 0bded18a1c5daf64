"""All counts of one image in one call."""

from __future__ import annotations

from torch import Tensor

from prove.metrics.boundary import boundary_counts
from prove.metrics.calibration import top_label, top_label_histogram
from prove.metrics.confusion import confusion_matrix
from prove.metrics.counts import ImageCounts


def count_image(prob: Tensor, label: Tensor, ignore_index: int = 255, bins: int = 15) -> ImageCounts:
    """Count one image; its prediction is the most probable class.

    Args:
        prob: probabilities ``[C, H, W]`` in 0..1, at the size of the label map.
        label: class indices ``[H, W]`` on the same device.

    Raises:
        ProveError: as `confusion_matrix`, `boundary_counts` and `calibration_histogram` do.
    """
    classes = len(prob)
    confidence, pred = top_label(prob)
    return ImageCounts(
        confusion=confusion_matrix(pred, label, classes, ignore_index).cpu().numpy(),
        boundary=boundary_counts(pred.cpu().numpy(), label.cpu().numpy(), classes, ignore_index),
        calibration=top_label_histogram(confidence, pred, label, classes, bins, ignore_index),
    )
