"""A manifest's samples as an MMSegmentation dataset, in an order that depends on the seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose
from mmengine.registry import DATA_SAMPLERS
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, TRANSFORMS
from torch.utils.data import Dataset, Sampler

from prove.data.compose import compose
from prove.data.generated import same_proportions
from prove.data.labels import read_image, read_label
from prove.data.manifest import Manifest, Sample, evenly_spaced
from prove.data.noise import noise_pixels
from prove.data.source import open_dataset, resolve_dataset
from prove.errors import ProveError
from prove.losses.distance_maps import distance_maps
from prove.spec.recipe import Recipe
from prove.training.seeding import mix, seed_augmentation

DISTANCE_MAPS = "gt_distance_maps"
"""Field of a data sample with the signed distances of its labels, [C, H, W]."""


class BadData(ProveError):
    """An image or a label that training can't use."""


@DATASETS.register_module()
class ManifestDataset(Dataset[Any]):
    """One split of a dataset.

    Args:
        source: the dataset's name or YAML file, as `prove.data.source.resolve_dataset` takes it.
        root: folder of the dataset; None for the built-in one.
        split: ``train`` or ``val``.
        pipeline: configs of MMSegmentation transforms, the first one `LoadSample`.
        seed: seeds the augmentation of a sample from (seed, position in the stream); None for validation.
        limit: use this many samples, evenly spaced; None uses all.
        distance_maps: compute the signed distances of every class in the labels as well, for the term `distance`.
        recipe: keywords of `prove.spec.recipe.Recipe`, what of the split is trained on; None takes it as it is.
        generated_root: folder that holds generated images; None asks the environment.
    """

    def __init__(
        self,
        source: str,
        root: str | None,
        split: str,
        pipeline: Sequence[Mapping[str, Any]],
        seed: int | None = None,
        limit: int | None = None,
        distance_maps: bool = False,
        recipe: Mapping[str, Any] | None = None,
        generated_root: str | None = None,
    ) -> None:
        dataset = open_dataset(resolve_dataset(source), root=root)
        if recipe is not None:
            dataset = compose(dataset, recipe_of(recipe), generated_root=generated_root)
        self.draws = dataset.draws
        self.root = dataset.root
        self.manifest: Manifest = dataset.train if split == "train" else dataset.val
        self.samples = evenly_spaced(self.manifest.samples, limit)
        self.seed = seed
        self.distance_maps = distance_maps
        space = self.manifest.label_space
        self.metainfo = {"classes": list(space.classes), "palette": [list(colour) for colour in space.palette]}
        self.pipeline = Compose([dict(step) for step in pipeline])

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: int | tuple[int, int]) -> Any:
        index, position = place if isinstance(place, tuple) else (place, None)
        if position is not None and self.seed is not None:
            seed_augmentation("augmentation", self.seed, position)
        item = self.pipeline({"sample": self.samples[index], "manifest": self.manifest})
        if self.distance_maps:
            labels = item["data_samples"].gt_sem_seg.data.squeeze(0).numpy()
            maps = torch.from_numpy(distance_maps(labels, len(self.manifest.label_space.classes), ignore_index=255))
            item["data_samples"].set_data({DISTANCE_MAPS: PixelData(data=maps)})
        return item


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """A recipe from the keywords that a config file holds."""
    conditions = values.get("domain_filter")
    return Recipe(**{**values, "domain_filter": None if conditions is None else tuple(conditions)})


