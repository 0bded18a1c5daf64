"""The set criterion as a module: from a model's queries and a label map to losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from prove.errors import ProveError
from prove.losses.pixels import ratio
from prove.losses.set_criterion.masks import Matched, at_pixels, at_points
from prove.losses.set_criterion.matching import Assignment, match
from prove.losses.set_criterion.points import Points, PointSource, check_points, draw_points
from prove.losses.set_criterion.settings import CriterionSettings
from prove.losses.set_criterion.targets import Targets


@dataclass(frozen=True, eq=False)
class CriterionOutput:
    """The criterion on one batch.

    Attributes:
        total: the sum of ``terms``, the scalar to call ``backward()`` on.
        terms: the weighted parts: ``loss_cls``, ``loss_mask`` and ``loss_dice`` of the final layer, and the same as
            ``d0.loss_cls`` and so on for the predictions before decoder layer 0, 1, ...
        assignments: for each trained layer, the final one last, and each image, which query was matched to which class.
    """

    total: Tensor
    terms: dict[str, Tensor]
    assignments: list[list[Assignment]]


class SetCriterion(nn.Module):
    """Mask2Former's loss (Cheng 2022, arXiv:2112.01527) for semantic segmentation: one mask per class of an image.

    Each class in an image is matched to one query (`match`). The classification part is the weighted mean over all
    queries of the cross-entropy with the matched class, or "no object"; the mask and dice parts are sums over the
    matched masks divided by their number in the batch, at least 1, averaged over processes where training is
    distributed.

    >>> out = SetCriterion(19)(cls_logits, mask_logits, labels)
    >>> out.total.backward()

    Args:
        num_classes: C >= 1, without "no object".
        settings: what differs from the published criterion.
        ignore_index: the label of pixels of no class; they are background of every mask, by design.
        changed: fields of the settings, by name: ``SetCriterion(19, points="random")``.

    Raises:
        ProveError: a setting that does not exist or has a bad value; a number that is none.
    """

    def __init__(
        self,
        num_classes: int,
        settings: CriterionSettings = CriterionSettings(),  # noqa: B008 - frozen
        *,
        ignore_index: int = 255,
        **changed: Any,
    ) -> None:
        super().__init__()
        for name, value, least in (("num_classes", num_classes, 1), ("ignore_index", ignore_index, -math.inf)):
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                span = f" of at least {least:g}" if least > -math.inf else ""
                raise ProveError(f"{name} is a whole number{span}, not {value!r}.")
        self.num_classes = int(num_classes)
        self.settings = settings.changed(changed)
        self.ignore_index = int(ignore_index)

    def forward(
        self,
        cls_logits: Sequence[Tensor],
        mask_logits: Sequence[Tensor],
        labels: Tensor,
        *,
        points: Points | None = None,
        generator: torch.Generator | None = None,
    ) -> CriterionOutput:
        """Evaluate the criterion on one batch, in float32 at least; autocast is off inside.

        On CUDA the device is waited for twice: for the classes that occur, and for the costs.

        Args:
            cls_logits: L tensors [N, Q, C + 1], the last channel "no object"; the final layer last.
            mask_logits: L tensors [N, Q, h, w].
            labels: [N, H, W], integers in [0, C) or the ignore index, of any size.
            points: all that is random, as `draw_points` gives it; drawn where it is not given.
            generator: what to draw from, on the device of the logits; PyTorch's own where it is not given.

        Raises:
            ProveError: shapes or devices that don't fit; a label that is no class; a matching cost that is not finite.
        """
        self._check(cls_logits, mask_logits, labels)
        if not self.settings.deep_supervision:
            cls_logits, mask_logits = cls_logits[-1:], mask_logits[-1:]
        with torch.autocast(labels.device.type, enabled=False):
            wide = any(tensor.dtype == torch.float64 for tensor in (*cls_logits, *mask_logits))
            scores = torch.stack(list(cls_logits)).to(torch.float64 if wide else torch.float32)
            targets = Targets.of(labels, self.num_classes, self.ignore_index)
            shape = (len(scores), targets.counts, scores.shape[2])
            if points is not None:
                check_points(points, self.settings, *shape)
            source = PointSource(self.settings, *shape, labels.device, generator) if points is None else points
            assignments = match(scores, mask_logits, targets, source.matching.to(scores.dtype), self.settings)
            return self._losses(scores, mask_logits, targets, source, assignments)

    def draw_points(
        self, cls_logits: Sequence[Tensor], labels: Tensor, generator: torch.Generator | None = None
    ) -> Points:
        """The points that `forward` would draw for these inputs from the same state of the generator.

        Args:
            cls_logits: L tensors [N, Q, C + 1], as in `forward`; only their number and their shape count.
            labels: [N, H, W], as in `forward`.
            generator: what to draw from, on the device of the labels; PyTorch's own where it is not given.

        Raises:
            ProveError: inputs that `forward` would refuse as well.
        """
        _check_layers("class", cls_logits, "[N, Q, C + 1]")
        _check_tensor(labels)
        if cls_logits[0].dim() != 3:
            raise ProveError(f"The class logits are {list(cls_logits[0].shape)}; expected [N, Q, C + 1].")
        counts = Targets.of(labels, self.num_classes, self.ignore_index).counts
        return draw_points(self.settings, len(cls_logits), counts, cls_logits[0].shape[1], labels.device, generator)

    def _losses(
        self,
        scores: Tensor,
        mask_logits: Sequence[Tensor],
        targets: Targets,
        source: Points | PointSource,
        assignments: list[list[Assignment]],
    ) -> CriterionOutput:
        settings, device = self.settings, targets.slots.device
        # of each matched mask its image, its query and the slot of its class; the same number in every layer
        matched = torch.tensor(
            [
                [
                    (image, query, slot)
                    for image, pairs in enumerate(layer)
                    for query, slot in zip(pairs.queries.tolist(), pairs.targets.tolist(), strict=True)
                ]
                for layer in assignments
            ],
            dtype=torch.long,
        ).reshape(len(assignments), -1, 3).to(device)  # fmt: skip
        cls_values = self._classification(scores, targets, matched)
        num_masks = _mean_over_processes(matched.shape[1], device)
        terms: dict[str, Tensor] = {}
        last = len(assignments) - 1
        for layer in [last, *range(last)]:
            images, queries, slots = matched[layer].unbind(1)
            masks = Matched(mask_logits[layer][images, queries].to(scores.dtype), images, slots, targets)
            if settings.points == "full":
                mask, dice = at_pixels(masks)
            else:
                mask, dice = at_points(masks, source.of_layer(layer), settings)
            prefix, weight = ("", 1.0) if layer == last else (f"d{layer}.", settings.deep_weight)
            terms[f"{prefix}loss_cls"] = weight * settings.class_weight * cls_values[layer]
            terms[f"{prefix}loss_mask"] = weight * settings.mask_weight * (mask.sum() / num_masks)
            terms[f"{prefix}loss_dice"] = weight * settings.dice_weight * (dice.sum() / num_masks)
        return CriterionOutput(torch.stack(list(terms.values())).sum(), terms, assignments)

    def _classification(self, logits: Tensor, targets: Targets, matched: Tensor) -> Tensor:
        """The classification part of each layer, [L], from [L, N, Q, C + 1]."""
        layers, images, queries, _ = logits.shape
        truth = torch.full((layers, images, queries), self.num_classes, device=logits.device)
        of_image, of_query, slots = matched.unbind(2)
        rows = torch.arange(layers, device=logits.device)[:, None].expand_as(slots)
        truth[rows, of_image, of_query] = targets.classes[of_image, slots]
        log_probs = logits.log_softmax(3)
        values = -log_probs.gather(3, truth[..., None]).squeeze(3)
        if self.settings.cls == "focal":
            # 1 - p as the sum of the others: nothing cancels
            others = log_probs.exp().scatter(3, truth[..., None], 0.0).sum(3)
            values = others.square() * values
        weight = torch.ones_like(values).masked_fill(truth == self.num_classes, self.settings.no_object)
        return ratio((weight * values).sum((1, 2)), weight.sum((1, 2)))

    def _check(self, cls_logits: Sequence[Tensor], mask_logits: Sequence[Tensor], labels: Tensor) -> None:
        _check_layers("class", cls_logits, "[N, Q, C + 1]")
        _check_layers("mask", mask_logits, "[N, Q, h, w]")
        _check_tensor(labels)
        if len(cls_logits) != len(mask_logits) or not cls_logits:
            raise ProveError(
                f"{len(cls_logits)} layers of class logits and {len(mask_logits)} of mask logits; expected as many, "
                "and at least one.",
                hint="Pass a sequence of one tensor per layer, the final layer last.",
            )
        wanted = (*cls_logits[0].shape[:2], self.num_classes + 1)
        for layer, (cls, masks) in enumerate(zip(cls_logits, mask_logits, strict=True)):
            if cls.shape != wanted or masks.dim() != 4 or masks.shape[:2] != cls.shape[:2]:
                raise ProveError(
                    f"In layer {layer} the class logits are {list(cls.shape)} and the mask logits {list(masks.shape)}; "
                    f"expected [N, Q, {self.num_classes + 1}] and [N, Q, h, w], with N and Q the same in all layers.",
                    hint="The last channel of the class logits is 'no object'.",
                )
            if not (cls.is_floating_point() and masks.is_floating_point()) or 0 in cls.shape or 0 in masks.shape:
                raise ProveError(
                    f"In layer {layer} the logits are {cls.dtype} {list(cls.shape)} and {masks.dtype} "
                    f"{list(masks.shape)}; expected floating point and not empty."
                )
        if labels.dim() == 0 or len(labels) != wanted[0]:
            raise ProveError(f"Labels are {list(labels.shape)} for {wanted[0]} images; expected [N, H, W].")
        devices = {str(tensor.device) for tensor in (*cls_logits, *mask_logits, labels)}
        if len(devices) > 1:
            raise ProveError(f"Logits and labels are on different devices: {', '.join(sorted(devices))}.")

    def extra_repr(self) -> str:
        """The settings, for printing a model."""
        return f"{self.num_classes}, {self.settings}, ignore_index={self.ignore_index}"


def _check_layers(kind: str, logits: object, shape: str) -> None:
    """Refuse what is no list of tensors: a single tensor has a length too, and it is not that of the layers."""
    if isinstance(logits, Sequence) and not isinstance(logits, str) and logits:
        other = next((each for each in logits if not isinstance(each, Tensor)), None)
        if other is None:
            return
        found = f"a {type(logits).__name__} that holds a {type(other).__name__}"
    elif isinstance(logits, Tensor):
        found = f"one tensor {list(logits.shape)}"
    else:
        found = f"an empty {type(logits).__name__}" if isinstance(logits, Sequence) else f"a {type(logits).__name__}"
    raise ProveError(
        f"The {kind} logits are {found}; expected at least one tensor {shape} in a list, one per layer,"
        " the final layer last.",
        hint="Write [logits] for a single layer, or list(logits) where the layers are stacked.",
    )


def _check_tensor(labels: object) -> None:
    if not isinstance(labels, Tensor):
        raise ProveError(f"Labels are a {type(labels).__name__}; expected a tensor of integers [N, H, W].")


def _mean_over_processes(count: int, device: torch.device) -> Tensor:
    """The number of masks by which sums are divided: averaged over processes, at least 1."""
    mean = torch.tensor(float(count), device=device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(mean)
        mean /= torch.distributed.get_world_size()
    return mean.clamp(min=1.0)
