"""Images that two lists of samples share: a result on images that were trained on is no result."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prove.data.manifest import WORKERS, Manifest, Sample
from prove.errors import ProveError


def shared_images(trained: Manifest, evaluated: Iterable[Sample]) -> tuple[Sample, ...]:
    """The evaluated samples whose image was trained on, be it the same file or a copy of it, under whatever name.

    Files of equal size are compared by their bytes; an image that was encoded anew is not recognised.

    Args:
        trained: the training split.
        evaluated: samples of any dataset.

    Raises:
        ProveError: an image can't be read.
    """
    samples = tuple(evaluated)
    by_size: dict[int, set[Path]] = defaultdict(set)
    for path in {sample.image.resolve() for sample in trained}:
        by_size[_size(path)].add(path)
    twins = [sample for sample in samples if _size(sample.image) in by_size]
    files = {path for sample in twins for path in by_size[_size(sample.image)]} | {s.image.resolve() for s in twins}
    with ThreadPoolExecutor(WORKERS) as pool:
        content = dict(zip(files, pool.map(_digest, files), strict=True))
    known = {content[path] for paths in by_size.values() for path in paths if path in content}
    return tuple(sample for sample in twins if content[sample.image.resolve()] in known)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ProveError(f"Can't read {path}: {error.strerror}.") from error


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise ProveError(f"Can't read {path}: {error.strerror}.") from error
