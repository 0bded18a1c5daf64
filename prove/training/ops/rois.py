"""Pooling of regions of interest. A region is (index in the batch, x1, y1, x2, y2)."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

from prove.training.ops.gradient import vector_jacobian

NOWHERE = -2.0
"""A sampling position that touches no pixel: marks a bin of RoIAlign's max mode in which nothing was sampled."""


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign (He et al., ICCV 2017); writes (R, C, aligned_height, aligned_width) into ``output``.

    Args:
        input: (N, C, H, W).
        rois: (R, 5), in pixels of the image; ``spatial_scale`` takes them to pixels of the input.
        argmax_y: in max mode receives the row, between pixels, of each bin's maximum; empty in average mode.
        argmax_x: the column, likewise.
        sampling_ratio: samples per bin and axis; 0 takes one per pixel of the input, rounded up.
        pool_mode: 0 takes the maximum of the samples of a bin, 1 their average; no samples give 0.
        aligned: shift by half a pixel, so that positions are exact.
    """
    if pool_mode == 1:
        size = (aligned_height, aligned_width)
        output.copy_(
            torchvision.ops.roi_align(input, rois.to(input.dtype), size, spatial_scale, sampling_ratio, aligned)
        )
        return
    shift = 0.5 if aligned else 0.0
    for index, roi in enumerate(rois):
        low_x, low_y, high_x, high_y = (roi[1:] * spatial_scale - shift).unbind()
        y = _sampling_positions(low_y, high_y, aligned_height, sampling_ratio, aligned)
        x = _sampling_positions(low_x, high_x, aligned_width, sampling_ratio, aligned)
        if y.numel() == 0 or x.numel() == 0:
            output[index], argmax_y[index], argmax_x[index] = 0, NOWHERE, NOWHERE
            continue
        grid_y, grid_x = (grid.to(input.dtype) for grid in _bin_grid(y, x))
        feature = input[int(roi[0])]
        samples = torch.stack(
            [weight * feature[:, row, column] for row, column, weight in _corners(grid_y, grid_x, input)]
        )
        samples = samples.sum(0)
        best = samples.argmax(-1, keepdim=True)
        output[index] = samples.gather(-1, best)[..., 0]
        channels = (len(feature), -1, -1, -1)
        argmax_y[index] = grid_y.expand(*channels).gather(-1, best)[..., 0]
        argmax_x[index] = grid_x.expand(*channels).gather(-1, best)[..., 0]


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Writes the gradient by the input; RoIAlign is linear in it, so its values are not needed."""
    if pool_mode == 1:

        def align(feature: Tensor) -> Tensor:
            size = (aligned_height, aligned_width)
            boxes = rois.to(feature.dtype)
            pooled: Tensor = torchvision.ops.roi_align(feature, boxes, size, spatial_scale, sampling_ratio, aligned)
            return pooled

        (grad,) = vector_jacobian(align, (torch.zeros_like(grad_input),), grad_output)
        grad_input.copy_(grad)
        return
    plane = _plane_start(rois, grad_input)
    for row, column, weight in _corners(argmax_y, argmax_x, grad_input):
        pixel = plane + row * grad_input.size(3) + column
        grad_input.view(-1).index_add_(0, pixel.flatten(), (grad_output * weight).flatten())


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    *,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """RoIPool (Girshick, ICCV 2015) as in mmcv: a region ends at ``(x2 + 1) * spatial_scale`` and is not rounded.

    torchvision's rounds the corners of a region first and gives other numbers.

    Args:
        input: (N, C, H, W).
        rois: (R, 5), in pixels of the image, both corners included.
        output: receives the maximum of each bin, (R, C, pooled_height, pooled_width); 0 for an empty bin.
        argmax: int32, receives its index in the plane, row · W + column; -1 for an empty bin.
    """
    height, width = input.shape[2:]
    corners = rois.detach().cpu().float()
    start, end = corners[:, 1:3] * spatial_scale, (corners[:, 3:5] + 1) * spatial_scale
    empty = ((end - start) <= 0).any(1)
    x_bins = _pooling_bins(start[:, 0], end[:, 0], pooled_width, width)
    y_bins = _pooling_bins(start[:, 1], end[:, 1], pooled_height, height)
    for index, image in enumerate(corners[:, 0].long().tolist()):
        rows, row_used = (tensor.to(input.device) for tensor in _padded_ranges(y_bins[index], height))
        columns, column_used = (tensor.to(input.device) for tensor in _padded_ranges(x_bins[index], width))
        if empty[index] or rows.numel() == 0 or columns.numel() == 0:
            output[index], argmax[index] = 0, -1
            continue
        y, x = _bin_grid(rows, columns)
        used = torch.logical_and(*_bin_grid(row_used, column_used))
        values = input[image][:, y, x].masked_fill(~used, -torch.inf)
        best = values.argmax(-1, keepdim=True)
        pixels = (y * width + x).expand_as(values)
        filled = used.any(-1)
        output[index] = torch.where(filled, values.gather(-1, best)[..., 0], 0)
        argmax[index] = torch.where(filled, pixels.gather(-1, best)[..., 0], -1).to(argmax.dtype)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    *,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Writes the gradient by the input: each bin's goes to the pixel that was its maximum."""
    pixel = _plane_start(rois, grad_input) + argmax.clamp(min=0)
    grad = torch.where(argmax >= 0, grad_output, 0)
    grad_input.view(-1).index_add_(0, pixel.flatten(), grad.flatten())


