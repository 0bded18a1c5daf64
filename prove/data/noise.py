"""Pixels that say nothing: the control of generated images, which keeps labels and takes away what they could show."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


def noise_pixels(sample_id: str, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Uniform noise, uint8 [height, width, 3], that depends on the sample's id alone: the same in every epoch."""
    seed = int.from_bytes(hashlib.blake2b(sample_id.encode(), digest_size=8).digest(), "big")
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (height, width, 3), dtype=np.uint8)
