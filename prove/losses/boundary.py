"""Boundary loss on Sobel edges."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from prove.losses.pixels import Pixels, ratio
from prove.losses.term import Term

LARGEST = 20.0
"""The largest squared Sobel magnitude of a map in [0, 1], 4^2 + 2^2: a step between straight and diagonal. A straight
step has 4^2, a diagonal one 3^2 + 3^2."""
SQUARE_FLOOR = 1e-4
"""Added to the squared magnitude of the prediction: bounds the derivative of the root, and edges below by 0.0022."""
SURE = 1.0 - 1e-6
"""Edges of the prediction are clamped here before the logarithm."""


class Boundary(Term):
    """Binary cross-entropy between soft Sobel edges of the prediction and of the labels, in [0, 14).

    The edge of a map is ``sqrt(Sx^2 + Sy^2) / sqrt(20)`` in [0, 1], with the 3x3 Sobel operator and replicated
    borders; t of the one-hot labels, b of the probabilities (with 1e-4 under the root). The value is the mean of
    ``-t log b - (1 - t) log(1 - b)`` over all classes and all pixels whose 3x3 neighbourhood is valid, where an edge
    of the labels (t > 0) weighs ``pos_weight`` and the rest 1. The weight is on the pixel, not on ``t log b`` alone:
    t is soft, and b = t has to stay the minimum. The minimum is the entropy of t, above 0: a straight edge has
    t = 0.89.

    Args:
        pos_weight: a number > 0, or ``balanced``: edges and the rest have half of the mean each.
    """

    name = "boundary"

    def __init__(self, pos_weight: Literal["balanced"] | float = "balanced", ignore_index: int = 255) -> None:
        super().__init__(ignore_index)
        self.pos_weight = pos_weight

    def value(self, pixels: Pixels) -> Tensor:
        """The unweighted value, a scalar."""
        target = (sobel_squared(pixels.one_hot.to(pixels.logits.dtype)) / LARGEST).sqrt()
        square = sobel_squared(pixels.probs)
        edge = ((square + SQUARE_FLOOR) / (LARGEST + SQUARE_FLOOR)).sqrt().clamp(max=SURE)
        loss = -(target * edge.log() + (1.0 - target) * torch.log1p(-edge))
        mass = torch.where(whole_neighbourhoods(pixels.valid), pixels.mass[:, None], 0.0)
        return _weighted_mean(loss, mass, target > 0, self.pos_weight)

    def extra_repr(self) -> str:
        """The parameters, for printing a model."""
        return f"pos_weight={self.pos_weight!r}"


def sobel_squared(maps: Tensor) -> Tensor:
    """``Sx^2 + Sy^2`` of each map, borders replicated: [N, C, H, W] to the same, in [0, 20] for maps in [0, 1]."""
    # slices instead of conv2d and a padding mode: exact in float32 on every device, deterministic backward
    maps = torch.cat((maps[:, :, :1], maps, maps[:, :, -1:]), dim=2)
    maps = torch.cat((maps[..., :1], maps, maps[..., -1:]), dim=3)
    rows = maps[:, :, :-2] + 2.0 * maps[:, :, 1:-1] + maps[:, :, 2:]
    columns = maps[..., :-2] + 2.0 * maps[..., 1:-1] + maps[..., 2:]
    across = rows[..., 2:] - rows[..., :-2]
    down = columns[:, :, 2:] - columns[:, :, :-2]
    return across * across + down * down


def whole_neighbourhoods(valid: Tensor) -> Tensor:
    """Whether the 3x3 neighbourhood of a pixel, as far as it lies in the image, is valid: [N, H, W] to [N, 1, H, W]."""
    return F.max_pool2d((~valid)[:, None].float(), 3, stride=1, padding=1) == 0


def _weighted_mean(loss: Tensor, mass: Tensor, edge: Tensor, pos_weight: Literal["balanced"] | float) -> Tensor:
    mass = mass.expand_as(loss)
    if pos_weight != "balanced":
        mass = torch.where(edge, mass * pos_weight, mass)
        return ratio((loss * mass).sum(), mass.sum())
    # half of the mean each; a batch without edges, or with nothing else, is the mean of what there is
    edges, rest = torch.where(edge, mass, 0.0), torch.where(edge, 0.0, mass)
    halves = torch.stack((ratio((loss * edges).sum(), edges.sum()), ratio((loss * rest).sum(), rest.sum())))
    there = torch.stack((edges.sum(), rest.sum())) > 0
    return ratio(halves.sum(), there.sum().to(loss.dtype))