def _plane_start(rois: Tensor, planes: Tensor) -> Tensor:
    """Where each region's planes start in the flattened (N, C, H, W): (R, C, 1, 1)."""
    channels, height, width = planes.shape[1:]
    channel = torch.arange(channels, device=planes.device)
    return ((rois[:, 0].long()[:, None] * channels + channel) * (height * width))[:, :, None, None]


def _bin_grid(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every point of every bin, (bins down, bins across, points), points row by row."""
    down, across = rows.shape, columns.shape
    shape = (down[0], across[0], down[1], across[1])
    y = rows[:, None, :, None].expand(shape).flatten(2)
    x = columns[None, :, None, :].expand(shape).flatten(2)
    return y, x


def _sampling_positions(low: Tensor, high: Tensor, bins: int, sampling_ratio: int, aligned: bool) -> Tensor:
    """Where RoIAlign samples one axis, (bins, samples per bin)."""
    length = high - low if aligned else (high - low).clamp(min=1)
    samples = sampling_ratio if sampling_ratio > 0 else max(int(torch.ceil(length / bins)), 0)
    bin_index = torch.arange(bins, device=low.device, dtype=low.dtype)[:, None]
    within = (torch.arange(samples, device=low.device, dtype=low.dtype) + 0.5) / max(samples, 1)
    return low + (bin_index + within) * (length / bins)


def _corners(y: Tensor, x: Tensor, planes: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Row, column and weight of the four pixels that a bilinear sample at (y, x) reads from (..., H, W).

    Up to one pixel outside, the border is repeated; beyond that the sample is 0.
    """
    height, width = planes.shape[-2:]
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    down, right = y - top, x - left
    rows = (top.long(), (top.long() + 1).clamp(max=height - 1))
    columns = (left.long(), (left.long() + 1).clamp(max=width - 1))
    return [
        (row, column, row_weight * column_weight * inside)
        for row, row_weight in zip(rows, (1 - down, down), strict=True)
        for column, column_weight in zip(columns, (1 - right, right), strict=True)
    ]


def _pooling_bins(start: Tensor, end: Tensor, bins: int, size: int) -> Tensor:
    """First pixel and the one after the last of each bin along one axis, (R, bins, 2), cut to [0, size]."""
    step = (end - start)[:, None] / bins
    index = torch.arange(bins)
    first = (index * step + start[:, None]).floor()
    last = ((index + 1) * step + start[:, None]).ceil()
    return torch.stack([first, last], dim=-1).clamp(0, size).long()


def _padded_ranges(bins: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The pixels of each bin, (bins, longest), padded with pixels that exist; and which of them belong to the bin."""
    longest = int((bins[:, 1] - bins[:, 0]).clamp(min=0).max())
    pixels = bins[:, :1] + torch.arange(longest)
    return pixels.clamp(max=size - 1), pixels < bins[:, 1:]
