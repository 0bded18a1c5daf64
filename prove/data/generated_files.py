"""From folders of generated images to their manifest: which image each was made from, by its name."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from prove.data.generated import COLUMNS, MANIFEST, bare_name
from prove.data.manifest import Sample
from prove.data.scan import IMAGE_FILES
from prove.data.source import Dataset
from prove.errors import ProveError
from prove.rundir import write_atomically


@dataclass(frozen=True)
class Unmatched:
    """A generated image whose original isn't clear."""

    file: Path
    message: str


@dataclass(frozen=True)
class Proposal:
    """The lines of a manifest, by column, and the images that got none."""

    rows: tuple[dict[str, str], ...]
    unmatched: tuple[Unmatched, ...]


def propose(folder: Path, dataset: Dataset, *, original: Path | None = None, suffix: str = "") -> Proposal:
    """Tie each generated image to the training image of its name.

    The folders in `folder` are the target domains; an image ``night/a/7.png`` was made from the training image whose
    path ends in ``a/7``, or if there is none from the only one that is called ``7``, whatever their file types.

    Args:
        original: folder of the originals, absolute or relative to the dataset's root: ``night/a/7.png`` was made from
            its ``a/7``.
        suffix: what the generator added to the names, such as ``_fake_B``.

    Raises:
        ProveError: there are no images, or some outside of a target domain's folder.
    """
    if not folder.is_dir():
        raise ProveError(f"{folder} is no folder.", hint="Name the one that holds a folder for each target domain.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_FILES and _is_shown(path, folder))
    outside = [path for path in files if path.parent == folder]
    if outside or not files:
        what = f"{len(outside)} images lie in {folder} itself, first {outside[0].name}" if outside else "No image there"
        raise ProveError(
            f"{folder}: {what}.", hint=f"Put them into a folder for each target domain: {folder / 'night'}/..."
        )
    finder = _ByName(dataset, original)
    names = {member.name: bare_name(member.definition) for member in dataset.definition.members}
    rows: list[dict[str, str]] = []
    unmatched: list[Unmatched] = []
    for file in files:
        relative = PurePosixPath(file.relative_to(folder).as_posix())
        stem = str(PurePosixPath(*relative.parts[1:]).with_suffix(""))
        if suffix and not stem.endswith(suffix):
            unmatched.append(Unmatched(file, f"{file}: its name does not end in {suffix!r}."))
            continue
        found = finder.find(stem.removesuffix(suffix) if suffix else stem)
        if isinstance(found, str):
            guess = "" if unmatched or suffix else finder.guess_suffix(stem)
            unmatched.append(Unmatched(file, f"{file}: {found}{guess}"))
            continue
        rows.append(
            {
                "gen_path": str(relative),
                "original_path": _below(found.image, dataset.root),
                "name": found.image.stem,
                "domain": found.condition,
                "dataset": names.get(found.pool) or bare_name(dataset.definition),
                "target_domain": relative.parts[0],
            }
        )
    return Proposal(tuple(rows), tuple(unmatched))


def write_manifest(folder: Path, rows: tuple[dict[str, str], ...]) -> Path:
    """Write the lines into a folder's manifest, whole or not at all. Returns the file.

    Raises:
        ProveError: the folder can't be written.
    """
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    file = folder / MANIFEST
    try:
        write_atomically(file, lambda handle: handle.write(text.getvalue().encode()))
    except OSError as error:
        raise ProveError(f"Can't write {file}: {error.strerror}.") from error
    return file


def _is_shown(path: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _below(path: Path, root: Path) -> str:
    path, root = path.absolute(), root.absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


class _ByName:
    """Finds training samples by the end of their paths, without suffix."""

    def __init__(self, dataset: Dataset, original: Path | None) -> None:
        self.base = None if original is None else (dataset.root / original.expanduser()).absolute()
        if self.base is not None and not self.base.is_dir():
            raise ProveError(f"--original {self.base} is no folder.", hint="It holds images of the training split.")
        self.train = _index(dataset.train.samples)
        self.val = _index(dataset.val.samples)
        self.name = dataset.definition.name

    def find(self, stem: str) -> Sample | str:
        """The sample, or why there is none."""
        called = self.train.get(PurePosixPath(stem).name, [])
        in_val = self.val.get(PurePosixPath(stem).name, [])
        if self.base is not None:
            ending = str(self.base / stem)
            found = [sample for path, sample in called if path == ending]
        else:
            found = [sample for path, sample in called if path.endswith(f"/{stem}")]
            if not found and any(path.endswith(f"/{stem}") for path, _ in in_val):
                return "was made from a validation image, on which nothing may be trained."
            found = found or [sample for _, sample in called]
        found = list({sample.id: sample for sample in found}.values())
        if len(found) == 1:
            return found[0]
        if found:
            one, other = found[0].image, found[1].image
            return f"could be made from {one} or {other}; --original DIR says which."
        if in_val and not called:
            return "was made from a validation image, on which nothing may be trained."
        where = self.name if self.base is None else str(self.base)
        return f"no training image of {where} is called {stem}."

    def guess_suffix(self, stem: str) -> str:
        """What a generator may have added to a name, for a message."""
        name = PurePosixPath(stem).name
        begun = max((known for known in self.train if name.startswith(known)), key=len, default="")
        return f" If the generator added {name.removeprefix(begun)!r}, say --suffix={name.removeprefix(begun)}." * bool(
            begun
        )


def _index(samples: tuple[Sample, ...]) -> dict[str, list[tuple[str, Sample]]]:
    """Last part of a path without suffix → (whole path without suffix, sample), for its file and for its id."""
    index: dict[str, list[tuple[str, Sample]]] = defaultdict(list)
    for sample in samples:
        whole = sample.image.absolute().with_suffix("").as_posix()
        short = f"{sample.image.absolute().parent.as_posix()}/{PurePosixPath(sample.id).name}"
        for path in dict.fromkeys((whole, short)):
            index[PurePosixPath(path).name].append((path, sample))
    return index
