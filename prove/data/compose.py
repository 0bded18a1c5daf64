"""What one training draws its samples from: a dataset, narrowed to conditions and mixed with generated images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prove.catalog.strategies import resolve_strategy
from prove.data.manifest import Manifest
from prove.data.source import Dataset
from prove.errors import ProveError, nearest
from prove.spec.recipe import Recipe


def compose(dataset: Dataset, recipe: Recipe, *, generated_root: str | Path | None = None) -> Dataset:
    """The dataset as a job with this recipe trains on it. Validation is never touched.

    Args:
        dataset: as `prove.data.source.open_dataset` finds it.
        generated_root: folder that holds generated images; None asks the environment.

    Raises:
        ProveError: a condition that no training image has, or generated images that are missing or unsound.
    """
    if recipe.domain_filter is not None:
        dataset = replace(dataset, train=_narrowed(dataset.train, recipe.domain_filter))
    if resolve_strategy(recipe.strategy).generated is not None:
        raise ProveError(f"Strategy {recipe.strategy!r} can't be trained yet.")
    return dataset


def _narrowed(manifest: Manifest, conditions: tuple[str, ...]) -> Manifest:
    for condition in conditions:
        if condition not in manifest.conditions:
            close = nearest(condition, manifest.conditions)
            raise ProveError(
                f"No training image of {manifest.dataset} has the condition {condition!r}.",
                hint=(f"Did you mean {close[0]!r}? " if close else "") + f"There are {', '.join(manifest.conditions)}.",
            )
    samples = tuple(sample for sample in manifest.samples if sample.condition in conditions)
    return replace(manifest, samples=samples, labels_without_image=(), unused_images=())
