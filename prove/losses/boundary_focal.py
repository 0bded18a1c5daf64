"""Focal loss with more weight near the edges of the labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from prove.losses.boundary import LARGEST, sobel_squared, whole_neighbourhoods
from prove.losses.focal import focal_of_label
from prove.losses.pixels import Pixels, ratio
from prove.losses.term import Term


class BoundaryFocal(Term):
    """``sum(m * (1 + edge_weight * e) * alpha_y * (1 - p_y)^gamma * -log p_y) / sum(m)``, in [0, inf).

    The softmax form of `Focal` over pixels of mass m (1, or the weight per pixel), with e in [0, 1] from `edge_map`.
    The edge weight does not enter the divisor: far from edges a pixel counts as in `Focal`. Cost: as `Focal`, and a
    few passes over the one-hot labels.

    Args:
        gamma, alpha: as in `Focal`.
        edge_weight: what a full edge adds to the weight 1 of a pixel, >= 0; 0 is `Focal`.
        width: pixels by which edges are dilated, >= 0; 0 leaves the Sobel edge, 2 pixels wide.
    """

    name = "boundary_focal"

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | Sequence[float] = 0.5,
        edge_weight: float = 4.0,
        width: int = 1,
        ignore_index: int = 255,
    ) -> None:
        super().__init__(ignore_index)
        self.gamma = gamma
        self.alpha = alpha if isinstance(alpha, int | float) else tuple(alpha)
        self.edge_weight = edge_weight
        self.width = width

    def value(self, pixels: Pixels) -> Tensor:
        """The unweighted value, a scalar."""
        edges = edge_map(pixels.one_hot, pixels.valid, self.width, pixels.logits.dtype)
        losses = (1.0 + self.edge_weight * edges) * focal_of_label(pixels, self.gamma, self.alpha)
        return ratio((pixels.mass * losses).sum(), pixels.mass.sum())

    def extra_repr(self) -> str:
        """The parameters, for printing a model."""
        return f"gamma={self.gamma}, alpha={self.alpha}, edge_weight={self.edge_weight}, width={self.width}"


def edge_map(one_hot: Tensor, valid: Tensor, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """How much of an edge of the labels is near each pixel.

    The Sobel magnitude of each class, divided by ``sqrt(20)``, the largest there is; its maximum over the classes; 0
    where the 3x3 neighbourhood has an ignored pixel, for there the edge is unknown; then the maximum over
    ``(2 * width + 1)^2`` pixels. A straight edge is 0.89.

    Args:
        one_hot: [N, C, H, W], bool; no class at ignored pixels.
        valid: [N, H, W], bool.
        width: in pixels, >= 0.

    Returns:
        [N, H, W] of that type, in [0, 1].
    """
    squares = sobel_squared(one_hot.float()).amax(dim=1, keepdim=True)  # whole numbers: exact
    edges = torch.where(whole_neighbourhoods(valid), (squares.to(dtype) / LARGEST).sqrt(), 0.0)
    return F.max_pool2d(edges, 2 * width + 1, stride=1, padding=width).squeeze(1)
