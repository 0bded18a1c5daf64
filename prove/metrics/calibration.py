"""The calibration histogram of one image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prove.errors import ProveError
from prove.metrics.labels import check_map, valid_pixels
from prove.metrics.reduce import ece

__all__ = ["calibration_histogram", "ece", "top_label", "top_label_histogram"]


def calibration_histogram(prob: Tensor, label: Tensor, bins: int = 15, ignore_index: int = 255) -> NDArray[np.float64]:
    """Count labelled pixels by the confidence of their prediction (Guo et al., ICML 2017: top label, equal widths).

    Bin b of B holds confidences in (b/B, (b+1)/B]; 0 goes into the first. The state is 3·B numbers, however many
    images are summed.

    Args:
        prob: probabilities ``[C, H, W]`` in 0..1 (softmax, not logits); anything goes where the label is ignored.
        label: class indices ``[H, W]`` on the same device; ``ignore_index`` marks pixels that count nowhere.

    Returns:
        float64 ``[3, bins]`` on the CPU: pixels, sum of confidences, correct pixels.

    Raises:
        ProveError: shapes that do not fit, no floats, a confidence that is no probability, a label out of range.
    """
    check_map("label", tuple(label.shape))
    if prob.ndim != 3 or prob.shape[1:] != label.shape or not prob.is_floating_point():
        raise ProveError(
            f"Probabilities must be floats of shape [C, {label.shape[0]}, {label.shape[1]}], "
            f"got {prob.dtype} {list(prob.shape)}."
        )
    confidence, pred = top_label(prob)
    return top_label_histogram(confidence, pred, label, len(prob), bins, ignore_index)


def top_label(prob: Tensor) -> tuple[Tensor, Tensor]:
    """The confidence (float32 or float64) and the index ``[H, W]`` of the most probable class of ``[C, H, W]``."""
    confidence, pred = prob.detach().max(0)
    return confidence if prob.dtype == torch.float64 else confidence.float(), pred


def top_label_histogram(
    confidence: Tensor, pred: Tensor, label: Tensor, num_classes: int, bins: int = 15, ignore_index: int = 255
) -> NDArray[np.float64]:
    """`calibration_histogram` from what `top_label` returns."""
    if bins < 1:
        raise ProveError(f"bins must be at least 1, got {bins}.")
    # The maximum over classes was the work. Sums on the CPU have one order, so the histogram is the same in every run.
    confidences, preds, labels = confidence.cpu().numpy(), pred.cpu().numpy(), label.cpu().numpy()
    valid = valid_pixels(preds, labels, num_classes, ignore_index)
    # A softmax in half precision may round to a little more than 1; NaN fails every comparison.
    improbable = valid & ~((confidences >= 0) & (confidences <= 1.001))
    if improbable.any():
        row, column = (int(i) for i in np.unravel_index(int(improbable.argmax()), improbable.shape))
        raise ProveError(
            f"The confidence {confidences[row, column]:g} at row {row}, column {column} is no probability.",
            hint="Pass probabilities (softmax over classes), not logits.",
        )
    confidences, correct = confidences[valid], (preds == labels)[valid]
    # Edges in the type of the confidences: a float32 confidence of 0.2 must not lie above an edge at 0.2.
    inner_edges = np.arange(1, bins, dtype=confidences.dtype) / np.asarray(bins, confidences.dtype)
    index = np.searchsorted(inner_edges, confidences, side="left")
    return np.stack(
        [
            np.bincount(index, minlength=bins).astype(np.float64),
            np.bincount(index, weights=confidences, minlength=bins),
            np.bincount(index[correct], minlength=bins).astype(np.float64),
        ]
    )
