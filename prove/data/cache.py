"""The user's cache folder, and answers about files remembered until the files change."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import platformdirs

from prove.errors import ProveError


def cache_dir(env: Mapping[str, str] = os.environ) -> Path:
    """Where PROVE keeps what it can make again: `PROVE_CACHE`, or the platform's user cache."""
    return Path(env.get("PROVE_CACHE") or platformdirs.user_cache_dir("prove"))


def writable_folder(path: Path) -> Path:
    """Create a folder inside the cache.

    Raises:
        ProveError: it can't be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProveError(
            f"Can't create the cache folder {path}: {error.strerror}.", hint="Set PROVE_CACHE to a writable folder."
        ) from error
    return path


def stat_key(paths: Iterable[Path], *context: str) -> str:
    """A hash that changes when a file appears, vanishes, or changes in size or modification time.

    Args:
        context: anything else the answer depends on, such as a version or an encoding.
    """
    digest = hashlib.sha256("\0".join(context).encode())
    for path in paths:
        try:
            stat = path.stat()
            line = f"\n{path.absolute()}\t{stat.st_size}\t{stat.st_mtime_ns}"
        except OSError as error:
            line = f"\n{path.absolute()}\t{type(error).__name__}"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def recall(kind: str, key: str) -> Any | None:
    """What `remember` stored under this key, or None. An unreadable entry counts as absent: it is made again."""
    try:
        return json.loads(_entry(kind, key).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def remember(kind: str, key: str, value: Any) -> None:
    """Store plain JSON types under a key, atomically."""
    path = _entry(kind, key)
    writable_folder(path.parent)
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as file:
            json.dump(value, file)
        os.replace(file.name, path)
    except OSError as error:
        raise ProveError(
            f"Can't write the cache entry {path}: {error.strerror}.", hint="Set PROVE_CACHE to a writable folder."
        ) from error


def _entry(kind: str, key: str) -> Path:
    return cache_dir() / kind / f"{key[:32]}.json"
