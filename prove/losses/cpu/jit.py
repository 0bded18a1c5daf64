"""Compilation of the CPU kernels, cached on disk under a digest of all their sources."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numba
import platformdirs

F = TypeVar("F", bound=Callable[..., Any])

FAST = {"contract", "nsz", "reassoc", "arcp"}
"""What the compiler may do with floating-point numbers: reorder sums and fuse, not assume away NaN or infinity."""


def kernel(function: F) -> F:
    """Compile a function with numba on first use; it releases the GIL.

    numba's own cache notices a change of the function's file only, not of the files it calls into: here every kernel
    is kept under a digest of all of them. Where the folder can't be written, each process compiles for itself.
    """
    with _cached_in(cache_folder()) as cache:
        compiled: F = numba.njit(nogil=True, cache=cache, fastmath=FAST, error_model="numpy")(function)
    return compiled


def cache_folder() -> Path:
    """Where compiled kernels are kept, ``$PROVE_CACHE`` or the user's cache folder."""
    root = os.environ.get("PROVE_CACHE") or platformdirs.user_cache_path("prove")
    return Path(root) / "kernels" / _digest()


def _digest() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _cached_in(folder: Path) -> Iterator[bool]:
    before = numba.config.CACHE_DIR
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except OSError:
        usable = False
    numba.config.CACHE_DIR = str(folder)
    try:
        yield usable
    finally:
        numba.config.CACHE_DIR = before
