"""Each loss written a second time, straight from its formula: slow, plain, in float64.

The wiring proof compares the modules with these on a real batch, so nothing here is shared with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from prove.errors import unknown
from prove.spec.expr import LossTerm


def reference(
    term: LossTerm,
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    class_weight: Sequence[float] | None = None,
) -> Tensor:
    """The unweighted value of one resolved term, differentiable.

    Args:
        term: a resolved term with a per-pixel definition.
        logits: [N, C, H, W]; labels: [N, H, W].
        class_weight: the weights meant by a scheme such as ``class_weight=median_frequency``.

    Returns:
        A float64 scalar.

    Raises:
        ProveError: there is no reference of that name.
    """
    if term.name not in _REFERENCES:
        raise unknown("reference loss", term.name, _REFERENCES)
    labels = labels.long()
    return _REFERENCES[term.name](dict(term.params), logits.double(), labels, labels != ignore_index, class_weight)


_Params = dict[str, object]


def _pixel_rows(logits: Tensor, labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [M, C] and labels [M] of the M valid pixels."""
    return logits.permute(0, 2, 3, 1)[valid], labels[valid]


def _number(params: _Params, name: str) -> float:
    value = params[name]
    assert isinstance(value, int | float)
    return float(value)


def _ce(params: _Params, logits: Tensor, labels: Tensor, valid: Tensor, class_weight: Sequence[float] | None) -> Tensor:
    z, y = _pixel_rows(logits, labels, valid)
    written = params["class_weight"]
    weights = written if isinstance(written, tuple) else class_weight if isinstance(written, str) else None
    w = z.new_ones(z.shape[1]) if weights is None else z.new_tensor(tuple(weights))
    log_p = z - torch.logsumexp(z, dim=1, keepdim=True)
    own = F.one_hot(y, z.shape[1]).to(z.dtype)
    eps = _number(params, "label_smoothing")
    target = (1.0 - eps) * own + eps / z.shape[1]
    loss = -(target * w * log_p).sum(dim=1)
    divisor = (own * w).sum(dim=1)
    if params["ohem"]:
        p_y = (own * log_p.exp()).sum(dim=1).detach()
        if len(p_y) > 0:
            ranked, _ = torch.sort(p_y)
            k = min(int(_number(params, "min_kept")) * len(labels), len(p_y) - 1)
            hard = p_y < max(float(ranked[k]), _number(params, "thresh"))
            loss, divisor = loss[hard], divisor[hard]
    if divisor.sum().item() == 0.0:
        return z.sum() * 0.0
    return loss.sum() / divisor.sum()


def _focal(params: _Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    z, y = _pixel_rows(logits, labels, valid)
    if len(z) == 0:
        return z.sum() * 0.0
    q = torch.softmax(z, dim=1).gather(1, y[:, None])[:, 0]
    log_q = torch.log_softmax(z, dim=1).gather(1, y[:, None])[:, 0]
    alpha = params["alpha"]
    a = z.new_tensor(alpha)[y] if isinstance(alpha, tuple) else _number(params, "alpha")
    return (a * (1.0 - q).clamp(min=1e-15) ** _number(params, "gamma") * -log_q).mean()


def _lovasz(params: _Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    images: list[tuple[Tensor, Tensor]] = []
    if params["per_image"]:
        for z, y, v in zip(logits, labels, valid, strict=True):
            images.append((z[:, v].T, y[v]))
    else:
        images.append(_pixel_rows(logits, labels, valid))
    losses = [_lovasz_of_group(params["classes"], z, y) for z, y in images if len(y) > 0]
    return torch.stack(losses).mean() if losses else logits[:, :, :0].sum()


def _lovasz_of_group(classes: object, z: Tensor, y: Tensor) -> Tensor:
    columns = torch.softmax(z, dim=1).unbind(dim=1)
    losses = []
    for c in _listed(classes, len(columns), y):
        truth = (y == c).to(z.dtype)
        errors, order = torch.sort((truth - columns[c]).abs(), descending=True)
        truth = truth[order]
        intersection = truth.sum() - truth.cumsum(0)
        union = truth.sum() + (1.0 - truth).cumsum(0)
        jaccard = 1.0 - intersection / union
        steps = torch.cat((jaccard[:1], jaccard[1:] - jaccard[:-1]))
        losses.append((errors * steps).sum())
    return torch.stack(losses).mean()


def _listed(classes: object, count: int, y: Tensor) -> Sequence[int]:
    """The classes that the mean runs over, as indices."""
    if isinstance(classes, tuple):
        return classes
    return sorted(set(y.tolist())) if classes == "present" else range(count)


def _dice(params: _Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    z, y = _pixel_rows(logits, labels, valid)
    smooth = _number(params, "smooth")
    columns = torch.softmax(z, dim=1).unbind(dim=1)
    losses = []
    for c in _listed(params["classes"], len(columns), y):
        p, g = columns[c], (y == c).to(z.dtype)
        size = (p * p).sum() if params["squared"] else p.sum()
        whole = size + g.sum() + smooth
        losses.append(1.0 - (2.0 * (p * g).sum() + smooth) / whole if float(whole.detach()) > 0.0 else p.sum() * 0.0)
    return torch.stack(losses).mean() if losses else z.sum() * 0.0


def _boundary(params: _Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    z, _y = _pixel_rows(logits, labels, valid)
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
    weight = torch.where(edge, _number(params, "pos_weight"), 1.0).double()
    return (weight * loss).sum() / weight.sum()


def _sobel(maps: Tensor) -> Tensor:
    """Squared Sobel magnitude of maps [N, H, W]."""
    h, w = maps.shape[1:]
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")

    def at(dy: int, dx: int) -> Tensor:
        return padded[:, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]

    across = at(-1, 1) + 2.0 * at(0, 1) + at(1, 1) - at(-1, -1) - 2.0 * at(0, -1) - at(1, -1)
    down = at(1, -1) + 2.0 * at(1, 0) + at(1, 1) - at(-1, -1) - 2.0 * at(-1, 0) - at(-1, 1)
    return across * across + down * down


_Reference = Callable[[_Params, Tensor, Tensor, Tensor, Sequence[float] | None], Tensor]
_REFERENCES: dict[str, _Reference] = {
    "ce": _ce,
    "focal": _focal,
    "lovasz": _lovasz,
    "dice": _dice,
    "boundary": _boundary,
}
