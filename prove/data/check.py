"""Is a dataset sound? Every fault is listed, before a GPU hour is spent on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Literal

from prove.data.cache import recall, remember, stat_key
from prove.data.definition import spelling
from prove.data.generated import same_proportions
from prove.data.labels import UnknownLabelValueError, bit_depth, open_checked, read_image, read_label
from prove.data.manifest import WORKERS, Manifest, Sample
from prove.data.overlap import shared_images
from prove.data.source import Dataset
from prove.data.stats import Counts, count_pixels, remember_counts
from prove.errors import ProveError

_VERSION = "check-1"
_EXIF_ORIENTATION = 0x0112

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One fault.

    Args:
        severity: training refuses errors; warnings are for the user to judge.
        kind: what is wrong, one of a fixed set of words such as ``missing_label``.
        where: file, sample id or class.
    """

    severity: Severity
    kind: str
    split: str
    where: str
    message: str


@dataclass(frozen=True)
class CheckReport:
    """All findings about a dataset, errors first.

    Args:
        root: None where several folders hold it.
        images: images looked at, by split.
        asked: how the dataset is named on a command line.
        generated: how many of the errors are of generated images.
    """

    dataset: str
    root: str | None
    images: dict[str, int]
    findings: tuple[Finding, ...]
    asked: str
    generated: int = 0

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What training refuses."""
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What the user should judge."""
        return tuple(f for f in self.findings if f.severity == "warning")

    @property
    def total(self) -> str:
        """One line: what was looked at and what was found."""
        splits = ", ".join(f"{name} {count}" for name, count in self.images.items())
        found = f"{len(self.errors)} errors, {len(self.warnings)} warnings" if self.findings else "no faults"
        return f"{self.dataset}: {splits} images, {found}" + (f" ({self.root})" if self.root else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "dataset": self.dataset,
            "root": self.root,
            "ok": not self.errors,
            "images": self.images,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "findings": [asdict(finding) for finding in self.findings],
        }

    def raise_if_bad(self) -> None:
        """Refuse a dataset with errors.

        Raises:
            ProveError: there are errors; the first five are named.
        """
        if not self.errors:
            return
        shown = [f"  {f.split}: {f.message}" for f in self.errors[:5]]
        if len(self.errors) > len(shown):
            shown.append(f"  and {len(self.errors) - len(shown)} more")
        place, asked = f" in {self.root}" if self.root else "", quote(self.asked)
        generated = f"`prove data manifest FOLDER --dataset {asked} --check` lists"
        if self.generated == len(self.errors):
            hint = f"{generated} them all."
        elif self.generated:
            hint = f"`prove data check {asked}` lists those of real images, {generated} those of generated ones."
        else:
            hint = f"`prove data check {asked}` lists them all."
        raise ProveError(f"{self.dataset}{place} has {len(self.errors)} errors:\n" + "\n".join(shown), hint=hint)


def check(dataset: Dataset, splits: Sequence[str] = ("train", "val")) -> CheckReport:
    """Read every image and label of a dataset and list all faults.

    The answer is remembered until a file changes, so that training can ask each time.

    Args:
        splits: which of train and val to look at.
    """
    manifests = [manifest for manifest in dataset.splits if manifest.split in splits]
    findings = [finding for manifest in manifests for finding in _check_split(manifest)]
    if len(manifests) == 2:
        findings += shared_files(*manifests)
    findings.sort(key=lambda f: (f.severity, f.split, f.kind, f.where))
    images = {str(manifest.split): len(manifest) for manifest in manifests}
    made = {str(sample.image) for manifest in manifests for sample in manifest if sample.scaled}
    return CheckReport(
        dataset.definition.name,
        None if dataset.definition.members else str(dataset.root),
        images,
        tuple(findings),
        spelling(dataset.definition),
        sum(finding.severity == "error" and finding.where in made for finding in findings),
    )


def _check_split(manifest: Manifest) -> list[Finding]:
    key = _key(manifest)
    known = recall("checks", key)
    if known is not None:
        return [Finding(**finding) for finding in known]
    findings = _listing(manifest)
    with ThreadPoolExecutor(WORKERS) as pool:
        pairs = list(pool.map(lambda sample: _check_pair(manifest, sample), manifest.samples))
    findings += [finding for pair, _ in pairs for finding in pair]
    counts = [row for _, row in pairs if row is not None]
    if len(counts) == len(manifest) > 0:
        table = remember_counts(manifest, counts)
        if manifest.split == "train":
            findings += _absent_classes(manifest, table)
    remember("checks", key, [asdict(finding) for finding in findings])
    return findings


def _key(manifest: Manifest) -> str:
    files = [path for sample in manifest for path in (sample.image, sample.label)]
    loose = [*manifest.labels_without_image, *manifest.unused_images]
    ids = [f"{sample.id}={sample.condition}{'=scaled' * sample.scaled}" for sample in manifest]
    space = f"{manifest.label_space.classes}{manifest.spelling()}"
    return stat_key([*files, *loose], _VERSION, manifest.dataset, manifest.split, space, *ids)


