"""The second pass where logits are upsampled: gradients of full-size pixels summed into the cells they came from.

A program owns a few low-resolution rows and columns and is the only one that writes them. It walks down the label rows
that lie between its low rows, keeping the sums of two of them at full width; a finished one is summed over columns, one
low column after the other. Label pixels on the rim of a program's cells are computed by both neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from prove.losses.cuda.jit import Array, kernel
from prove.losses.cuda.slopes import gradient_of
from prove.losses.cuda.tile import load_labels, load_logits, load_mass


@dataclass(frozen=True)
class Between:
    """Where samples along one axis lie between low-resolution ones, as `torch.nn.functional.interpolate` places them.

    Attributes:
        at: [high] int32, the first of the two; share: [high], of the second.
        starts: [low + 1] int32, the first sample whose ``at`` is that or more.
        reach: for each low sample the first and the last sample that it reaches, plus one (on the host).
    """

    at: Tensor
    share: Tensor
    starts: Tensor
    reach: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, low: int, high: int, align_corners: bool, device: torch.device, dtype: torch.dtype) -> Between:
        """For ``high`` samples of ``low`` ones."""
        steps = torch.arange(high, dtype=torch.float64)
        if align_corners:
            place = steps * ((low - 1) / (high - 1)) if high > 1 else steps * 0.0
        else:
            place = ((steps + 0.5) * (low / high) - 0.5).clamp(min=0.0)
        at = place.int().clamp(max=low - 1)
        starts = torch.searchsorted(at, torch.arange(low + 1, dtype=torch.int32)).int()
        edge = starts.tolist()
        reach = tuple((edge[max(i - 1, 0)], edge[i + 1]) for i in range(low))
        return cls(at.to(device), (place - at).to(device=device, dtype=dtype), starts.to(device), reach)

    def widest(self, size: int) -> int:
        """The most samples that ``size`` low ones, from a multiple of it on, reach."""
        low = len(self.reach)
        return max(self.reach[min(i + size, low) - 1][1] - self.reach[i][0] for i in range(0, low, size))


@kernel
def add_low_slopes(
    logits: Array, labels: Array, weight: Array, rows_at: Array, rows_share: Array, row_starts: Array,
    columns_at: Array, columns_share: Array, column_starts: Array, log_weight: Array, thresholds: Array, edges: Array,
    factors: Array, regions: Array, table: Array, top: Array, top_at: Array, errors: Array, error_factor: Array,
    sobel: Array, out: Array, classes: Array, pixels: Array, width: Array, low_height: Array, low_width: Array,
    images: Array, ignore_index: Array, table_stride: Array, first_image: Array, first_low: Array, stop_low: Array,
    sobel_first: Array, sobel_stride: Array, low_columns: Array, chunks: Array, LOW_ROWS: tl.constexpr,
    LOGS: tl.constexpr,
    REGIONS: tl.constexpr, BINNED: tl.constexpr, ERRORS: tl.constexpr, SOBEL: tl.constexpr, WEIGHTED: tl.constexpr,
    DT: tl.constexpr, K: tl.constexpr, B: tl.constexpr,
) -> None:  # fmt: skip
    """The gradient of low rows [first_low, stop_low) of images from ``first_image`` on.

    Args:
        low_columns: columns that a program owns; they reach at most B label columns, times ``chunks``.
        out: [chunks, N, C, h w].
        sobel: of one image, [C, sobel_stride] from pixel ``sobel_first`` on.
    """
    images_here = tl.num_programs(2) // chunks
    chunk = tl.program_id(2) // images_here
    image = (first_image + tl.program_id(2) % images_here).to(tl.int64)
    stride = (tl.zeros((), tl.int64) + images) * pixels
    low_pixels = low_height * low_width
    c = tl.arange(0, K)
    row_begin = first_low + tl.program_id(1) * LOW_ROWS
    row_end = tl.minimum(row_begin + LOW_ROWS, stop_low)
    column_begin = tl.program_id(0) * low_columns
    column_end = tl.minimum(column_begin + low_columns, low_width)
    # label columns that these columns reach
    x = tl.load(column_starts + tl.maximum(column_begin - 1, 0)) + chunk * B + tl.arange(0, B)
    x_inside = x < tl.load(column_starts + column_end)
    left = tl.load(columns_at + x, mask=x_inside, other=0)
    right = tl.minimum(left + 1, low_width - 1)
    column_share = tl.load(columns_share + x, mask=x_inside, other=0.0)
    out += ((chunk.to(tl.int64) * images + image) * classes + c) * low_pixels
    upper, lower = tl.zeros((K, B), DT), tl.zeros((K, B), DT)
    for low in range(tl.maximum(row_begin - 1, 0), row_end):
        for row in range(tl.load(row_starts + low), tl.load(row_starts + low + 1)):
            pixel = row * width + x
            y = load_labels(labels + image * pixels, pixel, x_inside, ignore_index, classes)
            z = load_logits(
                logits + image * classes * low_pixels, pixel, y >= 0, classes, width, low_pixels, low_width, rows_at,
                rows_share, columns_at, columns_share, K, True, DT,
            )  # fmt: skip
            mass = load_mass(weight + image * pixels, pixel, y, DT, WEIGHTED)
            gradient = gradient_of(
                z, y, mass, pixel, log_weight, thresholds, edges + image * pixels, stride, factors,
                regions, table + image * table_stride, top + image * classes, top_at + image * classes,
                images * classes, errors + image * classes * pixels, error_factor, sobel, sobel_stride, sobel_first,
                classes, pixels, LOGS, REGIONS, BINNED, ERRORS, SOBEL, DT, K,
            )  # fmt: skip
            # past the border the second neighbour is the first
            share = tl.where(low + 1 < low_height, tl.load(rows_share + row), 0.0)
            upper += (1.0 - share) * gradient
            lower += share * gradient
        if low >= row_begin:
            for j in range(column_begin, column_end):
                weight_of = tl.where(left == j, 1.0 - column_share, 0.0) + tl.where(right == j, column_share, 0.0)
                tl.store(out + low * low_width + j, tl.sum(upper * weight_of[None, :], axis=1), mask=c < classes)
        upper = lower
        lower = tl.zeros((K, B), DT)


def low_tile(columns: Between, pixels: int) -> tuple[int, int]:
    """How many low columns a program owns, and in how many chunks of ``pixels`` it takes what they reach.

    As many as reach ``pixels`` label columns; where a single one reaches more, the chunks' sums are added afterwards.
    """
    size = min(len(columns.reach), pixels)
    while size > 1 and columns.widest(size) > pixels:
        size -= 1
    return size, triton.cdiv(max(1, columns.widest(size)), pixels)
