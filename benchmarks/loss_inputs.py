"""Batches to time losses on: smooth regions as labels, and the logits of a model before and after training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = 255
KINDS = ("untrained", "trained")

Size = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Batch:
    """Logits and labels.

    Attributes:
        logits: [N, C, H, W], a leaf that takes a gradient.
        labels: [N, H, W], 5% of them ignored, in blobs.
        free: the labels without an ignored pixel, for losses that can't ignore.
        low: [N, C, H/4, W/4], the logits as a head of stride 4 gives them.
        accuracy: share of the valid pixels that the logits get right.
        sure: share of these with a probability above 0.99.
    """

    kind: str
    logits: Tensor
    labels: Tensor
    free: Tensor
    low: Tensor
    accuracy: float
    sure: float

    @property
    def logit_bytes(self) -> int:
        return self.logits.numel() * self.logits.element_size()

    def smaller(self) -> Batch:
        """The upper half, to warm up on."""
        rows = max(4, self.logits.shape[2] // 2)

        def leaf(logits: Tensor, rows: int) -> Tensor:
            return logits.detach()[:, :, :rows].clone().requires_grad_()

        labels, free = self.labels[:, :rows].clone(), self.free[:, :rows].clone()
        low = leaf(self.low, max(1, rows // 4))
        return Batch(self.kind, leaf(self.logits, rows), labels, free, low, self.accuracy, self.sure)

    def forget(self) -> None:
        """Free the gradients."""
        self.logits.grad = None
        self.low.grad = None


def batch(kind: str, size: Size, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0) -> Batch:
    """A batch of one of the `KINDS`, always the same for the same arguments.

    Labels are the arg max of smooth fields, one per class. ``untrained`` logits are normal noise. ``trained`` ones are
    those fields, scaled, seen through smooth noise: 88% right, sure inside the regions and soft at their borders.
    """
    generator = torch.Generator().manual_seed(seed)
    n, c, h, w = size
    fields = _smooth((n, c, h, w), 32, generator)
    free = fields.argmax(dim=1)
    void = _smooth((n, 1, h, w), 32, generator)[:, 0]
    border = void.flatten().sort().values[min(void.numel() - 1, int(0.95 * void.numel()))]
    labels = torch.where(void > border, IGNORE, free)
    if kind == "untrained":
        logits = torch.randn(size, generator=generator)
    elif kind == "trained":
        logits = _seen(fields, labels, generator)
    else:
        raise ValueError(f"there is no kind of logits {kind!r}: {', '.join(KINDS)}")
    del fields
    valid = labels != IGNORE
    probs = logits.softmax(dim=1).amax(dim=1)
    right = valid & (logits.argmax(dim=1) == labels)
    accuracy = float(right.sum() / valid.sum())
    sure = float((right & (probs > 0.99)).sum() / right.sum().clamp(min=1))
    low = F.interpolate(logits, size=(max(1, h // 4), max(1, w // 4)), mode="bilinear", align_corners=False)
    made = (logits.to(device, dtype).requires_grad_(), low.to(device, dtype).requires_grad_())
    return Batch(kind, made[0], labels.to(device), free.to(device), made[1], accuracy, sure)


def _smooth(size: Size, cell: int, generator: torch.Generator) -> Tensor:
    """Smooth noise of unit scale that varies over ``cell`` pixels, fewer in a small image."""
    n, c, h, w = size
    cell = max(2, min(cell, h // 6, w // 6))
    coarse = torch.randn(n, c, h // cell + 1, w // cell + 1, generator=generator)
    return F.interpolate(coarse, size=(h, w), mode="bicubic", align_corners=True)


def _seen(fields: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    noise = _smooth(tuple(fields.shape), 16, generator)  # type: ignore[arg-type]
    valid = labels != IGNORE
    low, high = 0.0, 4.0
    for _ in range(12):
        level = (low + high) / 2
        accuracy = ((fields + level * noise).argmax(dim=1) == labels)[valid].float().mean()
        low, high = (level, high) if accuracy > 0.88 else (low, level)
    # with a margin of 0.25 between the two best of the fields a pixel gets a probability of 0.99
    return (fields + low * noise) * 20.0
