"""A batch on the device, and the tables that kernels read beside it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from prove.errors import ProveError
from prove.losses.cpu.bins import edges as bin_edges
from prove.losses.cuda.combine import described
from prove.losses.cuda.jit import Blocks, compute_type, launch
from prove.losses.cuda.labels import neighbourhoods
from prove.losses.cuda.upsample import Between
from prove.losses.fused.plan import BoundaryPart, LogPart, Plan, RegionPart, plan_of

MAP_PIXELS = 1024
"""Pixels that a program of a kernel without classes handles."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Tensors, contiguous, on one device.

    Attributes:
        logits: [N, C, h, w], any floating type; labels: [N, H, W] int64; weight: [N, H, W] or None.
        plan: what is computed.
    """

    plan: Plan
    logits: Tensor
    labels: Tensor
    weight: Tensor | None
    ignore_index: int
    align_corners: bool

    @classmethod
    def of(
        cls, plan: Plan, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int, align_corners: bool
    ) -> Batch:
        """Lay a batch out for the kernels; its values are not looked at.

        Raises:
            ProveError: images with more logits than 32-bit indices reach.
        """
        if logits[0].numel() >= 1 << 31:
            raise ProveError(
                f"An image has {list(logits.shape[1:])} logits; the kernels take up to 2^31 - 1 of them.",
                hint="Train on crops, or set PROVE_LOSSES=torch.",
            )
        given = None if weight is None else weight.detach().contiguous()
        return cls(
            plan, logits.detach().contiguous(), labels.detach().long().contiguous(), given, ignore_index, align_corners
        )

    @property
    def images(self) -> int:
        """N."""
        return int(self.logits.shape[0])

    @property
    def classes(self) -> int:
        """C."""
        return int(self.logits.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """H and W, of the labels."""
        return int(self.labels.shape[1]), int(self.labels.shape[2])

    @property
    def low_size(self) -> tuple[int, int]:
        """h and w, of the logits."""
        return int(self.logits.shape[2]), int(self.logits.shape[3])

    @property
    def pixels(self) -> int:
        """H W."""
        return self.size[0] * self.size[1]

    @property
    def upsampled(self) -> bool:
        """Whether logits and labels differ in size."""
        return self.size != self.low_size

    @property
    def device(self) -> torch.device:
        """Where everything lies."""
        return self.logits.device

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in: float32 or float64."""
        return torch.float64 if self.logits.dtype == torch.float64 else torch.float32

    @property
    def triton_type(self) -> Any:
        """The same, as Triton names it."""
        return compute_type(self.dtype)

    @property
    def blocks(self) -> Blocks:
        """The tiles of all classes."""
        return Blocks.of(self.classes)

    @property
    def weights(self) -> Tensor:
        """The weight per pixel, or something to point to."""
        return self.logits if self.weight is None else self.weight

    @property
    def rows(self) -> Between:
        """Label rows between low-resolution ones."""
        return _between(self.low_size[0], self.size[0], self.align_corners, self.device, self.dtype)

    @property
    def columns(self) -> Between:
        """The same for columns."""
        return _between(self.low_size[1], self.size[1], self.align_corners, self.device, self.dtype)

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor on the device, in the type that is computed in unless another is given."""
        return torch.empty(shape, dtype=dtype or self.dtype, device=self.device)

    def between(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where rows and columns lie and their shares, or something to point to."""
        if not self.upsampled:
            return (self.labels,) * 4
        return self.rows.at, self.rows.share, self.columns.at, self.columns.share

    def maps(self) -> tuple[Tensor, Tensor]:
        """Factors at edges of the labels [E, N, H, W], and masses of whole neighbourhoods [N, H, W], or dummies."""
        widths = [part.edges for part in self.plan.parts if isinstance(part, LogPart) and part.edges]
        outlined = bool(self.plan.of(BoundaryPart))
        if not widths and not outlined:
            return self.labels, self.labels
        shape = self.labels.shape
        whole = self.empty(*shape) if outlined else self.logits
        edges = self.empty(*shape) if widths else self.logits
        grid = ((self.pixels + MAP_PIXELS - 1) // MAP_PIXELS, self.images)
        launch(
            neighbourhoods, grid,
            self.labels, self.weights, whole, edges, self.classes, self.pixels, self.size[1], self.size[0],
            self.ignore_index, WHOLE=outlined, EDGES=bool(widths), WEIGHTED=self.weight is not None,
            DT=self.triton_type, B=MAP_PIXELS,
        )  # fmt: skip
        if not widths:
            return self.labels, whole
        found = self.empty(len(widths), *shape)
        for k, (edge_weight, width) in enumerate(widths):
            wide = F.max_pool2d(edges[:, None], 2 * width + 1, stride=1, padding=width)[:, 0] if width else edges
            torch.add(torch.ones((), dtype=self.dtype, device=self.device), wide, alpha=edge_weight, out=found[k])
        return found, whole

    @property
    def constants(self) -> Constants:
        """What depends on the plan alone."""
        return _constants(self.plan.key, self.classes, self.device, self.dtype)


@dataclass(frozen=True, eq=False)
class Constants:
    """What kernels are compiled for, and small tables.

    Attributes:
        logs: of each logarithmic part (`prove.losses.cuda.values.add_values`); parts: `described`.
        mining: whether a part mines.
        regions, squared: whether there are such parts; outlined: the same for boundaries.
        log_weight: [L, C]; listed: [regions, C] uint8; thresholds: [L] float64, infinite.
    """

    logs: tuple[tuple[float, float, bool, bool, int], ...]
    parts: tuple[tuple[int | float, ...], ...]
    mining: bool
    regions: bool
    squared: bool
    outlined: bool
    log_weight: Tensor
    listed: Tensor
    thresholds: Tensor

    @property
    def bare(self) -> Constants:
        """Without logarithms and regions: of a pass that only Lovász errors are counted in."""
        return Constants((), (), False, False, False, False, self.log_weight, self.listed, self.thresholds)


@functools.lru_cache(maxsize=64)
def _between(low: int, high: int, align_corners: bool, device: torch.device, dtype: torch.dtype) -> Between:
    return Between.of(low, high, align_corners, device, dtype)


@functools.lru_cache(maxsize=64)
def _constants(key: str, classes: int, device: torch.device, dtype: torch.dtype) -> Constants:
    plan = plan_of(key)
    logs = [part for part in plan.parts if isinstance(part, LogPart)]
    regions = [part for part in plan.parts if isinstance(part, RegionPart)]
    edged = [part for part in logs if part.edges]
    rows = tuple(
        (
            float(part.gamma),
            float(part.smoothing),
            part.weighted_mean,
            part.mining is not None,
            edged.index(part) if part.edges else -1,
        )
        for part in logs
    )
    weight = [[part.scale * w for w in part.class_weight or (1.0,) * classes] for part in logs] or [[0.0]]
    listed = [[int(isinstance(p.classes, tuple | list) and c in p.classes) for c in range(classes)] for p in regions]
    return Constants(
        rows,
        described(plan),
        any(part.mining for part in logs),
        bool(regions),
        any(part.squared for part in regions),
        bool(plan.of(BoundaryPart)),
        torch.tensor(weight, dtype=dtype, device=device),
        torch.tensor(listed or [[0]], dtype=torch.uint8, device=device),
        torch.full((max(1, len(logs)),), torch.inf, dtype=torch.float64, device=device),
    )


@functools.lru_cache(maxsize=8)
def bin_tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """Lower edge and width of every bin, float64."""
    lower, width = bin_edges()
    return torch.from_numpy(lower).to(device), torch.from_numpy(width).to(device)