def _listing(manifest: Manifest) -> list[Finding]:
    """Faults that the file names alone show."""
    split = manifest.split
    if not manifest.samples:
        return [
            Finding("error", "empty_split", split, split, f"The {split} split of {manifest.dataset} has no images.")
        ]
    times = Counter(sample.id for sample in manifest)
    repeated = [
        Finding("error", "duplicate_id", split, name, f"{count} images have the id {name!r} (suffixes or case differ).")
        for name, count in times.items()
        if count > 1
    ]
    orphans = [
        Finding("error", "missing_image", split, str(path), f"Label {path} has no image.")
        for path in manifest.labels_without_image
    ]
    unused = [
        Finding("warning", "unused_image", split, str(path), f"{path} is not used: its suffix is not the dataset's.")
        for path in manifest.unused_images
    ]
    return repeated + orphans + unused


def _check_pair(manifest: Manifest, sample: Sample) -> tuple[list[Finding], Counts | None]:
    """Faults of one image and its label, and the label's pixel counts if it is readable."""
    findings: list[Finding] = []

    def report(severity: Severity, kind: str, where: Path, message: str) -> None:
        findings.append(Finding(severity, kind, manifest.split, str(where), message))

    image_size: tuple[int, int] | None = None
    try:
        pixels = read_image(sample.image)
        image_size = pixels.shape[:2]
        for kind, message in _odd_image(sample.image):
            report("warning", kind, sample.image, message)
    except ProveError as error:
        report("error", "unreadable_image", sample.image, error.message)
    if not sample.label.exists():
        report(
            "error", "missing_label", sample.image, f"Image {sample.image} has no label: {sample.label} does not exist."
        )
        return findings, None
    try:
        label = read_label(sample.label, manifest.encoding_of(sample), manifest.label_space)
    except UnknownLabelValueError as error:
        report("error", "out_of_range_label", sample.label, error.message)
        return findings, None
    except ProveError as error:
        report("error", "unreadable_label", sample.label, error.message)
        return findings, None
    if image_size is not None and label.shape != image_size:
        sizes = f"{label.shape[1]}x{label.shape[0]}, its image {image_size[1]}x{image_size[0]}"
        if not sample.scaled:
            report("error", "size_mismatch", sample.label, f"Label {sample.label} is {sizes} (width x height).")
        elif same_proportions(image_size, label.shape):
            message = f"Generated image {sample.image} is resized: its label is {sizes} (width x height)."
            report("warning", "resized_image", sample.image, message)
        else:
            message = f"Generated image {sample.image} has other proportions: its label is {sizes} (width x height)."
            report("error", "size_mismatch", sample.image, message)
    if bit_depth(sample.label) == 1:
        report("warning", "one_bit_label", sample.label, f"Label {sample.label} has 1 bit: read as ids 0 and 1.")
    counts = count_pixels(label, manifest.label_space.num_classes)
    if not counts[:-1].any():
        report(
            "warning", "all_ignored", sample.label, f"Label {sample.label} has no pixel to train on: all are ignored."
        )
    return findings, counts


def _odd_image(path: Path) -> list[tuple[str, str]]:
    """What is read, though perhaps not as the user thinks."""
    odd: list[tuple[str, str]] = []
    with open_checked(path) as image:
        if image.mode == "L":
            odd.append(("grey_image", f"Image {path} is grey: read as three equal channels."))
        elif image.mode in ("RGBA", "P"):
            what = "an alpha channel, which is dropped" if image.mode == "RGBA" else "a palette, which is expanded"
            odd.append(("odd_image_mode", f"Image {path} has {what}."))
        if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            odd.append(("rotated_image", f"Image {path} asks viewers to rotate it (EXIF), which is not applied."))
    return odd


def _absent_classes(manifest: Manifest, table: Counts) -> list[Finding]:
    names = [name for name, count in zip(manifest.label_space.classes, table[0, :-1], strict=True) if count == 0]
    return [
        Finding("warning", "absent_class", manifest.split, name, f"Class {name!r} never occurs in the training labels.")
        for name in names
    ]


def shared_files(train: Manifest, val: Manifest) -> list[Finding]:
    """The same image in train and val makes every number on val worthless.

    Where several sources come together, joined or generated, copies of a file are found as well.
    """
    first = {sample.image.resolve() for sample in train}
    shared = {sample.image: "is in train and in val" for sample in val if sample.image.resolve() in first}
    if any(sample.pool for sample in train):
        for path in _copies(train, val):
            shared.setdefault(path, "is in val, and a copy of it in train")
    return [
        Finding("error", "shared_image", val.split, str(path), f"Image {path} {where}.")
        for path, where in shared.items()
    ]


def _copies(train: Manifest, val: Manifest) -> tuple[Path, ...]:
    """Images of val that have the bytes of one in train; remembered until a file changes."""
    key = stat_key([sample.image for sample in (*train, *val)], "shared-1", str(len(train)))
    known = recall("shared", key)
    if known is None:
        try:
            known = [str(sample.image) for sample in shared_images(train, val)]
        except ProveError:  # an image that can't be read is a finding of its own
            return ()
        remember("shared", key, known)
    return tuple(map(Path, known))
