"""The confusion matrix of one image."""

from __future__ import annotations

import torch
from torch import Tensor

from prove.errors import ProveError
from prove.metrics.labels import check_map, check_num_classes, not_integer, out_of_range


def confusion_matrix(pred: Tensor, label: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Count label/prediction pairs of one image, exactly (int64) whatever the number of pixels.

    Args:
        pred: predicted class indices ``[H, W]``, any integer type; anything goes where the label is ignored.
        label: class indices ``[H, W]``, any integer type; ``ignore_index`` marks pixels that count nowhere.
        num_classes: C.

    Returns:
        int64 ``[C, C]`` on the device of ``label``; rows are labels, columns predictions.

    Raises:
        ProveError: maps of different shape or not of integers; a label outside ``[0, C)`` other than
            ``ignore_index``, or a prediction outside ``[0, C)`` on a labelled pixel, with its value and position.
    """
    check_num_classes(num_classes)
    check_map("label", tuple(label.shape))
    check_map("prediction", tuple(pred.shape), tuple(label.shape))
    rows, columns = _wide("label", label), _wide("prediction", pred)
    # One histogram over a table with a margin: row and column 0 and C+1 collect values out of range, the last row
    # the ignored pixels. So the check costs no pass over the image and, on a GPU, no second synchronisation.
    side = num_classes + 2
    row = (rows.clamp(-1, num_classes) + 1).to(torch.int32)
    column = (columns.clamp(-1, num_classes) + 1).to(torch.int32)
    row = torch.where(rows == ignore_index, side, row)
    table = torch.bincount((row * side + column).flatten(), minlength=(side + 1) * side).view(side + 1, side)
    counts = table[1 : num_classes + 1, 1 : num_classes + 1].contiguous()
    if int(table[:side].sum() - counts.sum()) > 0:
        raise _first_out_of_range(rows, columns, num_classes, ignore_index)
    return counts


def _wide(kind: str, values: Tensor) -> Tensor:
    """The same integers in a type that holds -1 and any ignore index: comparing uint8 with -100 would wrap."""
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise not_integer(kind, values.dtype)
    return (
        values if values.dtype == torch.int64 else values.to(torch.int64 if values.dtype.itemsize > 2 else torch.int32)
    )


def _first_out_of_range(label: Tensor, pred: Tensor, num_classes: int, ignore_index: int) -> ProveError:
    valid = label != ignore_index
    for kind, values in (("label", label), ("prediction", pred)):
        wrong = (valid & ((values < 0) | (values >= num_classes))).nonzero()
        if len(wrong):
            row, column = (int(i) for i in wrong[0])
            return out_of_range(kind, int(values[row, column]), row, column, num_classes, ignore_index)
    raise AssertionError("the histogram found a value out of range that the maps do not hold")
