"""Sobel edges of probabilities against those of labels: values and slopes, class by class.

Probabilities of neighbours are computed again from the logits, which the caches hold, and from two numbers per pixel
that the first pass leaves (`prove.losses.cuda.values.add_values`): the largest logit and the inverse sum.
"""

from __future__ import annotations

import triton.language as tl

from prove.losses import boundary
from prove.losses.cuda.jit import Array, kernel
from prove.losses.cuda.tile import load_plane

_LARGEST = tl.constexpr(boundary.LARGEST)
_FLOOR = tl.constexpr(boundary.SQUARE_FLOOR)
_SURE = tl.constexpr(boundary.SURE)

PIXELS = 256
"""That a program handles, class by class."""


@kernel
def _sobel(
    logits: Array, labels: Array, peaks: Array, inverses: Array, c: Array, pixel: Array, there: Array, width: Array,
    height: Array, low_pixels: Array, low_width: Array, rows_at: Array, rows_share: Array, columns_at: Array,
    columns_share: Array, UP: tl.constexpr, DT: tl.constexpr,
) -> Array:  # fmt: skip
    """The two Sobel derivatives of the probabilities and the edge of the labels, for class c: [B] each.

    Args:
        logits: of the class.
        there: pixels whose 3x3 neighbourhood is valid; of the rest nothing is read.
    """
    across, down = tl.zeros((pixel.shape[0],), DT), tl.zeros((pixel.shape[0],), DT)
    true_across, true_down = tl.zeros((pixel.shape[0],), DT), tl.zeros((pixel.shape[0],), DT)
    row, column = pixel // width, pixel % width
    for dy in tl.static_range(-1, 2):
        for dx in tl.static_range(-1, 2):
            if dy != 0 or dx != 0:
                # replicated borders
                near_row = tl.minimum(tl.maximum(row + dy, 0), height - 1)
                near = near_row * width + tl.minimum(tl.maximum(column + dx, 0), width - 1)
                z = load_plane(
                    logits, near, there, width, low_pixels, low_width, rows_at, rows_share, columns_at, columns_share,
                    UP, DT,
                )  # fmt: skip
                p = tl.exp(z - tl.load(peaks + near, mask=there, other=0.0))
                p *= tl.load(inverses + near, mask=there, other=0.0)
                own = tl.where(tl.load(labels + near, mask=there, other=-1) == c, 1.0, 0.0).to(DT)
                across += dx * (2 - dy * dy) * p
                down += dy * (2 - dx * dx) * p
                true_across += dx * (2 - dy * dy) * own
                true_down += dy * (2 - dx * dx) * own
    return across, down, tl.sqrt((true_across * true_across + true_down * true_down) / _LARGEST)


