"""What the images that several blocks are judged on do to a mean of the blocks' effects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prove.stats.effects import BlockResult, Effect

Floats = NDArray[np.float64]

_LEAST_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class SharedImages:
    """Effects of blocks that have their images in common err together; those of different datasets don't.

    Attributes:
        groups: of effects on the same images, their places among all effects and ``[m, B]`` their centred draws.
        unknown: some effects are of one dataset, and how they err together is not known.
    """

    groups: tuple[tuple[NDArray[np.intp], Floats], ...]
    unknown: bool

    def variance(self, shares: Floats) -> float:
        """By how much the variance of a weighted mean is larger than if its effects erred on their own: the sum of the
        images' covariances of two effects, times both shares; at least 0.

        Args:
            shares: ``[n]`` weights that sum to 1.
        """
        added = 0.0
        for places, draws in self.groups:
            own = shares[places]
            mean = own @ draws
            added += float(mean @ mean - own**2 @ (draws**2).sum(axis=1)) / (draws.shape[1] - 1)
        return max(0.0, added)


NOTHING_SHARED = SharedImages((), unknown=False)


def shared_images(found: Sequence[tuple[BlockResult, Effect]]) -> SharedImages:
    """Which of some effects, each with its block, are judged on the same images.

    A resample in which one of them is undefined is dropped for its group; with fewer than half of them left, nothing
    is known of that group.
    """
    alike = defaultdict(list)
    for place, (block, effect) in enumerate(found):
        if block.images_digest is not None and effect.image_draws is not None:
            alike[block.images_digest, len(effect.image_draws)].append((place, effect.image_draws))
    groups: list[tuple[NDArray[np.intp], Floats]] = []
    group_of: dict[int, int] = {}
    for members in alike.values():
        draws = np.array([each for _, each in members], float)
        known = np.isfinite(draws).all(axis=0)
        if np.count_nonzero(known) < max(2, _LEAST_SHARE * len(known)):
            continue
        group_of |= {place: len(groups) for place, _ in members}
        kept = draws[:, known]
        groups.append((np.array([place for place, _ in members]), kept - kept.mean(axis=1, keepdims=True)))
    of_dataset = defaultdict(list)
    for place, (block, _) in enumerate(found):
        if block.dataset:
            of_dataset[block.dataset].append(group_of.get(place))
    unknown = any(len(each) > 1 and (None in each or len(set(each)) > 1) for each in of_dataset.values())
    return SharedImages(tuple(group for group in groups if len(group[0]) > 1), unknown)
