"""`gen_synthweather`: SynthStreet's clear days seen in its other conditions, as an ideal generator would paint them.

Each clear training scene is drawn anew under every other sky, with everything where it stands, so that the label of the
original is exact. The images lie in the user's cache with the manifest that generated images come with.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prove.catalog.datasets import CONDITIONS
from prove.data.cache import recall, remember, stat_key
from prove.data.definition import SYNTHSTREET_VERSION, SynthStreetSize
from prove.data.generated import COLUMNS, MANIFEST, drawn_name
from prove.data.synth.png import png_bytes
from prove.data.synthstreet import cached_folder, draw_image, locked, whole_folder

NAME = "synthweather"
RECORD = "synthweather.json"
CLEAR = CONDITIONS[0]
ADVERSE = CONDITIONS[1:]

VERSION = 1
"""Raised whenever a pixel of these images changes."""


def ensure_weather(size: SynthStreetSize) -> Path:
    """The folder of these images in the cache, drawn if need be; it appears complete or not at all.

    Raises:
        ProveError: the cache can't be written.
    """
    street = cached_folder(size)
    folder = street.with_name(f"{street.name}-weather-{VERSION}")
    if _is_whole(folder, size):
        return folder
    with locked(folder.with_suffix(".lock")):
        if not _is_whole(folder, size):
            shutil.rmtree(folder, ignore_errors=True)
            with whole_folder(folder) as partial:
                _draw_all(partial, size)
    return folder


def _draw_all(folder: Path, size: SynthStreetSize) -> None:
    clear = range(0, size.train, len(CONDITIONS))
    jobs = [(index, seen) for index in clear for seen in ADVERSE]
    for seen in ADVERSE:
        (folder / seen).mkdir()

    def write(job: tuple[int, str]) -> None:
        index, seen = job
        image, _, _ = draw_image(size, "train", index, seen)
        (folder / seen / _file(index)).write_bytes(png_bytes(image))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(write, jobs))
    with (folder / MANIFEST).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for index, seen in jobs:
            table.writerow(
                {
                    "gen_path": f"{seen}/{_file(index)}",
                    "original_path": f"train/images/{CLEAR}/{_file(index)}",
                    "name": Path(_file(index)).stem,
                    "domain": CLEAR,
                    "dataset": drawn_name(size),
                    "target_domain": seen,
                }
            )
    (folder / RECORD).write_text(json.dumps({**_wanted(size), "files": _digest(folder)}) + "\n", encoding="utf-8")


def _file(index: int) -> str:
    return f"train_{index:05d}.png"


def _wanted(size: SynthStreetSize) -> dict[str, int | str]:
    return {"version": VERSION, "synthstreet": SYNTHSTREET_VERSION, "dataset": drawn_name(size), **vars(size)}


def _is_whole(folder: Path, size: SynthStreetSize) -> bool:
    """Whether the folder holds these images, byte by byte."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return False
    return {**_wanted(size), "files": record.get("files")} == record and record["files"] == _digest(folder)


def _digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of all files but the record; remembered until one changes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    key = stat_key(files, f"synthweather-{VERSION}")
    known = recall("fingerprints", key)
    if isinstance(known, str):
        return known
    digest = hashlib.sha256()
    for path in files:
        digest.update(
            f"{path.relative_to(folder).as_posix()}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
        )
    remember("fingerprints", key, digest.hexdigest())
    return digest.hexdigest()
