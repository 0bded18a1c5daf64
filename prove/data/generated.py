"""Generated images that stand beside real ones: read from a folder's manifest, each tied to the image it was made from.

A generated image is trained on with the label of its original. What ties the two is one line of a CSV file; a line that
is wrong would train on a wrong label, so every line is held against the dataset and the disk before training.
"""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prove.catalog.datasets import CONDITIONS, DATASETS
from prove.data.definition import DatasetDefinition, SynthStreetSize
from prove.data.manifest import Sample
from prove.data.source import Dataset
from prove.errors import ProveError, nearest

MANIFEST = "manifest.csv"
COLUMNS = ("gen_path", "original_path", "name", "domain", "dataset", "target_domain")
POOL = "generated images"
"""The pool of all generated samples of a dataset, see `prove.data.manifest.Sample`."""

_NEEDED = ("gen_path", "original_path", "dataset", "target_domain")


def same_proportions(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (height, width) are one picture at two scales, up to the rounding of the smaller to pixels."""
    (height, width), (tall, wide) = sorted((size, other))
    return min(abs(width - height * wide / tall), abs(height - width * tall / wide)) <= 0.5


def bare_name(definition: DatasetDefinition) -> str:
    """What a dataset's images go by, whatever its labels are read as and however many of them it has.

    Other seeds and sizes of SynthStreet draw other scenes under the same file names, so they stay in the name.
    """
    return definition.home or definition.name if definition.size is None else drawn_name(definition.size)


def drawn_name(size: SynthStreetSize) -> str:
    """`bare_name` of SynthStreet: ``SynthStreet(seed=1)``.

    How many training images there are decides what they show only while they are fewer than its conditions.
    """
    ignored = ("val",) if size.train < len(CONDITIONS) else ("train", "val")
    said = [f"{name}={value}" for name, value in size.changed().items() if name not in ignored]
    return f"SynthStreet({', '.join(said)})" if said else "SynthStreet"


@dataclass(frozen=True)
class Row:
    """One line of a manifest.

    Args:
        line: its number in the file, from 1.
        gen_path: the generated image, absolute or relative to the manifest's folder.
        original_path: the training image it was made from, absolute or relative to the dataset's root.
        name, domain: what the generator called it; for people, nothing depends on it.
        dataset: the dataset of the original.
        target_domain: the condition that it shows.
    """

    line: int
    gen_path: str
    original_path: str
    name: str
    domain: str
    dataset: str
    target_domain: str


@dataclass(frozen=True)
class Fault:
    """What is wrong with a line.

    Args:
        kind: one of a fixed set of words, such as ``missing_image``.
        message: the whole sentence, with the value.
        several: how a sentence calls many of its kind.
    """

    line: int
    column: str
    kind: str
    message: str
    several: str


@dataclass(frozen=True)
class GeneratedSet:
    """What a manifest holds for one dataset.

    Args:
        rows: lines that are this dataset's.
        elsewhere: lines of other known datasets, by name; they are left alone.
        samples: of the lines without a fault, sorted by id.
        originals: ids of the training samples that they were made from, one for each.
    """

    file: Path
    rows: int
    elsewhere: Counter[str]
    samples: tuple[Sample, ...]
    originals: tuple[str, ...]
    faults: tuple[Fault, ...]

    def raise_if_bad(self, dataset: str) -> None:
        """Refuse a manifest with faults.

        Raises:
            ProveError: there are some; how many of each kind, and the first of them.
        """
        if not self.faults:
            return
        first: dict[str, Fault] = {}
        for fault in self.faults:
            first.setdefault(fault.kind, fault)
        counts = Counter(fault.kind for fault in self.faults)
        said = [
            f"  {fault.several}: {counts[kind]}, first in line {fault.line}, {fault.column}: {fault.message}"
            for kind, fault in first.items()
        ]
        raise ProveError(
            f"{self.file} can't be trained on:\n" + "\n".join(said),
            hint=f"`prove data manifest {self.file.parent} --dataset {dataset} --check` lists every line.",
        )


def read_generated(folder: Path, name: str, dataset: Dataset) -> GeneratedSet:
    """The generated images of a folder that belong to a dataset's training images.

    Args:
        name: what the images are called, ``cycleGAN``; begins their ids.
        dataset: all of it; a generated image may stem from any training image.

    Raises:
        ProveError: there is no manifest, it can't be read, or it holds nothing of this dataset.
    """
    file = folder / MANIFEST
    rows = read_rows(file)
    finder, base = _Originals(dataset), os.path.abspath(folder)
    own: list[Row] = []
    elsewhere: Counter[str] = Counter()
    for row in rows:
        if row.dataset.partition("(")[0] in DATASETS.names and row.dataset not in finder.names:
            elsewhere[row.dataset] += 1
        else:
            own.append(row)
    if not own:
        raise ProveError(
            f"{file} holds no image of {dataset.definition.name}, only of {', '.join(sorted(elsewhere))}.",
            hint="The column dataset says whose each image is.",
        )
    faults: list[Fault] = []
    made: list[tuple[Sample, str]] = []
    taken: dict[str, int] = {}
    times: Counter[str] = Counter()
    for row in own:
        wrong, original = _look(row, base, finder, taken)
        faults += wrong
        if wrong or original is None:
            continue
        start = f"gen_{name}/{row.target_domain}/{original.id}"
        times[start] += 1
        made.append(
            (
                replace(
                    original,
                    id=start if times[start] == 1 else f"{start}#{times[start]}",
                    image=Path(_absolute(row.gen_path, base)),
                    condition=finder.condition(row.target_domain, original),
                    pool=POOL,
                    scaled=True,
                ),
                original.id,
            )
        )
    made.sort(key=lambda pair: pair[0].id)
    return GeneratedSet(file, len(own), elsewhere, tuple(s for s, _ in made), tuple(o for _, o in made), tuple(faults))


def read_rows(file: Path) -> tuple[Row, ...]:
    """The lines of a manifest.

    Raises:
        ProveError: not there, not UTF-8, not CSV, a column missing, a line of another length, or no lines.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ProveError(
            f"{file.parent} has no {MANIFEST}, which says which image each generated one was made from.",
            hint=f"`prove data manifest {file.parent} --dataset NAME` writes it.",
        ) from error
    except UnicodeDecodeError as error:
        raise ProveError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    except OSError as error:
        raise ProveError(f"Can't read {file}: {error.strerror}.") from error
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        head = [name.strip() for name in next(reader, [])]
        _require_columns(file, head)
        rows = []
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            if len(values) != len(head):
                raise ProveError(
                    f"{file}, line {reader.line_num}: {len(values)} values under {len(head)} columns.",
                    hint="A value with a comma stands in double quotes.",
                )
            named = dict(zip(head, (value.strip() for value in values), strict=True))
            rows.append(Row(reader.line_num, **{column: named[column] for column in COLUMNS}))
    except csv.Error as error:
        raise ProveError(f"{file}, line {reader.line_num}: not CSV: {error}.") from error
    if not rows:
        raise ProveError(f"{file} lists no images.")
    return tuple(rows)


def _require_columns(file: Path, head: Sequence[str]) -> None:
    missing = [column for column in COLUMNS if column not in head]
    if missing:
        close = nearest(missing[0], [name for name in head if name not in COLUMNS])
        raise ProveError(
            f"{file}, line 1: the column {missing[0]!r} is missing.",
            hint=(f"Is it {close[0]!r}? " if close else "") + f"Its columns are {','.join(COLUMNS)}.",
        )
    repeated = [name for name, count in Counter(head).items() if count > 1]
    if repeated:
        raise ProveError(f"{file}, line 1: the column {repeated[0]!r} stands twice.")


def _absolute(path: str, folder: str) -> str:
    return os.path.normpath(os.path.join(folder, path))


def _look(row: Row, folder: str, finder: _Originals, taken: dict[str, int]) -> tuple[list[Fault], Sample | None]:
    """What is wrong with a line, and the training sample that it names."""
    faults: list[Fault] = []

    def report(column: str, kind: str, several: str, message: str) -> None:
        faults.append(Fault(row.line, column, kind, message, several))

    empty = [column for column in _NEEDED if not getattr(row, column)]
    if empty:
        report(empty[0], "empty_value", "lines without a value", "it is empty.")
        return faults, None
    if row.dataset not in finder.names:
        close = nearest(row.dataset, (*finder.names, *DATASETS.names))
        guess = f" Did you mean {close[0]!r}?" if close else f" This dataset is {finder.names[0]}."
        report("dataset", "unknown_dataset", "unknown datasets", f"{row.dataset!r} is no dataset.{guess}")
        return faults, None
    image = _absolute(row.gen_path, folder)
    if finder.holds(image):
        report("gen_path", "real_image", "real images named as generated", f"{image} is an image of the dataset.")
    elif image in taken:
        report("gen_path", "repeated_image", "images that stand twice", f"{image} stands in line {taken[image]} too.")
    elif not os.path.isfile(image):
        report("gen_path", "missing_image", "missing generated images", f"{image} does not exist.")
    taken.setdefault(image, row.line)
    original, split = finder.find(row)
    if split == "val":
        report(
            "original_path", "validation_image", "originals from validation",
            f"{row.original_path} is a validation image: training on it would spoil every result.",
        )  # fmt: skip
    elif original is None:
        report(
            "original_path", "unknown_original", "originals that are no training images",
            f"{row.original_path} is no training image of {row.dataset}"
            f" in {finder.dataset.root}.{finder.guess(row.original_path)}",
        )  # fmt: skip
    return faults, original


class _Originals:
    """Finds the samples of a dataset by the paths of their images."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.root = os.path.abspath(dataset.root)
        self.train = {os.path.normpath(sample.image.absolute()): sample for sample in dataset.train}
        self.val = {os.path.normpath(sample.image.absolute()): sample for sample in dataset.val}
        self._resolved: tuple[dict[str, Sample], dict[str, Sample]] | None = None
        self._by_name: defaultdict[tuple[str, str], list[str]] | None = None
        self.pools = {bare_name(member.definition): member.name for member in dataset.definition.members}
        self.names = tuple(dict.fromkeys((bare_name(dataset.definition), dataset.definition.name, *self.pools)))

    def holds(self, image: str) -> bool:
        """Whether this is an image of the dataset, by whatever way it is reached."""
        return any(image in split for split in (self.train, self.val)) or any(
            os.path.realpath(image) in split for split in self._by_resolved()
        )

    def find(self, row: Row) -> tuple[Sample | None, str]:
        """The training sample of an original and ``train``; or None and ``val`` or nothing."""
        place = _absolute(row.original_path, self.root)
        if row.dataset in self.pools and not os.path.isabs(row.original_path):
            place = self._of_member(row, place)
        train, val = self.train, self.val
        if place not in train and place not in val:  # perhaps the same file by another way, through links
            train, val = self._by_resolved()
            place = os.path.realpath(place)
        found = train.get(place) or val.get(place)
        if found is None or found.pool != self.pools.get(row.dataset, found.pool):
            return None, ""
        return (found, "train") if place in train else (None, "val")

    def _of_member(self, row: Row, place: str) -> str:
        """The only image of a joint dataset's member whose path ends so: the member's root is not known here."""
        if (known := self.train.get(place) or self.val.get(place)) and known.pool == self.pools[row.dataset]:
            return place
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for path, sample in (*self.train.items(), *self.val.items()):
                self._by_name[sample.pool, os.path.basename(path)].append(path)
        ending = os.sep + os.path.normpath(row.original_path)
        called = self._by_name[self.pools[row.dataset], os.path.basename(ending)]
        found = [path for path in called if path.endswith(ending)]
        return found[0] if len(found) == 1 else place

    def _by_resolved(self) -> tuple[dict[str, Sample], dict[str, Sample]]:
        if self._resolved is None:
            self._resolved = (
                {os.path.realpath(path): sample for path, sample in self.train.items()},
                {os.path.realpath(path): sample for path, sample in self.val.items()},
            )
        return self._resolved

    def guess(self, path: str) -> str:
        """Where an image of that name does lie, for a message."""
        same = [sample.image for sample in self.dataset.train if sample.image.name == Path(path).name]
        return f" One of that name is {same[0]}." if same else ""

    def condition(self, name: str, original: Sample) -> str:
        """A target domain as the dataset calls its conditions: ``fog`` is ``foggy``, ``ACDC/foggy`` in a joint one."""
        usual = dict(self.dataset.layout.condition.names).get(name.lower(), name)
        return f"{original.pool}/{usual}" if original.pool else usual
