"""CutMix and MixUp: what is done to the images of a batch before a model sees them.

Image i is mixed with image i - 1, the first with the last. The order of a batch is random as it is, so this is as good
as a random permutation, and no image is mixed with itself (where a batch spans two epochs, it may be with another crop
of itself). What is drawn depends on the seed and the iteration alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from prove.errors import ProveError
from prove.training.dataset import DISTANCE_MAPS
from prove.training.objective import labels_of

IGNORE = 255

SECOND_LABELS = "gt_second_sem_seg"
"""Field of a data sample under MixUp: the labels of the image that is mixed in, [1, H, W]."""

SECOND_MAPS = "gt_second_distance_maps"
"""Field of a data sample under MixUp: the signed distances of these labels, [C, H, W], where there are any."""


class Mix(Protocol):
    """Mixes the images of a batch."""

    @property
    def alpha(self) -> float: ...
    def __call__(self, batch: Any, rng: np.random.Generator) -> dict[str, Any]: ...


@dataclass(frozen=True)
class _Mix:
    """What both need.

    Args:
        alpha: both parameters of the beta distribution that an image's own share is drawn from.
        size: height and width in pixels; images are padded to it, as the model would pad them later.
        fill: colour of the padding, in the order of the channels, in [0, 255]; labels are padded with `IGNORE`.
    """

    alpha: float
    size: tuple[int, int]
    fill: tuple[float, ...]

    def _padded(self, batch: Any) -> tuple[Tensor, Tensor, list[Any]]:
        """Images [N, 3, H, W], labels [N, H, W], and the samples."""
        images, samples = list(batch["inputs"]), list(batch["data_samples"])
        if len(images) < 2:
            raise ProveError(f"{type(self).__name__} mixes the images of a batch, and this batch has one image.")
        height = max(self.size[0], *(image.shape[-2] for image in images))
        width = max(self.size[1], *(image.shape[-1] for image in images))
        if any(image.shape[-2:] != (height, width) for image in images):
            images = [_framed(image, height, width, self.fill) for image in images]
        labels = [_framed(sample.gt_sem_seg.data, height, width, (IGNORE,)).squeeze(0) for sample in samples]
        return torch.stack(images), torch.stack(labels), samples


@dataclass(frozen=True)
class CutMix(_Mix):
    """A box of every image and of its label is replaced by what the next image has there.

    Its area is 1 - share of the image before it is cut off at the borders, its centre is uniform; one box per batch.
    Yun 2019 (arXiv:1905.04899), algorithm 1. Labels are pasted with the pixels: no loss has to be weighted.
    """

    def __call__(self, batch: Any, rng: np.random.Generator) -> dict[str, Any]:
        """The mixed batch; the given one stays as it is. A sample's ``mix_box`` is the box: top, left, bottom, right,
        and its ``mix_share`` the share of the image that is its own."""
        images, labels, samples = self._padded(batch)
        height, width = labels.shape[-2:]
        box = _box(float(rng.beta(self.alpha, self.alpha)), height, width, rng)
        top, left, bottom, right = box
        for values in (images, labels):
            part = values[..., top:bottom, left:right]
            part.copy_(part.roll(1, 0))
        share = 1.0 - (bottom - top) * (right - left) / (height * width)
        mixed = [
            labelled(sample, label, mix_box=box, mix_share=share) for sample, label in zip(samples, labels, strict=True)
        ]
        return {**batch, "inputs": list(images), "data_samples": mixed}


@dataclass(frozen=True)
class MixUp(_Mix):
    """Every image becomes share * image + (1 - share) * the next image, one share per batch.

    The labels stay two maps, and so do the losses: share * loss(own) + (1 - share) * loss(the other's), on the same
    outputs, for every term of every head (`over_labels`). Zhang 2018 (arXiv:1710.09412), where labels are mixed inside
    a cross-entropy; for that loss it is the same, and it is meant for losses that take no soft labels too.
    """

    def __call__(self, batch: Any, rng: np.random.Generator) -> dict[str, Any]:
        """The mixed batch; the given one stays as it is. A sample's ``mix_share`` is the weight of its own image and
        label; the other label is its `SECOND_LABELS`."""
        images, labels, samples = self._padded(batch)
        share = float(rng.beta(self.alpha, self.alpha))
        images = images.float()
        others = images.roll(1, 0)
        images.mul_(share).add_(others, alpha=1.0 - share)
        mixed = []
        for index, sample in enumerate(samples):
            made = labelled(sample, labels[index], mix_share=share)
            made.set_data({SECOND_LABELS: PixelData(data=labels[index - 1][None])})
            for field, source in ((DISTANCE_MAPS, sample), (SECOND_MAPS, samples[index - 1])):
                if DISTANCE_MAPS in source:
                    made.set_data({field: PixelData(data=getattr(source, DISTANCE_MAPS).data)})
            mixed.append(made)
        return {**batch, "inputs": list(images), "data_samples": mixed}


_KINDS: Mapping[str, Callable[..., Mix]] = {"CutMix": CutMix, "MixUp": MixUp}


def mix_of(options: Mapping[str, Any] | None) -> Mix | None:
    """The mix that the option ``mix`` of a training loop names (`prove.build.pipeline.mix_options`)."""
    if not options:
        return None
    given = dict(options)
    kind = given.pop("type")
    if kind not in _KINDS:
        raise ProveError(f"No batch can be mixed by {kind!r}.", hint=f"Valid: {', '.join(_KINDS)}.")
    return _KINDS[kind](**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def over_labels(
    samples: Sequence[Any], losses_for: Callable[[Tensor, Tensor | None], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """A head's losses on a batch: of its labels, or under MixUp of both label maps, weighted by their shares.

    Args:
        samples: of the batch.
        losses_for: the losses of one map of labels, [N, H, W], given with its distance maps or None.
    """
    labels = labels_of(samples)
    losses = losses_for(labels, maps_of(samples, DISTANCE_MAPS, labels))
    seconds = second_labels(samples)
    if seconds is None:
        return losses
    share = share_of_own(samples)
    others = losses_for(seconds, maps_of(samples, SECOND_MAPS, seconds))
    if losses.keys() != others.keys():
        raise ValueError(f"MixUp: the two label maps have different losses, {sorted(losses.keys() ^ others.keys())}")
    return {name: share * value + (1.0 - share) * others[name] for name, value in losses.items()}


def second_labels(samples: Sequence[Any]) -> Tensor | None:
    """The labels that MixUp mixes in, [N, H, W]; None where it does not.

    Raises:
        ValueError: some samples of the batch have them and some do not.
    """
    having = [sample for sample in samples if SECOND_LABELS in sample]
    if not having:
        return None
    if len(having) != len(samples):
        raise ValueError("MixUp: some images of the batch have a second label and some have none")
    return torch.stack([getattr(sample, SECOND_LABELS).data.squeeze(0) for sample in samples])


def share_of_own(samples: Sequence[Any]) -> float:
    """The weight of a batch's own labels under MixUp."""
    shares = {float(sample.mix_share) for sample in samples}
    if len(shares) != 1:
        raise ValueError(f"MixUp: the images of one batch have shares {sorted(shares)}")
    return shares.pop()


def maps_of(samples: Sequence[Any], field: str, labels: Tensor) -> Tensor | None:
    """The distance maps in a field of every sample; None where one is missing or a padded image has another size:
    then they are computed from the labels."""
    maps = [getattr(sample, field).data for sample in samples if field in sample]
    if len(maps) < len(samples) or any(each.shape[-2:] != labels.shape[-2:] for each in maps):
        return None
    return torch.stack(maps).to(labels.device)


def labelled(sample: Any, label: Tensor, **facts: Any) -> SegDataSample:
    """A new sample of the same image with another label [H, W]; distance maps, which were those of the old one, go."""
    made = SegDataSample(metainfo={**sample.metainfo, **facts})
    made.gt_sem_seg = PixelData(data=label[None])
    return made


def _framed(values: Tensor, height: int, width: int, fill: Sequence[float]) -> Tensor:
    """[C, h, w] padded at the right and at the bottom with a value per channel; whole fills keep the type."""
    if values.shape[-2:] == (height, width) and values.shape[0] == 1:
        return values
    kind = torch.float32 if any(value != int(value) for value in fill) else values.dtype
    framed = torch.empty((values.shape[0], height, width), dtype=kind)
    framed[:] = torch.tensor(fill, dtype=kind)[:, None, None]
    framed[:, : values.shape[-2], : values.shape[-1]] = values
    return framed


def _box(share: float, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of a box with area 1 - share of an image, cut off at its borders."""
    side = math.sqrt(1.0 - share)
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    row, column = int(rng.integers(height)), int(rng.integers(width))
    return (
        max(row - half_height, 0),
        max(column - half_width, 0),
        min(row + half_height, height),
        min(column + half_width, width),
    )
