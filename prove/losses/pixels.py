"""Logits and labels, checked, in float32 at least, with ignored pixels cut off: what every term computes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from prove.errors import ProveError

Classes = Literal["all", "present"] | Sequence[int]
"""Over which classes a term averages."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """A batch of pixels that a term can compute from without a special case.

    Build it with `of`. Derived tensors are computed once, however many terms read them.

    Attributes:
        logits: [N, C, H, W], float32 or float64; 0 at ignored pixels, where the gradient is cut.
        labels: [N, H, W], int64 in [0, C); 0 at ignored pixels.
        valid: [N, H, W], bool; False at ignored pixels.
        mass: [N, H, W], the weight of each pixel, >= 0: 1 without ``weight``, 0 at ignored pixels.
        weighted: whether ``mass`` holds more than ``valid``.
        distance_maps: [N, C, H, W] signed distances of the labels (`prove.losses.distance_maps`), when they are known.
    """

    logits: Tensor
    labels: Tensor
    valid: Tensor
    mass: Tensor
    weighted: bool
    distance_maps: Tensor | None = None

    @classmethod
    def of(
        cls,
        logits: Tensor,
        labels: Tensor,
        ignore_index: int = 255,
        weight: Tensor | None = None,
        distance_maps: Tensor | None = None,
    ) -> Pixels:
        """Check a batch and prepare it.

        On CUDA the check of the values waits for the device once.

        Args:
            logits: [N, C, H, W], C >= 2, any floating type; half types are computed in float32.
            labels: [N, H, W], any integer type.
            ignore_index: the label that is left out; it may lie outside [0, C).
            weight: [N, H, W], finite, >= 0.
            distance_maps: kept as they are.

        Raises:
            ProveError: a shape, type or device that does not fit; a label outside [0, C) that is not
                ``ignore_index``; a weight that is negative or not finite.
        """
        check_form(logits, labels, weight)
        labels = labels.long()
        valid = labels != ignore_index
        check_values(logits.shape[1], labels, valid, ignore_index, weight)
        if logits.dtype != torch.float64:
            logits = logits.float()
        # where, not a product: 0 * NaN is NaN, and an ignored pixel may hold anything
        logits = torch.where(valid[:, None], logits, torch.zeros_like(logits))
        mass = valid.to(logits.dtype)
        if weight is not None:
            mass = torch.where(valid, weight.detach().to(logits.dtype), torch.zeros_like(mass))
        return cls(logits, torch.where(valid, labels, 0), valid, mass, weight is not None, distance_maps)

    @property
    def num_classes(self) -> int:
        """C."""
        return self.logits.shape[1]

    @cached_property
    def log_probs(self) -> Tensor:
        """Log-softmax, [N, C, H, W]."""
        return self.logits.log_softmax(dim=1)

    @cached_property
    def probs(self) -> Tensor:
        """Softmax, [N, C, H, W]; 1 / C at ignored pixels."""
        return self.logits.softmax(dim=1)

    @cached_property
    def one_hot(self) -> Tensor:
        """[N, C, H, W], bool: whether the pixel is of the class; False for every class at ignored pixels."""
        classes = torch.arange(self.num_classes, device=self.labels.device).view(1, -1, 1, 1)
        return (self.labels[:, None] == classes) & self.valid[:, None]

    def of_label(self, values: Tensor) -> Tensor:
        """The entry of each pixel's own class: [N, H, W] from [N, C, H, W]."""
        return values.gather(1, self.labels[:, None]).squeeze(1)

    def per_class(self, values: Sequence[float], name: str) -> Tensor:
        """One number per class as a tensor [C].

        Raises:
            ProveError: not one number for each class of the logits.
        """
        check_length(values, name, self.num_classes)
        return self.logits.new_tensor(tuple(values))

    def averaged(self, classes: Classes, present: Tensor) -> Tensor:
        """Which classes the mean runs over, as bool in the shape of ``present`` [..., C].

        Raises:
            ProveError: ``classes`` lists a class that the logits don't have.
        """
        if classes == "present":
            return present
        if classes == "all":
            return torch.ones_like(present)
        check_listed(classes, self.num_classes)
        indices = [int(index) for index in classes]
        chosen = torch.zeros_like(present)
        chosen[..., indices] = True
        return chosen


