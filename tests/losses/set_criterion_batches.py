"""Scenes and predictions that the tests of the set criterion share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = 255


def scene(images: int, classes: int, size: tuple[int, int], *, seed: int = 0, kinds: int = 5) -> Tensor:
    """Labels [N, H, W]: blocks of ``kinds`` of the classes, other ones in each image, and an ignored corner."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    labels = []
    for _ in range(images):
        chosen = torch.randperm(classes, generator=generator)[:kinds]
        some = torch.randint(len(chosen), (20 - len(chosen),), generator=generator)
        places = torch.cat((torch.arange(len(chosen)), some))[torch.randperm(20, generator=generator)]
        coarse = chosen[places].view(1, 1, 4, 5)
        labels.append(F.interpolate(coarse.float(), size=size, mode="nearest").long()[0, 0])
    found = torch.stack(labels)
    found[:, : height // 5, : width // 3] = IGNORE
    return found


def predictions(
    layers: int, images: int, queries: int, classes: int, size: tuple[int, int], *, seed: int = 0,
    labels: Tensor | None = None, dtype: torch.dtype = torch.float32,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """Leaves: class logits [N, Q, C + 1] and mask logits [N, Q, h, w] of each layer, noise over what the labels say."""
    generator = torch.Generator().manual_seed(1000 + seed)
    cls, masks = [], []
    for _ in range(layers):
        cls.append(2.0 * torch.randn(images, queries, classes + 1, generator=generator, dtype=torch.float64))
        masks.append(3.0 * torch.randn(images, queries, *size, generator=generator, dtype=torch.float64))
        if labels is not None:
            small = F.interpolate(labels[:, None].double(), size=size, mode="nearest").long()[:, 0]
            guess = torch.randint(classes, (images, queries), generator=generator)
            masks[-1] += 2.0 * (small[:, None] == guess[:, :, None, None])
    return [x.to(dtype).requires_grad_() for x in cls], [x.to(dtype).requires_grad_() for x in masks]


def gradients(value: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Of a scalar, on each leaf; its graph is kept."""
    found = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]
