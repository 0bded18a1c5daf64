"""Lovász-Softmax on the device: weights of bins in one kernel, or exact ranks by sorting."""

from __future__ import annotations

import functools

import torch
import triton.language as tl
from torch import Tensor

from prove.losses.cpu import bins as layout
from prove.losses.cuda import bins
from prove.losses.cuda.jit import Array, kernel
from prove.losses.fused.plan import LovaszPart

_BINS = tl.constexpr(bins.BINS)
_LOW_BINS = tl.constexpr(layout.LOW_BINS)
_COUNT_SHIFT = tl.constexpr(layout.COUNT_SHIFT)
_REST = tl.constexpr(layout.ONE - 1)
_REST_UNIT = tl.constexpr(1.0 / (1 << layout.REST_BITS))
_INDEX = tl.constexpr(0x7FFFFFFF)

SORTED_AT_ONCE = 1 << 22
"""Errors that one sort takes: with keys, indices and what the sort needs, about 200 MB."""


def binned(part: LovaszPart, images: int, pixels: int) -> bool:
    """Whether a part counts in bins. On a GPU ``auto`` does not go back to sorting: that would wait for the device."""
    return part.binned(pixels, images) and pixels < bins.LARGEST_IMAGE


def class_factors(part: LovaszPart, counts: Tensor) -> Tensor:
    """What each class of each group counts in the mean, [groups, C] float64, from the pixels of each class."""
    if part.classes == "present":
        chosen = counts > 0
    elif part.classes == "all":
        chosen = torch.ones_like(counts, dtype=torch.bool)
    else:
        chosen = _listed(tuple(part.classes), counts.shape[1], counts.device).expand_as(counts)
    some = counts.sum(1, keepdim=True) > 0
    shared = chosen.sum(1, keepdim=True).clamp(min=1) * some.sum().clamp(min=1)
    return torch.where(chosen & some, 1.0 / shared.double(), 0.0)


@functools.lru_cache(maxsize=64)
def _listed(chosen: tuple[int, ...], classes: int, device: torch.device) -> Tensor:
    return torch.tensor([c in chosen for c in range(classes)], device=device)


@kernel
def weigh_bins(
    histogram: Array, counts: Array, factor: Array, top: Array, lower: Array, width: Array, weights: Array, out: Array,
    top_slope: Array, top_at: Array, classes: Array, pixels: Array, images: Array, BINS: tl.constexpr,
) -> None:  # fmt: skip
    """What an error in each bin weighs, for class ``program_id(0)`` of group ``program_id(1)``.

    The formulas are those of `prove.losses.cpu.bins.weigh_bins`. Other errors in the lowest bin are not in the
    histogram: how many there are is the difference, and their sum, below 6e-8 each, is in the certificate.

    Args:
        histogram: [N, C, 2, BINS] int64, top: [N, C] int64 (`prove.losses.cuda.values.add_values`).
        counts, factor: [groups, C] pixels of each class, and what it counts in the mean.
        lower, width: of each bin, float64.
        images: of a group: 1 or N.
        weights: [groups, C, 2, BINS], set, factors included.
        out: [2, groups, C] float64, set to value and certificate, factors included.
        top_slope, top_at: [groups, C] float64, set to the slope of one pixel of absent classes and its index in the
            group; otherwise 0 and -1.
    """
    c, group = tl.program_id(0), tl.program_id(1)
    groups = tl.num_programs(1)
    cell = group * classes + c
    weight, total = tl.load(factor + cell), tl.load(counts + cell).to(tl.float64)
    k = tl.arange(0, BINS)
    known = k < _BINS
    b = _BINS - 1 - k  # from the worst errors down
    own, other = tl.zeros((BINS,), tl.float64), tl.zeros((BINS,), tl.float64)
    own_rest, other_rest = tl.zeros((BINS,), tl.float64), tl.zeros((BINS,), tl.float64)
    best, best_at = tl.full((), -1, tl.int64), tl.full((), -1, tl.int64)
    for image in range(images):
        at = (group * images + image).to(tl.int64) * classes + c
        cells = tl.load(histogram + at * 2 * _BINS + b, mask=known, other=0)
        other += (cells >> _COUNT_SHIFT).to(tl.float64)
        other_rest += (cells & _REST).to(tl.float64)
        cells = tl.load(histogram + (at * 2 + 1) * _BINS + b, mask=known, other=0)
        own += (cells >> _COUNT_SHIFT).to(tl.float64)
        own_rest += (cells & _REST).to(tl.float64)
        key = tl.load(top + at)
        better = (key >= 0) & ((key >> 32) > (best >> 32))
        best_at = tl.where(better, (tl.zeros((), tl.int64) + image) * pixels + (_INDEX - (key & _INDEX)), best_at)
        best = tl.where(better, key, best)
    valid = total * 0.0
    for each in range(classes):
        valid += tl.load(counts + group * classes + each).to(tl.float64)
    missing = valid - total - tl.sum(other)
    lowest = b == 0
    other += tl.where(known & lowest, missing, 0.0)

    own_above = tl.cumsum(own, axis=0) - own
    union = tl.maximum(total + tl.cumsum(other, axis=0) - other, 1.0)
    wider = tl.maximum(union + other, 1.0)
    left = total - own_above
    product = union * wider
    own_weight = 0.5 * (1.0 / union + 1.0 / wider)
    other_weight = (left - 0.5 * own) / product
    steepest = left / (union * (union + 1.0))
    shallowest = (left - own) / tl.maximum(wider * (wider - 1.0), 1.0)
    other_spread = tl.maximum(steepest - other_weight, other_weight - shallowest)
    low = tl.load(lower + b, mask=known, other=0.0)
    wide = tl.load(width + b, mask=known, other=0.0)
    # bins of small complements count how far an error is from their upper end
    start = tl.where(b < _LOW_BINS, low, low + wide)
    step = tl.where(b < _LOW_BINS, wide, -wide) * _REST_UNIT
    value = own_weight * (own * start + own_rest * step) + other_weight * (other * start + other_rest * step)
    slack = 0.5 * wide * (own * 0.5 * (1.0 / union - 1.0 / wider) + other * other_spread)
    slack = tl.where(own + other > 1.0, slack, 0.0) + tl.where(lowest, other_weight * missing * wide, 0.0)
    there = total > 0.0
    scale = tl.where(there, weight, 0.0)
    target = weights + cell.to(tl.int64) * 2 * _BINS + b
    tl.store(target, tl.where(known, other_weight * scale, 0.0), mask=known)
    tl.store(target + _BINS, tl.where(known, own_weight * scale, 0.0), mask=known)

    absent = (there == 0) & (weight > 0.0) & (best >= 0)
    largest = (best >> 32).to(tl.int32).to(tl.float32, bitcast=True).to(tl.float64)
    at_top = tl.where(absent, weight * tl.where(absent, largest, 0.0), 0.0)
    tl.store(out + cell, scale * tl.sum(tl.where(known, value, 0.0)) + at_top)
    tl.store(out + groups * classes + cell, scale * tl.sum(tl.where(known, slack, 0.0)))
    tl.store(top_slope + cell, tl.where(absent, weight, 0.0))
    tl.store(top_at + cell, tl.where(absent, best_at, -1).to(tl.float64))


