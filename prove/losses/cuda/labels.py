"""What depends on labels alone: their check, their counts, their neighbourhoods, their edges."""

from __future__ import annotations

import triton.language as tl

from prove.losses import boundary
from prove.losses.cuda.jit import Array, kernel
from prove.losses.cuda.tile import load_labels, load_mass

_LARGEST = tl.constexpr(boundary.LARGEST)


@kernel
def survey(
    labels: Array, weight: Array, counts: Array, wrong: Array, classes: Array, pixels: Array, ignore_index: Array,
    COUNT: tl.constexpr, WEIGHTED: tl.constexpr, K: tl.constexpr, B: tl.constexpr,
) -> None:  # fmt: skip
    """Check one block of B pixels of image ``program_id(1)``, and count them.

    Args:
        counts: [N, C] int32, to which the pixels of each class are added where COUNT.
        wrong: [1] int32, set to 1 where a label is neither a class nor ignored or a weight is negative or not finite.
    """
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * B + tl.arange(0, B)
    given = tl.load(labels + image * pixels + pixel, mask=pixel < pixels, other=ignore_index)
    valid = given != ignore_index
    bad = valid & ((given < 0) | (given >= classes))
    if WEIGHTED:
        mass = tl.load(weight + image * pixels + pixel, mask=(pixel < pixels) & valid, other=0.0).to(tl.float32)
        fine = (mass >= 0.0) & (mass < float("inf"))
        bad = bad | (valid & (fine == 0))
    tl.store(wrong, 1, mask=tl.sum(bad.to(tl.int32)) > 0)
    if COUNT:
        c = tl.arange(0, K)
        here = tl.sum((c[:, None] == tl.where(valid, given, -1)[None, :]).to(tl.int32), axis=1)
        tl.atomic_add(counts + image * classes + c, here, mask=(c < classes) & (here > 0), sem="relaxed")


@kernel
def _sobel_of(c: Array, a: Array, b: Array, d: Array, e: Array, f: Array, g: Array, h: Array, i: Array) -> Array:
    """The squared Sobel magnitude of class c in neighbourhoods of labels, row by row without the middle."""
    across = (d == c).to(tl.int32) + 2 * (f == c).to(tl.int32) + (i == c).to(tl.int32)
    across -= (a == c).to(tl.int32) + 2 * (e == c).to(tl.int32) + (g == c).to(tl.int32)
    down = (g == c).to(tl.int32) + 2 * (h == c).to(tl.int32) + (i == c).to(tl.int32)
    down -= (a == c).to(tl.int32) + 2 * (b == c).to(tl.int32) + (d == c).to(tl.int32)
    return across * across + down * down


@kernel
def neighbourhoods(
    labels: Array, weight: Array, whole: Array, edges: Array, classes: Array, pixels: Array, width: Array,
    height: Array, ignore_index: Array, WHOLE: tl.constexpr, EDGES: tl.constexpr, WEIGHTED: tl.constexpr,
    DT: tl.constexpr, B: tl.constexpr,
) -> None:  # fmt: skip
    """Maps [N, H W] for one block of image ``program_id(1)``.

    Args:
        whole: set where WHOLE to the mass of each pixel, 0 where its 3x3 neighbourhood has an ignored pixel.
        edges: set where EDGES to the largest Sobel edge of any class in [0, 1], as
            `prove.losses.boundary_focal.edge_map` without dilation.
    """
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * B + tl.arange(0, B)
    inside = pixel < pixels
    row, column = pixel // width, pixel % width
    labels += image * pixels
    upper, middle = tl.maximum(row - 1, 0) * width, row * width
    lower = tl.minimum(row + 1, height - 1) * width
    left, right = tl.maximum(column - 1, 0), tl.minimum(column + 1, width - 1)
    a = load_labels(labels, upper + left, inside, ignore_index, classes)
    b = load_labels(labels, upper + column, inside, ignore_index, classes)
    d = load_labels(labels, upper + right, inside, ignore_index, classes)
    e = load_labels(labels, middle + left, inside, ignore_index, classes)
    y = load_labels(labels, pixel, inside, ignore_index, classes)
    f = load_labels(labels, middle + right, inside, ignore_index, classes)
    g = load_labels(labels, lower + left, inside, ignore_index, classes)
    h = load_labels(labels, lower + column, inside, ignore_index, classes)
    i = load_labels(labels, lower + right, inside, ignore_index, classes)
    least = tl.minimum(tl.minimum(tl.minimum(a, b), tl.minimum(d, e)), tl.minimum(tl.minimum(f, g), tl.minimum(h, i)))
    known = tl.minimum(least, y) >= 0
    if WHOLE:
        mass = load_mass(weight + image * pixels, pixel, y, DT, WEIGHTED)
        tl.store(whole + image * pixels + pixel, tl.where(known, mass, 0.0), mask=inside)
    if EDGES:
        # the class with the largest edge is one of the eight around: the middle does not enter the operator
        best = tl.maximum(_sobel_of(a, a, b, d, e, f, g, h, i), _sobel_of(b, a, b, d, e, f, g, h, i))
        best = tl.maximum(best, _sobel_of(d, a, b, d, e, f, g, h, i))
        best = tl.maximum(best, _sobel_of(e, a, b, d, e, f, g, h, i))
        best = tl.maximum(best, _sobel_of(f, a, b, d, e, f, g, h, i))
        best = tl.maximum(best, _sobel_of(g, a, b, d, e, f, g, h, i))
        best = tl.maximum(best, _sobel_of(h, a, b, d, e, f, g, h, i))
        best = tl.maximum(best, _sobel_of(i, a, b, d, e, f, g, h, i))
        edge = tl.sqrt(best.to(DT) / _LARGEST)
        tl.store(edges + image * pixels + pixel, tl.where(known, edge, 0.0), mask=inside)
