"""Declaration of Triton kernels, and the block sizes that they run with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import triton
import triton.language as tl

Array: TypeAlias = tl.tensor


def kernel(function: Callable[..., Any]) -> Any:
    """A function that Triton compiles on first use, or interprets where ``TRITON_INTERPRET=1``."""
    return triton.jit(function)


def launch(function: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, **constants: Any) -> None:
    """Run a kernel; multiplications are fused with additions, whatever the default of Triton's release."""
    function[grid](*arguments, **constants, num_warps=warps, enable_fp_fusion=True)


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Launch on this device: Triton takes the current one, wherever the tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@dataclass(frozen=True)
class Blocks:
    """How a tile of pixels is cut: all classes of some pixels side by side, in registers.

    Attributes:
        classes: C, rounded up to a power of two.
        pixels: of a tile.
        warps: that share a tile.
    """

    classes: int
    pixels: int
    warps: int

    @classmethod
    def of(cls, classes: int) -> Blocks:
        """For C classes.

        On an H100 each thread then holds 16 numbers of a [C, pixels] tensor. Several of them are alive at once: 64 to
        168 registers as compiled, so that three or more programs share a multiprocessor. A row of a tile is 64 to 512
        bytes.
        """
        padded = max(triton.next_power_of_2(classes), 2)
        pixels = min(512, max(16, 2048 // padded))
        return cls(padded, pixels, min(16, max(4, padded * pixels // 512)))


def programs(device: torch.device, blocks: int) -> int:
    """How many programs share the blocks of a pass that sums: four per multiprocessor, or three in the interpreter."""
    if device.type != "cuda":
        return min(blocks, 3)
    return min(blocks, 4 * torch.cuda.get_device_properties(device).multi_processor_count)


def compute_type(dtype: torch.dtype) -> Any:
    """The type that kernels compute in, as Triton names it: float32, or float64 for float64 logits."""
    return tl.float64 if dtype == torch.float64 else tl.float32
