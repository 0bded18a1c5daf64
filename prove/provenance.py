"""Where a result comes from: the code, the packages and the machine that made it."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
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
    "numpy",
    "scipy",
    "opencv-python-headless",
    "opencv-python",
    "pillow",
)

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Thread counts change the order of sums, and with it the last bits of a result."""

GIT_SECONDS = 10


def collect(extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What ``env.json`` records, plain JSON types. Does not import torch.

    Args:
        extra: what only the caller knows: device, driver, thread counts in force, data fingerprint. Added at the top
            level, where it wins over a field of the same name.

    Returns:
        ``prove`` (version), ``code_sha256`` (of PROVE's own source), ``prove_git`` and ``git`` (state of PROVE's
        checkout and of the working directory: ``commit``, ``dirty``; None outside a repository), ``python``,
        ``packages``, ``platform``, ``cpu``, ``cpu_count``, ``threads``, ``host``, ``command``.
    """
    source = Path(__file__).parent
    return {
        "prove": _version("prove-seg"),
        "code_sha256": code_sha256(source),
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


def code_sha256(package: Path) -> str:
    """Hash of all Python files below a folder, by relative name and content: equal code, equal hash, anywhere."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix()):
        name, content = path.relative_to(package).as_posix().encode(), path.read_bytes()
        digest.update(b"%d %d " % (len(name), len(content)) + name + content)
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
