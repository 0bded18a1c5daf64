"""Where a result comes from: the code, the packages and the machine that made it."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "prove-seg",
    "torch",
    "torchvision",
    "onedl-mmengine",
    "onedl-mmcv",
    "onedl-mmsegmentation",
    "onedl-mmdetection",
    "timm",
    "numpy",
    "scipy",
    "opencv-python-headless",
    "opencv-python",
    "pillow",
)

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Thread counts change the order of sums, and with it the last bits of a result."""

DECIDING = ("build", "catalog", "data", "losses", "metrics", "spec", "training")
"""Folders of PROVE's source that decide a result."""

UNDECIDING = frozenset(
    {
        "catalog/conditions.py",
        "data/overlap.py",
        "metrics/resample.py",
        "spec/experiment.py",
        "spec/matrix.py",
        "spec/matrix_file.py",
        "spec/narrate.py",
        "spec/yaml_file.py",
        "training/evaluate.py",
    }
)
"""Files in them that don't: they make the jobs, whose settings are compared one by one, or speak of runs."""

FIRST_METRIC_VERSION = 1
"""Version of the metrics of runs from before ``env.json`` recorded it."""

GIT_SECONDS = 10


def collect(extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What ``env.json`` records, plain JSON types. Does not import torch.

    Args:
        extra: what only the caller knows: device, driver, thread counts in force, data fingerprint. Added at the top
            level, where it wins over a field of the same name.

    Returns:
        ``prove`` (version), ``code_sha256`` (of PROVE's own source), ``training_sha256`` (of what of it decides a
        result), ``prove_git`` and ``git`` (state of PROVE's
        checkout and of the working directory: ``commit``, ``dirty``; None outside a repository), ``python``,
        ``packages``, ``platform``, ``cpu``, ``cpu_count``, ``threads``, ``host``, ``command``.
    """
    source = Path(__file__).parent
    return {
        "prove": _version("prove-seg"),
        **code_in_use(source),
        "prove_git": git_state(source),
        "git": git_state(Path.cwd()),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpu_count": os.cpu_count(),
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
        "host": socket.gethostname(),
        "command": sys.argv,
        **(extra or {}),
    }


def comparability(
    environment: Mapping[str, Any], *, batch_size: int, amp: bool, resumed: bool
) -> dict[str, str | int | bool | dict[str, str] | None]:
    """What decides whether a run can be compared with another, from its ``env.json``.

    Runs that were trained alike have the same facts, key for key: nothing in them is a run's own.

    Args:
        environment: what `collect` and the worker recorded.
        batch_size, amp: of the job.
        resumed: whether the attempt went on from a checkpoint.

    Returns:
        ``data_train, data_val`` (fingerprints), ``weights_sha256`` (None without pretrained weights),
        ``metric_version``, ``code`` (see `training_sha256`; of a run before it was recorded, ``code_sha256``),
        ``code_sha256``, ``prove`` (version), ``dirty`` (of PROVE's checkout; None where it is none), ``packages``,
        ``python``, ``device`` (name), ``device_kind`` (``cpu`` or ``cuda``), ``amp`` (as in force: a CPU has none),
        ``batch_size_per_device``, ``deterministic`` (torch's own switch; None where it was not recorded), ``resumed``.
        What was not recorded is None.
    """
    data = environment.get("data_fingerprint") or {}
    on_cuda = bool((environment.get("placement") or {}).get("cuda"))
    return {
        "data_train": data.get("train"),
        "data_val": data.get("val"),
        "weights_sha256": environment.get("weights_sha256"),
        "metric_version": environment.get("metric_version", FIRST_METRIC_VERSION),
        "code": environment.get("training_sha256") or environment.get("code_sha256"),
        "code_sha256": environment.get("code_sha256"),
        "prove": environment.get("prove"),
        "dirty": (environment.get("prove_git") or {}).get("dirty"),
        "packages": dict(environment.get("packages") or {}),
        "python": environment.get("python"),
        "device": environment.get("device"),
        "device_kind": "cuda" if on_cuda else "cpu",
        "amp": amp and on_cuda,
        "batch_size_per_device": batch_size,
        "deterministic": environment.get("deterministic"),
        "resumed": resumed,
    }


def code_sha256(package: Path) -> str:
    """Hash of all Python files below a folder, by relative name and content: equal code, equal hash, anywhere."""
    return _hash_of(package, package.rglob("*.py"))


def training_sha256(package: Path) -> str:
    """Hash of the source that decides a result, by relative name and content.

    A change of a command, a report, a launcher or the database leaves it as it is: see `DECIDING`, `UNDECIDING`.
    """
    found = (path for folder in DECIDING for path in (package / folder).rglob("*") if path.suffix in (".py", ".csv"))
    return _hash_of(package, (path for path in found if path.relative_to(package).as_posix() not in UNDECIDING))


@cache
def code_when_loaded(package: Path) -> Mapping[str, str]:
    """`code_sha256` and `training_sha256` when this process first asked; a fork of it has them from its parent."""
    return {"code_sha256": code_sha256(package), "training_sha256": training_sha256(package)}


def code_in_use(package: Path) -> dict[str, str]:
    """The same, of a process that loaded its modules when it first asked.

    Where files have changed since, it runs the old ones, and the new ones of what it imports later: then it is a hash
    of both, which no other run has.
    """
    now = {"code_sha256": code_sha256(package), "training_sha256": training_sha256(package)}
    loaded = code_when_loaded(package)
    return {
        name: value if value == loaded[name] else hashlib.sha256(f"{loaded[name]} {value}".encode()).hexdigest()
        for name, value in now.items()
    }


def _hash_of(root: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in paths):
        content = path.read_bytes()
        digest.update(b"%d %d " % (len(name.encode()), len(content)) + name.encode() + content)
    return digest.hexdigest()


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit a folder is at and whether its tracked files differ from it; None outside a git repository."""
    if shutil.which("git") is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it can't tell: no repository, one of another user, or a file system too slow."""
    # No optional locks: looking must not disturb a git command of the user's.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def cpu_model() -> str:
    """The processor's name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except FileNotFoundError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
