"""The fused objective as torch operators, opaque to the compiler and differentiable once."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from prove.losses.fused.plan import plan_of


def available(device: torch.device) -> bool:
    """Whether there are fused kernels for a device."""
    return device.type == "cpu" or (device.type == "cuda" and importlib.util.find_spec("triton") is not None)


def evaluate(
    plan: str, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """The value of every part of a plan, with one graph, and the certified absolute error of each (0 where exact).

    Args:
        plan: the key of a `Plan`.
        logits: [N, C, h, w], any floating type.
        labels: [N, H, W]; where the sizes differ, logits are upsampled bilinearly to that of the labels.
        weight: [N, H, W] or None.

    Returns:
        Two tensors [T], float64 for float64 logits and float32 otherwise.
    """
    values, certificates, *_ = _forward(plan, logits, labels, weight, ignore_index, align_corners)
    return values, certificates


def _backend(logits: Tensor) -> Any:
    if logits.device.type == "cuda":
        from prove.losses.cuda import engine

        return engine
    from prove.losses.cpu import backend

    return backend


@torch.library.custom_op("prove::objective", mutates_args=())
def _forward(
    plan: str, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    parts = plan_of(plan)
    parts.check(logits.shape[1])
    found: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _backend(logits).forward(
        parts, logits, labels, weight, ignore_index, align_corners
    )
    return found


@_forward.register_fake
def _(
    plan: str, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    parts = plan_of(plan)
    state, dense, saved = _backend(logits).sizes(parts, *logits.shape[:2], *labels.shape[1:], dtype)
    values = logits.new_empty(len(parts.parts), dtype=dtype)
    return (
        values,
        torch.empty_like(values),
        logits.new_empty(state, dtype=torch.float64),
        logits.new_empty(dense, dtype=dtype),
        logits.new_empty(saved, dtype=dtype),
    )


@torch.library.custom_op("prove::objective_gradient", mutates_args=())
def _gradient(
    plan: str, slopes: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, state: Tensor, dense: Tensor,
    saved: Tensor, ignore_index: int, align_corners: bool,
) -> Tensor:  # fmt: skip
    found: Tensor = _backend(logits).backward(
        plan_of(plan), slopes, logits, labels, weight, state, dense, saved, ignore_index, align_corners
    )
    return found


@_gradient.register_fake
def _(
    plan: str, slopes: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, state: Tensor, dense: Tensor,
    saved: Tensor, ignore_index: int, align_corners: bool,
) -> Tensor:  # fmt: skip
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.plan, logits, labels, weight, ctx.ignore_index, ctx.align_corners = inputs
    ctx.save_for_backward(logits, labels, weight, *output[2:])


def _backward(ctx: Any, values: Tensor, *_: Any) -> tuple[Any, ...]:
    gradient = _gradient(ctx.plan, values, *ctx.saved_tensors, ctx.ignore_index, ctx.align_corners)
    return None, gradient, None, None, None, None


_forward.register_autograd(_backward, setup_context=_keep)
