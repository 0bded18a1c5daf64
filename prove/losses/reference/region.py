"""Lovász, Dice and the losses of Tversky's kind, straight from their formulas."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prove.losses.reference.params import Params, listed, number, pixel_rows


def lovasz(params: Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    """Lovász-Softmax."""
    images: list[tuple[Tensor, Tensor]] = []
    if params["per_image"]:
        for z, y, v in zip(logits, labels, valid, strict=True):
            images.append((z[:, v].T, y[v]))
    else:
        images.append(pixel_rows(logits, labels, valid))
    losses = [_lovasz_of_group(params["classes"], z, y) for z, y in images if len(y) > 0]
    return torch.stack(losses).mean() if losses else logits[:, :, :0].sum()


def _lovasz_of_group(classes: object, z: Tensor, y: Tensor) -> Tensor:
    columns = torch.softmax(z, dim=1).unbind(dim=1)
    losses = []
    for c in listed(classes, len(columns), y):
        truth = (y == c).to(z.dtype)
        errors, order = torch.sort((truth - columns[c]).abs(), descending=True)
        truth = truth[order]
        intersection = truth.sum() - truth.cumsum(0)
        union = truth.sum() + (1.0 - truth).cumsum(0)
        wrong = 1.0 - intersection / union
        steps = torch.cat((wrong[:1], wrong[1:] - wrong[:-1]))
        losses.append((errors * steps).sum())
    return torch.stack(losses).mean()


def dice(params: Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    """Dice loss."""
    z, y = pixel_rows(logits, labels, valid)
    smooth = number(params, "smooth")
    columns = torch.softmax(z, dim=1).unbind(dim=1)
    losses = []
    for c in listed(params["classes"], len(columns), y):
        p, g = columns[c], (y == c).to(z.dtype)
        size = (p * p).sum() if params["squared"] else p.sum()
        whole = size + g.sum() + smooth
        losses.append(1.0 - (2.0 * (p * g).sum() + smooth) / whole if float(whole.detach()) > 0.0 else p.sum() * 0.0)
    return torch.stack(losses).mean() if losses else z.sum() * 0.0


def jaccard(params: Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    """Jaccard loss."""
    return _tversky({**params, "alpha": 1.0, "beta": 1.0, "gamma": 1.0}, logits, labels, valid)


def tversky(params: Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    """Tversky loss."""
    return _tversky({**params, "gamma": 1.0}, logits, labels, valid)


def focal_tversky(params: Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    """Focal Tversky loss."""
    return _tversky(params, logits, labels, valid)


def _tversky(params: Params, logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    z, y = pixel_rows(logits, labels, valid)
    smooth, power = number(params, "smooth"), 1.0 / number(params, "gamma")
    columns = torch.softmax(z, dim=1).unbind(dim=1)
    losses = []
    for c in listed(params["classes"], len(columns), y):
        p, g = columns[c], (y == c).to(z.dtype)
        both = (p * g).sum()
        false_positives, false_negatives = p.sum() - both, g.sum() - both
        whole = both + number(params, "alpha") * false_positives + number(params, "beta") * false_negatives + smooth
        if float(whole.detach()) <= 0.0:
            losses.append(p.sum() * 0.0)
            continue
        loss = (1.0 - (both + smooth) / whole).clamp(min=0.0)
        straight = power < 1.0 and float(loss.detach()) < 1e-6
        losses.append(loss * 1e-6 ** (power - 1.0) if straight else loss**power)
    return torch.stack(losses).mean() if losses else z.sum() * 0.0
