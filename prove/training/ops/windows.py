"""Operators that move values between a pixel and the window around it: PSA mask, CARAFE, masked convolution."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from prove.training.ops.gradient import vector_jacobian


def psamask_forward(
    input: Tensor,
    output: Tensor,
    *,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Point-wise spatial attention (Zhao et al., ECCV 2018): masks around each pixel become maps over the image.

    Args:
        input: (N, h_mask · w_mask, H, W): for each pixel a mask that is centred on it.
        output: receives (N, H · W, H, W): [n, other, pixel] when collecting (``psa_type`` 0), [n, pixel, other] when
            distributing (1); 0 where a mask does not reach.
    """
    masks = input.view(num_, h_mask, w_mask, h_feature, w_feature)
    between = input.new_zeros(num_, h_feature, w_mask, h_feature, w_feature)
    for row, place, window in _overlaps(h_feature, h_mask, half_h_mask):
        between[:, place, :, row] = masks[:, window, :, row]
    maps = input.new_zeros(num_, h_feature, w_feature, h_feature, w_feature)
    for column, place, window in _overlaps(w_feature, w_mask, half_w_mask):
        maps[:, :, place, :, column] = between[:, :, window, :, column]
    square = maps.view(num_, h_feature * w_feature, h_feature * w_feature)
    output.copy_((square if psa_type == 0 else square.transpose(1, 2)).reshape(output.shape))


def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    *,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Writes the gradient by the masks: the forward moves values, this moves them back."""
    square = grad_output.reshape(num_, h_feature * w_feature, h_feature * w_feature)
    maps = (square if psa_type == 0 else square.transpose(1, 2)).reshape(
        num_, h_feature, w_feature, h_feature, w_feature
    )
    between = grad_output.new_zeros(num_, h_feature, w_mask, h_feature, w_feature)
    for column, place, window in _overlaps(w_feature, w_mask, half_w_mask):
        between[:, :, window, :, column] = maps[:, :, place, :, column]
    masks = grad_output.new_zeros(num_, h_mask, w_mask, h_feature, w_feature)
    for row, place, window in _overlaps(h_feature, h_mask, half_h_mask):
        masks[:, window, :, row] = between[:, place, :, row]
    grad_input.copy_(masks.view(grad_input.shape))


def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor, *, kernel_size: int, group_size: int, scale_factor: int
) -> None:
    """CARAFE (Wang et al., ICCV 2019); writes (N, C, H · scale, W · scale) into ``output``.

    Args:
        features: (N, C, H, W).
        masks: (N, kernel_size² · group_size, H · scale, W · scale): the weights of the window around each source pixel.
    """
    reassemble = partial(_reassemble, kernel_size=kernel_size, group_size=group_size, scale_factor=scale_factor)
    with torch.autocast(features.device.type, enabled=False):
        output.copy_(reassemble(features, masks))


def carafe_naive_backward(
    grad_output: Tensor,
    features: Tensor,
    masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    *,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Writes the gradients by the features and by the masks."""
    reassemble = partial(_reassemble, kernel_size=kernel_size, group_size=group_size, scale_factor=scale_factor)
    grads = vector_jacobian(reassemble, (features, masks), grad_output)
    grad_input.copy_(grads[0])
    grad_masks.copy_(grads[1])


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    saved_features: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    *,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """The same as ``carafe_naive_forward``.

    mmcv hands ``saved_features`` to the backward in place of the features; the other buffers belong to the compiled
    kernel.
    """
    saved_features.copy_(features)
    carafe_naive_forward(
        features, masks, output, kernel_size=kernel_size, group_size=group_size, scale_factor=scale_factor
    )


def carafe_backward(
    grad_output: Tensor,
    saved_features: Tensor,
    masks: Tensor,
    rgrad_output: Tensor,
    rgrad_input_hs: Tensor,
    rgrad_input: Tensor,
    rgrad_masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    *,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Writes the gradients by the features and by the masks."""
    carafe_naive_backward(
        grad_output,
        saved_features,
        masks,
        grad_input,
        grad_masks,
        kernel_size=kernel_size,
        group_size=group_size,
        scale_factor=scale_factor,
    )


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    *,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Writes the windows at K chosen positions of a convolution's output, zero outside the image, into ``col``.

    Args:
        im: (1, C, H, W).
        mask_h_idx: (K,), row of each position; the window starts ``pad_h`` above it.
        mask_w_idx: (K,), column, likewise.
        col: (C · kernel_h · kernel_w, K).
    """
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows, columns].reshape(col.shape))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, *, height: int, width: int, channels: int
) -> None:
    """Writes the columns of (channels, K) to K positions of (1, channels, height, width)."""
    im[0, :, mask_h_idx, mask_w_idx] = col


def _overlaps(length: int, window: int, half: int) -> Iterator[tuple[int, slice, slice]]:
    """For each position on an axis: the part of the axis under a window centred there, and that part of the window."""
    for position in range(length):
        start = max(0, position - half)
        stop = min(length, position - half + window)
        yield position, slice(start, stop), slice(start - position + half, stop - position + half)


def _reassemble(features: Tensor, masks: Tensor, *, kernel_size: int, group_size: int, scale_factor: int) -> Tensor:
    n, c, h, w = features.shape
    windows = F.unfold(features, kernel_size, padding=(kernel_size - 1) // 2)
    windows = windows.view(n, group_size, c // group_size, kernel_size**2, h, w)
    weights = masks.view(n, group_size, kernel_size**2, h, scale_factor, w, scale_factor)
    return torch.einsum("ngckhw,ngkhswt->ngchswt", windows, weights).reshape(n, c, h * scale_factor, w * scale_factor)
