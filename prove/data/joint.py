"""Several datasets trained on together: their labels in one label space, their samples in one list.

``multi_ACDC+MapillaryVistas`` takes every sample of both once per epoch; ``multi_2*ACDC+1*MapillaryVistas`` takes two
of ACDC for each one of MapillaryVistas, whatever their sizes. Validation is always all of each.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from prove.catalog.datasets import Layout, SplitFolders
from prove.catalog.label_maps import has_map, known_space, targets
from prove.catalog.label_spaces import CITYSCAPES19, LABEL_SPACES, LabelSpace, train_ids
from prove.data.definition import DatasetDefinition, Member, in_space, resolve_dataset
from prove.data.manifest import Manifest, Sample, Split
from prove.data.source import Dataset, open_dataset
from prove.errors import ProveError, unknown
from prove.spec.dataset_text import JOINT, DatasetText, Part

NO_CONDITION = "all"
_LARGEST_WEIGHT = 10_000


def resolve_joint(text: str) -> DatasetDefinition:
    """What ``multi_[WEIGHT*]A+[WEIGHT*]B[@SPACE]`` stands for, in whatever order its members are written.

    Without ``@SPACE`` a label space that all members have stays; otherwise it is Cityscapes' 19 classes.

    Raises:
        ProveError: fewer than two members, one that stands twice or is unknown, a malformed weight, or labels that
            can't be read in one label space.
    """
    asked = DatasetText.read(text)
    space = LABEL_SPACES.get(asked.space, where=f"in {text!r}") if asked.space else None
    parts = asked.parts
    if len(parts) < 2:
        raise ProveError(
            f"{text!r} joins one dataset with nothing.", hint="Name two or more: multi_ACDC+MapillaryVistas."
        )
    definitions = [_member(part.name, text) for part in parts]
    names = [definition.name for definition in definitions]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ProveError(f"{repeated[0]} stands twice in {text!r}.", hint="Give one dataset more weight: 2*NAME.")
    default = _default_space(definitions, space)
    chosen = space or default
    assert chosen is not None
    order = sorted(range(len(parts)), key=lambda k: names[k])
    weights = _normalised([_weight(part, text) for part in parts])
    short = _short_names(definitions)
    members = tuple(Member(short[k], in_space(definitions[k], chosen), weights[k]) for k in order)
    spelt = "+".join(
        names[k] if weight is None else f"{weight}*{names[k]}" for k, weight in ((k, weights[k]) for k in order)
    )
    usual = default is not None and chosen.classes == default.classes
    return DatasetDefinition(
        name=f"{JOINT}{spelt}{'' if usual else f'@{chosen.name}'}",
        label_space=chosen,
        layouts=(),
        default_crop=(min(d.default_crop[0] for d in definitions), min(d.default_crop[1] for d in definitions)),
        members=members,
    )


def _weight(part: Part, text: str) -> Fraction | None:
    if not part.weight:
        return None
    if not re.fullmatch(r"\d+(\.\d+)?|\.\d+", part.weight):
        raise ProveError(
            f"The weight {part.weight!r} of {part.name} in {text!r} is no number > 0.",
            hint="Write 2*ACDC or 0.5*ACDC.",
        )
    value = Fraction(part.weight)
    if value == 0:
        raise ProveError(f"The weight of {part.name} in {text!r} is 0.", hint="Leave it out instead.")
    return value


def _member(name: str, text: str) -> DatasetDefinition:
    if name.startswith(JOINT):
        raise ProveError(f"{text!r}: a joint dataset can't be a member of another.", hint="Name its members.")
    if not name:
        raise ProveError(f"{text!r} has a member without a name.", hint="Write multi_ACDC+MapillaryVistas.")
    inner = DatasetText.read(name)
    if inner.space:
        raise ProveError(
            f"{text!r} names the label space of {inner.parts[0].name} alone.",
            hint=f"Name one for all, at the end: @{inner.space}.",
        )
    return resolve_dataset(name)


def _default_space(definitions: Sequence[DatasetDefinition], asked: LabelSpace | None) -> LabelSpace | None:
    """The space that all have, else Cityscapes' 19 classes; None where these are not possible and others asked for."""
    first = definitions[0].label_space
    if all(definition.label_space.classes == first.classes for definition in definitions):
        return known_space(first) or first
    foreign = [d for d in definitions if not _readable(d, CITYSCAPES19)]
    if not foreign:
        return CITYSCAPES19
    if asked is not None:
        return None
    common = [name for name in targets() if all(_readable(d, LABEL_SPACES.get(name)) for d in definitions)]
    raise ProveError(
        f"The labels of {_spelt(foreign)} can't be read as {CITYSCAPES19.name!r}, in which datasets of different "
        "classes are joined.",
        hint=f"Name a label space that all can be read as: {', '.join(f'@{name}' for name in common)}."
        if common
        else "`prove data map` lists the maps that there are.",
    )


def _readable(definition: DatasetDefinition, space: LabelSpace) -> bool:
    return definition.label_space.classes == space.classes or has_map(definition.label_space, space)


def _spelt(definitions: Iterable[DatasetDefinition]) -> str:
    return ", ".join(
        f"{d.name} ({known.name if (known := known_space(d.label_space)) else f'{d.label_space.num_classes} classes'})"
        for d in definitions
    )


