"""What `prove` costs before it does anything: CPU time (user + system) against an empty Typer app.

    python benchmarks/startup.py [--rounds 21]

The commands take turns, so that a busy machine slows all of them alike; the ratio of each round is to the mean of the
empty app's runs around it, and the table shows medians. Limits: help 1.5, status 3; exit code 1 where one is exceeded.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

EMPTY = """
import typer
app = typer.Typer()
@app.command()
def main() -> None: pass
app()
"""

PROVE = "import sys; from prove.cli import main; main()"

HEAVY = ("torch", "mmseg", "mmengine", "numpy", "sqlalchemy", "alembic", "pandas")

WATCHED = """
import atexit, sys
from prove.cli import main
atexit.register(lambda: print(sorted(set({heavy!r}) & set(sys.modules)), file=sys.stderr))
main()
"""

FILL = """
import sys
from pathlib import Path
from prove.spec import Job, LossExpr, LossTerm, ModelRef, TrainSettings
from prove.store import Store
train = TrainSettings(max_iters=100, batch_size=2, crop_size=(64, 64), lr=0.01, eval_interval=10)
jobs = [(Job({"name": "SynthStreet"}, ModelRef("fcn_tiny"), LossExpr((LossTerm("ce"),)), train, seed=seed), "ce")
        for seed in range(int(sys.argv[2]))]
with Store.open(Path(sys.argv[1])) as store: store.register(jobs)
"""


def cpu_seconds(command: list[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    environment = {name: value for name, value in os.environ.items() if name not in ("PROVE_DB", "PROVE_RESULTS")}
    with tempfile.TemporaryDirectory() as folder:
        for name, runs in (("none", 0), ("some", 20)):
            (Path(folder) / name).mkdir()
            if runs:
                subprocess.run([sys.executable, "-c", FILL, f"{folder}/{name}", str(runs)], check=True)
        empty = [sys.executable, "-c", EMPTY]
        asked: dict[str, tuple[list[str], float | None]] = {
            "prove --help": (["--help"], 1.5),
            "prove status, no runs": (["status", "--results", f"{folder}/none"], 3.0),
            "prove status, 20 runs": (["status", "--results", f"{folder}/some"], 3.0),
            "prove status --json, 20 runs": (["status", "--json", "--results", f"{folder}/some"], 3.0),
        }
        floor: list[float] = []
        costs: dict[str, list[float]] = {name: [] for name in asked}
        ratios: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(rounds):
            for name, (arguments, _) in asked.items():
                before = cpu_seconds(empty, environment)
                cost = cpu_seconds([sys.executable, "-c", PROVE, *arguments], environment)
                after = cpu_seconds(empty, environment)
                floor += [before, after]
                costs[name].append(cost)
                ratios[name].append(cost / ((before + after) / 2))
        heavy = {
            name: subprocess.run(
                [sys.executable, "-c", WATCHED.format(heavy=HEAVY), *arguments],
                env=environment,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ).stderr.splitlines()[-1]
            for name, (arguments, _) in asked.items()
        }
    print("| | CPU, ms | ratio to an empty Typer app | limit | imported of torch, mmseg, numpy, ... |")
    print("|---|---|---|---|---|")
    print(f"| empty Typer app | {1000 * statistics.median(floor):.0f} | 1 | | |")
    exceeded = False
    for name, (_, limit) in asked.items():
        ratio = statistics.median(ratios[name])
        exceeded |= (limit is not None and ratio > limit) or heavy[name] != "[]"
        imported = "none" if heavy[name] == "[]" else heavy[name]
        print(f"| {name} | {1000 * statistics.median(costs[name]):.0f} | {ratio:.2f} | {limit} | {imported} |")
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