@kernel
def add_edge_values(
    logits: Array, labels: Array, whole: Array, peaks: Array, inverses: Array, rows_at: Array, rows_share: Array,
    columns_at: Array, columns_share: Array, partial: Array, classes: Array, pixels: Array, width: Array,
    height: Array, low_pixels: Array, low_width: Array, images: Array, blocks: Array, UP: tl.constexpr,
    DT: tl.constexpr, B: tl.constexpr,
) -> None:  # fmt: skip
    """Set ``partial`` [programs, 4] float64: losses at edge pixels, their weights, losses elsewhere, their weights."""
    sums = tl.zeros((4,), tl.float64)
    slots = tl.arange(0, 4)
    for block in range(tl.program_id(0), images * blocks, tl.num_programs(0)):
        image = (block // blocks).to(tl.int64)
        pixel = (block % blocks) * B + tl.arange(0, B)
        w = tl.load(whole + image * pixels + pixel, mask=pixel < pixels, other=0.0)
        at_edges, edge_mass = tl.zeros((B,), DT), tl.zeros((B,), DT)
        at_rest, rest_mass = tl.zeros((B,), DT), tl.zeros((B,), DT)
        for c in range(classes):
            across, down, truth = _sobel(
                logits + (image * classes + c) * low_pixels, labels + image * pixels, peaks + image * pixels,
                inverses + image * pixels, c, pixel, w > 0.0, width, height, low_pixels, low_width, rows_at, rows_share,
                columns_at, columns_share, UP, DT,
            )  # fmt: skip
            edge = tl.sqrt((across * across + down * down + _FLOOR) / (_LARGEST + _FLOOR))
            edge = tl.where(edge > _SURE, _SURE, edge).to(DT)
            loss = -(truth * tl.log(edge) + (1.0 - truth) * tl.log(1.0 - edge))
            on_edge = truth > 0.0
            loss = tl.where(w > 0.0, loss * w, 0.0)
            at_edges += tl.where(on_edge, loss, 0.0)
            edge_mass += tl.where(on_edge, w, 0.0)
            at_rest += tl.where(on_edge, 0.0, loss)
            rest_mass += tl.where(on_edge, 0.0, w)
        sums += tl.where(slots == 0, tl.sum(at_edges.to(tl.float64)), 0.0)
        sums += tl.where(slots == 1, tl.sum(edge_mass.to(tl.float64)), 0.0)
        sums += tl.where(slots == 2, tl.sum(at_rest.to(tl.float64)), 0.0)
        sums += tl.where(slots == 3, tl.sum(rest_mass.to(tl.float64)), 0.0)
    tl.store(partial + tl.program_id(0) * 4 + slots, sums)


@kernel
def edge_slopes(
    logits: Array, labels: Array, whole: Array, peaks: Array, inverses: Array, rows_at: Array, rows_share: Array,
    columns_at: Array, columns_share: Array, factors: Array, out: Array, classes: Array, width: Array, height: Array,
    low_pixels: Array, low_width: Array, first: Array, stop: Array, UP: tl.constexpr, DT: tl.constexpr, B: tl.constexpr,
) -> None:  # fmt: skip
    """Slopes of the two derivatives at pixels [first, stop) of one image into ``out`` [2, C, stop - first].

    Args:
        factors: [2], of a loss at an edge pixel and of one elsewhere.
    """
    pixel = first + tl.program_id(0) * B + tl.arange(0, B)
    inside = pixel < stop
    w = tl.load(whole + pixel, mask=inside, other=0.0)
    at_edge, at_rest = tl.load(factors), tl.load(factors + 1)
    count = stop - first
    for c in range(classes):
        across, down, truth = _sobel(
            logits + c * (tl.zeros((), tl.int64) + low_pixels), labels, peaks, inverses, c, pixel, w > 0.0, width,
            height, low_pixels, low_width, rows_at, rows_share, columns_at, columns_share, UP, DT,
        )  # fmt: skip
        edge = tl.sqrt((across * across + down * down + _FLOOR) / (_LARGEST + _FLOOR))
        factor = tl.where(truth > 0.0, at_edge, at_rest) * w
        bent = edge < _SURE
        rest = 1.0 - tl.where(bent, edge, 0.5)
        slope = factor * ((1.0 - truth) / rest - truth / edge) / (edge * (_LARGEST + _FLOOR))
        slope = tl.where(bent & (factor != 0.0), slope, 0.0)
        at = c * count + (pixel - first)
        tl.store(out + at, across * slope, mask=inside)
        tl.store(out + classes * count + at, down * slope, mask=inside)


@kernel
def spread_slopes(
    slopes: Array, out: Array, classes: Array, width: Array, height: Array, slopes_first: Array, slopes_count: Array,
    first: Array, stop: Array, DT: tl.constexpr, B: tl.constexpr,
) -> None:  # fmt: skip
    """The adjoint of the Sobel operator: slopes of probabilities of pixels [first, stop) into ``out`` [C, pixels].

    Args:
        slopes: [2, C, slopes_count] from pixel ``slopes_first`` on, with a row more above and below where there is one.
    """
    c = tl.program_id(1)
    pixel = first + tl.program_id(0) * B + tl.arange(0, B)
    inside = pixel < stop
    row, column = pixel // width, pixel % width
    top, bottom = tl.where(row == 0, 1.0, 0.0).to(DT), tl.where(row == height - 1, 1.0, 0.0).to(DT)
    start, end = tl.where(column == 0, 1.0, 0.0).to(DT), tl.where(column == width - 1, 1.0, 0.0).to(DT)
    total = tl.zeros((B,), DT)
    for dy in tl.static_range(-1, 2):
        for dx in tl.static_range(-1, 2):
            there = inside & (row + dy >= 0) & (row + dy < height) & (column + dx >= 0) & (column + dx < width)
            at = c * slopes_count + pixel + dy * width + dx - slopes_first
            across = tl.load(slopes + at, mask=there, other=0.0)
            down = tl.load(slopes + classes * slopes_count + at, mask=there, other=0.0)
            # a border pixel stands for the replicated one beside it as well
            row_weight = 2.0 + top + bottom if dy == 0 else 1.0
            row_step = bottom - top if dy == 0 else -1.0 * dy
            column_weight = 2.0 + start + end if dx == 0 else 1.0
            column_step = end - start if dx == 0 else -1.0 * dx
            total += across * (row_weight * column_step) + down * (row_step * column_weight)
    tl.store(out + c * (stop - first) + pixel - first, total, mask=inside)
