"""A tile of pixels in registers: logits loaded (and upsampled on the way), then their softmax.

Tensors are [K, B] or [B]: K classes, padded to a power of two, of B pixels of one image. Kernels take the image's
logits ``[C, h w]``, its labels and weights ``[H W]``, and ``rows_at``, ``rows_share``, ``columns_at``,
``columns_share``: the first of the two low-resolution rows (columns) that a label row (column) lies between, and the
share of the second.
"""

from __future__ import annotations

import triton.language as tl

from prove.losses.cuda.jit import Array, kernel


@kernel
def load_labels(labels: Array, pixel: Array, inside: Array, ignore_index: Array, classes: Array) -> Array:
    """Labels as int32 [B], -1 where ignored, outside the image, or no class at all."""
    given = tl.load(labels + pixel, mask=inside, other=ignore_index)
    wrong = (given == ignore_index) | (given < 0) | (given >= classes)
    return tl.where(inside & (wrong == 0), given, -1).to(tl.int32)


@kernel
def load_mass(weight: Array, pixel: Array, y: Array, DT: tl.constexpr, WEIGHTED: tl.constexpr) -> Array:
    """The weight of each pixel [B], 0 where ignored, whatever it is."""
    if WEIGHTED:
        return tl.load(weight + pixel, mask=y >= 0, other=0.0).to(DT)
    return tl.where(y >= 0, 1.0, 0.0).to(DT)


@kernel
def load_logits(
    logits: Array, pixel: Array, there: Array, classes: Array, width: Array, low_pixels: Array, low_width: Array,
    rows_at: Array, rows_share: Array, columns_at: Array, columns_share: Array, K: tl.constexpr, UP: tl.constexpr,
    DT: tl.constexpr,
) -> Array:  # fmt: skip
    """Logits [K, B] of pixels ``there``, 0 for the rest and -inf in the padding."""
    c = tl.arange(0, K)
    known = (c < classes)[:, None]
    mask = known & there[None, :]
    rows = (c * low_pixels)[:, None]
    if UP:
        a, b, d, e, down, right = _neighbours(
            pixel, there, width, low_pixels, low_width, rows_at, rows_share, columns_at, columns_share
        )
        down = down[None, :]
        upper = tl.load(logits + (rows + a[None, :]), mask=mask, other=0.0).to(DT)
        lower = tl.load(logits + (rows + b[None, :]), mask=mask, other=0.0).to(DT)
        z = upper + down * (lower - upper)
        upper = tl.load(logits + (rows + d[None, :]), mask=mask, other=0.0).to(DT)
        lower = tl.load(logits + (rows + e[None, :]), mask=mask, other=0.0).to(DT)
        z += right[None, :] * ((upper + down * (lower - upper)) - z)
    else:
        z = tl.load(logits + (rows + pixel[None, :]), mask=mask, other=0.0).to(DT)
    return tl.where(known, z, float("-inf"))


@kernel
def load_plane(
    logits: Array, pixel: Array, there: Array, width: Array, low_pixels: Array, low_width: Array, rows_at: Array,
    rows_share: Array, columns_at: Array, columns_share: Array, UP: tl.constexpr, DT: tl.constexpr,
) -> Array:  # fmt: skip
    """Logits [B] of one class, at ``logits``, of pixels ``there``, 0 for the rest."""
    if UP:
        a, b, d, e, down, right = _neighbours(
            pixel, there, width, low_pixels, low_width, rows_at, rows_share, columns_at, columns_share
        )
        upper = tl.load(logits + a, mask=there, other=0.0).to(DT)
        z = upper + down * (tl.load(logits + b, mask=there, other=0.0).to(DT) - upper)
        upper = tl.load(logits + d, mask=there, other=0.0).to(DT)
        return z + right * ((upper + down * (tl.load(logits + e, mask=there, other=0.0).to(DT) - upper)) - z)
    return tl.load(logits + pixel, mask=there, other=0.0).to(DT)


@kernel
def _neighbours(
    pixel: Array, there: Array, width: Array, low_pixels: Array, low_width: Array, rows_at: Array, rows_share: Array,
    columns_at: Array, columns_share: Array,
) -> Array:  # fmt: skip
    """Low-resolution pixels above and below on the left, the same on the right, and the shares of below and right."""
    row, column = pixel // width, pixel % width
    left = tl.load(columns_at + column, mask=there, other=0)
    upper = tl.load(rows_at + row, mask=there, other=0) * low_width
    # past the border the second neighbour is the first
    lower = tl.minimum(upper + low_width, low_pixels - low_width)
    right = tl.minimum(left + 1, low_width - 1)
    down = tl.load(rows_share + row, mask=there, other=0.0)
    across = tl.load(columns_share + column, mask=there, other=0.0)
    return upper + left, lower + left, upper + right, lower + right, down, across


@kernel
def softmax(z: Array, y: Array, K: tl.constexpr) -> Array:
    """Softmax numerators, with the pixel's own class taken out: nothing is lost to cancellation.

    Returns:
        ``exp(z - max)`` [K, B], 0 in the own class; its value there, its exponent, the sum over all other classes, the
        inverse of the whole sum, and the largest logit, [B] each.
    """
    mine = tl.arange(0, K)[:, None] == y[None, :]
    peak = tl.max(z, axis=0)
    z -= peak[None, :]
    gap = tl.sum(tl.where(mine, z, 0.0), axis=0)
    e = tl.exp(z)
    own = tl.sum(tl.where(mine, e, 0.0), axis=0)
    e = tl.where(mine, 0.0, e)
    others = tl.sum(e, axis=0)
    return e, own, gap, others, 1.0 / (own + others), peak


@kernel
def log1p(x: Array, DT: tl.constexpr) -> Array:
    """``log(1 + x)`` for x in [0, 1] as ``2 atanh(x / (x + 2))``: no ``1 + x`` that would round a small x away."""
    t = x / (x + 2.0)
    square = t * t
    last: tl.constexpr = 33 if tl.float64 == DT else 13
    series = tl.zeros_like(x) + 1.0 / last
    for k in tl.static_range(last // 2):
        series = series * square + 1.0 / (last - 2 - 2 * k)
    return 2.0 * t * series


@kernel
def surprise(own: Array, gap: Array, others: Array, DT: tl.constexpr) -> Array:
    """``-log p_y`` [B], accurate where the pixel is confidently right and where it is confidently wrong."""
    right = own >= others
    near = log1p(tl.where(right, others, 0.0) / tl.where(right, own, 1.0), DT)
    return tl.where(right, near, tl.log(tl.where(right, 1.0, own + others)) - gap)


@kernel
def fading(gamma: tl.constexpr, other: Array) -> Array:
    """``other^gamma`` [B] for ``other = 1 - p_y``; 0^0 is 1."""
    if gamma == 0.0:
        return tl.zeros_like(other) + 1.0
    if gamma == 1.0:
        return other
    if gamma == 2.0:
        return other * other
    return tl.where(other > 0.0, tl.exp(gamma * tl.log(tl.where(other > 0.0, other, 1.0))), 0.0)
