"""What a sweep costs at the level of the command line, beside what users would pick instead.

    python benchmarks/sweeps.py [--parts register,million,status,slurm,watch,train] [--rounds 7]
                                [--json FILE] [--markdown FILE]

    register   expand and record 10,000 and 100,000 jobs; signac, Optuna, Snakemake, Dora, bare sqlite3
    million    memory of a million-cell matrix of which a filter leaves a thousand
    status     `prove status` of 10,000 and 100,000 runs, after nothing changed
    slurm      submit 1,000 jobs to a real SLURM, brought up for it (needs root and Debian's packages)
    watch      `prove watch` beside 1,000 runs that report every 2 s
    train      a sweep beside a bash loop over MMSegmentation's tools/train.py, on the same cores

Whole processes are timed, contenders take turns in each round. With --json the figures are kept in a file, and parts
that it has from earlier and that are not measured now stay in it and in the report. Exit code 1 where what was asked is
missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from measuring import MeasurementError, machine, machine_line
from sweep_peers import PEERS
from sweep_slurm import slurm
from sweep_store import million, register, status
from sweep_timing import Section, progress
from sweep_train import train
from sweep_watch import watch

PARTS: dict[str, Callable[[argparse.Namespace, Path], Section]] = {
    "register": register,
    "million": million,
    "status": status,
    "slurm": slurm,
    "watch": watch,
    "train": train,
}


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    kept = json.loads(asked.json.read_text()) if asked.json is not None and asked.json.exists() else {}
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for part in asked.parts:
            progress(part)
            about = machine_line(machine("cpu", os.cpu_count() or 1, ("torch", "SQLAlchemy", "typer", "submitit")))
            try:
                section = PARTS[part](asked, Path(folder))
            except MeasurementError as error:
                sys.exit(f"{part}: {error}")
            kept[part] = {"machine": about, "section": section.to_dict()}
            if asked.json is not None:
                asked.json.write_text(json.dumps(kept, indent=1) + "\n")
    found = {part: (kept[part]["machine"], Section.from_dict(kept[part]["section"])) for part in PARTS if part in kept}
    text = report(found)
    if asked.markdown is not None:
        asked.markdown.write_text(text)
    print(text, end="")
    measured = [limit for part in asked.parts for limit in found[part][1].limits]
    return int(not all(limit.met for limit in measured))


def report(found: dict[str, tuple[str, Section]]) -> str:
    """The whole Markdown document."""
    limits = [limit for _, section in found.values() for limit in section.limits]
    lines = ["# What a sweep costs", "", "Written by `benchmarks/sweeps.py`.", ""]
    if limits:
        lines += ["| asked | measured | limit | |", "|---|---|---|---|", *(limit.line() for limit in limits), ""]
    for about, section in found.values():
        lines += [*section.markdown(), about, ""]
    return "\n".join(lines).rstrip() + "\n"


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if wrong := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{wrong[0]} is none of {', '.join(known)}")
        return names

    return parse


def _counts(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    packages = list(dict.fromkeys(peer.package for peer in PEERS))
    add = parser.add_argument
    add("--parts", type=_names(list(PARTS)), default=list(PARTS))
    add("--rounds", type=int, default=7, help="of register, million, status and slurm")
    add("--jobs", type=_counts, default=[10_000, 100_000], help="sizes of register and status; multiples of 500")
    add("--cells", type=int, default=1_000_000, help="of the large matrix")
    add("--peers", type=_names(packages), default=packages, help="packages of other tools; empty for none")
    add("--peer-jobs", type=int, default=10_000, help="largest size that the others take part in")
    add("--submit", type=int, default=1000, help="jobs that are submitted to SLURM")
    add("--submit-loop", type=int, default=1000, help="of these, how many the bash loop submits; scaled up")
    add("--running", type=int, default=1000, help="runs that are watched")
    add("--watch-seconds", type=float, default=60.0)
    add("--train-rounds", type=int, default=1)
    add("--train-losses", type=lambda text: text.split(","), default=["none", "focal", "lovasz", "boundary"])
    add("--train-seeds", type=int, default=3)
    add("--train-iters", type=int, default=60)
    add("--train-careful", action="store_true", help="also beside xargs -P2 with one thread each")
    add("--folder", type=Path, help="where temporary folders are made")
    add("--json", type=Path)
    add("--markdown", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())
