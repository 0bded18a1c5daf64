"""The CPU backend of the fused operators: batches in, tensors of fixed sizes out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prove.losses.cpu.batch import Batch, prepare
from prove.losses.cpu.bins import BINS
from prove.losses.cpu.engine import SAVED_ROWS, first_pass, second_pass
from prove.losses.cpu.sweep import Lovasz, State
from prove.losses.fused.plan import LogPart, LovaszPart, Plan, RegionPart


def sizes(plan: Plan, images: int, classes: int, height: int, width: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Lengths of what `forward` keeps: the state, the slopes of Lovász parts, and numbers of every pixel."""
    logs, pixels = sum(isinstance(part, LogPart) for part in plan.parts), height * width
    small = 3 * logs + 4 + 7 * classes * any(isinstance(part, RegionPart) for part in plan.parts)
    dense = 0
    for part in plan.parts:
        if isinstance(part, LovaszPart):
            groups = images if part.per_image else 1
            binned = part.binned(pixels, images)
            small += 2 + 2 * groups * classes * binned
            dense += groups * classes * 2 * BINS if binned else images * classes * pixels
    return small, dense, images * SAVED_ROWS * pixels


def forward(
    plan: Plan, logits: Tensor, labels: Tensor, weight: Tensor | None, ignore_index: int, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Values and certificates of all parts, and what `backward` needs (`sizes`)."""
    batch = prepare(plan, logits, labels, weight, ignore_index, align_corners)
    values, state = first_pass(plan, batch)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    lovasz = iter(state.lovasz)
    certificates = [next(lovasz).certificate if isinstance(part, LovaszPart) else 0.0 for part in plan.parts]
    kept, dense = _pack(state, batch)
    saved = torch.from_numpy(state.saved.reshape(-1))
    return torch.tensor(values, dtype=dtype), torch.tensor(certificates, dtype=dtype), kept, dense, saved


def backward(
    plan: Plan, slopes: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, state: Tensor, dense: Tensor,
    saved: Tensor, ignore_index: int, align_corners: bool,
) -> Tensor:  # fmt: skip
    """The gradient of ``sum(slopes * values)`` on the logits."""
    batch = prepare(plan, logits, labels, weight, ignore_index, align_corners)
    left = _unpack(plan, batch, state.numpy(), dense.numpy())
    left.saved = saved.numpy().reshape(batch.images, SAVED_ROWS, -1)
    gradient = second_pass(plan, batch, left, slopes.tolist())
    return torch.from_numpy(gradient).view(logits.shape).to(logits.dtype)


def _pack(state: State, batch: Batch) -> tuple[Tensor, Tensor]:
    small = [state.logs.ravel(), state.thresholds, state.regions.ravel(), state.edges]
    dense = []
    for part in state.lovasz:
        small += [
            np.array([part.certificate, float(part.again)]),
            part.top.ravel(),
            part.top_at.ravel().astype(np.float64),
        ]
        kept = part.errors if part.bins is None else part.bins
        assert kept is not None
        dense.append(kept.reshape(-1))
    # one part alone is kept as it is, without a copy
    slopes = dense[0] if len(dense) == 1 else np.concatenate([np.empty(0, batch.dtype), *dense])
    return torch.from_numpy(np.concatenate(small)), torch.from_numpy(slopes)


def _unpack(plan: Plan, batch: Batch, small: np.ndarray, dense: np.ndarray) -> State:
    logs = sum(isinstance(part, LogPart) for part in plan.parts)
    regions = 7 if any(isinstance(part, RegionPart) for part in plan.parts) else 0
    pieces = np.split(small, np.cumsum([2 * logs, logs, regions * batch.classes, 4]))
    state = State(pieces[0].reshape(logs, 2), pieces[1], pieces[2].reshape(regions, batch.classes), pieces[3])
    rest, pixels = pieces[4], batch.size[0] * batch.size[1]
    for part in plan.parts:
        if not isinstance(part, LovaszPart):
            continue
        groups = batch.images if part.per_image else 1
        certificate, again, rest = float(rest[0]), bool(rest[1]), rest[2:]
        if part.binned(pixels, batch.images):
            count, length = groups * batch.classes, groups * batch.classes * 2 * BINS
            top, top_at, rest = rest[:count], rest[count : 2 * count].astype(np.int64), rest[2 * count :]
            shape = (groups, batch.classes)
            bins, dense = dense[:length].reshape(*shape, 2, BINS), dense[length:]
            state.lovasz.append(Lovasz(bins, top.reshape(shape), top_at.reshape(shape), None, certificate, again))
        else:
            length = batch.images * batch.classes * pixels
            errors, dense = dense[:length].reshape(batch.images, batch.classes, pixels), dense[length:]
            none = np.empty((groups, 0))
            state.lovasz.append(Lovasz(None, none, none.astype(np.int64), errors, certificate))
    return state
