"""Pretrained backbones: fetched once into the user's cache, or a clear word that they can't be had."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path

from prove.errors import ProveError, unknown
from prove.rundir import write_atomically

TIMEOUT_SECONDS = 20


def fetch(source: str, cache: Path, say: Callable[[str], None] = lambda text: None) -> Path:
    """The local file of pretrained weights.

    Args:
        source: a file on this machine, an http(s) URL, or a name in OpenMMLab's hub (``open-mmlab://resnet50_v1c``).
            MMSegmentation's file names end in the first 8 digits of the file's SHA-256, which is checked.
        cache: folder for downloaded weights; a file that is there already is used as it is.
        say: told before something is downloaded: from where, and how large it is if the server says so.

    Raises:
        ProveError: no such file, it can't be downloaded, or what was downloaded is not what the name promises.
    """
    source = hub_url(source)
    target = cache / source.rsplit("/", 1)[-1]
    if not source.startswith(("http://", "https://")):
        for path in (Path(source).expanduser(), target):
            if path.is_file():
                return path
        raise ProveError(f"There are no pretrained weights at {source}.", hint=_ways_out(cache, target.name))
    if target.is_file():
        return target
    try:
        with urllib.request.urlopen(source, timeout=TIMEOUT_SECONDS) as response:
            size = response.headers.get("Content-Length")
            say(f"downloading the pretrained backbone{f' ({int(size) / 1e6:.0f} MB)' if size else ''} from {source}")
            content: bytes = response.read()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
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


def hub_url(source: str) -> str:
    """The URL behind a name in OpenMMLab's hub, from the table that MMEngine ships; anything else as it is.

    Raises:
        ProveError: the hub has no such name.
    """
    scheme, found, name = source.partition("://")
    if not found or scheme not in ("open-mmlab", "openmmlab"):
        return source
    spec = importlib.util.find_spec("mmengine")
    if spec is None or not spec.submodule_search_locations:
        raise ProveError("MMEngine is not installed.", hint="Install PROVE again: `uv sync`.")
    table = json.loads((Path(spec.submodule_search_locations[0]) / "hub" / "openmmlab.json").read_text())
    if name not in table:
        raise unknown("name in OpenMMLab's hub", name, table)
    return str(table[name])


def _ways_out(cache: Path, name: str) -> str:
    return f"Copy the file to {cache / name}, or train from random weights with --no-pretrained (for all arms alike)."
