"""What depends on labels alone: their check, their neighbourhoods, their edges."""

from __future__ import annotations

from typing import Any

import numpy as np

from prove.losses.boundary import LARGEST
from prove.losses.cpu.jit import kernel

Array = Any


@kernel
def relabel(labels: Array, ignore_index: int, classes: int, out: Array, counts: Array) -> int:
    """Labels [P] int64 as int32 with -1 where ignored into ``out``, and the pixels of each class into ``counts`` [C].

    Returns:
        The index of the first label that is neither a class nor ignored, or -1.
    """
    wrong = 0
    for i in range(labels.size):
        label = labels[i]
        ignored = label == ignore_index
        bad = not ignored and (label < 0 or label >= classes)
        wrong += 1 if bad else 0
        out[i] = np.int32(-1 if ignored or bad else label)
    for i in range(labels.size):
        if out[i] >= 0:
            counts[out[i]] += 1
    if wrong:
        for i in range(labels.size):
            if out[i] < 0 and labels[i] != ignore_index:
                return i
    return -1


@kernel
def whole_masses(labels: Array, mass: Array, width: int, out: Array) -> None:
    """The mass of each pixel [H W] into ``out``, 0 where its 3x3 neighbourhood has an ignored pixel.

    Args:
        mass: [H W], or empty for 1.
    """
    height, zero, one = labels.size // width, out.dtype.type(0), out.dtype.type(1)
    for r in range(height):
        upper = labels[max(r - 1, 0) * width : (max(r - 1, 0) + 1) * width]
        middle = labels[r * width : (r + 1) * width]
        lower = labels[min(r + 1, height - 1) * width : (min(r + 1, height - 1) + 1) * width]
        line = out[r * width : (r + 1) * width]
        for x in range(width):  # an ignored label is -1: one of three is negative where their bitwise or is
            line[x] = zero if (upper[x] | middle[x] | lower[x]) < 0 else one
        before = line[0]
        for x in range(width):
            here = line[x]
            line[x] = min(before, here, line[min(x + 1, width - 1)])
            before = here
        if mass.size:
            given = mass[r * width : (r + 1) * width]
            for x in range(width):
                line[x] *= given[x] if line[x] != zero else zero


@kernel
def label_edges(labels: Array, width: int, out: Array) -> None:
    """The largest Sobel edge of any class in [0, 1] at each pixel [H W], as `prove.losses.boundary_focal.edge_map`."""
    height = labels.size // width
    near = np.empty(9, np.int32)
    for r in range(height):
        upper, middle, lower = max(r - 1, 0) * width, r * width, min(r + 1, height - 1) * width
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            near[0], near[1], near[2] = labels[upper + left], labels[upper + x], labels[upper + right]
            near[3], near[4], near[5] = labels[middle + left], labels[middle + x], labels[middle + right]
            near[6], near[7], near[8] = labels[lower + left], labels[lower + x], labels[lower + right]
            smallest, largest = near[0], near[0]
            for k in range(1, 9):
                smallest, largest = min(smallest, near[k]), max(largest, near[k])
            best = 0
            if smallest >= 0 and smallest != largest:
                for k in range(9):
                    best = max(best, sobel_of(near, near[k]))
            out[middle + x] = np.sqrt(best / LARGEST)


@kernel
def sobel_of(near: Array, c: int) -> int:
    """The squared Sobel magnitude of class c in a 3x3 neighbourhood of labels."""
    a, b, d = int(near[0] == c), int(near[1] == c), int(near[2] == c)
    e, f = int(near[3] == c), int(near[5] == c)
    g, h, i = int(near[6] == c), int(near[7] == c), int(near[8] == c)
    across = (d + 2 * f + i) - (a + 2 * e + g)
    down = (g + 2 * h + i) - (a + 2 * b + d)
    return across * across + down * down
