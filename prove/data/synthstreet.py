"""SynthStreet: street scenes with exact labels, drawn once into the user's cache.

Equal sizes, counts and seed give equal files on any machine. From seven images in a split on, every class occurs in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prove.catalog.datasets import CONDITIONS, SYNTHSTREET
from prove.data.cache import cache_dir, writable_folder
from prove.data.definition import SYNTHSTREET_VERSION, SynthStreetSize
from prove.data.manifest import Split, fingerprint
from prove.data.scan import scan
from prove.data.synth.canvas import Draw
from prove.data.synth.png import png_bytes
from prove.data.synth.scene import RARE, draw_scene
from prove.data.synth.weather import photograph, shrink
from prove.errors import ProveError

RECORD = "synthstreet.json"
_SPLITS: tuple[Split, Split] = ("train", "val")

UInt8 = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]


def draw_image(size: SynthStreetSize, split: Split, index: int, seen: str | None = None) -> tuple[UInt8, UInt8, str]:
    """Draw one image of a split.

    Args:
        seen: show the same scene in this condition instead of its own. The labels stay what they are.

    Returns:
        The image uint8 [H, W, 3] RGB, its train ids uint8 [H, W] with 255 to ignore, and its condition.
    """
    count = size.train if split == "train" else size.val
    condition = CONDITIONS[index % len(CONDITIONS)]
    rounds = min(count, len(CONDITIONS))
    # Shifted in every round, so that a rare class is not bound to one condition.
    shown = frozenset(RARE[(index + index // len(CONDITIONS)) % rounds :: rounds])
    draw = Draw(SYNTHSTREET_VERSION, size.seed, _SPLITS.index(split), index)
    canvas, camera = draw_scene(size.height, size.width, condition, shown, draw, seen)
    view = shrink(canvas, camera)
    if seen is None or seen == condition:
        return photograph(view, condition, draw), view.label, condition
    weather = Draw(SYNTHSTREET_VERSION, size.seed, _SPLITS.index(split), index, 1 + CONDITIONS.index(seen))
    return photograph(view, seen, weather), view.label, seen


def generate(root: Path, size: SynthStreetSize, *, progress: Progress | None = None) -> Path:
    """Draw a whole dataset into a new folder; it appears complete or not at all.

    Args:
        root: created; must not exist, or be empty.
        progress: called with (images done, images in all).

    Raises:
        ProveError: the folder holds something, or can't be written.
    """
    with whole_folder(root) as partial:
        _draw_all(partial, size, progress)
    return root


@contextmanager
def whole_folder(root: Path) -> Iterator[Path]:
    """A new folder to write into, which becomes `root` when all is written, or vanishes.

    Raises:
        ProveError: `root` holds something, or can't be written.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ProveError(f"{root} exists and is not an empty folder.", hint="Choose a new folder for SynthStreet.")
    writable_folder(root.parent)
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    except OSError as error:
        raise ProveError(f"Can't write in {root.parent}: {error.strerror}.", hint="Choose another folder.") from error
    try:
        yield partial
        partial.chmod(0o755)
        if root.exists():
            root.rmdir()
        partial.rename(root)
    except OSError as error:
        raise ProveError(f"Can't write SynthStreet into {root}: {error.strerror}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _draw_all(root: Path, size: SynthStreetSize, progress: Progress | None) -> None:
    jobs: list[tuple[Split, int]] = [(split, index) for split in _SPLITS for index in range(getattr(size, split))]
    for split in _SPLITS:
        for kind in ("images", "labels"):
            for condition in CONDITIONS:
                (root / split / kind / condition).mkdir(parents=True, exist_ok=True)

    def write(job: tuple[Split, int]) -> None:
        split, index = job
        image, label, condition = draw_image(size, split, index)
        name = f"{split}_{index:05d}.png"
        (root / split / "images" / condition / name).write_bytes(png_bytes(image))
        (root / split / "labels" / condition / name).write_bytes(png_bytes(label))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, _ in enumerate(pool.map(write, jobs), start=1):
            if progress is not None:
                progress(done, len(jobs))
    record = {"version": SYNTHSTREET_VERSION, **vars(size), "fingerprints": _fingerprints(root)}
    (root / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _fingerprints(root: Path) -> dict[str, str]:
    layout = SYNTHSTREET.layouts[0]
    space = SYNTHSTREET.label_space
    manifests = (scan(root, layout, split, dataset="SynthStreet", label_space=space) for split in _SPLITS)
    return {manifest.split: fingerprint(manifest) for manifest in manifests}


def fault(root: Path, size: SynthStreetSize) -> str:
    """Why a folder isn't this SynthStreet, or "" if it is, file by file."""
    try:
        record: dict[str, Any] = json.loads((root / RECORD).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return f"{root / RECORD} is missing or unreadable"
    wanted = {"version": SYNTHSTREET_VERSION, **vars(size)}
    for key, value in wanted.items():
        if record.get(key) != value:
            return f"it was drawn with {key}={record.get(key)}, not {value}"
    if record.get("fingerprints") != _fingerprints(root):
        return "its files were changed since they were drawn"
    return ""


def ensure(size: SynthStreetSize, root: Path | None = None) -> Path:
    """The folder of a SynthStreet: the one named, checked, or the one in the cache, drawn if need be.

    Safe when several processes ask at once: one draws, the others wait.

    Raises:
        ProveError: the named folder holds another SynthStreet, or the cache can't be written.
    """
    if root is not None:
        if problem := fault(root, size):
            raise ProveError(
                f"SynthStreet: {root} can't be used, because {problem}.",
                hint="Draw it with `prove data make synthstreet --out DIR`, or leave the folder away to use the cache.",
            )
        return root
    folder = cached_folder(size)
    if (folder / RECORD).exists() and not fault(folder, size):
        return folder
    with locked(folder.with_suffix(".lock")):
        if folder.exists() and fault(folder, size):
            shutil.rmtree(folder)
        if not folder.exists():
            generate(folder, size)
    return folder


def cached_folder(size: SynthStreetSize) -> Path:
    """Where the cache keeps this SynthStreet; it need not be there yet."""
    key = hashlib.sha256(json.dumps({"version": SYNTHSTREET_VERSION, **vars(size)}).encode()).hexdigest()[:12]
    return writable_folder(cache_dir() / "synthstreet") / f"{size.height}x{size.width}-{key}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, whatever happens to it."""
    try:
        file = path.open("w")
    except OSError as error:
        raise ProveError(
            f"Can't write {path}: {error.strerror}.", hint="Set PROVE_CACHE to a writable folder."
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def contact_sheet(size: SynthStreetSize, rows: int = 3) -> UInt8:
    """Images and labels side by side: a column per condition, `rows` pairs each. Returns uint8 [H, W, 3], RGB."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: SYNTHSTREET.label_space.num_classes] = SYNTHSTREET.label_space.palette
    lines: list[UInt8] = []
    for row in range(rows):
        drawn = [draw_image(size, "train", row * len(CONDITIONS) + k) for k in range(len(CONDITIONS))]
        lines.append(np.hstack([image for image, _, _ in drawn]))
        lines.append(np.hstack([colors[label] for _, label, _ in drawn]))
    return np.vstack(lines)
