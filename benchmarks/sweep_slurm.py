"""Submitting a thousand jobs to a real SLURM: `prove sweep`, submitit's `map_array`, and a bash loop over `sbatch`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from measuring import MeasurementError
from sweep_folders import small_file
from sweep_timing import Limit, Section, Turn, column, cost, progress, prove, ratio, raw, seconds

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "slurm"))

from slurm_cluster import Cluster, missing, until

SUBMIT_SECONDS = 3.0
"""Asked for a thousand jobs, until the command returns."""

TITLE = "Submit to SLURM"

OURS, SUBMITIT, LOOP = "prove sweep --launcher slurm", "submitit, map_array", "bash loop over sbatch --wrap"

COUNTED = """#!/bin/sh
echo submitted >> "$SUBMITTED"
exec {sbatch} "$@"
"""

MAP_ARRAY = """
import sys
from submitit import SlurmExecutor
executor = SlurmExecutor(folder="submitit")
executor.update_parameters(partition="main", time=60, array_parallelism=256)
executor.map_array(print, range(int(sys.argv[1])))
"""

SBATCH_LOOP = 'for i in $(seq "$1"); do sbatch --partition=main --wrap true > /dev/null || exit 1; done'


def slurm(asked: Namespace, folder: Path) -> Section:
    """Seconds until a command that submits many jobs returns, and how often it has called `sbatch`."""
    if why := missing():
        return Section(TITLE, [f"Not measured: {why}"], ("",), [])
    turns: list[Turn] = []
    calls: list[dict[str, int]] = []
    progress("slurm: bringing up the cluster")
    with Cluster() as cluster:
        cluster.ask("scontrol", "update", "PartitionName=main", "State=DOWN")  # jobs wait, and cost nothing
        version = cluster.ask("sbatch", "--version")
        programs = _counting_sbatch(folder)
        for number in range(asked.rounds + 1):
            if number:
                progress(f"slurm, round {number} of {asked.rounds}")
            turn, counted = _round(asked, folder, cluster, programs)
            turns.append(turn)
            calls.append(counted)
    turns, calls = turns[1:], calls[1:]  # the first warmed up
    rows = []
    for name in (OURS, SUBMITIT, LOOP):
        often = {counted[name] for counted in calls}
        rows.append(
            (name, seconds(column(turns, name)), seconds(column(turns, name, lambda each: each.cpu)),
             seconds(ratio(turns, OURS, name)), ", ".join(map(str, sorted(often))))
        )  # fmt: skip
    ours = column(turns, OURS)
    assert ours is not None
    most = max(counted[OURS] for counted in calls)
    limits = [
        Limit(f"submit {asked.submit:,} jobs, s", ours.median, SUBMIT_SECONDS),
        Limit(f"`sbatch` calls for {asked.submit:,} jobs", most, 1),
    ]
    text = [
        f"{asked.submit:,} jobs and a real {version} with accounting (slurmctld, slurmdbd, MariaDB and four slurmd) on "
        "the same machine, whose partition is down: jobs wait. `prove sweep` expands, records and claims the jobs, "
        "checks the data, writes the launch folder and submits; the others only submit. The calls of `sbatch` are "
        "counted by a wrapper on the PATH.",
        f"The bash loop submits {asked.submit_loop} jobs; its time is scaled to {asked.submit:,}."
        if asked.submit_loop < asked.submit
        else "",
    ]
    head = ("", "wall, s", "CPU, s", "PROVE / it", "sbatch calls")
    return Section(TITLE, [each for each in text if each], head, rows, limits, {"turns": raw(turns), "calls": calls})


def _counting_sbatch(folder: Path) -> Path:
    programs = folder / "programs"
    programs.mkdir()
    wrapper = programs / "sbatch"
    wrapper.write_text(COUNTED.format(sbatch=shutil.which("sbatch")))
    wrapper.chmod(0o755)
    return programs


def _round(asked: Namespace, folder: Path, cluster: Cluster, programs: Path) -> tuple[Turn, dict[str, int]]:
    turn: Turn = {}
    calls: dict[str, int] = {}
    for name in (OURS, SUBMITIT, LOOP):
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            place = Path(temporary)
            count = asked.submit_loop if name == LOOP else asked.submit
            submitted = place / "submitted"
            commands = {
                OURS: prove(
                    "sweep", small_file(place, count), "--launcher", "slurm", "--slurm", "partition=main",
                    "--slurm", "time=60", "--results", place / "results",
                ),
                SUBMITIT: [sys.executable, "-c", MAP_ARRAY, str(count)],
                LOOP: ["bash", "-c", SBATCH_LOOP, "bash", str(count)],
            }  # fmt: skip
            settings = {"PATH": f"{programs}:{os.environ['PATH']}", "SUBMITTED": str(submitted)}
            taken = cost(commands[name], folder=place, settings=settings)
            calls[name] = len(submitted.read_text().splitlines())
            waiting = len(cluster.ask("squeue", "--noheader", "--array").splitlines())
            if waiting != count:
                raise MeasurementError(f"{name}: {waiting} jobs are in the queue, not {count}.")
            scale = asked.submit / count
            turn[name] = type(taken)(taken.wall * scale, taken.cpu * scale)
            subprocess.run(["scancel", "--user=root"], check=True, capture_output=True)
            until(lambda: not cluster.ask("squeue", "--noheader"), "the queue is empty")
    return turn, calls
