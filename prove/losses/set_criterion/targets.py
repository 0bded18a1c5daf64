"""What a batch of label maps asks of a mask-classification model: one mask per class that is in an image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from prove.errors import ProveError
from prove.losses.pixels import check_values


class MaskTargets(NamedTuple):
    """The masks that one image asks for.

    Attributes:
        classes: [T] int64, the classes in the image, ascending.
        masks: [T, H, W] bool, where each of them is.
    """

    classes: Tensor
    masks: Tensor


def semantic_to_mask_targets(labels: Tensor, ignore_index: int = 255) -> list[MaskTargets]:
    """One binary mask per class of each image, as mask-classification models are trained on.

    A pixel that is ignored is in no mask: it is background of each of them, as in the published criterion.

    Args:
        labels: [H, W] or [N, H, W], integers.
        ignore_index: the label of pixels of no class.

    Returns:
        An entry per image, a single one for [H, W]; an image without a class has T = 0.

    Raises:
        ProveError: labels of another shape or type.
    """
    check_labels(labels)
    images = labels.long().reshape(-1, *labels.shape[-2:])
    found = []
    for image in images:
        classes = image.unique()
        classes = classes[classes != ignore_index]
        found.append(MaskTargets(classes, image == classes[:, None, None]))
    return found


@dataclass(frozen=True, eq=False)
class Targets:
    """The classes in each image of a batch, without their masks.

    The classes of an image have slots, counted from 0 in ascending order; T is the number of slots of the image with
    the most.

    Attributes:
        slots: [N, H, W] int64, the slot of each pixel; T where ignored.
        classes: [N, T] int64, the class in each slot, 0 in those that an image does not use.
        class_lists: the classes of each image on the host.
    """

    slots: Tensor
    classes: Tensor
    class_lists: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, labels: Tensor, num_classes: int, ignore_index: int) -> Targets:
        """Check a batch of labels and list its classes. On CUDA it waits for the device once.

        Raises:
            ProveError: labels of another shape or type; a label outside [0, C) that is not the ignore index.
        """
        check_labels(labels, dims=(3,))
        labels = labels.long()
        valid = labels != ignore_index
        bad = valid & ((labels < 0) | (labels >= num_classes))
        kinds = torch.where(valid, labels, num_classes).masked_fill(bad, num_classes + 1)
        present = torch.zeros(len(labels), num_classes + 2, dtype=torch.bool, device=labels.device)
        present.scatter_(1, kinds.flatten(1), True)
        on_host = present.tolist()
        if any(row[num_classes + 1] for row in on_host):
            check_values(num_classes, labels, valid, ignore_index, None)
        lists = tuple(tuple(c for c in range(num_classes) if row[c]) for row in on_host)
        longest = max(len(row) for row in lists)
        slot_of = present.cumsum(1) - 1
        slot_of[:, num_classes] = longest
        padded = [[*row, *[0] * (longest - len(row))] for row in lists]
        return cls(
            slot_of.gather(1, kinds.flatten(1)).view_as(labels),
            torch.tensor(padded, dtype=torch.long, device=labels.device).reshape(len(lists), longest),
            lists,
        )

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of classes in each image."""
        return tuple(len(row) for row in self.class_lists)

    @cached_property
    def corners(self) -> Tensor:
        """[N, H + 1, W + 1] int64: the slots of the four pixels around each corner of a pixel, 16 bits each.

        From the lowest: upper left, upper right, lower left, lower right; T outside of the image. What a point needs
        of the labels is then read at once.
        """
        framed = F.pad(self.slots, (1, 1, 1, 1), value=self.classes.shape[1])
        rows = framed[:, :, :-1] | framed[:, :, 1:] << 16
        return rows[:, :-1] | rows[:, 1:] << 32


def check_labels(labels: Tensor, dims: tuple[int, ...] = (2, 3)) -> None:
    """Refuse labels that are not whole numbers, or not one per pixel."""
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise ProveError(f"Labels are {labels.dtype}; expected integers.", hint="Convert them with labels.long().")
    if labels.dim() not in dims or 0 in labels.shape:
        hint = "Drop the channel with labels.squeeze(1)." if labels.dim() == 4 and labels.shape[1] == 1 else ""
        expected = " or ".join({2: "[H, W]", 3: "[N, H, W]"}[d] for d in dims)
        raise ProveError(f"Labels are {list(labels.shape)}; expected {expected}.", hint=hint)
