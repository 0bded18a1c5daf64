"""Whether pretrained weights really arrived: MMEngine loads what fits and only mutters about the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prove.errors import ProveError

LEAST = 0.5
"""Share of a file's numbers that must be found in the model. A classification head is not (8% of a ResNet-50, 20% of
a Swin-B on ImageNet-22k), nor are tables that are resampled; a file for another backbone brings next to nothing."""


def check_arrived(model: nn.Module, weights: Path) -> None:
    """Look for the file's tensors in the model, by value: names may have been converted on the way.

    Raises:
        ProveError: less than `LEAST` of them is there, so that the run would train from (mostly) random weights.
    """
    present = {_digest(value) for value in model.state_dict().values() if value.numel() > 1}
    total = arrived = 0
    for value in tensors(torch.load(weights, map_location="cpu", weights_only=True)):
        if value.numel() > 1:
            total += value.numel()
            arrived += value.numel() * (_digest(value) in present)
    if not total or arrived / total < LEAST:
        share = 100 * arrived / total if total else 0.0
        raise ProveError(
            f"Only {share:.0f}% of the pretrained weights in {weights} arrived in the model: "
            "they are for another backbone.",
            hint="Use the file that the model's config names, or --no-pretrained (for all arms alike).",
        )


def tensors(state: Any) -> Iterator[Tensor]:
    """All tensors of a checkpoint, however it is nested."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from tensors(value)


def _digest(value: Tensor) -> bytes:
    flat = value.detach().to("cpu", torch.float32).contiguous().flatten()
    return hashlib.blake2b(flat.numpy().tobytes(), digest_size=16).digest()
