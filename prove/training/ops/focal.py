"""Focal loss (Lin et al., ICCV 2017) and its gradient, element by element."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prove.training.ops.gradient import at_least_float32


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Writes the loss of every class against all others into ``output``.

    Args:
        input: logits, (N, C).
        target: class per row, (N,); any index outside [0, C) means none of the classes.
        weight: weight of the row's class, (C,), or empty for none; with it every target must lie in [0, C).
    """
    logits = at_least_float32(input)
    p, q = logits.sigmoid(), (-logits).sigmoid()
    positive = -alpha * q**gamma * F.logsigmoid(logits)
    negative = -(1 - alpha) * p**gamma * F.logsigmoid(-logits)
    output.copy_(torch.where(_is_target(target, input), positive, negative) * _row_weight(weight, target, input))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, *, gamma: float, alpha: float
) -> None:
    """Writes the derivative of each element of the forward by its own logit into ``grad_input``, (N, C)."""
    logits = at_least_float32(input)
    p, q = logits.sigmoid(), (-logits).sigmoid()
    positive = -alpha * q**gamma * (q - gamma * p * F.logsigmoid(logits))
    negative = -(1 - alpha) * p**gamma * (gamma * q * F.logsigmoid(-logits) - p)
    grad_input.copy_(torch.where(_is_target(target, input), positive, negative) * _row_weight(weight, target, input))


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Writes ``-alpha (1 - p)^gamma log p`` of the target class into ``output``, (N,).

    Args:
        input: softmax probabilities (not logits), (N, C).
        target: class per row, (N,); a negative one has no loss.
        weight: weight per class, (C,), or empty for none.
    """
    p, labelled = _target_probability(input, target)
    loss = -alpha * (1 - p) ** gamma * _safe_log(p)
    output.copy_(torch.where(labelled, loss * _class_weight(weight, target, input), 0))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, *, gamma: float, alpha: float
) -> None:
    """Writes the derivative of the forward by the logits into ``grad_input``, (N, C).

    ``buff``, (N,), receives the factor that multiplies (one-hot - probabilities).
    """
    p, labelled = _target_probability(input, target)
    # log(p) / (1 - p) has the limit -1 at p = 1, where gamma < 1 would otherwise divide zero by zero.
    log_ratio = torch.where(p < 1, _safe_log(p) / (1 - p), -1)
    factor = alpha * (1 - p) ** gamma * (gamma * p * log_ratio - 1)
    factor = torch.where(labelled, factor * _class_weight(weight, target, input), 0)
    buff.copy_(factor)
    grad_input.copy_(factor[:, None] * (_is_target(target, input).to(factor.dtype) - at_least_float32(input)))


def _is_target(target: Tensor, input: Tensor) -> Tensor:
    return target[:, None] == torch.arange(input.size(1), device=input.device)


def _row_weight(weight: Tensor, target: Tensor, input: Tensor) -> Tensor:
    """The weight of each row's class, (N, 1); ones when there are no weights."""
    if weight.numel() == 0:
        return torch.ones((), device=input.device)
    return at_least_float32(weight).index_select(0, target)[:, None]


def _class_weight(weight: Tensor, target: Tensor, input: Tensor) -> Tensor:
    """The weight of each row's class, (N,), for targets of which the negative ones are masked later."""
    if weight.numel() == 0:
        return torch.ones((), device=input.device)
    return at_least_float32(weight).index_select(0, target.clamp(min=0))


def _target_probability(probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The probability of the target class, (N,), and which rows have a target."""
    p = at_least_float32(probabilities).gather(1, target.clamp(min=0)[:, None])[:, 0]
    return p, target >= 0


def _safe_log(p: Tensor) -> Tensor:
    return p.clamp(min=torch.finfo(torch.float32).tiny).log()