def check_length(values: Sequence[float], name: str, num_classes: int) -> None:
    """Refuse numbers that are not one for each class of the logits."""
    if len(values) != num_classes:
        raise ProveError(
            f"{name} has {len(values)} entries, but the logits have {num_classes} classes.",
            hint=f"Give {num_classes} numbers, one per class, in the order of the label space.",
        )


def check_listed(classes: Classes, num_classes: int) -> None:
    """Refuse a list with a class that the logits don't have."""
    if isinstance(classes, str):
        return
    indices = [int(index) for index in classes]
    if max(indices) >= num_classes:
        raise ProveError(
            f"classes={indices} lists class {max(indices)}, but the logits have {num_classes} classes.",
            hint=f"Classes are counted from 0 to {num_classes - 1}.",
        )


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """``numerator / denominator``; where the denominator is 0 it is 0 and so is its gradient."""
    some = denominator > 0
    return torch.where(some, numerator, numerator * 0.0) / torch.where(some, denominator, torch.ones_like(denominator))


def check_form(logits: Tensor, labels: Tensor, weight: Tensor | None, *, resized: bool = False) -> None:
    """Refuse shapes, types and devices that don't fit together.

    Args:
        resized: logits will be resized to the labels, so only their numbers of images have to agree.

    Raises:
        ProveError: what does not fit, and how to mend it.
    """
    if logits.dim() != 4 or logits.shape[1] < 2 or 0 in logits.shape or not logits.is_floating_point():
        raise ProveError(
            f"Logits are {logits.dtype} {list(logits.shape)}; expected floating point [N, C, H, W] with C >= 2.",
            hint="A head with one sigmoid output needs a second class for the background.",
        )
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise ProveError(f"Labels are {labels.dtype}; expected integers.", hint="Convert them with labels.long().")
    n, _, h, w = logits.shape
    if resized and labels.dim() == 3 and 0 not in labels.shape:
        h, w = labels.shape[1:]
    if labels.shape != (n, h, w):
        hint = "Resize the logits to the size of the labels, or pass align_corners and have them upsampled."
        if labels.shape == (n, 1, h, w):
            hint = "Drop the channel with labels.squeeze(1)."
        raise ProveError(f"Labels are {list(labels.shape)}; the logits ask for {[n, h, w]}.", hint=hint)
    if weight is not None and (weight.shape != labels.shape or not weight.is_floating_point()):
        raise ProveError(
            f"The weight per pixel is {weight.dtype} {list(weight.shape)}; expected floating point {[n, h, w]}."
        )
    devices = {str(tensor.device) for tensor in (logits, labels, weight) if tensor is not None}
    if len(devices) > 1:
        raise ProveError(f"Logits, labels and weight are on different devices: {', '.join(sorted(devices))}.")


def check_values(num_classes: int, labels: Tensor, valid: Tensor, ignore_index: int, weight: Tensor | None) -> None:
    """Refuse a label that is neither a class nor ignored, and a weight that is negative or not finite.

    Raises:
        ProveError: it says which value stands where.
    """
    bad_label = valid & ((labels < 0) | (labels >= num_classes))
    wrong = bad_label.any()
    if weight is not None:
        bad_weight = ~(weight.isfinite() & (weight >= 0)) & valid
        wrong = wrong | bad_weight.any()
    if not wrong.item():
        return
    if bad_label.any():
        image, row, column = bad_label.nonzero()[0].tolist()
        raise ProveError(
            f"Label {int(labels[image, row, column])} at image {image}, row {row}, column {column} is not a class: "
            f"it is outside [0, {num_classes}) and not the ignore index {ignore_index} "
            f"({int(bad_label.sum())} pixels like it in this batch).",
            hint="Map it to a class or to the ignore index.",
        )
    assert weight is not None
    image, row, column = bad_weight.nonzero()[0].tolist()
    raise ProveError(
        f"The weight {float(weight[image, row, column])} of the pixel at image {image}, row {row}, column {column} "
        "is not a finite number >= 0."
    )
