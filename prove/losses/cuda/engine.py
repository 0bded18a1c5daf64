"""The CUDA backend of the fused operators: the kernels in their order, and one check that waits for the device.

A label or weight that is wrong is noticed by the first kernel; the host waits for that one alone, after it has queued
the rest. While a CUDA graph is captured nothing can be waited for: there the values are not checked, and a pixel whose
label is no class counts as ignored.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
from torch import Tensor

from prove.losses.cuda.batch import MAP_PIXELS, Batch, Constants, bin_tables
from prove.losses.cuda.bins import BINS
from prove.losses.cuda.boundary import PIXELS, add_edge_values
from prove.losses.cuda.combine import set_values
from prove.losses.cuda.gradient import gradient
from prove.losses.cuda.jit import launch, on, programs
from prove.losses.cuda.labels import survey
from prove.losses.cuda.layout import Layout, Ranked
from prove.losses.cuda.lovasz import class_factors, sort_weights, weigh_bins
from prove.losses.cuda.values import NO_TOP, add_values
from prove.losses.fused.plan import LogPart, Plan
from prove.losses.pixels import check_values


def sizes(plan: Plan, images: int, classes: int, height: int, width: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Lengths of what `forward` keeps: the state, slopes of Lovász parts with maps of boundary parts, and nothing."""
    layout = Layout.of(plan, images, classes, height * width)
    return layout.state, layout.dense, 0


