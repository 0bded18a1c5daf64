"""What one training draws its samples from: a dataset, narrowed to conditions and mixed with generated images."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from prove.catalog.strategies import GENERATED, resolve_strategy
from prove.data.generated import MANIFEST, POOL, read_generated
from prove.data.joint import NO_CONDITION, shares
from prove.data.manifest import Manifest, Sample
from prove.data.roots import GENERATED_VARIABLE, config_file, find_generated_root
from prove.data.source import Dataset
from prove.errors import ProveError, nearest
from prove.spec.recipe import Recipe

NOISE = "random_noise"
WEATHER = "synthweather"
BUILT_IN = (NOISE, WEATHER)
"""Names of generated images that PROVE makes itself."""


def compose(dataset: Dataset, recipe: Recipe, *, generated_root: str | Path | None = None) -> Dataset:
    """The dataset as a job with this recipe trains on it. Validation is never touched.

    The filter is for real images; a generated image comes with the image it was made from, whatever it shows.

    Args:
        dataset: as `prove.data.source.open_dataset` finds it.
        generated_root: folder that holds generated images; None asks the environment.

    Raises:
        ProveError: a condition that no training image has, or generated images that are missing or unsound.
    """
    name = resolve_strategy(recipe.strategy).generated
    made = _generated(dataset, name, generated_root) if name is not None else ()
    if recipe.domain_filter is not None:
        dataset = _narrowed(dataset, recipe.domain_filter)
    if name is None:
        return dataset
    kept = {sample.id for sample in dataset.train}
    samples = tuple(sample for sample, original in made if original in kept)
    if not samples:
        raise ProveError(
            f"No generated image of {GENERATED}{name} was made from an image that is trained on.",
            hint=f"--domain-filter keeps {'+'.join(recipe.domain_filter or ())}; the images were made from others.",
        )
    if recipe.real_gen_ratio is None:
        raise ProveError(f"Strategy {recipe.strategy!r} needs a share of real images.", hint="Give --real-gen-ratio.")
    return _mixed(dataset, samples, recipe.real_gen_ratio)


def counts_in_words(dataset: Dataset) -> str:
    """What an epoch of a composed dataset consists of: ``49 real and 49 generated images an epoch``; else nothing."""
    if not any(sample.pool == POOL for sample in dataset.train):
        return ""
    generated = dict(dataset.draws).get(POOL, 0)
    total = sum(count for _, count in dataset.draws)
    of = sum(sample.pool == POOL for sample in dataset.train)
    return (
        f"{total - generated} real and {generated} generated images an epoch, out of {len(dataset.train) - of} and {of}"
    )


def _generated(dataset: Dataset, name: str, generated_root: str | Path | None) -> tuple[tuple[Sample, str], ...]:
    """Generated samples, each with the id of its original."""
    root = find_generated_root(generated_root)
    if name in BUILT_IN:
        if root is not None and (root.path / name).exists():
            raise ProveError(
                f"{GENERATED}{name} is built in, and {root.path / name} (from {root.source}) has its name.",
                hint="Rename the folder.",
            )
        return _noise(dataset) if name == NOISE else _weather(dataset)
    if root is None:
        close = nearest(name, BUILT_IN)
        raise ProveError(
            f"Where are the images of {GENERATED}{name}? No folder was named for generated images.",
            hint=(f"Did you mean {GENERATED}{close[0]}, which is built in? " if close else "")
            + (
                f"Name the one that holds {name}/{MANIFEST} by --gen-root DIR, by the variable {GENERATED_VARIABLE}, "
                f"or in {config_file()}:\n  gen_root: DIR"
            ),
        )
    folder = root.path / name
    if not os.path.isfile(folder / MANIFEST):  # a name may be too long for any file
        raise _no_such_images(name, root.path, root.source)
    found = read_generated(folder, name, dataset)
    found.raise_if_bad(dataset.definition.name)
    return tuple(zip(found.samples, found.originals, strict=True))


def _no_such_images(name: str, root: Path, source: str) -> ProveError:
    there = sorted(path.parent.name for path in root.glob(f"*/{MANIFEST}"))
    if os.path.isdir(root / name):
        return ProveError(
            f"{root / name} has no {MANIFEST}, which says which image each generated one was made from.",
            hint=f"`prove data manifest {root / name} --dataset NAME` writes it.",
        )
    close = nearest(name, (*there, *BUILT_IN))
    hint = f"Did you mean {GENERATED}{close[0]}? " if close else ""
    listed = f"There are {', '.join(there)}" if there else "No folder there has one"
    return ProveError(
        f"There are no generated images {name!r}: {root} (from {source}) has no {name}/{MANIFEST}.",
        hint=f"{hint}{listed}; built in are {' and '.join(BUILT_IN)}.",
    )


def _noise(dataset: Dataset) -> tuple[tuple[Sample, str], ...]:
    """Every training sample once more, with its label and with noise for pixels."""
    return tuple(
        (replace(sample, id=f"{GENERATED}{NOISE}/{sample.id}", pool=POOL, noise=True), sample.id)
        for sample in dataset.train
    )


def _weather(dataset: Dataset) -> tuple[tuple[Sample, str], ...]:
    size = dataset.definition.size
    if size is None:
        raise ProveError(
            f"{GENERATED}{WEATHER} draws SynthStreet in other weather; {dataset.definition.name} is not drawn.",
            hint=f"Use --dataset SynthStreet, or images of a generator: --strategy {GENERATED}NAME --gen-root DIR.",
        )
    from prove.data.synthweather import ensure_weather  # draws with OpenCV, which nobody else needs

    found = read_generated(ensure_weather(size), WEATHER, dataset)
    found.raise_if_bad(dataset.definition.name)
    return tuple(zip(found.samples, found.originals, strict=True))


def _narrowed(dataset: Dataset, conditions: tuple[str, ...]) -> Dataset:
    manifest = dataset.train
    if manifest.conditions == (NO_CONDITION,):
        raise ProveError(
            f"The images of {manifest.dataset} have no conditions to choose {' or '.join(conditions)} from.",
            hint="Leave --domain-filter out to train on all of them.",
        )
    for condition in conditions:
        if condition not in manifest.conditions:
            close = nearest(condition, manifest.conditions)
            raise ProveError(
                f"No training image of {manifest.dataset} has the condition {condition!r}.",
                hint=(f"Did you mean {close[0]!r}? " if close else "") + f"There are {', '.join(manifest.conditions)}.",
            )
    samples = tuple(sample for sample in manifest.samples if sample.condition in conditions)
    left = {sample.pool for sample in samples}
    gone = [member.name for member in dataset.definition.members if member.name not in left]
    if gone:  # what is said to be trained on several datasets is
        raise ProveError(
            f"No training image of {gone[0]} has the condition {' or '.join(conditions)}.",
            hint=f"Name one of its conditions too, or train without {gone[0]}.",
        )
    draws = shares(_weights(dataset), len(samples)) if dataset.draws else ()
    narrowed = replace(manifest, samples=samples, labels_without_image=(), unused_images=())
    return replace(dataset, train=narrowed, draws=draws)


def _mixed(dataset: Dataset, generated: tuple[Sample, ...], ratio: float) -> Dataset:
    """Real and generated samples, of which an epoch draws as many as there are real ones, this share of them real."""
    total = len(dataset.train)
    real = math.floor(Fraction(str(ratio)) * total + Fraction(1, 2))
    if 0 < ratio < 1 and real in (0, total):
        raise ProveError(
            f"A share of {ratio:g} real images is less than one image of {total}: an epoch would have "
            f"{real} real and {total - real} generated ones.",
            hint=f"Possible are 0, 1 and multiples of 1/{total}, the nearest of which is taken.",
        )
    if real == total:
        return dataset
    if real == 0:
        return replace(dataset, train=_with(dataset.train, generated), draws=((POOL, total),))
    samples: Iterable[Sample] = dataset.train
    draws: tuple[tuple[str, int], ...] = (("", real),)
    if dataset.draws:
        draws = shares(_weights(dataset), real)
    else:  # all real ones are one pool
        samples = (replace(sample, pool="") for sample in samples)
    return replace(
        dataset,
        train=_with(dataset.train, (*samples, *generated)),
        draws=(*draws, (POOL, total - real)),
    )


def _weights(dataset: Dataset) -> dict[str, int]:
    """The weights that a joint dataset was asked for with: counts of an epoch are rounded already."""
    return {member.name: member.weight for member in dataset.definition.members if member.weight is not None}


def _with(manifest: Manifest, samples: Iterable[Sample]) -> Manifest:
    return replace(manifest, samples=tuple(sorted(samples, key=lambda sample: (sample.id, str(sample.image)))))
