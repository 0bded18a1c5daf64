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

SAFETENSORS = ".safetensors"

HEAD_LIMIT = 100_000_000
"""Most bytes of a safetensors file's head, by its specification."""


def fetch(source: str, cache: Path, say: Callable[[str], None] = lambda text: None) -> Path:
    """The local file of pretrained weights.

    Args:
        source: a file on this machine, an http(s) URL, or a name in OpenMMLab's hub (``open-mmlab://resnet50_v1c``).
            MMSegmentation's file names end in the first 8 digits of the file's SHA-256, which is checked. A
            ``.safetensors`` file promises nothing by its name; of it is checked that it is complete.
        cache: folder for downloaded weights; a file that is there already is used as it is.
        say: told before something is downloaded: from where, and how large it is if the server says so.

    Raises:
        ProveError: no such file, it can't be downloaded, or what was downloaded is not what the name promises.
    """
    source = hub_url(source)
    target = cache / file_name(source)
    if not source.startswith(("http://", "https://")):
        for path in (Path(source).expanduser(), target):
            if path.is_file():
                return _complete(path)
        raise ProveError(f"There are no pretrained weights at {source}.", hint=_ways_out(cache, target.name))
    if target.is_file():
        return _complete(target)
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
    if target.suffix == SAFETENSORS and not is_complete(content, len(content)):
        raise ProveError(
            f"What {source} sent is not a complete {SAFETENSORS} file.", hint=_ways_out(cache, target.name)
        )
    promised = re.search(r"-([0-9a-f]{8})\.pth$", target.name)
    if promised and not hashlib.sha256(content).hexdigest().startswith(promised[1]):
        raise ProveError(
            f"What {source} sent is not the file that its name promises.", hint=_ways_out(cache, target.name)
        )
    cache.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda file: file.write(content))
    return target


def file_name(source: str) -> str:
    """What a file is called in the cache: as in its URL, or after its repository on the Hugging Face hub, where the
    weights of all models are called ``model.safetensors``."""
    hub = re.fullmatch(r"https?://huggingface\.co/[^/]+/([^/]+)/resolve/[^/]+/model(\.\w+)", source)
    return hub[1] + hub[2] if hub else source.rsplit("/", 1)[-1]


def chosen_file(path: str | Path, model: str, pretrained: str | None) -> Path:
    """A file with pretrained weights that a user names in place of a model's own.

    Args:
        model: the model's name.
        pretrained: where the model takes its weights from by itself; None when it has no pretrained backbone.

    Raises:
        ProveError: the model takes no weights or not in this format, there is no such file, or it is not whole.
    """
    file = Path(path).expanduser()
    if pretrained is None:
        raise ProveError(
            f"{model} has no pretrained backbone, so it takes no --weights.",
            hint="Leave the flag out, or take another.",
        )
    if not file.is_file():
        raise ProveError(f"--weights {file}: there is no such file.")
    if file.suffix == SAFETENSORS and not pretrained.endswith(SAFETENSORS):
        raise ProveError(
            f"--weights {file}: {model} reads its backbone from a .pth file, not from {SAFETENSORS}.",
            hint="Save its tensors with torch.save.",
        )
    return _complete(file.resolve())


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal: what identifies weights, wherever they lie."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_complete(head: bytes, size: int) -> bool:
    """Whether a safetensors file of ``size`` bytes holds all tensors that its head names.

    Args:
        head: its beginning, at least the 8 bytes of the head's length and the head.
    """
    length = int.from_bytes(head[:8], "little")
    try:
        tensors = json.loads(head[8 : 8 + length])
        ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return False
    return len(head) >= 8 + length and size == 8 + length + max(ends, default=0)


def _complete(file: Path) -> Path:
    """The file, unless it is a safetensors file that is not whole."""
    if file.suffix == SAFETENSORS:
        with file.open("rb") as stream:
            start = stream.read(8)
            head = start + stream.read(min(HEAD_LIMIT, int.from_bytes(start, "little")))
        if not is_complete(head, file.stat().st_size):
            raise ProveError(f"{file} is not a complete {SAFETENSORS} file.", hint="Remove it and fetch it anew.")
    return file


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
