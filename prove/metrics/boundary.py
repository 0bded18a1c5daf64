"""Boundary counts of one image: bands for boundary IoU, contours for boundary F1.

Both ask how well the *outline* of a class is drawn; mIoU hardly sees it, because most pixels lie inside.

**Ignored pixels** belong to no class and are wildcards: they count nowhere, and what is predicted there has no
influence. Which class meets which behind them is unknown, so

- a pixel is in a *band* because of another class (or the frame) within reach, never because of an ignored pixel.
  Classes on two sides of a narrow ignored strip still see each other across it;
- a *contour* runs between adjacent labelled pixels of two classes, never along an ignored region. A contour pixel is
  judged only if no ignored pixel lies within the tolerance: otherwise the contour that it should match may be hidden.
  Contour pixels that are not judged can still be what another one matches.

The frame of the image counts as outside for bands, as in the paper (there, a mask cut off by the frame ends at it), and
is no contour, as in the DAVIS and Berkeley benchmarks.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from prove.errors import ProveError
from prove.metrics.counts import BoundaryCounts, Counts
from prove.metrics.labels import valid_pixels
from prove.metrics.reduce import boundary_summary

__all__ = ["band_width_px", "boundary_counts", "boundary_summary", "tolerance_px"]

Mask = NDArray[np.bool_]
ClassMap = NDArray[np.uint8] | NDArray[np.uint16]


def boundary_counts(
    pred: NDArray[np.integer],
    label: NDArray[np.integer],
    num_classes: int,
    ignore_index: int = 255,
    dilation_ratio: float = 0.02,
    tolerance_ratio: float = 0.0075,
) -> BoundaryCounts:
    """Count band and contour pixels per class.

    Band of class c (Cheng et al., CVPR 2021, arXiv 2103.16562): the pixels of c with a pixel that is not c, or the
    frame, at Chebyshev distance ≤ `band_width_px`: the mask minus its erosion. Contour of class c (Csurka et al., BMVC
    2013; tolerance as in DAVIS, Perazzi et al., CVPR 2016): the pixels of c with one of another class among their four
    neighbours. It is matched by a contour pixel of c in the other map at Euclidean distance ≤ `tolerance_px`.

    Args:
        pred: predicted class indices ``[H, W]``; anything goes where the label is ignored.
        label: class indices ``[H, W]``; the module's text says how ``ignore_index`` is treated.
        num_classes: C, at most 65535.
        dilation_ratio: width of the band as a fraction of the image's diagonal.
        tolerance_ratio: tolerance of the contour as a fraction of the image's diagonal.

    Returns:
        int64 ``[C]`` each.

    Raises:
        ProveError: maps of different shape, not of integers or out of range, or a ratio outside (0, 1).
    """
    if num_classes > np.iinfo(np.uint16).max:
        raise ProveError(f"Boundary counts handle at most 65535 classes, got {num_classes}.")
    valid = valid_pixels(pred, label, num_classes, ignore_index)
    band_px = band_width_px(label.shape, dilation_ratio)
    reach_px = tolerance_px(label.shape, tolerance_ratio)
    classes_pred, classes_label = (_compact(array, valid, num_classes) for array in (pred, label))

    near_frame = _near_frame(label.shape, band_px)
    window = np.ones((2 * band_px + 1, 2 * band_px + 1), np.uint8)
    band_pred = valid & (near_frame | _sees_other_class(classes_pred, valid, window))
    band_label = valid & (near_frame | _sees_other_class(classes_label, valid, window))

    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    contour_pred = valid & _sees_other_class(classes_pred, valid, cross)
    contour_label = valid & _sees_other_class(classes_label, valid, cross)
    judged = _far_from_ignored(valid, reach_px)
    matched_pred = _matched(classes_pred, contour_pred, classes_label, contour_label, judged, reach_px)
    matched_label = _matched(classes_label, contour_label, classes_pred, contour_pred, judged, reach_px)

    def per_class(classes: ClassMap, where: Mask) -> Counts:
        return np.bincount(classes[where], minlength=num_classes)

    return BoundaryCounts(
        band_intersection=per_class(classes_label, band_label & band_pred & (classes_label == classes_pred)),
        band_predicted=per_class(classes_pred, band_pred),
        band_labelled=per_class(classes_label, band_label),
        contour_predicted=per_class(classes_pred, contour_pred & judged),
        contour_predicted_matched=per_class(classes_pred, matched_pred),
        contour_labelled=per_class(classes_label, contour_label & judged),
        contour_labelled_matched=per_class(classes_label, matched_label),
    )


def band_width_px(shape: tuple[int, ...], dilation_ratio: float = 0.02) -> int:
    """Width of the band in an image ``(H, W)``: rounded, at least 1 (the paper's code)."""
    return max(1, round(_ratio("dilation_ratio", dilation_ratio) * math.hypot(*shape)))


def tolerance_px(shape: tuple[int, ...], tolerance_ratio: float = 0.0075) -> int:
    """Tolerance of a contour in an image ``(H, W)``: rounded up (DAVIS), so at least 1."""
    return math.ceil(_ratio("tolerance_ratio", tolerance_ratio) * math.hypot(*shape))


def _ratio(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise ProveError(f"{name} must lie between 0 and 1 (a fraction of the image's diagonal), got {value}.")
    return value


def _compact(classes: NDArray[np.integer], valid: Mask, num_classes: int) -> ClassMap:
    """Class indices in the narrowest type in which the largest number is no class; 0 where ignored."""
    known = np.where(valid, classes, 0)
    return known.astype(np.uint8) if num_classes <= 255 else known.astype(np.uint16)


def _sees_other_class(classes: ClassMap, valid: Mask, window: NDArray[np.uint8]) -> Mask:
    """Where the window around a valid pixel holds a valid pixel of another class; undefined on ignored pixels.

    A window holds one class only if its smallest and its largest index are the pixel's own. So two filters serve all
    classes at once, where eroding mask after mask would take C. OpenCV leaves out what lies beyond the frame.
    """
    highest = np.iinfo(classes.dtype).max
    smallest = cv2.erode(np.where(valid, classes, highest).astype(classes.dtype), window)
    largest = cv2.dilate(classes, window)  # ignored pixels hold 0 here, which is never larger
    differs: Mask = (smallest != classes) | (largest != classes)
    return differs


def _near_frame(shape: tuple[int, ...], band_px: int) -> Mask:
    near = np.ones(shape, np.bool_)
    near[band_px:-band_px, band_px:-band_px] = False
    return near


def _far_from_ignored(valid: Mask, reach_px: int) -> Mask:
    """Where no ignored pixel lies at Euclidean distance ≤ reach."""
    if valid.all():
        return valid
    distance = cv2.distanceTransform(valid.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Squared distances are integers: half a unit keeps rounding in float32 from deciding.
    far: Mask = distance > math.sqrt(reach_px**2 + 0.5)
    return far


def _matched(
    classes: ClassMap, contour: Mask, other_classes: ClassMap, other_contour: Mask, judged: Mask, reach_px: int
) -> Mask:
    """The judged contour pixels with a contour pixel of the same class in the other map within reach."""
    asked = contour & judged
    matched: Mask = asked & other_contour & (classes == other_classes)
    # Only pixels without a counterpart in place need a search. The class is a third coordinate, too far apart to
    # match across, so one tree serves all classes.
    points = _points(classes, asked & ~matched)
    targets = _points(other_classes, other_contour)
    if len(points) and len(targets):
        distance, _ = cKDTree(targets, compact_nodes=False, balanced_tree=False).query(
            points, distance_upper_bound=math.sqrt(reach_px**2 + 0.5)
        )
        hits = points[np.isfinite(distance)].astype(np.intp)
        matched[hits[:, 0], hits[:, 1]] = True
    return matched


def _points(classes: ClassMap, where: Mask) -> NDArray[np.float64]:
    row, column = np.nonzero(where)
    apart = float(sum(where.shape) + 1)
    return np.column_stack([row, column, classes[row, column] * apart])
