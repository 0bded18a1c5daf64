"""What the references read their arguments with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

Params = Mapping[str, object]
"""The parameters of a resolved term by name."""

Reference = Callable[[Params, Tensor, Tensor, Tensor, Sequence[float] | None], Tensor]
"""From parameters, logits [N, C, H, W] in float64, labels and valid [N, H, W], and class weights to a scalar."""


def pixel_rows(logits: Tensor, labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [M, C] and labels [M] of the M valid pixels."""
    return logits.permute(0, 2, 3, 1)[valid], labels[valid]


def number(params: Params, name: str) -> float:
    """A parameter that is a number."""
    value = params[name]
    assert isinstance(value, int | float)
    return float(value)


def listed(classes: object, count: int, y: Tensor) -> Sequence[int]:
    """The classes that the mean runs over, as indices."""
    if isinstance(classes, tuple):
        return classes
    return sorted(set(y.tolist())) if classes == "present" else range(count)
