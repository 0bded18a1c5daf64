"""Deformable convolution, versions 1 and 2, and multi-scale deformable attention.

The ``geometry`` of a convolution holds stride, padding and dilation under the names that mmcv gives them. It also holds
the kernel size, the groups and a step of the compiled kernel, which follow from the shapes or have no meaning here.
"""

from __future__ import annotations

from functools import partial

import torch
import torchvision
from torch import Tensor

from prove.errors import ProveError
from prove.training.ops.gradient import at_least_float32, vector_jacobian


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **geometry: int
) -> None:
    """Deformable convolution (Dai et al., ICCV 2017); writes (N, C_out, H', W') into ``output``."""
    output.copy_(_convolve(input, offset, weight, geometry=_version_1(geometry)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **geometry: int,
) -> None:
    """Writes the gradients by the input and by the offsets."""
    convolve = partial(_convolve, weight=weight, geometry=_version_1(geometry))
    grads = vector_jacobian(convolve, (input, offset), grad_output)
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[1])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    *,
    scale: float,
    **geometry: int,
) -> None:
    """Writes ``scale`` times the gradient by the weights; they are not needed, the convolution is linear in them."""
    convolve = partial(_convolve, input, offset, geometry=_version_1(geometry))
    (grad,) = vector_jacobian(convolve, (torch.zeros_like(grad_weight),), grad_output)
    grad_weight.copy_(grad * scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    *,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Deformable convolution with modulation (Zhu et al., CVPR 2019); writes (N, C_out, H', W') into ``output``."""
    output.copy_(_convolve(input, offset, weight, mask, bias if with_bias else None, geometry=_version_2(geometry)))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    *,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Writes the gradients by the input, the offsets, the weights, the modulation and, if there is one, the bias."""
    inputs = [input, offset, weight, mask]
    results = [grad_input, grad_offset, grad_weight, grad_mask]
    if with_bias:
        inputs.append(bias)
        results.append(grad_bias)
    convolve = partial(_convolve, geometry=_version_2(geometry))
    for result, grad in zip(results, vector_jacobian(convolve, inputs, grad_output), strict=True):
        result.copy_(grad)


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al., ICLR 2021, Eq. 3), summed in float32 or better.

    Args:
        value: (N, sum of H·W over the levels, heads, D).
        spatial_shapes: (levels, 2), height and width of each level.
        level_start_index: (levels,), where each level starts in ``value``; the levels must follow each other.
        sampling_locations: (N, queries, heads, levels, points, 2), x and y as fractions of width and height.
        attention_weights: (N, queries, heads, levels, points).
        im2col_step: a step of the compiled kernel, without meaning here.

    Returns:
        (N, queries, heads · D), in the dtype of ``value``.

    Raises:
        ProveError: the levels do not follow each other in ``value``.
    """
    levels = _levels(spatial_shapes, level_start_index)
    return _attend(value, sampling_locations, attention_weights, levels=levels).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_locations: Tensor,
    grad_attention_weights: Tensor,
    *,
    im2col_step: int,
) -> None:
    """Writes the gradients by the values, the sampling locations and the attention weights."""
    attend = partial(_attend, levels=_levels(spatial_shapes, level_start_index))
    grads = vector_jacobian(attend, (value, sampling_locations, attention_weights), grad_output)
    results = (grad_value, grad_sampling_locations, grad_attention_weights)
    for result, grad in zip(results, grads, strict=True):
        result.copy_(grad)


def _version_1(geometry: dict[str, int]) -> dict[str, tuple[int, int]]:
    pairs = {"stride": "d", "padding": "pad", "dilation": "dilation"}
    return {name: (geometry[f"{key}H"], geometry[f"{key}W"]) for name, key in pairs.items()}


def _version_2(geometry: dict[str, int]) -> dict[str, tuple[int, int]]:
    pairs = {"stride": "stride", "padding": "pad", "dilation": "dilation"}
    return {name: (geometry[f"{key}_h"], geometry[f"{key}_w"]) for name, key in pairs.items()}


def _convolve(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    geometry: dict[str, tuple[int, int]],
) -> Tensor:
    offset = _without_samples_on_the_rim(offset, weight, geometry)
    output: Tensor = torchvision.ops.deform_conv2d(input, offset, weight, bias, mask=mask, **geometry)
    return output


def _without_samples_on_the_rim(offset: Tensor, weight: Tensor, geometry: dict[str, tuple[int, int]]) -> Tensor:
    """The offsets, with samples at exactly -1 in one coordinate moved further out: their value is 0 either way.

    mmcv gives such a sample no gradient, torchvision that of a sample just inside. Zero offsets, where training starts,
    put every sample in the padding there.
    """
    position = []
    for size, outputs, stride, padding, dilation in zip(
        weight.shape[2:], offset.shape[2:], *(geometry[key] for key in ("stride", "padding", "dilation")), strict=True
    ):
        start = torch.arange(outputs, device=offset.device) * stride - padding
        position.append(start + torch.arange(size, device=offset.device)[:, None] * dilation)
    grid = (*weight.shape[2:], *offset.shape[2:])
    rows, columns = position[0][:, None, :, None].expand(grid), position[1][None, :, None, :].expand(grid)
    samples = torch.stack([rows, columns], dim=2).flatten(0, 2)
    groups = offset.size(1) // samples.size(0)
    return torch.where(offset + samples.repeat(groups, 1, 1) == -1, offset - 1, offset)


def _levels(spatial_shapes: Tensor, level_start_index: Tensor) -> list[list[int]]:
    """Height and width of each level as numbers: one transfer from the device."""
    table = torch.cat([spatial_shapes, level_start_index[:, None]], dim=1).tolist()
    expected = 0
    for height, width, start in table:
        if start != expected:
            raise ProveError(
                f"ms_deform_attn: the level of {height}x{width} starts at {start}, those before it end at {expected}.",
                hint="Levels must follow each other; a compiled mmcv for your torch and CUDA takes any order.",
            )
        expected += height * width
    return [[height, width] for height, width, _ in table]


def _attend(value: Tensor, sampling_locations: Tensor, attention_weights: Tensor, *, levels: list[list[int]]) -> Tensor:
    # Imported at the call: mmcv.ops itself imports the module that these operators make up.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    tensors = (value, sampling_locations, attention_weights)
    value, sampling_locations, attention_weights = (at_least_float32(tensor) for tensor in tensors)
    output: Tensor = multi_scale_deformable_attn_pytorch(value, levels, sampling_locations, attention_weights)
    return output
