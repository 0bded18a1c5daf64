"""A checked batch as numpy arrays, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from prove.losses.cpu.labels import label_edges, relabel, whole_masses
from prove.losses.cpu.tile import Source, along
from prove.losses.cpu.upsample import Gather, gather_of
from prove.losses.fused.plan import BoundaryPart, LogPart, Plan
from prove.losses.pixels import check_values

Array = Any
T = TypeVar("T")

BLOCK_ROWS = 128
"""Rows that one task handles: the same whatever the number of threads, and so is the order of all sums."""


@dataclass(frozen=True)
class Batch:
    """What the kernels read.

    Attributes:
        logits: [N, C, h w]; labels: [N, H W] int32, -1 where ignored; mass: [N, H W] or [N, 0].
        counts: [N, C] pixels of each class in each image.
        edge_maps: [N, K, H W], factors per pixel; ``edge_of`` is the index of each part's own, by position in the plan.
        whole: [N, H W], the mass of each pixel whose 3x3 neighbourhood is valid, 0 elsewhere; [N, 0] when no part asks.
        size: of the labels; low_size: of the logits.
    """

    logits: Array
    labels: Array
    mass: Array
    counts: Array
    edge_maps: Array
    edge_of: dict[int, int]
    whole: Array
    size: tuple[int, int]
    low_size: tuple[int, int]
    align_corners: bool

    @property
    def dtype(self) -> Any:
        """float32 or float64."""
        return self.logits.dtype

    @property
    def images(self) -> int:
        """N."""
        return int(self.logits.shape[0])

    @property
    def classes(self) -> int:
        """C."""
        return int(self.logits.shape[1])

    @property
    def upsampled(self) -> bool:
        """Whether logits and labels differ in size."""
        return self.size != self.low_size

    @cached_property
    def _between(self) -> tuple[Array, Array, Array, Array]:
        if not self.upsampled:
            none = np.empty((2, 0), np.int32), np.empty(0, self.dtype)
            return (*none, *none)
        columns = along(self.low_size[1], self.size[1], self.align_corners, self.dtype)
        return (*columns, *along(self.low_size[0], self.size[0], self.align_corners, self.dtype))

    @cached_property
    def gather(self) -> Gather:
        """The transpose of the upsampling of columns."""
        if not self.upsampled:
            return gather_of(*self._between[:2], 1)
        return _gather(self.low_size[1], self.size[1], self.align_corners, self.dtype)

    def low_rows(self, first: int, stop: int) -> tuple[int, int]:
        """The low-resolution rows that label rows [first, stop) lie between, as first and stop."""
        rows = self._between[2]
        return int(rows[0, first]), int(rows[1, stop - 1]) + 1

    def source(self, image: int) -> Source:
        """One image."""
        return Source(
            self.logits[image], self.labels[image], self.mass[image], *self._between, self.size[1], self.low_size[1]
        )

    @cached_property
    def blocks(self) -> list[tuple[int, int, int]]:
        """Image, first row and stop row of every task."""
        rows = range(0, self.size[0], BLOCK_ROWS)
        return [(n, r, min(r + BLOCK_ROWS, self.size[0])) for n in range(self.images) for r in rows]


@cache
def _gather(low: int, high: int, align_corners: bool, dtype: Any) -> Gather:
    return gather_of(*along(low, high, align_corners, dtype), low)


def prepare(
    plan: Plan, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int, align_corners: bool
) -> Batch:
    """Check the values of a batch and lay it out for the kernels; logits of a half type become float32.

    Raises:
        ProveError: as `prove.losses.pixels.check_values`.
    """
    n, c, *low_size = logits.shape
    size = (int(labels.shape[1]), int(labels.shape[2]))
    if logits.dtype != torch.float64:
        logits = logits.float()
    if weight is not None:
        valid = labels != ignore_index
        check_values(c, labels, valid, ignore_index, weight)
        mass = weight.detach().to(logits.dtype).contiguous().numpy().reshape(n, -1)
    dense = logits.detach().contiguous().numpy().reshape(n, c, -1)
    if weight is None:
        mass = np.empty((n, 0), dense.dtype)
    given = labels.detach().long().contiguous().numpy().reshape(n, -1)
    ours, counts = np.empty(given.shape, np.int32), np.zeros((n, c), np.int64)
    for image in range(n):
        if relabel(given[image], ignore_index, c, ours[image], counts[image]) >= 0:
            check_values(c, labels.long(), labels != ignore_index, ignore_index, None)
    maps, edge_of = _edge_maps(plan, ours, size, dense.dtype)
    whole = np.empty((n, 0), dense.dtype)
    if plan.of(BoundaryPart):
        whole = np.empty(ours.shape, dense.dtype)
        for image in range(n):
            whole_masses(ours[image], mass[image], size[1], whole[image])
    return Batch(
        dense, ours, mass, counts, maps, edge_of, whole, size, (int(low_size[0]), int(low_size[1])), align_corners
    )


def _edge_maps(plan: Plan, labels: Array, size: tuple[int, int], dtype: Any) -> tuple[Array, dict[int, int]]:
    asked = [(i, part.edges) for i, part in plan.of(LogPart) if isinstance(part, LogPart) and part.edges]
    if not asked:
        return np.empty((len(labels), 0, 0), dtype), {}
    edges = np.empty(labels.shape, dtype)
    for image in range(len(labels)):
        label_edges(labels[image], size[1], edges[image])
    plane = torch.from_numpy(edges).view(len(labels), 1, *size)
    maps = []
    for _, (edge_weight, width) in asked:
        wide = F.max_pool2d(plane, 2 * width + 1, stride=1, padding=width) if width else plane
        maps.append((1.0 + edge_weight * wide).reshape(len(labels), 1, -1))
    return torch.cat(maps, dim=1).contiguous().numpy(), {index: k for k, (index, _) in enumerate(asked)}


def in_order(task: Callable[..., T], arguments: list[tuple[Any, ...]]) -> Iterator[T]:
    """Results of a task for each tuple of arguments, in order, on as many threads as torch has been given."""
    threads = min(torch.get_num_threads(), len(arguments))
    if threads < 2:
        for each in arguments:
            yield task(*each)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(lambda each: task(*each), arguments)
