"""Gradients of operators that mmcv asks for one direction at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def vector_jacobian(operator: Callable[..., Tensor], inputs: Sequence[Tensor], grad_output: Tensor) -> list[Tensor]:
    """The gradient of ``sum(operator(*inputs) * grad_output)`` with respect to every input.

    mmcv's autograd functions call the forward and the backward of an operator separately and keep no graph between
    the two, so the forward is evaluated once more here.

    Args:
        operator: differentiable function of the inputs, evaluated with autocast off.
        inputs: floating-point tensors.
        grad_output: same shape as the operator's output; cast to its dtype.
    """
    with torch.enable_grad(), torch.autocast(grad_output.device.type, enabled=False):
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        output = operator(*leaves)
        return list(torch.autograd.grad(output, leaves, grad_output.to(output.dtype)))


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor itself, or a float32 copy of one in half precision: sums and logarithms are unsafe below float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
