"""The file in which runs travel from one results folder to another.

A gzipped tar of ``runs/<key>/...``, the small files of each run folder without its checkpoints, that ends in a
``manifest.json``: the version of this format, what the experiments say of their reports, and of each run its state, its
loss in words, its experiments, and the SHA-256 of each file. The same runs make the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from prove.errors import ProveError
from prove.rundir import RunDir, write_atomically
from prove.store.reporting import Described

FORMAT = 1

MANIFEST = "manifest.json"

_NAME = re.compile(
    r"(?:job|evidence|env)\.json|events\.jsonl|(?:config|model)\.py|log\.txt|(?:confusion|predictions)\w*\.npz|"
    r"terms/\w+\.(?:yaml|py)|evaluations/\w[\w.+=@-]*/(?:result\.json|counts\.npz)",
    re.ASCII,
)

_MEMBER = re.compile(rf"runs/([0-9a-f]{{12}})/({_NAME.pattern})")

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Packed:
    """What the manifest says of one run.

    Attributes:
        state: when it was exported.
        loss: its objective in its short canonical text.
        experiments: those that it belonged to.
        files: SHA-256 by path inside the run folder.
    """

    state: str
    loss: str
    experiments: list[str]
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """What an archive holds.

    Attributes:
        runs: by their keys.
        studies: what experiments say of their reports, by their names.
    """

    runs: Mapping[str, Packed]
    studies: Mapping[str, Described] = field(default_factory=dict)


def travelling(run: RunDir) -> list[Path]:
    """The files of a run folder that travel: all that say what it was and what came of it, but no checkpoints."""
    named = (run.events, run.job, run.model_config, run.config, run.evidence, run.env, run.log)
    arrays = [*sorted(run.path.glob("confusion*.npz")), *sorted(run.path.glob("predictions*.npz"))]
    kept = [file for each in run.saved_evaluations() for file in (each.result, each.counts)]
    found = [*named, *arrays, *sorted(run.terms.glob("*")), *kept]
    return [path for path in found if path.is_file() and not path.is_symlink() and _NAME.fullmatch(_inside(run, path))]


def _inside(run: RunDir, path: Path) -> str:
    return path.relative_to(run.path).as_posix()


def write(path: Path, runs: Iterable[tuple[RunDir, Packed]], studies: Mapping[str, Described]) -> int:
    """Write an archive, all or nothing; how many runs it holds. One that changes while it is read is left out.

    Args:
        studies: what experiments say of their reports; those that have a run in the archive come along.
    """
    packed: dict[str, Packed] = {}

    def fill(file: IO[bytes]) -> None:
        with (
            gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6, mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            for run, about in runs:
                contents = _contents(run)
                if contents is None:
                    continue
                for name, content in contents.items():
                    _put(tar, f"runs/{run.key}/{name}", content)
                hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
                packed[run.key] = Packed(about.state, about.loss, about.experiments, hashes)
            present = {name for about in packed.values() for name in about.experiments}
            manifest = {
                "format": FORMAT,
                "runs": {key: asdict(about) for key, about in packed.items()},
                "studies": {name: said._asdict() for name, said in studies.items() if name in present},
            }
            _put(tar, MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())

    try:
        write_atomically(path, fill)
    except OSError as error:
        raise ProveError(f"{path} can't be written ({error.strerror}).", hint="Name another file.") from error
    return len(packed)


def _contents(run: RunDir) -> dict[str, bytes] | None:
    """The files of a run folder that travel; None where a worker is at it."""
    contents = {_inside(run, path): path.read_bytes() for path in travelling(run)}
    size = run.events.stat().st_size if run.events.exists() else 0
    moved = run.is_held() or size != len(contents.get(run.events.name, b""))
    return None if moved else contents


def _put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    tar.addfile(member, io.BytesIO(content))


def unpack(path: Path, into: Path) -> Contents:
    """Unpack an archive to ``into/<key>/...`` and check all of it; what its manifest says.

    Raises:
        ProveError: it is not an archive of this format, it is damaged, or it holds what no export writes.
    """
    hashes: dict[str, dict[str, str]] = {}
    manifest: Any = None
    try:
        with tarfile.open(path, mode="r|gz") as tar:
            for member in tar:
                if manifest is not None:
                    raise _damaged(path, f"{member.name} comes after the manifest")
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise _damaged(path, f"{member.name} is not a plain file")
                if member.name == MANIFEST:
                    manifest = json.loads(content.read())
                    continue
                found = _MEMBER.fullmatch(member.name)
                if found is None:
                    raise _damaged(path, f"{member.name!r} is not a file of a run")
                key, name = found.groups()
                if name in hashes.get(key, {}):
                    raise _damaged(path, f"{member.name} is in it twice")
                hashes.setdefault(key, {})[name] = _copy(content, into / key / name)
    except (tarfile.TarError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise _damaged(path, str(error) or type(error).__name__) from error
    except OSError as error:
        raise ProveError(f"{path} can't be unpacked to {into.parent} ({error.strerror or error}).") from error
    return _checked(path, manifest, hashes)


def _copy(source: IO[bytes], target: Path) -> str:
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "xb") as file:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _checked(path: Path, manifest: Any, hashes: Mapping[str, Mapping[str, str]]) -> Contents:
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise _damaged(path, "it has no manifest")
    if manifest["format"] != FORMAT:
        raise ProveError(
            f"{path} is of format {manifest['format']}; this PROVE reads format {FORMAT}.",
            hint="Import it with the PROVE that exported it, or a newer one.",
        )
    try:
        packed = {key: Packed(**about) for key, about in manifest["runs"].items()}
        wrong = list(_differences({key: about.files for key, about in packed.items()}, hashes))
        studies = {name: Described(dict(said["report"]), said["description"]) for name, said in _studies(manifest)}
        texts = [text for about in packed.values() for text in (about.loss, *about.experiments)]
        texts += [said.description for said in studies.values()]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"its manifest is not as expected ({error})") from error
    if not all(isinstance(text, str) for text in texts):
        raise _damaged(path, "its manifest is not as expected")
    for key, name in wrong:
        raise _damaged(path, f"{name} of run {key} is not what was exported")
    for key, about in packed.items():
        if not {"job.json", "events.jsonl"} <= about.files.keys():
            raise _damaged(path, f"run {key} lacks its job or its events")
    return Contents(packed, studies)


def _studies(manifest: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    studies: Mapping[str, Mapping[str, Any]] = manifest.get("studies", {})  # the first archives have none
    return studies.items()


def _differences(
    one: Mapping[str, Mapping[str, str]], other: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, str]]:
    for key in sorted(one.keys() | other.keys()):
        here, there = dict(one.get(key, {})), dict(other.get(key, {}))
        for name in sorted(here.keys() | there.keys()):
            if here.get(name) != there.get(name):
                yield key, name


def _damaged(path: Path, why: str) -> ProveError:
    return ProveError(
        f"{path} is not a sound archive of runs: {why}.",
        hint="Nothing was imported. Export it again with `prove db export`, or copy it again.",
    )
