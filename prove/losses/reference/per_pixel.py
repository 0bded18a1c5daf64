"""Cross-entropy and focal losses, straight from their formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from prove.losses.reference.params import Params, number, pixel_rows


def ce(params: Params, logits: Tensor, labels: Tensor, valid: Tensor, class_weight: Sequence[float] | None) -> Tensor:
    """Cross-entropy."""
    z, y = pixel_rows(logits, labels, valid)
    written = params["class_weight"]
    weights = written if isinstance(written, tuple) else class_weight if isinstance(written, str) else None
    w = z.new_ones(z.shape[1]) if weights is None else z.new_tensor(tuple(weights))
    log_p = z - torch.logsumexp(z, dim=1, keepdim=True)
    own = F.one_hot(y, z.shape[1]).to(z.dtype)
    eps = number(params, "label_smoothing")
    target = (1.0 - eps) * own + eps / z.shape[1]
    loss = -(target * w * log_p).sum(dim=1)
    divisor = (own * w).sum(dim=1)
    hard = _hard(params, (own * log_p.exp()).sum(dim=1), len(labels))
    loss, divisor = loss[hard], divisor[hard]
    if divisor.sum().item() == 0.0:
        return z.sum() * 0.0
    return loss.sum() / divisor.sum()


def focal(params: Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    """Focal loss, over a softmax or one class against all."""
    z, y = pixel_rows(logits, labels, valid)
    if params["form"] == "sigmoid":
        return _focal_one_against_all(params, z, y)
    q, loss = _focal_of_label(params, z, y)
    loss = loss[_hard(params, q, len(labels))]
    return loss.mean() if len(loss) else z.sum() * 0.0


def boundary_focal(params: Params, logits: Tensor, labels: Tensor, valid: Tensor, _: Sequence[float] | None) -> Tensor:
    """Focal loss with more weight near the edges of the labels."""
    z, y = pixel_rows(logits, labels, valid)
    if len(z) == 0:
        return z.sum() * 0.0
    _q, loss = _focal_of_label(params, z, y)
    edges = _edges(labels, valid, logits.shape[1], int(number(params, "width"))).to(z)[valid]
    return ((1.0 + number(params, "edge_weight") * edges) * loss).mean()


def _hard(params: Params, p_y: Tensor, images: int) -> Tensor:
    """Which pixels are trained on."""
    p_y = p_y.detach()
    if not params["ohem"] or len(p_y) == 0:
        return torch.ones_like(p_y, dtype=torch.bool)
    ranked, _ = torch.sort(p_y)
    k = min(int(number(params, "min_kept")) * images, len(p_y) - 1)
    return p_y < max(float(ranked[k]), number(params, "thresh"))


def _focal_of_label(params: Params, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of the own class and loss of each pixel."""
    q = torch.softmax(z, dim=1).gather(1, y[:, None])[:, 0]
    log_q = torch.log_softmax(z, dim=1).gather(1, y[:, None])[:, 0]
    alpha = params["alpha"]
    a = z.new_tensor(alpha)[y] if isinstance(alpha, tuple) else number(params, "alpha")
    return q, a * (1.0 - q).clamp(min=1e-15) ** number(params, "gamma") * -log_q


def _focal_one_against_all(params: Params, z: Tensor, y: Tensor) -> Tensor:
    if len(z) == 0:
        return z.sum() * 0.0
    alpha, total = params["alpha"], z.new_zeros(len(z))
    for c in range(z.shape[1]):
        a = float(alpha[c]) if isinstance(alpha, tuple) else number(params, "alpha")
        truth = (y == c).to(z.dtype)
        q = torch.sigmoid(z[:, c])
        wrong = (truth - q).abs().clamp(min=1e-15)
        entropy = F.binary_cross_entropy_with_logits(z[:, c], truth, reduction="none")
        total = total + (a * truth + (1.0 - a) * (1.0 - truth)) * wrong ** number(params, "gamma") * entropy
    return total.mean()


def _edges(labels: Tensor, valid: Tensor, num_classes: int, width: int) -> Tensor:
    """The dilated edges of the labels, [N, H, W], by shifting whole images about."""
    maps = F.one_hot(torch.where(valid, labels, num_classes), num_classes + 1).double()
    ignored = maps[..., -1:]
    h, w = labels.shape[1:]
    padded = F.pad(maps[..., :-1].permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate").permute(0, 2, 3, 1)
    touched = F.pad(ignored, (0, 0, 1, 1, 1, 1))
    across, down, near = torch.zeros_like(padded[:, :h, :w]), torch.zeros_like(padded[:, :h, :w]), 0.0 * ignored
    for row, smooth_row, slope_row in ((0, 1.0, -1.0), (1, 2.0, 0.0), (2, 1.0, 1.0)):
        for column, smooth_column, slope_column in ((0, 1.0, -1.0), (1, 2.0, 0.0), (2, 1.0, 1.0)):
            shifted = padded[:, row : row + h, column : column + w]
            across = across + smooth_row * slope_column * shifted
            down = down + slope_row * smooth_column * shifted
            near = near + touched[:, row : row + h, column : column + w]
    edges = torch.hypot(across, down).amax(dim=3) / math.sqrt(20.0)
    edges = torch.where(near[..., 0] > 0.0, 0.0, edges)
    dilated = edges
    frame = F.pad(edges, (width, width, width, width))
    for row in range(2 * width + 1):
        for column in range(2 * width + 1):
            dilated = torch.maximum(dilated, frame[:, row : row + h, column : column + w])
    return dilated
