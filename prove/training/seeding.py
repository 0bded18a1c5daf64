"""Random streams that depend on what is drawn, never on what was drawn before.

A run that is resumed, or that trains another objective, sees the same images, crops and dropout at the same
iteration: this is what makes runs of one seed paired.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def mix(*parts: int | str) -> int:
    """A 63-bit seed from a sequence of numbers and names; equal parts give equal seeds on any machine."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def seed_torch(*parts: int | str) -> None:
    """Seed torch on every device, for what follows: weights, dropout, sampled points."""
    torch.manual_seed(mix(*parts))


def seed_augmentation(*parts: int | str) -> None:
    """Seed the generators that image transforms draw from."""
    seed = mix(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def generator(*parts: int | str) -> np.random.Generator:
    """A stream of its own, that nothing else draws from."""
    return np.random.default_rng(mix(*parts))
