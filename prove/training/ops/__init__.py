"""The operators that mmcv expects from its compiled extension, on top of torch and torchvision.

``mmcv.ops`` imports ``mmcv._ext`` and calls its functions by name. Where that extension is not built, ``install`` puts
a module in its place which supplies what segmentation and detection models need, on any device that torch and
torchvision run on. Every other operator raises when it is called. Each function here has the name, the arguments and
the effect (results are written into arguments) of its compiled counterpart.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torchvision

from prove.errors import ProveError
from prove.training.ops import boxes, deformable, focal, rois, windows

EXTENSION = "mmcv._ext"


class MissingOperatorError(ProveError, NotImplementedError):
    """An operator of mmcv that exists only in compiled form was called without it."""


def get_compiler_version() -> str:
    """What mmcv reports as the compiler of its operators."""
    return f"none: operators by torch {torch.__version__} and torchvision {torchvision.__version__}"


def get_compiling_cuda_version() -> str:
    """What mmcv reports as the CUDA version of its operators: that of torch."""
    return torch.version.cuda or "not available"


SUPPLIED: dict[str, Callable[..., Any]] = {
    operator.__name__: operator
    for operator in (
        boxes.bbox_overlaps,
        boxes.nms,
        boxes.nms_match,
        boxes.softnms,
        deformable.deform_conv_forward,
        deformable.deform_conv_backward_input,
        deformable.deform_conv_backward_parameters,
        deformable.modulated_deform_conv_forward,
        deformable.modulated_deform_conv_backward,
        deformable.ms_deform_attn_forward,
        deformable.ms_deform_attn_backward,
        focal.sigmoid_focal_loss_forward,
        focal.sigmoid_focal_loss_backward,
        focal.softmax_focal_loss_forward,
        focal.softmax_focal_loss_backward,
        rois.roi_align_forward,
        rois.roi_align_backward,
        rois.roi_pool_forward,
        rois.roi_pool_backward,
        windows.carafe_forward,
        windows.carafe_backward,
        windows.carafe_naive_forward,
        windows.carafe_naive_backward,
        windows.masked_col2im_forward,
        windows.masked_im2col_forward,
        windows.psamask_forward,
        windows.psamask_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}
"""Operators by the name under which mmcv calls them."""


class _Extension(ModuleType):
    """Stands where the compiled extension would; has an attribute for every operator name, as mmcv checks on import."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return _missing(name)


def install() -> bool:
    """Makes ``mmcv._ext`` importable, before anything imports ``mmcv.ops``. Calling it again changes nothing.

    Returns:
        Whether the compiled extension is used.

    Raises:
        ProveError: a compiled extension is there but can't be loaded.
    """
    if isinstance(sys.modules.get(EXTENSION), _Extension):
        return False
    if importlib.util.find_spec(EXTENSION) is not None:
        try:
            importlib.import_module(EXTENSION)
        except ImportError as error:
            raise ProveError(
                f"The compiled operators of mmcv can't be loaded with torch {torch.__version__}: {error}",
                hint="Rebuild mmcv for this torch and CUDA, or install onedl-mmcv without compiled operators.",
            ) from error
        return True
    extension = _Extension(EXTENSION, __doc__)
    # mmengine asks importlib for the specification to find out whether operators exist.
    extension.__spec__ = importlib.machinery.ModuleSpec(EXTENSION, loader=None, origin=__name__)
    for name, operator in SUPPLIED.items():
        setattr(extension, name, operator)
    sys.modules[EXTENSION] = extension
    sys.modules["mmcv"].__dict__["_ext"] = extension
    return False


def _missing(name: str) -> Callable[..., Any]:
    def raise_missing(*args: object, **kwargs: object) -> None:
        raise MissingOperatorError(
            f"The mmcv operator {name!r} needs compiled code, which this mmcv does not have.",
            hint=(
                f"Install mmcv with its compiled operators for torch {torch.__version__} and CUDA "
                f"{get_compiling_cuda_version()} (build onedl-mmcv from source with MMCV_WITH_OPS=1). "
                f"Supplied without it: {', '.join(sorted(SUPPLIED))}."
            ),
        )

    raise_missing.__name__ = raise_missing.__qualname__ = name
    return raise_missing
