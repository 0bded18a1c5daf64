"""The same jobs in the hands of other tools, each in an environment of its own.

This file is both sides: the benchmark imports it to prepare folders and command lines, and the interpreter of a tool's
environment runs it, ``sweep_peers.py TOOL register|fill|status``, in a folder with the jobs in ``jobs.json``. So it
imports nothing but the standard library and, inside a function, the tool.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JOBS = "jobs.json"

FINISHED_SHARE = 0.9
"""Of the jobs whose status is asked for."""

LEFT_OUT = (
    "SEML and Sacred need a MongoDB server",
    "MLflow and Weights & Biases record runs that something else starts",
    "Hydra's multirun keeps no register that could be asked",
    "Guild stages 10,000 trials in minutes",
)
"""Of the tools of the same kind, those that are not measured, and why."""

SNAKEFILE = """
import json
KEYS = [job["key"] for job in json.load(open("jobs.json"))]
rule all:
    input: expand("runs/{key}.done", key=KEYS)
rule train:
    output: "runs/{key}.done"
    shell: "train {wildcards.key} && touch {output}"
"""

DORA_TRAIN = """
import argparse
from dora import argparse_main
parser = argparse.ArgumentParser("study.train")
for name in ("dataset", "model", "loss", "key"):
    parser.add_argument("--" + name)
parser.add_argument("--seed", type=int)
@argparse_main(dir="xps", parser=parser)
def main(): pass
if __name__ == "__main__": main()
"""

DORA_GRID = """
import json
from dora import Explorer
@Explorer
def explorer(launcher):
    for job in json.load(open("jobs.json")):
        launcher(job)
"""


@dataclass(frozen=True)
class Peer:
    """Another tool.

    Attributes:
        package: what is installed for it.
        register: what its users do to record jobs; a command line, ``{bin}`` for its environment's programs.
        status: what they do to see how far they are; empty where there is nothing.
        prepare: writes what it needs into the folder, beside ``jobs.json``; not timed.
        fill: after registering, marks jobs as finished; not timed.
    """

    name: str
    package: str
    register: Sequence[str]
    status: Sequence[str]
    prepare: Callable[[Path], None] = lambda folder: None
    fill: Sequence[str] = ()

    def command(self, line: Sequence[str], programs: Path) -> list[str]:
        """One of its command lines, for its environment."""
        return [word.format(bin=programs) for word in line]


def _own(tool: str, action: str) -> list[str]:
    return ["{bin}/python", str(Path(__file__).resolve()), tool, action]


def _snakefile(folder: Path) -> None:
    (folder / "Snakefile").write_text(SNAKEFILE)


def _dora(folder: Path) -> None:
    grids = folder / "study" / "grids"
    grids.mkdir(parents=True)
    (folder / "study" / "__init__.py").touch()
    (grids / "__init__.py").touch()
    (folder / "study" / "train.py").write_text(DORA_TRAIN)
    (grids / "bench.py").write_text(DORA_GRID)


_GRID = ("{bin}/dora", "-P", "study", "grid", "bench", "--no_monitoring", "--dry_run")
_SNAKEMAKE = ("{bin}/snakemake", "--cores", "1", "--quiet")

PEERS = (
    Peer("signac", "signac", _own("signac", "register"), _own("signac", "status"), fill=_own("signac", "fill")),
    Peer(
        "Optuna, journal",
        "optuna",
        _own("journal", "register"),
        _own("journal", "status"),
        fill=_own("journal", "fill"),
    ),
    Peer("Optuna, SQLite", "optuna", _own("sqlite", "register"), _own("sqlite", "status"), fill=_own("sqlite", "fill")),
    Peer(
        "Snakemake (dry run; summary)",
        "snakemake",
        (*_SNAKEMAKE, "--dry-run"),
        ("{bin}/snakemake", "--cores", "1", "--summary"),
        prepare=_snakefile,
        fill=_own("snakemake", "fill"),
    ),
    Peer("Dora (grid, dry run)", "dora-search", (*_GRID, "--init"), _GRID, prepare=_dora),
)


def install(peer: Peer, folder: Path) -> Path:
    """A throwaway environment with the tool, by `uv`; the folder of its programs.

    Raises:
        OSError or CalledProcessError: it can't be had.
    """
    place = folder / peer.package
    if not place.exists():
        subprocess.run(
            ["uv", "venv", "--quiet", "--python", sys.executable, str(place)], check=True, capture_output=True
        )
        here = ["--python", str(place / "bin" / "python")]
        subprocess.run(["uv", "pip", "install", "--quiet", *here, peer.package], check=True, capture_output=True)
    return place / "bin"


def version(peer: Peer, programs: Path) -> str:
    """The version of the tool in its environment."""
    code = f"from importlib.metadata import version; print(version({peer.package!r}))"
    return subprocess.run([programs / "python", "-c", code], check=True, capture_output=True, text=True).stdout.strip()


# What a tool's interpreter does


def _signac(action: str, jobs: Sequence[dict[str, Any]]) -> None:
    import signac

    if action == "register":
        project = signac.init_project()
        for job in jobs:
            project.open_job(job).init()
        return
    project = signac.get_project()
    if action == "fill":
        for number, job in enumerate(project):
            job.doc.state = "finished" if number < FINISHED_SHARE * len(jobs) else "planned"
            job.doc.mIoU = float(number % 100)
        return
    print({state: sum(1 for _ in group) for state, group in project.groupby("doc.state")})


def _optuna(storage: str, action: str, jobs: Sequence[dict[str, Any]]) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    where = "sqlite:///optuna.db" if storage == "sqlite" else JournalStorage(JournalFileBackend("optuna.log"))
    study = optuna.create_study(storage=where, study_name="bench", load_if_exists=True)
    if action == "register":
        for job in jobs:
            study.enqueue_trial(job)
    elif action == "fill":
        finished = round(FINISHED_SHARE * len(jobs))
        plain = optuna.trial.create_trial
        study.add_trials([plain(value=float(n % 100), user_attrs=job) for n, job in enumerate(jobs[:finished])])
        study.add_trials([plain(state=optuna.trial.TrialState.WAITING, user_attrs=job) for job in jobs[finished:]])
    else:
        trials = study.get_trials(deepcopy=False)
        print(Counter(trial.state.name for trial in trials), study.best_value)


def _snakemake(action: str, jobs: Sequence[dict[str, Any]]) -> None:
    assert action == "fill"
    folder = Path("runs")
    folder.mkdir()
    for job in jobs[: round(FINISHED_SHARE * len(jobs))]:
        (folder / f"{job['key']}.done").touch()


def main() -> None:
    tool, action = sys.argv[1:]
    jobs = json.loads(Path(JOBS).read_text())
    if tool == "signac":
        _signac(action, jobs)
    elif tool == "snakemake":
        _snakemake(action, jobs)
    else:
        _optuna(tool, action, jobs)


if __name__ == "__main__":
    main()
