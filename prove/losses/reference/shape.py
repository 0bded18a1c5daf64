"""Losses of borders and distances, straight from their formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from prove.losses.reference.params import Params, listed, number, pixel_rows


def boundary(params: Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    """Cross-entropy between Sobel edges."""
    z, _y = pixel_rows(logits, labels, valid)
    # what stands at an ignored pixel is read by no neighbourhood that counts
    p = logits.new_zeros((*labels.shape, logits.shape[1])).index_put(torch.where(valid), torch.softmax(z, dim=1))
    maps = p.permute(0, 3, 1, 2)
    ignored = F.conv2d((~valid)[:, None].double(), logits.new_ones(1, 1, 3, 3), padding=1)
    whole = (ignored == 0.0).flatten().nonzero()[:, 0]
    losses, edges = [], []
    for c in range(logits.shape[1]):
        truth = _sobel(((labels == c) & valid).double()).flatten()[whole].sqrt() / math.sqrt(20.0)
        square = _sobel(maps[:, c]).flatten().index_select(0, whole)
        b = torch.sqrt((square + 1e-4) / (20.0 + 1e-4)).clamp(max=1.0 - 1e-6)
        losses.append(-(truth * torch.log(b) + (1.0 - truth) * torch.log(1.0 - b)))
        edges.append(truth > 0.0)
    loss, edge = torch.cat(losses), torch.cat(edges)
    if len(loss) == 0:
        return z.sum() * 0.0
    if params["pos_weight"] == "balanced":
        return torch.stack([part.mean() for part in (loss[edge], loss[~edge]) if len(part) > 0]).mean()
    weight = torch.where(edge, number(params, "pos_weight"), 1.0).double()
    return (weight * loss).sum() / weight.sum()


def distance(params: Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    """Kervadec's boundary loss."""
    total = logits[:0].sum()
    for z, y, v in zip(logits, labels, valid, strict=True):
        p = torch.softmax(z[:, v], dim=0)
        for c in listed(params["classes"], len(p), y):
            own = ((y == c) & v).numpy(force=True)
            if own.any() and not own.all():
                signed = np.where(own, 1.0 - _nearest(~own), _nearest(own))
                total = total + (p[c] * torch.from_numpy(signed).to(p)[v]).sum()
    return total / max(int(valid.sum()), 1)


def hausdorff(params: Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    """Hausdorff loss in its distance transform form."""
    alpha, total = number(params, "alpha"), logits[:0].sum()
    classes = listed(params["classes"], logits.shape[1], labels[valid])
    for z, y, v in zip(logits, labels, valid, strict=True):
        p = torch.softmax(z[:, v], dim=0)
        for c in classes:
            truth = (y == c) & v
            guess = torch.zeros_like(v)
            guess[v] = p[c].detach() > 0.5
            for mask in (guess.numpy(force=True), truth.numpy(force=True)):
                if mask.any() and not mask.all():
                    far = np.where(mask, _nearest(~mask), _nearest(mask)) ** alpha
                    total = total + ((p[c] - truth[v].double()) ** 2 * torch.from_numpy(far).to(p)[v]).sum()
    return total / max(int(valid.sum()) * len(classes), 1)


def _nearest(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How far each pixel is from the nearest one of the mask, from where that one lies."""
    rows, columns = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    y, x = np.indices(mask.shape)
    distances: NDArray[np.float64] = np.hypot(y - rows, x - columns)
    return distances


def _sobel(maps: Tensor) -> Tensor:
    """Squared Sobel magnitude of maps [N, H, W]."""
    h, w = maps.shape[1:]
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")

    def at(dy: int, dx: int) -> Tensor:
        return padded[:, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]

    across = at(-1, 1) + 2.0 * at(0, 1) + at(1, 1) - at(-1, -1) - 2.0 * at(0, -1) - at(1, -1)
    down = at(1, -1) + 2.0 * at(1, 0) + at(1, 1) - at(-1, -1) - 2.0 * at(-1, 0) - at(-1, 1)
    return across * across + down * down
