"""The second pass in its order: factors from the gradients that arrive, then the gradient of the logits.

Where a boundary part counts, the slopes of its probabilities go through scratch of a fixed size, a band of rows at a
time, small enough for the second-level cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from prove.losses.cuda.batch import Batch
from prove.losses.cuda.bins import BINS
from prove.losses.cuda.boundary import PIXELS, edge_slopes, spread_slopes
from prove.losses.cuda.combine import set_factors
from prove.losses.cuda.jit import launch
from prove.losses.cuda.layout import Layout
from prove.losses.cuda.slopes import add_slopes
from prove.losses.cuda.upsample import add_low_slopes, low_tile

SCRATCH_BYTES = 1 << 25
"""Of the slopes of a band of rows; an H100 has 50 MB of second-level cache."""
LOW_ROWS = 4
"""Low-resolution rows of a program: a quarter of the label rows is computed twice."""


@dataclass(frozen=True, eq=False)
class Factors:
    """What the kernels multiply with, the gradients that arrive included.

    Attributes:
        logs: [L]; regions: [5, C]; edges: [2].
        table: [G, C, 2, BINS] slopes of errors in bins, G images or 1, of all binned parts together.
        top, top_at: [binned, N, C] slopes of single pixels, and which, or -1.
        errors: [N, C, H W] slopes of errors of all sorted parts, times ``error_factor`` [1].
    """

    logs: Tensor
    regions: Tensor
    edges: Tensor
    table: Tensor | None
    top: Tensor
    top_at: Tensor
    errors: Tensor | None
    error_factor: Tensor


def gradient(batch: Batch, slopes: Tensor, state: Tensor, dense: Tensor) -> Tensor:
    """The gradient of ``sum(slopes * values)`` on the logits [N, C, h, w], in their type."""
    layout = Layout.of(batch.plan, batch.images, batch.classes, batch.pixels)
    constants = batch.constants
    factors = _factors(batch, slopes.contiguous(), state, dense, layout)
    thresholds = constants.thresholds
    if constants.mining:
        thresholds = state[layout.thresholds : layout.thresholds + len(constants.logs)]
    edges, whole = batch.maps()
    out = torch.empty_like(batch.logits)
    if not constants.outlined:
        _write(batch, factors, thresholds, edges, out, 0, batch.images, None)
        return out
    peaks = dense[layout.peaks :].view(2, batch.images, batch.pixels)
    for image in range(batch.images):
        for band in _bands(batch):
            sobel = _edge_slopes(batch, factors, whole, peaks, image, band)
            _write(batch, factors, thresholds, edges, out, image, 1, (band, sobel))
    return out


@dataclass(frozen=True)
class Band:
    """Rows that one launch writes, and the label rows that it computes for them, as first and stop."""

    rows: tuple[int, int]
    label_rows: tuple[int, int]


def _bands(batch: Batch) -> list[Band]:
    """The rows of an image, cut so that the slopes of each band fit `SCRATCH_BYTES`."""
    row_bytes = 3 * batch.classes * batch.size[1] * (8 if batch.dtype == torch.float64 else 4)
    rows = max(1, SCRATCH_BYTES // row_bytes)
    if not batch.upsampled:
        cuts = range(0, batch.size[0], rows)
        spans = [(first, min(first + rows, batch.size[0])) for first in cuts]
        return [Band(span, span) for span in spans]
    low, ratio = batch.low_size[0], batch.size[0] / batch.low_size[0]
    many = max(LOW_ROWS, math.floor(rows / ratio) // LOW_ROWS * LOW_ROWS)
    reach, found = batch.rows.reach, []
    for first in range(0, low, many):
        stop = min(first + many, low)
        span = (reach[first][0], reach[stop - 1][1])
        found.append(Band((first, stop), span))
    return found


def _write(
    batch: Batch, f: Factors, thresholds: Tensor, edges: Tensor, out: Tensor, image: int, images: int,
    sobel: tuple[Band, Tensor] | None,
) -> None:  # fmt: skip
    """Launch the kernel that writes the gradient of some images, or of a band of one."""
    constants = batch.constants
    unused = batch.labels
    table = unused if f.table is None else f.table
    stride = 0 if f.table is None or len(f.table) == 1 else batch.classes * 2 * BINS
    errors = unused if f.errors is None else f.errors
    band, boundary = sobel if sobel is not None else (None, unused)
    common = {
        "LOGS": constants.logs, "REGIONS": constants.regions, "BINNED": len(f.top) if f.table is not None else 0,
        "ERRORS": f.errors is not None, "SOBEL": sobel is not None, "WEIGHTED": batch.weight is not None,
        "DT": batch.triton_type,
    }  # fmt: skip
    blocks = batch.blocks
    if not batch.upsampled:
        width = batch.size[1]
        first, stop = (band.rows[0] * width, band.rows[1] * width) if band else (0, batch.pixels)
        launch(
            add_slopes, (triton.cdiv(stop - first, blocks.pixels), images),
            batch.logits, batch.labels, batch.weights, constants.log_weight, thresholds, edges, f.logs, f.regions,
            table, f.top, f.top_at, errors, f.error_factor, boundary, out, batch.classes, batch.pixels, batch.images,
            batch.ignore_index, stride, image, first, stop, K=blocks.classes, B=blocks.pixels, warps=blocks.warps,
            **common,
        )  # fmt: skip
        return
    size, chunks = low_tile(batch.columns, blocks.pixels)
    target = out if chunks == 1 else batch.empty(chunks, *out.shape)
    first, stop = band.rows if band else (0, batch.low_size[0])
    label_first, label_stop = band.label_rows if band else (0, batch.size[0])
    launch(
        add_low_slopes, (triton.cdiv(batch.low_size[1], size), triton.cdiv(stop - first, LOW_ROWS), images * chunks),
        batch.logits, batch.labels, batch.weights, batch.rows.at, batch.rows.share, batch.rows.starts, batch.columns.at,
        batch.columns.share, batch.columns.starts, constants.log_weight, thresholds, edges, f.logs, f.regions, table,
        f.top, f.top_at, errors, f.error_factor, boundary, target, batch.classes, batch.pixels, batch.size[1],
        batch.low_size[0], batch.low_size[1], batch.images, batch.ignore_index, stride, image, first, stop,
        label_first * batch.size[1], (label_stop - label_first) * batch.size[1], size, chunks, LOW_ROWS=LOW_ROWS,
        K=blocks.classes, B=blocks.pixels, warps=blocks.warps, **common,
    )  # fmt: skip
    if chunks > 1:
        rows, of = slice(first, stop), slice(image, image + images)
        out[of, :, rows] = target[:, of, :, rows].sum(0).to(out.dtype)


def _edge_slopes(batch: Batch, f: Factors, whole: Tensor, peaks: Tensor, image: int, band: Band) -> Tensor:
    """Slopes of the probabilities in the label rows of a band, [C, pixels]."""
    width, height = batch.size[1], batch.size[0]
    first, stop = band.label_rows[0] * width, band.label_rows[1] * width
    # edges one row beyond reach into the band
    outer_first, outer_stop = max(band.label_rows[0] - 1, 0) * width, min(band.label_rows[1] + 1, height) * width
    derivatives = batch.empty(2, batch.classes, outer_stop - outer_first)
    launch(
        edge_slopes, (triton.cdiv(outer_stop - outer_first, PIXELS),),
        batch.logits[image], batch.labels[image], whole[image], peaks[0, image], peaks[1, image], *batch.between(),
        f.edges, derivatives, batch.classes, width, height, batch.low_size[0] * batch.low_size[1], batch.low_size[1],
        outer_first, outer_stop, UP=batch.upsampled, DT=batch.triton_type, B=PIXELS, warps=4,
    )  # fmt: skip
    found = batch.empty(batch.classes, stop - first)
    launch(
        spread_slopes, (triton.cdiv(stop - first, PIXELS), batch.classes),
        derivatives, found, batch.classes, width, height, outer_first, outer_stop - outer_first, first, stop,
        DT=batch.triton_type, B=PIXELS, warps=4,
    )  # fmt: skip
    return found


def _factors(batch: Batch, slopes: Tensor, state: Tensor, dense: Tensor, layout: Layout) -> Factors:
    constants = batch.constants
    logs = batch.empty(max(1, len(constants.logs)))
    regions, edges = batch.empty(5, batch.classes), batch.empty(2)
    launch(
        set_factors, (1,),
        slopes, state[layout.logs :], state[layout.regions :], state[layout.edges :], constants.listed, logs, regions,
        edges, batch.classes, PARTS=constants.parts, K=batch.blocks.classes, warps=4,
    )  # fmt: skip
    table: Tensor | None = None
    errors: Tensor | None = None
    error_factor = torch.ones(1, dtype=batch.dtype, device=batch.device) if layout.lovasz else logs
    tops, places = [], []
    sorted_parts = sum(not ranked.binned for ranked in layout.lovasz)
    for ranked in layout.lovasz:
        slope = slopes[ranked.index]
        if not ranked.binned:
            shape = (batch.images, batch.classes, batch.pixels)
            kept = dense[ranked.slopes : ranked.slopes + math.prod(shape)].view(shape)
            if sorted_parts == 1:
                errors, error_factor = kept, slope.to(batch.dtype).view(1)
            else:
                errors = kept * slope if errors is None else errors.addcmul_(kept, slope.to(kept.dtype))
            continue
        bins = (ranked.groups, batch.classes, 2, BINS)
        scaled = dense[ranked.slopes : ranked.slopes + math.prod(bins)].view(bins) * slope
        table = scaled if table is None else table + scaled
        top, place = state[ranked.top : ranked.top + 2 * ranked.groups * batch.classes].view(2, ranked.groups, -1)
        if not ranked.part.per_image:
            start = torch.arange(batch.images, device=batch.device)[:, None] * batch.pixels
            place = place - start
            place = torch.where((place >= 0) & (place < batch.pixels), place, -1.0)
        tops.append((top * slope).expand(batch.images, -1))
        places.append(place)
    top = torch.stack(tops).to(batch.dtype) if tops else logs
    top_at = torch.stack(places).int() if places else logs
    return Factors(logs, regions, edges, table, top, top_at, errors, error_factor)