def sort_weights(errors: Tensor, labels: Tensor, factor: Tensor, per_image: bool) -> Tensor:
    """The exact loss, and in place of the errors what each of them weighs.

    Args:
        errors: [N, C, P] errors, -1 where ignored; overwritten by weights, factors included.
        labels: [N, P].
        factor: [groups, C] float64 (`class_factors`).
        per_image: groups are images; otherwise the batch is one.

    Returns:
        The sum of ``factor`` times the loss of each class, a float64 scalar.
    """
    images, classes, pixels = errors.shape
    value = torch.zeros((), dtype=torch.float64, device=errors.device)
    if per_image:
        many = max(1, SORTED_AT_ONCE // pixels)
        for image in range(images):
            for first in range(0, classes, many):
                chunk = errors[image, first : first + many]
                c = torch.arange(first, first + len(chunk), device=errors.device)[:, None]
                found, weights = _ranked(chunk, labels[image][None] == c, factor[image, first : first + many, None])
                errors[image, first : first + many] = weights
                value += found
        return value
    many = max(1, SORTED_AT_ONCE // (images * pixels))
    for first in range(0, classes, many):
        chunk = errors[:, first : first + many].transpose(0, 1).flatten(1)
        c = torch.arange(first, first + len(chunk), device=errors.device)[:, None]
        found, weights = _ranked(chunk, labels.flatten()[None] == c, factor[0, first : first + many, None])
        errors[:, first : first + many] = weights.view(-1, images, pixels).transpose(0, 1)
        value += found
    return value


def _ranked(errors: Tensor, own: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Value and weights of rows of errors [rows, P], ranked each for itself."""
    integer = torch.int32 if errors.dtype == torch.float32 else torch.int64
    # a key holds the error, and whether the pixel is the class's own, which goes first among equals; ignored ones last
    keys = (errors.contiguous().view(integer) << 1) | own.to(integer)
    keys = torch.where(errors >= 0, keys, -1)
    ranked, order = keys.sort(dim=1, descending=True)
    own, valid = (ranked & 1).bool() & (ranked >= 0), ranked >= 0
    falling = (ranked.clamp(min=0) >> 1).view(errors.dtype)
    above = own.cumsum(1).double()
    others = (valid & ~own).cumsum(1).double()
    total = above[:, -1:]
    union = total + others
    # of an absent class the largest error counts alone
    of_others = torch.where(total > 0, (total - above) / (union * (union - 1.0)).clamp(min=1.0), (others == 1).double())
    weights = torch.where(own, 1.0 / union.clamp(min=1.0), torch.where(valid, of_others, 0.0)) * factor
    value = (weights * falling).sum()
    return value, torch.zeros_like(errors).scatter_(1, order, weights.to(errors.dtype))
