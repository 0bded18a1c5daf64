"""The mask and dice parts of the set criterion, from logits of matched masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from prove.losses.set_criterion.points import LossPoints, PointLabels, sample
from prove.losses.set_criterion.settings import CriterionSettings
from prove.losses.set_criterion.targets import Targets

PIXELS_AT_ONCE = {True: 2**20, False: 2**26}
"""Of the upsampled masks: few on a CPU, so that they stay in its cache; otherwise 0.25 GB per tensor."""


@dataclass(frozen=True, eq=False)
class Matched:
    """Matched masks of one layer.

    Attributes:
        logits: [M, h, w].
        images: [M] int64, the image of each.
        slots: [M] int64, the slot of each one's class.
        targets: of the batch.
    """

    logits: Tensor
    images: Tensor
    slots: Tensor
    targets: Targets


def at_points(matched: Matched, drawn: LossPoints, settings: CriterionSettings) -> tuple[Tensor, Tensor]:
    """Cross-entropy (mean over points) and dice loss of each mask, [M] both, at its points."""
    points = chosen_points(matched.logits, drawn, settings.num_uncertain)
    found = PointLabels.at(matched.targets, matched.images, points)
    truth = found.share_of(matched.slots)
    logits = sample(matched.logits[:, None], points)[:, 0]
    return mask_losses(logits, truth)


def at_pixels(matched: Matched) -> tuple[Tensor, Tensor]:
    """Cross-entropy (mean over pixels) and dice loss of each mask, [M] both, upsampled to the labels."""
    found: tuple[Tensor, Tensor] = _PixelLosses.apply(
        matched.logits, matched.images, matched.slots, matched.targets.slots
    )
    return found


class _PixelLosses(torch.autograd.Function):
    """Goes through the masks a few at a time and keeps their gradients at low resolution, nothing at that of labels."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, images: Tensor, slots: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        size, wanted = labels.shape[1:], ctx.needs_input_grad[0]
        values, gradients = logits.new_empty(2, len(logits)), logits.new_empty(2, *logits.shape if wanted else (0,))
        at_once = max(1, PIXELS_AT_ONCE[logits.device.type == "cpu"] // labels[0].numel())
        for first in range(0, len(logits), at_once):
            rows = slice(first, first + at_once)
            small = logits[rows, None]
            upsampled = F.interpolate(small, size=size, mode="bilinear", align_corners=False)
            truth = (labels[images[rows]] == slots[rows, None, None]).to(logits.dtype)[:, None]
            cross_entropy, overlap, whole, probs = _parts(upsampled, truth)
            values[0, rows], values[1, rows] = cross_entropy, 1.0 - overlap / whole
            if wanted:
                overlap, whole = overlap.view(-1, 1, 1, 1), whole.view(-1, 1, 1, 1)
                by_pixel = (
                    (probs - truth) / truth[0].numel(),
                    probs * (1.0 - probs) * (overlap / whole - 2.0 * truth) / whole,
                )
                for index, gradient in enumerate(by_pixel):
                    gradients[index, rows, None] = torch.ops.aten.upsample_bilinear2d_backward(
                        gradient, list(size), list(small.shape), False
                    )
        ctx.save_for_backward(gradients)
        return values[0], values[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None, None]:
        (gradients,) = ctx.saved_tensors
        return (torch.stack(outer)[:, :, None, None] * gradients).sum(0), None, None, None


@torch.no_grad()
def chosen_points(logits: Tensor, drawn: LossPoints, num_uncertain: int) -> Tensor:
    """The candidates where a mask's logit is nearest to 0, and the random points: [M, P, 2]."""
    candidates, random = drawn.candidates.to(logits.dtype), drawn.random.to(logits.dtype)
    if num_uncertain == 0:
        return random
    certainty = sample(logits[:, None], candidates)[:, 0].abs()
    nearest = certainty.topk(num_uncertain, dim=1, largest=False, sorted=False).indices
    return torch.cat((candidates.gather(1, nearest[:, :, None].expand(-1, -1, 2)), random), dim=1)


def mask_losses(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Mean binary cross-entropy and ``1 - (2 I + 1) / (P + G + 1)`` of each of M masks, [M] both."""
    cross_entropy, overlap, whole, _ = _parts(logits, truth)
    return cross_entropy, 1.0 - overlap / whole


def _parts(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each mask the cross-entropy, ``2 I + 1`` and ``P + G + 1``, and the probabilities."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").flatten(1).mean(1)
    probs = logits.sigmoid()
    overlap = 2.0 * (probs * truth).flatten(1).sum(1) + 1.0
    return cross_entropy, overlap, probs.flatten(1).sum(1) + truth.flatten(1).sum(1) + 1.0, probs
