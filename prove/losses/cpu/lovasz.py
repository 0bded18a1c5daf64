"""Lovász parts over a batch: binned or sorted, group by group."""

from __future__ import annotations

from typing import Any

import numpy as np

from prove.losses.cpu.batch import Batch
from prove.losses.cpu.bins import BINS, COUNT_SHIFT, ONE, weigh_bins
from prove.losses.cpu.bins import edges as bin_edges
from prove.losses.cpu.ranking import weigh
from prove.losses.cpu.sweep import Lovasz, State, Sweep
from prove.losses.fused.plan import CERTIFIED, CERTIFIED_SLOPES, LovaszPart, Plan, chosen_classes

Array = Any


def lovasz_value(part: LovaszPart, batch: Batch, sweep: Sweep, state: State) -> tuple[float, Lovasz]:
    """The value of a part, and what it leaves; the sweep's other parts are added to the state."""
    pixels = batch.size[0] * batch.size[1]
    if not part.binned(pixels, batch.images):
        return _sorted(part, batch, sweep, state)
    histograms, top, top_at = sweep.run(state, binned=True, per_image=part.per_image)
    factor, totals = _factors(part, batch)
    lower, width = bin_edges()
    weights = np.empty(histograms.shape, batch.dtype)
    out = np.zeros(4)
    for group in range(len(histograms)):
        valid = totals[group].sum()
        # where a pixel is ignored or of the class itself, the tile has an error of 0 of another pixel
        cells = histograms[group, :, 0]
        others = valid - totals[group] - (cells[:, 1:] >> COUNT_SHIFT).sum(-1)
        cells[:, 0] = (cells[:, 0] & (ONE - 1)) | (others << COUNT_SHIFT)
        weigh_bins(
            histograms[group], np.where(totals[group] > 0, factor[group], 0.0), lower, width, weights[group], out
        )
    absent = (totals == 0) & (factor > 0)
    slopes = np.where(absent, factor, 0.0)
    value = float(out[0] + (slopes * np.where(absent, top, 0.0)).sum()) + sweep.poison
    found = Lovasz(weights, slopes, top_at, None, float(out[1]))
    certain = found.certificate <= CERTIFIED * value and out[2] <= CERTIFIED_SLOPES**2 * out[3]
    if part.method == "auto" and not certain:
        value, _ = _sorted(part, batch, Sweep.bare(batch), State.empty(batch))
        found.certificate, found.again = 0.0, True
    return value, found


def _sorted(part: LovaszPart, batch: Batch, sweep: Sweep, state: State) -> tuple[float, Lovasz]:
    errors = np.empty((batch.images, batch.classes, batch.size[0] * batch.size[1]), batch.dtype)
    sweep.run(state, errors=errors)
    factor, _ = _factors(part, batch)
    images = [slice(n, n + 1) for n in range(batch.images)] if part.per_image else [slice(None)]
    value = sweep.poison
    for group, chosen in enumerate(images):
        classes = np.flatnonzero(factor[group]).tolist()
        value += weigh(errors[chosen], batch.labels[chosen], classes, float(factor[group].max()))
    none = np.empty((len(images), 0))
    return value, Lovasz(None, none, none.astype(np.int64), errors)


def _factors(part: LovaszPart, batch: Batch) -> tuple[Array, Array]:
    """What each class of each group counts in the mean, and its pixels: [groups, C] both."""
    totals = batch.counts if part.per_image else batch.counts.sum(0, keepdims=True)
    factor = np.zeros(totals.shape)
    groups = max(1, int((totals.sum(1) > 0).sum()))
    for group, counts in enumerate(totals):
        chosen = chosen_classes(part.classes, (counts > 0).tolist())
        if counts.sum() > 0 and chosen:
            factor[group, chosen] = 1.0 / (groups * len(chosen))
    return factor, totals


def slopes_of(
    plan: Plan, batch: Batch, state: State, coefficients: list[float]
) -> list[tuple[LovaszPart, Lovasz, Array | None, float]]:
    """The Lovász parts that count, with their slopes pixel by pixel where they were sorted."""
    found, tail = [], iter(state.lovasz)
    for coefficient, part in zip(coefficients, plan.parts, strict=True):
        if isinstance(part, LovaszPart):
            left = next(tail)
            if coefficient != 0.0:
                errors = (
                    _sorted(part, batch, Sweep.bare(batch), State.empty(batch))[1].errors if left.again else left.errors
                )
                found.append((part, left, errors, coefficient))
    return found


def slopes_in(
    lovasz: list[tuple[LovaszPart, Lovasz, Array | None, float]], batch: Batch, image: int
) -> tuple[Array, Array, Array, Array, float]:
    """Slopes by bin, of top pixels, and pixel by pixel with their factor, of all Lovász parts in one image."""
    pixels = batch.size[0] * batch.size[1]
    bins, tops, ats = np.zeros((0, 2, BINS), batch.dtype), [], []
    kept, factor = np.zeros((0, 0), batch.dtype), 1.0
    for part, left, errors, coefficient in lovasz:
        if errors is not None:
            kept, factor = (errors[image], coefficient) if kept.size == 0 else (
                kept * factor + errors[image] * coefficient, 1.0
            )  # fmt: skip
            continue
        assert left.bins is not None
        group, start = (image, 0) if part.per_image else (0, image * pixels)
        scaled = (left.bins[group] * coefficient).astype(batch.dtype)
        bins = scaled if bins.size == 0 else bins + scaled
        at = left.top_at[group] - start
        tops.append(np.where((at >= 0) & (at < pixels), left.top[group], 0.0) * coefficient)
        ats.append(at)
    shape = (len(tops), batch.classes)
    return bins, np.array(tops).reshape(shape), np.array(ats, np.int64).reshape(shape), kept, factor
