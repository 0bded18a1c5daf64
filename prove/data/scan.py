"""From a layout and a root to the samples of a split."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prove.catalog.datasets import ConditionRule, LabelFiles, Layout, SplitFolders
from prove.catalog.label_spaces import LabelSpace
from prove.data.manifest import Manifest, Sample, Split
from prove.errors import ProveError

IMAGE_FILES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_CONDITION = "{condition}"


@dataclass(frozen=True)
class _Folders:
    """An image folder and its label folder; `begin` starts the ids of what is inside."""

    images: Path
    labels: Path
    begin: str


def folders_of(root: Path, split: SplitFolders) -> list[_Folders]:
    """The folder pairs of a split that exist, one for each condition if the layout is by condition."""
    if _CONDITION not in split.images:
        images = root / split.images
        return [_Folders(images, root / split.labels, "")] if images.is_dir() else []
    before, after = split.images.split(_CONDITION)
    base = root / before
    names = sorted(path.name for path in base.iterdir() if path.is_dir()) if base.is_dir() else []
    pairs = ((name, root / split.images.replace(_CONDITION, name)) for name in names)
    return [
        _Folders(images, root / split.labels.replace(_CONDITION, name), f"{name}/")
        for name, images in pairs
        if after == "" or images.is_dir()
    ]


def matches(root: Path, layout: Layout) -> bool:
    """Whether a dataset in this layout is under the root: at least its folders of training images and labels."""
    return any(folders.labels.is_dir() for folders in folders_of(root, layout.train))


def scan(root: Path, layout: Layout, split: Split, *, dataset: str, label_space: LabelSpace) -> Manifest:
    """List a split. Files are paired by name alone; whether they exist and are sound is `prove.data.check`'s business.

    Raises:
        ProveError: the condition of an image isn't clear, or label folders spell their files differently.
    """
    split_folders = layout.train if split == "train" else layout.val
    folders = folders_of(root, split_folders)
    files = [(folder, list(_files(folder.images)), set(_files(folder.labels))) for folder in folders]
    spelling = _label_spelling(layout, [name for _, _, labels in files for name in labels])
    samples: list[Sample] = []
    orphans: list[Path] = []
    unused: list[Path] = []
    for folder, images, labels in files:
        paired: set[str] = set()
        for name in images:
            stem = _without_suffix(name, layout.image_suffixes)
            if stem is None or not _fits(name, split_folders.glob):
                if split_folders.glob == "" and name.lower().endswith(IMAGE_FILES) and name not in labels:
                    unused.append(folder.images / name)
                continue
            label = stem + spelling.suffix
            paired.add(label)
            condition = condition_of(folder.begin + stem, layout.condition, dataset=dataset)
            samples.append(Sample(folder.begin + stem, folder.images / name, folder.labels / label, condition))
        orphans += [folder.labels / name for name in labels if name.endswith(spelling.suffix) and name not in paired]
    samples.sort(key=lambda sample: (sample.id, str(sample.image)))
    return Manifest(
        dataset, split, label_space, spelling.encoding, tuple(samples), tuple(sorted(orphans)), tuple(sorted(unused))
    )


def condition_of(sample_id: str, rule: ConditionRule, *, dataset: str) -> str:
    """The condition that a rule reads from a sample id.

    Raises:
        ProveError: the rule finds nothing and has no default.
    """
    match = re.search(rule.pattern, sample_id) if rule.pattern else None
    if match is not None:
        found = match.group(1)
        return dict(rule.names).get(found.lower(), found)
    if rule.default is None:
        raise ProveError(
            f"{dataset}: no condition can be read from {sample_id!r} (looking for {rule.pattern}).",
            hint="Put images into a folder per condition, such as clear_day; in a YAML file, correct `condition`.",
        )
    return rule.default


def _files(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder, relative to it, with forward slashes. Hidden files are left out."""
    for here, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(here).relative_to(folder)
        for name in sorted(names):
            if not name.startswith("."):
                yield (relative / name).as_posix()


def _fits(name: str, glob: str) -> bool:
    """Like `Path.glob` on a relative path: `*` stays inside one folder."""
    if not glob:
        return True
    parts, patterns = name.split("/"), glob.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


def _without_suffix(name: str, suffixes: tuple[str, ...]) -> str | None:
    fitting = [suffix for suffix in suffixes if name.endswith(suffix)]
    return name[: -len(max(fitting, key=len))] if fitting else None


def _label_spelling(layout: Layout, names: list[str]) -> LabelFiles:
    for spelling in layout.labels:
        if any(name.endswith(spelling.suffix) for name in names):
            return spelling
    return layout.labels[0]
