"""`prove doctor`: what this machine has and what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from prove.cli.options import RESULTS, JsonOption, ResultsOption, console, print_json

PACKAGES = (
    "torch", "torchvision", "onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation", "onedl-mmdetection",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `fix` is empty when nothing is to be done."""

    what: str
    ok: bool
    found: str
    fix: str = ""


def doctor(results: ResultsOption = RESULTS, json_output: JsonOption = False) -> None:
    """Show what this machine has and what is missing, with the fix."""
    findings = [
        _python(),
        *map(_package, PACKAGES),
        _stack(),
        _operators(),
        _gpu(),
        _launchers(),
        _database(),
        _cache(),
        _results(results),
        *_data(),
    ]
    if json_output:
        print_json({"ok": all(f.ok for f in findings), "findings": [asdict(f) for f in findings]})
    else:
        from rich.table import Table

        table = Table("", "what", "found", "fix", box=None, pad_edge=False)
        for finding in findings:
            table.add_row("ok" if finding.ok else "MISSING", finding.what, finding.found, finding.fix)
        console().print(table)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _python() -> Finding:
    ok = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return Finding("Python", ok, platform.python_version(), "" if ok else "Use Python 3.11 or 3.12.")


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, "not installed", "Install PROVE again: uv sync")


def _stack() -> Finding:
    """Import the training stack where it can do no harm."""
    code = "from prove.training.stack import load_stack; load_stack()"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if outcome.returncode == 0:
        return Finding("training stack", True, "imports")
    last = (outcome.stderr.strip().splitlines() or ["no message"])[-1]
    return Finding("training stack", False, last, "Install PROVE again: uv sync --reinstall")


def _operators() -> Finding:
    compiled = importlib.util.find_spec("mmcv") is not None and importlib.util.find_spec("mmcv._ext") is not None
    return Finding("mmcv operators", True, "compiled mmcv" if compiled else "PROVE's own, on torch and torchvision")


def _gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("GPU", True, "none: trains on the CPU, which suits the small models")
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    outcome = subprocess.run(query, capture_output=True, text=True, check=False)
    if outcome.returncode != 0:
        return Finding("GPU", False, outcome.stdout.strip() or outcome.stderr.strip(), "Mend the NVIDIA driver.")
    return Finding("GPU", True, outcome.stdout.strip().replace("\n", "; "))


def _launchers() -> Finding:
    """Where sweeps can train: always here, and on SLURM if it answers."""
    tool = shutil.which("sbatch")
    if tool is None:
        return Finding("launchers", True, "local; no SLURM here")
    try:
        outcome = subprocess.run(
            ["scontrol", "--oneliner", "ping"], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return Finding("launchers", False, "local; SLURM is installed but does not answer", "Ask its administrator.")
    if outcome.returncode != 0 or "UP" not in outcome.stdout:
        said = " ".join((outcome.stdout or outcome.stderr).split())
        return Finding("launchers", True, f"local; SLURM is installed, its controller is not up ({said[:80]})")
    return Finding("launchers", True, "local, slurm")


def _database() -> Finding:
    url = os.environ.get("PROVE_DB", "")
    if not url.startswith("postgresql"):
        return Finding("database", True, "SQLite" if not url else "named by $PROVE_DB")
    driver = url.partition(":")[0].partition("+")[2] or "psycopg2"
    if importlib.util.find_spec(driver) is None:
        return Finding("database", False, f"PostgreSQL, but no {driver}", "Install it: pip install 'psycopg[binary]'")
    return Finding("database", True, f"PostgreSQL by {driver}")


def _cache() -> Finding:
    from prove.data.cache import cache_dir

    return _writable("cache", cache_dir(), "Name another with $PROVE_CACHE.")


def _results(results: Path) -> Finding:
    return _writable("results", Path(results).resolve(), "Name another with --results DIR or $PROVE_RESULTS.")


def _writable(what: str, folder: Path, fix: str) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 2**30
    if not os.access(existing, os.W_OK) or not existing.is_dir():
        return Finding(what, False, f"{folder} can't be written", fix)
    return Finding(what, free > 1, f"{folder}, {free:.0f} GiB free", "" if free > 1 else f"Make room there. {fix}")


def _data() -> list[Finding]:
    from prove.catalog.datasets import DATASETS
    from prove.data.roots import find_root
    from prove.errors import ProveError

    findings = []
    for entry in DATASETS:
        if entry.generated:
            findings.append(Finding(f"data {entry.name}", True, "built in"))
            continue
        try:
            root = find_root(entry.name, None)
        except ProveError as error:
            findings.append(Finding(f"data {entry.name}", False, error.message, error.hint))
            continue
        found = f"{root.path} (from {root.source})" if root else "no folder named (needed only to train on it)"
        findings.append(Finding(f"data {entry.name}", True, found))
    return findings
