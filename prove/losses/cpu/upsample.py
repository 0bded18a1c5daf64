"""The adjoint of bilinear upsampling: gradients of full-size logits summed into the low-resolution ones they came from.

Every low-resolution cell sums its outputs in one order: no atomics, the same bits whatever the number of threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from prove.losses.cpu.jit import kernel
from prove.losses.cpu.tile import Source

Array = Any


class Gather(NamedTuple):
    """The label columns that each low-resolution column reaches: ``first`` and ``count`` [w], their shares [w, K]."""

    first: Array
    count: Array
    share: Array


def gather_of(columns: Array, share: Array, low_width: int) -> Gather:
    """The transpose of the weights [2, W] and [W] with which columns are interpolated."""
    dense: list[dict[int, float]] = [{} for _ in range(low_width)]
    for at, (left, right, s) in enumerate(zip(columns[0], columns[1], share, strict=True)):
        dense[left][at] = dense[left].get(at, 0.0) + 1.0 - float(s)
        dense[right][at] = dense[right].get(at, 0.0) + float(s)
    first = np.array([min(reached, default=0) for reached in dense], np.int32)
    count = np.array([max(reached) - min(reached) + 1 if reached else 0 for reached in dense], np.int32)
    shares = np.zeros((low_width, max(1, int(count.max()))), share.dtype)
    for low, reached in enumerate(dense):
        for at, weight in reached.items():
            shares[low, at - first[low]] = weight
    return Gather(first, count, shares)


class Pending(NamedTuple):
    """Two neighbouring low-resolution rows, not yet summed over columns: [C, W] each, and the index of the first.

    Attributes:
        at: [1] int64, -1 when there is none.
    """

    upper: Array
    lower: Array
    at: Array


@kernel
def add_row(
    source: Source, row: int, tile: Array, offset: int, gather: Gather, base: int, p: Pending, out: Array
) -> None:
    """Add the gradient of one label row, ``tile[:, offset : offset + W]``, to ``out`` [C, rows, w].

    Args:
        base: the low-resolution row that ``out`` begins with.
    """
    above, below = source.rows[0, row], source.rows[1, row]
    if above != p.at[0]:
        _advance(above, gather, base, p, out)
    share = source.row_share[row]
    one = source.row_share.dtype.type(1)
    rest = one - share if below != above else one
    width = source.width
    for c in range(tile.shape[0]):
        gradient, upper = tile[c, offset : offset + width], p.upper[c]
        for i in range(width):
            upper[i] += rest * gradient[i]
        if below != above:
            lower = p.lower[c]
            for i in range(width):
                lower[i] += share * gradient[i]


@kernel
def _advance(above: int, gather: Gather, base: int, p: Pending, out: Array) -> None:
    while p.at[0] >= 0 and p.at[0] < above:
        flush(gather, base, p, out)
        p.at[0] += 1
    p.at[0] = above


@kernel
def flush(gather: Gather, base: int, p: Pending, out: Array) -> None:
    """Sum the upper pending row over columns into ``out``, and move the lower one up."""
    at = p.at[0] - base
    if at < 0 or at >= out.shape[1]:
        return
    for c in range(out.shape[0]):
        row, target, below = p.upper[c], out[c, at], p.lower[c]
        for low in range(target.size):
            total, first = target[low], gather.first[low]
            for k in range(gather.count[low]):
                total += gather.share[low, k] * row[first + k]
            target[low] = total
        for i in range(row.size):
            row[i] = below[i]
            below[i] = below.dtype.type(0)
