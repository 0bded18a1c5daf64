"""What a label map may hold: the checks that every count shares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prove.errors import ProveError


def check_num_classes(num_classes: int) -> None:
    """Raise a ProveError unless there is at least one class."""
    if num_classes < 1:
        raise ProveError(f"num_classes must be at least 1, got {num_classes}.")


def check_map(kind: str, shape: tuple[int, ...], expected: tuple[int, ...] | None = None) -> None:
    """Raise a ProveError unless ``shape`` is one image's ``[H, W]``, and the expected one if that is given."""
    if len(shape) != 2:
        raise ProveError(f"The {kind} map must have shape [H, W] (one image), got {list(shape)}.")
    if expected is not None and shape != expected:
        raise ProveError(
            f"The {kind} map is {shape[0]}x{shape[1]} pixels, the label map {expected[0]}x{expected[1]}.",
            hint="Bring the prediction to the size of the label map before counting.",
        )


def not_integer(kind: str, dtype: object) -> ProveError:
    """The error for a map of class indices that does not hold integers."""
    return ProveError(f"The {kind} map must hold integer class indices, got {dtype}.")


def out_of_range(kind: str, value: int, row: int, column: int, num_classes: int, ignore_index: int) -> ProveError:
    """The error for a class index outside ``[0, num_classes)``.

    Args:
        kind: "label" or "prediction".
        value: the offending value, found first at ``row``, ``column`` (0-based).
    """
    allowed = f"0..{num_classes - 1}"
    if kind == "label":
        hint = (
            f"Labels must be {allowed}, or {ignore_index} for ignored pixels: check the label conversion, "
            f"the number of classes ({num_classes}) and the ignore index ({ignore_index})."
        )
    else:
        hint = f"Predictions must be {allowed} on labelled pixels: check the model's number of classes ({num_classes})."
    return ProveError(f"The {kind} map holds {value} at row {row}, column {column}.", hint=hint)


def valid_pixels(
    pred: NDArray[np.integer], label: NDArray[np.integer], num_classes: int, ignore_index: int
) -> NDArray[np.bool_]:
    """Which pixels of one image are labelled, after checking both maps.

    Args:
        pred: predicted class indices ``[H, W]``; anything goes where the label is ignored.
        label: class indices ``[H, W]``.

    Returns:
        ``[H, W]``, False where the label is ``ignore_index``.

    Raises:
        ProveError: maps of different shape or not of integers, or a value outside ``[0, num_classes)``.
    """
    check_num_classes(num_classes)
    for kind, array in (("label", label), ("prediction", pred)):
        if not np.issubdtype(array.dtype, np.integer):
            raise not_integer(kind, array.dtype)
    check_map("label", label.shape)
    check_map("prediction", pred.shape, label.shape)
    valid: NDArray[np.bool_] = label != ignore_index
    for kind, array in (("label", label), ("prediction", pred)):
        wrong = valid & ((array < 0) | (array >= num_classes))
        if wrong.any():
            row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
            value = int(array[row, column])
            raise out_of_range(kind, value, int(row), int(column), num_classes, ignore_index)
    return valid
