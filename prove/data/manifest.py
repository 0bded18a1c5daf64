"""What a split consists of: samples, and a fingerprint of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prove.catalog.label_spaces import Encoding, LabelSpace
from prove.data.cache import recall, remember, stat_key
from prove.errors import ProveError

Split = Literal["train", "val"]
WORKERS = 8
"""Threads that read files; reading and decoding release the interpreter lock."""


@dataclass(frozen=True)
class Sample:
    """One image with its label.

    Args:
        id: the image's path relative to the split's folder, without suffix, with forward slashes; unique in its split.
        condition: weather or time of day; "all" where the dataset doesn't tell.
        encoding: how its label file spells train ids, where that differs from its manifest's.
        pool: which of several sources it belongs to, where an epoch draws a set share from each.
        noise: its pixels are replaced by noise that depends on its id alone; the label stays.
        scaled: its image may be of another size than its label, in the same proportions, and is then resized to it.
    """

    id: str
    image: Path
    label: Path
    condition: str
    encoding: Encoding | None = None
    pool: str = ""
    noise: bool = False
    scaled: bool = False


def evenly_spaced(samples: tuple[Sample, ...], limit: int | None) -> tuple[Sample, ...]:
    """``limit`` samples spread over the whole sequence, the same ones always; all where there is no limit."""
    if limit is None or limit >= len(samples):
        return samples
    return tuple(samples[i * len(samples) // limit] for i in range(limit))


@dataclass(frozen=True)
class Manifest:
    """The samples of one split, sorted by id.

    Args:
        labels_without_image: label files that no image belongs to.
        unused_images: image files whose suffix isn't the dataset's.
    """

    dataset: str
    split: Split
    label_space: LabelSpace
    encoding: Encoding
    samples: tuple[Sample, ...]
    labels_without_image: tuple[Path, ...] = ()
    unused_images: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def encoding_of(self, sample: Sample) -> Encoding:
        """How a sample's label file spells train ids."""
        return sample.encoding or self.encoding

    def spelling(self) -> str:
        """All that decides how its label files are read, as text."""
        own = {str(s.encoding.canonical()) for s in self.samples if s.encoding is not None}
        return "\n".join([str(self.encoding.canonical()), *sorted(own)])

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions that occur, sorted."""
        return tuple(sorted({sample.condition for sample in self.samples}))


def fingerprint(manifest: Manifest) -> str:
    """SHA-256 over the sorted ids and the bytes of their image and label files.

    Equal on any machine and under any root. Remembered until a file's size or modification time changes.

    Raises:
        ProveError: a file can't be read.
    """
    ids = [_identity(sample) for sample in manifest]
    key = stat_key((path for s in manifest for path in (s.image, s.label)), "fingerprint-1", *ids)
    known = recall("fingerprints", key)
    if isinstance(known, str):
        return known
    digest = hashlib.sha256()
    with ThreadPoolExecutor(WORKERS) as pool:
        for sample, content in zip(manifest, pool.map(_content, manifest.samples), strict=True):
            digest.update(f"{_identity(sample)}\n{content}\n".encode())
    remember("fingerprints", key, digest.hexdigest())
    return digest.hexdigest()


def _identity(sample: Sample) -> str:
    """What of a sample, beside its bytes, decides what is trained on."""
    own = [str(sample.encoding.canonical())] if sample.encoding is not None else []
    return "\n".join([sample.id, *own, *(["noise"] if sample.noise else [])])


def _content(sample: Sample) -> str:
    return " ".join(_sha256(path) for path in (sample.image, sample.label))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ProveError(
            f"Can't read {path}: {error.strerror}.", hint="Run `prove data check` on the dataset."
        ) from error