def _normalised(weights: Sequence[Fraction | None]) -> list[int | None]:
    """The smallest whole numbers in the same proportion; a member without a weight among others has 1."""
    if all(weight is None for weight in weights):
        return [None] * len(weights)
    given = [Fraction(1) if weight is None else weight for weight in weights]
    whole = [int(weight * math.lcm(*(each.denominator for each in given))) for weight in given]
    divisor = math.gcd(*whole)
    smallest = [weight // divisor for weight in whole]
    if max(smallest) > _LARGEST_WEIGHT:
        raise ProveError(
            f"Weights in the proportion {':'.join(map(str, smallest))} are finer than 1 to {_LARGEST_WEIGHT}.",
            hint="Round them.",
        )
    return list(smallest)


def _short_names(definitions: Sequence[DatasetDefinition]) -> list[str]:
    """Names for ids and conditions: SynthStreet without its parameters where it stands once, and never a comma."""
    bare = ["SynthStreet" if d.size is not None else d.name for d in definitions]
    pairs = zip(bare, definitions, strict=True)
    return [name if bare.count(name) == 1 else d.name.replace(", ", " ") for name, d in pairs]


def open_joint(definition: DatasetDefinition, root: str | Path | None) -> Dataset:
    """Find every member on this machine and join their splits.

    Raises:
        ProveError: a member is not found, or its share of an epoch comes to no sample at all.
    """
    roots = roots_of(definition, root)
    opened = {m.name: open_dataset(m.definition, root=roots.get(m.name)) for m in definition.members}
    train = _joined(definition, "train", {name: dataset.train for name, dataset in opened.items()})
    val = _joined(definition, "val", {name: dataset.val for name, dataset in opened.items()})
    common = Path(os.path.commonpath([dataset.root.absolute() for dataset in opened.values()]))
    weights = {m.name: m.weight for m in definition.members if m.weight is not None}
    return Dataset(definition, common, _LAYOUT, train, val, shares(weights, len(train)))


_LAYOUT = Layout("joint", SplitFolders("", ""), SplitFolders("", ""), (), ())


def shares(weights: Mapping[str, int], total: int) -> tuple[tuple[str, int], ...]:
    """How many samples of an epoch each member gives: its weight's share, to the sample by largest remainder.

    Args:
        weights: > 0, by the member's name; empty gives nothing.
        total: samples in an epoch.

    Raises:
        ProveError: a member would give none.
    """
    whole = sum(weights.values())
    counts = {name: total * weight // whole for name, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda name: (-(total * weights[name] % whole), name))
    for name in by_remainder[: total - sum(counts.values())] if weights else ():
        counts[name] += 1
    for name, count in counts.items():
        if count == 0 and total > 0:
            raise ProveError(
                f"{name} weighs {weights[name]} of {whole}, which of an epoch of {total} images is none.",
                hint="Give it more weight, or leave it out.",
            )
    return tuple(sorted(counts.items()))


def _joined(definition: DatasetDefinition, split: Split, parts: Mapping[str, Manifest]) -> Manifest:
    samples = [_belonging(sample, name, part) for name, part in parts.items() for sample in part]
    return Manifest(
        definition.name,
        split,
        definition.label_space,
        train_ids(definition.label_space),
        tuple(sorted(samples, key=lambda sample: (sample.id, str(sample.image)))),
        tuple(path for part in parts.values() for path in part.labels_without_image),
        tuple(path for part in parts.values() for path in part.unused_images),
    )


def _belonging(sample: Sample, name: str, manifest: Manifest) -> Sample:
    condition = name if sample.condition == NO_CONDITION else f"{name}/{sample.condition}"
    return replace(
        sample, id=f"{name}/{sample.id}", condition=condition, encoding=manifest.encoding_of(sample), pool=name
    )


def roots_of(definition: DatasetDefinition, root: str | Path | None) -> dict[str, str]:
    """The folder of each member that ``--data-root`` names one for.

    Args:
        root: ``ACDC=/data/acdc,MapillaryVistas=/data/vistas``, or a folder that holds one folder per member.

    Raises:
        ProveError: malformed, or a name that is no member.
    """
    if root is None:
        return {}
    text = str(root)
    if _is_folder(text):
        homes = {m.name: Path(text).expanduser() / (m.definition.home or m.definition.name) for m in definition.members}
        found = {name: str(path) for name, path in homes.items() if path.is_dir()}
        if not found:
            raise ProveError(
                f"--data-root {text} holds a folder of no member of {definition.name}.",
                hint=f"Name each: --data-root {','.join(f'{m.name}=DIR' for m in definition.members)}",
            )
        return found
    members = {m.definition.home or m.definition.name: m.name for m in definition.members}
    members |= {m.name: m.name for m in definition.members}
    named: dict[str, str] = {}
    for name, folder in ((members.get(name, name), folder) for name, folder in _pairs(text)):
        if name not in members:
            raise unknown("member", name, members, where=f"in --data-root {text!r}")
        if name in named:
            raise ProveError(f"{name} stands twice in --data-root {text!r}.")
        named[name] = folder
    return named


def absolute_roots(text: str) -> str:
    """``--data-root`` with every path in it absolute, for processes that run elsewhere."""
    if _is_folder(text):
        return str(Path(text).expanduser().resolve())
    return ",".join(f"{name}={Path(folder).expanduser().resolve()}" for name, folder in _pairs(text))


def _is_folder(text: str) -> bool:
    return "=" not in text or Path(text).expanduser().is_dir()


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [tuple(piece.strip() for piece in part.partition("=")[::2]) for part in text.split(",")]
    for name, folder in pairs:
        if not name or not folder:
            raise ProveError(
                f"--data-root {text!r} is neither a folder nor a list of them.",
                hint="Write ACDC=/data/acdc,CamVid=/data/camvid.",
            )
    return [(name, folder) for name, folder in pairs]
