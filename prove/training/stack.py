"""Brings up MMSegmentation: the one place that imports it."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

import cv2
import torch

from prove.training.ops import install


def load_stack() -> None:
    """Imports MMEngine, mmcv, MMSegmentation and MMDetection's models, and registers their modules.

    Nothing that they print or warn of on import gets out; errors do. Where mmcv has no compiled operators, PROVE's are
    installed first. The default scope becomes ``mmseg``. Calling it again is free.

    Raises:
        ProveError: compiled operators of mmcv are there but can't be loaded.
    """
    with _muted("stdout"), _muted("stderr"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        install()
        import mmseg.visualization  # noqa: F401
        from mmseg.utils import register_all_modules

        register_all_modules(init_default_scope=True)


KNOWN_WARNINGS = (
    r"torch\.meshgrid: in an upcoming release",
    r"Default ``avg_non_ignore`` is False",
    r"DeprecationWarning: pretrained is (a )?deprecated",
)
"""What the stack warns of in every run, and no user of PROVE can change."""


def quiet_known_warnings() -> None:
    """Keeps `KNOWN_WARNINGS`, and nothing else, out of this process's output."""
    for message in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def set_threads(count: int) -> None:
    """Lets torch use ``count`` threads, and OpenCV none beside the caller's.

    Two libraries with a thread per core slow each other down; and a data loader that is forked from a process with
    OpenCV's threads can wait for them for ever.
    """
    torch.set_num_threads(count)
    cv2.setNumThreads(0)


def see_devices() -> None:
    """Has MMEngine and mmcv look for CUDA again: what they found on import was true before this process was forked."""
    import mmcv.ops.multi_scale_deform_attn as deformable
    import mmengine.device.utils as device

    there = torch.cuda.is_available()
    device.DEVICE = "cuda" if there else "cpu"
    deformable.IS_CUDA_AVAILABLE = there


class _Mute:
    """Drops what is written to a stream until ``active`` is false, and passes everything else on.

    Functions defined meanwhile may keep it (``def report(to=sys.stdout)``): it stays a working stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.active = True

    def write(self, text: str) -> int:
        return len(text) if self.active else self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def _muted(name: str) -> Iterator[None]:
    """Nothing reaches ``sys.<name>`` inside."""
    stream = getattr(sys, name)
    mute = _Mute(stream)
    setattr(sys, name, mute)
    try:
        yield
    finally:
        mute.active = False
        setattr(sys, name, stream)
