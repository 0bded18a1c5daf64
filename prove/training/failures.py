"""Why a run failed, from the exception that ended it."""

from __future__ import annotations

import torch

from prove import rundir
from prove.errors import ProveError
from prove.spec.event import FailureKind
from prove.training.dataset import BadData
from prove.training.guard import Diverged, NotFinite, WiringError

_MEMORY = ("out of memory", "ALLOC_FAILED", "can't allocate memory", "DefaultCPUAllocator")


def kind_of(error: BaseException) -> FailureKind:
    """The kind of failure that an exception stands for."""
    if isinstance(error, WiringError):
        return FailureKind.WIRING
    if isinstance(error, Diverged | NotFinite):
        return FailureKind.DIVERGED
    if isinstance(error, BadData):
        return FailureKind.BAD_DATA
    memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY)
    )
    return FailureKind.OUT_OF_MEMORY if memory else FailureKind.ERROR


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception means that there is no room left: nothing is wrong with the run itself."""
    # What torch.save says of a write that was cut short.
    cut_short = isinstance(error, RuntimeError) and "inline_container" in str(error) and "unexpected pos" in str(error)
    return cut_short or rundir.is_disk_full(error)


def describe(error: BaseException) -> str:
    """One message for a user: what PROVE's own errors say as it is, others with their type."""
    if isinstance(error, ProveError | WiringError | Diverged):
        return str(error)
    text = f"{type(error).__name__}: {error}"
    if "Expected more than 1 value per channel" in text:
        text += "\nBatch normalisation can't train on one image: use a --batch-size of at least 2."
    return text
