"""Points at which the set criterion looks at masks: drawn, and sampled from logits and from label maps.

A point is (x, y) in [0, 1) x [0, 1), where (0, 0) is the upper left corner of the image; its value is bilinear between
the centres of pixels, and fades to 0 within half a pixel of the border, as in `torch.nn.functional.grid_sample`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from prove.errors import ProveError
from prove.losses.set_criterion.settings import CriterionSettings
from prove.losses.set_criterion.targets import Targets


@dataclass(frozen=True, eq=False)
class LossPoints:
    """What is random in the mask losses of one layer.

    Attributes:
        candidates: [M, K, 2], among which each of the M masks' most uncertain points are chosen; K = 0 without these.
        random: [M, R, 2], used as they are.
    """

    candidates: Tensor
    random: Tensor


@dataclass(frozen=True, eq=False)
class Points:
    """All that is random in one evaluation of the criterion.

    Layers are those that are trained, the final one last: L = 1 without deep supervision. M is the number of matched
    masks in the batch, ordered by image and in an image by query.

    Attributes:
        matching: [L, N, P, 2], shared by the queries and classes of an image.
        loss: what each layer's mask losses use, L entries.
    """

    matching: Tensor
    loss: tuple[LossPoints, ...]

    def of_layer(self, layer: int) -> LossPoints:
        """What the mask losses of a layer in [0, L) use."""
        return self.loss[layer]


class PointSource:
    """Draws the points of each layer when they are asked for, so that those of one layer are held at a time.

    The final layer's come first: they are the same whether or not other layers are trained.

    Args:
        layers: L, those that are trained.
        counts: the number of classes in each image.

    Attributes:
        matching: as in `Points`.
    """

    def __init__(
        self,
        settings: CriterionSettings,
        layers: int,
        counts: Sequence[int],
        queries: int,
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> None:
        self._settings = settings
        self._layers = layers
        self._masks = matched_masks(counts, queries)
        self._device = device
        self._generator = generator
        final = self._rand(1, len(counts), settings.num_points)
        self._final = self._draw()
        self.matching = torch.cat((self._rand(layers - 1, len(counts), settings.num_points), final))

    def of_layer(self, layer: int) -> LossPoints:
        """As in `Points`. The final layer may be asked for at any time, each of the others once, in order."""
        return self._final if layer == self._layers - 1 else self._draw()

    def _draw(self) -> LossPoints:
        candidates = self._rand(self._masks, self._settings.num_candidates)
        return LossPoints(candidates, self._rand(self._masks, self._settings.num_random))

    def _rand(self, *shape: int) -> Tensor:
        return torch.rand(*shape, 2, dtype=torch.float32, device=self._device, generator=self._generator)


def draw_points(
    settings: CriterionSettings,
    layers: int,
    counts: Sequence[int],
    queries: int,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> Points:
    """The points that `SetCriterion` would draw from the same state of the generator.

    Args:
        layers: predictions that the model gives; those that aren't trained get no points.
        counts: the number of classes in each image.
        queries: Q.
        generator: on ``device``; PyTorch's own where none is given.
    """
    layers = layers if settings.deep_supervision else 1
    source = PointSource(settings, layers, counts, queries, torch.device(device), generator)
    return Points(source.matching, tuple(source.of_layer(layer) for layer in range(layers)))


def matched_masks(counts: Sequence[int], queries: int) -> int:
    """M, given the number of classes in each image: a query is matched to one class, and a class to one query."""
    return sum(min(count, queries) for count in counts)


def check_points(points: Points, settings: CriterionSettings, layers: int, counts: Sequence[int], queries: int) -> None:
    """Refuse points of other shapes than these layers, images and masks ask for.

    Raises:
        ProveError: which shapes there are, and which are asked for.
    """
    masks = matched_masks(counts, queries)
    matching = [layers, len(counts), settings.num_points, 2]
    loss = [[masks, settings.num_candidates, 2], [masks, settings.num_random, 2]]
    found = [[list(each.candidates.shape), list(each.random.shape)] for each in points.loss]
    if list(points.matching.shape) != matching or found != [loss] * layers:
        raise ProveError(
            f"The points are {list(points.matching.shape)} to match and {found} for the losses; {layers} layers, "
            f"{len(counts)} images and {masks} masks ask for {matching}, and in each layer for {loss}.",
            hint="Draw them with draw_points and the same settings.",
        )


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Values of maps [B, Q, h, w] at each entry's points [B, P, 2]: [B, Q, P]."""
    return F.grid_sample(maps, (2.0 * points - 1.0)[:, :, None], align_corners=False).squeeze(3)


def sample_all(maps: Tensor, points: Tensor, out: Tensor) -> None:
    """Values of maps [N, Q, h, w], all Q at the image's points [N, P, 2], into ``out`` [N, Q, P]."""
    if maps.device.type != "cpu":
        out.copy_(sample(maps, points))
        return
    for image, (own, at) in enumerate(zip(maps, points, strict=True)):  # map by map: one fits the cache, Q don't
        out[image] = sample(own[:, None], at.expand(len(own), -1, -1))[:, 0]


@dataclass(frozen=True, eq=False)
class PointLabels:
    """The slots (`Targets`) of the four pixels around each of B times P points.

    Attributes:
        slots: four of [B, P] int64.
        shares: four of [B, P], what each pixel counts in the value at the point.
    """

    slots: tuple[Tensor, ...]
    shares: tuple[Tensor, ...]

    @classmethod
    def at(cls, targets: Targets, images: Tensor, points: Tensor) -> PointLabels:
        """Read the labels at points [B, P, 2], each entry in the image that ``images`` [B] says."""
        height, width = targets.slots.shape[1:]
        # written like this, the coordinates are to the bit those of grid_sample
        grid = 2.0 * points - 1.0
        x = ((grid[..., 0] + 1.0) * width - 1.0) * 0.5
        y = ((grid[..., 1] + 1.0) * height - 1.0) * 0.5
        left, top = x.floor(), y.floor()
        u, v = x - left, y - top
        uv = u * v
        first = (images * (height + 1) + 1)[:, None]  # corner maps begin half a pixel outside of the image
        packed = targets.corners.flatten()[(first + top.long()) * (width + 1) + 1 + left.long()]
        slots = tuple(packed >> 16 * corner & 0xFFFF for corner in range(4))
        return cls(slots, (1.0 - u - v + uv, u - uv, v - uv, uv))

    def share_of(self, slots: Tensor) -> Tensor:
        """How much of each point is in a slot: [B, P] for slots [B], what sampling their masks would give.

        No mask is built: a mask is bilinear in its pixels, so its value is the sum of the shares of those that are in
        the slot.
        """
        found = torch.zeros_like(self.shares[0])
        for at, share in zip(self.slots, self.shares, strict=True):
            found += share * (at == slots[:, None])
        return found

    def share_of_each(self, count: int) -> Tensor:
        """The same for the first ``count`` slots: [B, count, P]."""
        batch, points = self.shares[0].shape
        found = self.shares[0].new_zeros(batch, count + 1, points)
        for at, share in zip(self.slots, self.shares, strict=True):
            found.scatter_add_(1, at[:, None], share[:, None])
        return found[:, :count]