def forward(
    plan: Plan, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Values and certificates of all parts, and what `backward` needs; the last one is empty.

    Lovász with ``method=auto`` is binned above `prove.losses.fused.plan.AUTO_EXACT_PIXELS` whatever the certificate
    says: to look at it would be to wait for the device.

    Raises:
        ProveError: as `prove.losses.pixels.check_values`.
    """
    batch = Batch.of(plan, logits, labels, weight, ignore_index, align_corners)
    with on(batch.device):
        found = _Forward(batch).run()
        return *found, found[0].new_empty(0)


def backward(
    plan: Plan, slopes: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, state: Tensor, dense: Tensor,
    saved: Tensor, ignore_index: int, align_corners: bool,
) -> Tensor:  # fmt: skip
    """The gradient of ``sum(slopes * values)`` on the logits, in their type."""
    batch = Batch.of(plan, logits, labels, weight, ignore_index, align_corners)
    with on(batch.device):
        return gradient(batch, slopes, state, dense)


class _Forward:
    """One first pass."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.layout = Layout.of(batch.plan, batch.images, batch.classes, batch.pixels)
        self.state = torch.zeros(self.layout.state, dtype=torch.float64, device=batch.device)
        self.dense = batch.empty(self.layout.dense)

    def run(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Values, certificates, state and dense slopes."""
        batch, layout, constants = self.batch, self.layout, self.batch.constants
        counts, check = self._survey()
        self.edges, whole = batch.maps()
        self.thresholds = constants.thresholds
        if constants.mining:
            self.thresholds = self.state[layout.thresholds : layout.thresholds + len(constants.logs)]
            self._mine()
        values = torch.zeros(len(batch.plan.parts), dtype=batch.dtype, device=batch.device)
        certificates = torch.zeros_like(values)
        for ranked in layout.lovasz:
            values[ranked.index], certificates[ranked.index] = self._lovasz(ranked, counts, constants)
            constants = constants.bare  # logarithms and regions are summed once
        if not layout.lovasz:
            self._sweep(constants)
        if batch.constants.outlined:
            self._add_edges(whole)
        state = self.state
        launch(
            set_values, (1,),
            state[layout.logs :], state[layout.regions :], state[layout.edges :], constants.listed, values,
            batch.classes, PARTS=batch.constants.parts, K=batch.blocks.classes, warps=4,
        )  # fmt: skip
        check()
        return values, certificates, state, self.dense

    def _survey(self) -> tuple[Tensor, Callable[[], None]]:
        """Pixels of each class [N, C] where Lovász asks, and what raises if the batch is wrong."""
        batch = self.batch
        counting = bool(self.layout.lovasz)
        counts = torch.zeros((batch.images, batch.classes), dtype=torch.int32, device=batch.device)
        wrong = torch.zeros(1, dtype=torch.int32, device=batch.device)
        pixels = batch.blocks.pixels if counting else MAP_PIXELS
        launch(
            survey, (triton.cdiv(batch.pixels, pixels), batch.images),
            batch.labels, batch.weights, counts, wrong, batch.classes, batch.pixels, batch.ignore_index, COUNT=counting,
            WEIGHTED=batch.weight is not None, K=batch.blocks.classes, B=pixels, warps=4,
        )  # fmt: skip
        if batch.device.type == "cuda":
            if torch.cuda.is_current_stream_capturing():
                return counts, lambda: None
            host = torch.empty(1, dtype=torch.int32, pin_memory=True)
            host.copy_(wrong, non_blocking=True)
            done = torch.cuda.current_stream().record_event()
        else:
            host, done = wrong, None

        def check() -> None:
            if done is not None:
                done.synchronize()
            if host.item():
                valid = batch.labels != batch.ignore_index
                check_values(batch.classes, batch.labels, valid, batch.ignore_index, batch.weight)

        return counts, check

    def _sweep(
        self, constants: Constants, *, histogram: Tensor | None = None, top: Tensor | None = None,
        counts: Tensor | None = None, factor: Tensor | None = None, errors: Tensor | None = None,
        probability: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """One pass over the logits for what is asked; returns NaN where a Lovász error is, otherwise 0."""
        batch, layout = self.batch, self.layout
        blocks = batch.blocks
        in_image = triton.cdiv(batch.pixels, blocks.pixels)
        grid = programs(batch.device, in_image * batch.images)
        summed = 2 * len(constants.logs) + 7 * batch.classes * constants.regions
        partial = torch.empty((grid, summed + 1), dtype=torch.float64, device=batch.device)
        peaks = self.dense[layout.peaks :].view(2, -1) if constants.outlined else self.dense.new_empty((2, 0))
        unused = batch.labels
        given = [x if x is not None else unused for x in (histogram, top, counts, factor, errors, probability)]
        launch(
            add_values, (grid,),
            batch.logits, batch.labels, batch.weights, *batch.between(), constants.log_weight, self.thresholds,
            self.edges, partial, *given, peaks[0], peaks[1], batch.classes, batch.pixels, batch.size[1],
            batch.low_size[0] * batch.low_size[1], batch.low_size[1], batch.images, in_image, batch.ignore_index,
            int(factor is not None and len(factor) > 1), LOGS=constants.logs, REGIONS=constants.regions,
            SQUARED=constants.squared, BINNED=histogram is not None, ERRORS=errors is not None,
            MINING=probability is not None, PEAKS=constants.outlined, WEIGHTED=batch.weight is not None,
            UP=batch.upsampled, DT=batch.triton_type, SLOTS=triton.next_power_of_2(max(2 * len(constants.logs), 1)),
            K=blocks.classes, B=blocks.pixels, warps=blocks.warps,
        )  # fmt: skip
        if summed == 0:
            return partial.sum()
        torch.sum(partial, dim=0, out=self.state[: summed + 1])
        return self.state[summed]

    def _mine(self) -> None:
        """Set the probabilities below which a pixel counts, for each logarithmic part; infinity without mining."""
        batch = self.batch
        probability = batch.empty(batch.images * batch.pixels)
        self._sweep(batch.constants.bare, probability=probability)
        # a sort instead of a selection: where to look follows from how many pixels are valid, which the device knows
        ranked = probability.sort().values
        valid = (ranked < torch.inf).sum()
        for k, part in enumerate(part for part in batch.plan.parts if isinstance(part, LogPart)):
            if part.mining is None:
                self.thresholds[k] = torch.inf
                continue
            thresh, min_kept = part.mining
            last = (valid - 1).clamp(min=0, max=min_kept * batch.images)
            # not ranked[last], which would wait for the device
            self.thresholds[k] = ranked.index_select(0, last.view(1))[0].clamp(min=thresh)

    def _lovasz(self, ranked: Ranked, counts: Tensor, constants: Constants) -> tuple[Tensor, Tensor]:
        """Value and certificate of a part, with its slopes left in the state."""
        batch = self.batch
        per_image = ranked.part.per_image
        totals = counts if per_image else counts.sum(0, keepdim=True, dtype=torch.int32)
        factor = class_factors(ranked.part, totals)
        length = ranked.groups * batch.classes
        if not ranked.binned:
            errors = self.dense[ranked.slopes : ranked.slopes + batch.images * batch.classes * batch.pixels]
            errors = errors.view(batch.images, batch.classes, batch.pixels)
            poison = self._sweep(constants, errors=errors)
            value = sort_weights(errors, batch.labels.flatten(1), factor, per_image)
            return value + poison, factor.new_zeros(())
        shape = (batch.images, batch.classes)
        histogram = torch.zeros((*shape, 2, BINS), dtype=torch.int64, device=batch.device)
        top = torch.full(shape, NO_TOP, dtype=torch.int64, device=batch.device)
        poison = self._sweep(constants, histogram=histogram, top=top, counts=totals, factor=factor)
        out = torch.empty((2, length), dtype=torch.float64, device=batch.device)
        tops = self.state[ranked.top :]
        launch(
            weigh_bins, (batch.classes, ranked.groups),
            histogram, totals, factor, top, *bin_tables(batch.device), self.dense[ranked.slopes :], out, tops,
            tops[length:], batch.classes, batch.pixels, 1 if per_image else batch.images,
            BINS=triton.next_power_of_2(BINS), warps=8,
        )  # fmt: skip
        value, certificate = out.sum(1)
        return value + poison, certificate

    def _add_edges(self, whole: Tensor) -> None:
        batch, layout = self.batch, self.layout
        blocks = triton.cdiv(batch.pixels, PIXELS)
        grid = programs(batch.device, blocks * batch.images)
        partial = torch.empty((grid, 4), dtype=torch.float64, device=batch.device)
        peaks = self.dense[layout.peaks :].view(2, -1)
        launch(
            add_edge_values, (grid,),
            batch.logits, batch.labels, whole, peaks[0], peaks[1], *batch.between(), partial, batch.classes,
            batch.pixels, batch.size[1], batch.size[0], batch.low_size[0] * batch.low_size[1], batch.low_size[1],
            batch.images, blocks, UP=batch.upsampled, DT=batch.triton_type, B=PIXELS, warps=4,
        )  # fmt: skip
        torch.sum(partial, dim=0, out=self.state[layout.edges : layout.edges + 4])
