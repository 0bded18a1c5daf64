"""Where things lie in the two tensors that the first pass leaves for the second."""

from __future__ import annotations

from dataclasses import dataclass

from prove.losses.cuda.bins import BINS
from prove.losses.cuda.lovasz import binned
from prove.losses.fused.plan import BoundaryPart, LogPart, LovaszPart, Plan, RegionPart


@dataclass(frozen=True)
class Ranked:
    """A Lovász part.

    Attributes:
        index: its position in the plan.
        binned: whether it is counted in bins; otherwise sorted.
        groups: images, or 1.
        slopes: first index in ``dense`` of its slopes: [groups, C, 2, BINS], or [N, C, H W] if sorted.
        top: first index in the state of the slopes of single pixels [groups, C], and of the pixels behind them.
    """

    index: int
    part: LovaszPart
    binned: bool
    groups: int
    slopes: int
    top: int


@dataclass(frozen=True)
class Layout:
    """First indices and lengths.

    Attributes:
        logs, regions, edges, thresholds: first index in the state of [L, 2], [7, C], [4] and [L], with one number free
            behind regions.
        lovasz: of each Lovász part.
        peaks: first index in ``dense`` of two maps [N, H W], where there is a boundary part.
        state, dense: lengths.
    """

    logs: int
    regions: int
    edges: int
    thresholds: int
    lovasz: tuple[Ranked, ...]
    peaks: int
    state: int
    dense: int

    @classmethod
    def of(cls, plan: Plan, images: int, classes: int, pixels: int) -> Layout:
        """For a batch of this size."""
        logs = sum(isinstance(part, LogPart) for part in plan.parts)
        regions = 2 * logs
        edges = regions + 7 * classes * any(isinstance(part, RegionPart) for part in plan.parts) + 1
        thresholds = edges + 4
        state, dense = thresholds + logs, 0
        found: list[Ranked] = []
        for index, part in enumerate(plan.parts):
            if not isinstance(part, LovaszPart):
                continue
            groups = images if part.per_image else 1
            in_bins = binned(part, images, pixels)
            found.append(Ranked(index, part, in_bins, groups, dense, state))
            state += 2 * groups * classes * in_bins
            dense += groups * classes * 2 * BINS if in_bins else images * classes * pixels
        peaks = dense
        dense += 2 * images * pixels * bool(plan.of(BoundaryPart))
        return cls(0, regions, edges, thresholds, tuple(found), peaks, state, dense)
