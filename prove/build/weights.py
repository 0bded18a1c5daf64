"""Pretrained backbones: fetched once into the user's cache, or a clear word that they can't be had."""

from __future__ import annotations

import hashlib
import re
import urllib.error
import urllib.request
from pathlib import Path

from prove.errors import ProveError
from prove.rundir import write_atomically

TIMEOUT_SECONDS = 20


def fetch(source: str, cache: Path) -> Path:
    """The local file of pretrained weights.

    Args:
        source: a file on this machine, or an http(s) URL. MMSegmentation's file names end in the first 8 digits of the
            file's SHA-256, which is checked.
        cache: folder for downloaded weights; a file that is there already is used as it is.

    Raises:
        ProveError: no such file, it can't be downloaded, or what was downloaded is not what the name promises.
    """
    if not source.startswith(("http://", "https://")):
        path = Path(source).expanduser()
        if path.is_file():
            return path
        raise ProveError(f"There are no pretrained weights at {source}.", hint=_ways_out(cache, path.name))
    target = cache / source.rsplit("/", 1)[-1]
    if target.is_file():
        return target
    try:
        with urllib.request.urlopen(source, timeout=TIMEOUT_SECONDS) as response:
            content: bytes = response.read()
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ProveError(
            f"The pretrained backbone can't be downloaded from {source} ({reason}).", hint=_ways_out(cache, target.name)
        ) from error
    promised = re.search(r"-([0-9a-f]{8})\.pth$", target.name)
    if promised and not hashlib.sha256(content).hexdigest().startswith(promised[1]):
        raise ProveError(
            f"What {source} sent is not the file that its name promises.", hint=_ways_out(cache, target.name)
        )
    cache.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda file: file.write(content))
    return target


def _ways_out(cache: Path, name: str) -> str:
    return f"Copy the file to {cache / name}, or train from random weights with --no-pretrained (for all arms alike)."