class Drawn(Protocol):
    """What a sampler draws from.

    Attributes:
        samples: all of them; their place in here is their index.
        draws: how many an epoch takes from each pool, as (pool, count); empty where an epoch is every sample once.
    """

    samples: tuple[Sample, ...]
    draws: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Pool:
    """Indices of samples of which every epoch takes `count`, in shuffled rounds that run on from epoch to epoch."""

    name: str
    indices: npt.NDArray[np.int64]
    count: int

    def of_epoch(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """The indices of one epoch. After any number of epochs, none was taken twice more often than another."""
        size = len(self.indices)
        if self.count == size:
            return self.indices
        first, last = epoch * self.count // size, ((epoch + 1) * self.count - 1) // size
        rounds = [
            np.random.default_rng(mix("pool", seed, self.name, number)).permutation(self.indices)
            for number in range(first, last + 1)
        ]
        begin = epoch * self.count - first * size
        return np.concatenate(rounds)[begin : begin + self.count]


def _pools(dataset: Drawn) -> tuple[_Pool, ...]:
    if not dataset.draws:
        return (_Pool("", np.arange(len(dataset.samples)), len(dataset.samples)),)
    members: dict[str, list[int]] = {name: [] for name, _ in dataset.draws}
    for index, sample in enumerate(dataset.samples):
        if sample.pool not in members:
            raise BadData(f"No epoch draws from {sample.pool!r}, to which {sample.id} belongs.")
        members[sample.pool].append(index)
    empty = [name for name, count in dataset.draws if count > 0 and not members[name]]
    if empty:
        raise BadData(f"An epoch is to draw from {empty[0]!r}, which has no samples.")
    return tuple(_Pool(name, np.array(members[name]), count) for name, count in dataset.draws if count > 0)


@DATA_SAMPLERS.register_module()
class PositionSampler(Sampler[tuple[int, int]]):
    """An endless stream of ``(index, position)``: every epoch in an order drawn from (seed, epoch).

    An epoch takes from each pool exactly as many samples as the dataset's draws say.

    Args:
        seed: of the job.
    """

    def __init__(self, dataset: Drawn, seed: int) -> None:
        self.pools = _pools(dataset)
        self.length = sum(pool.count for pool in self.pools)
        self.seed = seed
        self.start = 0

    def skip(self, count: int) -> None:
        """Begin ``count`` samples later; what MMEngine calls on resuming."""
        self.start += count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        position = self.start
        while True:
            epoch, offset = divmod(position, self.length)
            members = np.concatenate([pool.of_epoch(self.seed, epoch) for pool in self.pools])
            order = np.random.default_rng(mix("order", self.seed, epoch)).permutation(self.length)
            for index in members[order[offset:]]:
                yield int(index), position
                position += 1

    def __len__(self) -> int:
        return self.length


@TRANSFORMS.register_module()
class LoadSample(BaseTransform):  # type: ignore[misc]
    """Read a sample's image (BGR, uint8 [H, W, 3]) and label (train ids, uint8 [H, W], 255 = ignore)."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        sample: Sample = results["sample"]
        manifest: Manifest = results["manifest"]
        try:
            label = read_label(sample.label, manifest.encoding_of(sample), manifest.label_space)
            image = noise_pixels(sample.id, *label.shape) if sample.noise else read_image(sample.image)[:, :, ::-1]
        except ProveError as error:
            raise BadData(error.message, hint=error.hint) from error
        if sample.scaled:
            image = _scaled(image, label, sample)
        return {
            "img": np.ascontiguousarray(image),
            "gt_seg_map": label.astype(np.uint8),
            "seg_fields": ["gt_seg_map"],
            "img_path": str(sample.image),
            "sample_id": sample.id,
            "condition": sample.condition,
            "img_shape": image.shape[:2],
            "ori_shape": image.shape[:2],
            "scale_factor": (1.0, 1.0),
        }


def _scaled(image: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8], sample: Sample) -> npt.NDArray[np.uint8]:
    """A generated image at the size of its label; interpolation is for pixels only, the label is never touched."""
    (height, width), (rows, columns) = image.shape[:2], label.shape
    if (height, width) == (rows, columns):
        return image
    if not same_proportions((height, width), (rows, columns)):
        raise BadData(
            f"Generated image {sample.image} is {width}x{height}, the label of its original {columns}x{rows}."
        )
    how = cv2.INTER_AREA if height > rows else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(image), (columns, rows), interpolation=how), dtype=np.uint8)


@TRANSFORMS.register_module()
class RandomScale(BaseTransform):  # type: ignore[misc]
    """Resize image and label by a factor drawn uniformly from [low, high], relative to the image's own size."""

    def __init__(self, low: float, high: float) -> None:
        self.low = low
        self.high = high

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        factor = float(np.random.uniform(self.low, self.high))
        height, width = results["img"].shape[:2]
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        results["img"] = cv2.resize(results["img"], size, interpolation=cv2.INTER_LINEAR)
        results["gt_seg_map"] = cv2.resize(results["gt_seg_map"], size, interpolation=cv2.INTER_NEAREST_EXACT)
        results["img_shape"] = (size[1], size[0])
        results["scale_factor"] = (size[0] / width, size[1] / height)
        return results
