"""Hands a launch to SLURM: as few job arrays as the cluster allows, through submitit.

submitit writes the batch script and submits it. What runs is not its pickles, which it puts into their place only
after `sbatch` has returned: a death in between would lose them. It is `python -m prove.launch.task LAUNCH_DIR`, which
finds all it needs in the launch folder.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from prove.errors import ProveError
from prove.launch.folder import LaunchDir
from prove.launch.slurm_options import SlurmOptions
from prove.rundir import read_json, write_json

NAME = "prove-"
"""What the name of a launch's jobs begins with; its id follows."""

PATIENCE_SECONDS = 60.0
"""How long a SLURM command may take."""

_BLAMED = {
    "invalid account": "account",
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "memory": "memory",
    "time": "time",
    "feature": "constraint",
    "generic resource": "gpus",
    "gres": "gpus",
    "node count": "cpus",
    "cpu count": "cpus",
    "node configuration": "gpus, cpus or memory",
    "unrecognized option": "directives",
}
"""Words of `sbatch`'s complaints, and the option that they are about."""


def submit(launch: LaunchDir, tasks: int, options: SlurmOptions) -> list[str]:
    """Submit the tasks of a launch whose folder is complete, and note in it which array has which tasks.

    Returns:
        Ids of the array jobs, in the order of their tasks.

    Raises:
        ProveError: there is no SLURM here, or it refuses; in its own words. Then nothing of this launch is in its
            queue.
    """
    require_slurm()
    size = min(tasks, max_array_size())
    offsets = range(0, tasks, size)
    launch.slurm.mkdir(exist_ok=True)
    write_json(_arrays(launch), list(offsets))
    jobs: list[str] = []
    for offset in offsets:
        try:
            jobs.append(_submit_array(launch, offset, min(size, tasks - offset), options))
        except ProveError:
            if jobs:
                ask("scancel", *jobs)
            raise
    return jobs


def offsets(launch: LaunchDir) -> list[int]:
    """The first task of each array of a launch, in the order in which they were submitted; of one if nobody noted."""
    try:
        return [int(offset) for offset in read_json(_arrays(launch))]
    except ProveError:
        return [0]


def require_slurm() -> None:
    """Raise the error that says what to do where there is no SLURM."""
    if shutil.which("sbatch") is None:
        raise ProveError(
            "SLURM is not installed here: there is no `sbatch`.",
            hint="Run it on this machine with --launcher local, or sweep from a login node of the cluster.",
        )


def max_array_size() -> int:
    """Most elements that an array may have on this cluster.

    Raises:
        ProveError: SLURM does not answer.
    """
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(found[1])) if found else 1001


def job_name(launch_id: str) -> str:
    """The name of a launch's jobs, by which they are found again."""
    return NAME + launch_id


def cancel(elements: Sequence[str]) -> None:
    """Cancel jobs or array elements (``123_4``), those that are over already included.

    Raises:
        ProveError: SLURM does not answer.
    """
    for start in range(0, len(elements), 1000):  # a command line has an end
        ask("scancel", *elements[start : start + 1000])


def ask(*command: str) -> str:
    """What a SLURM command prints.

    Raises:
        ProveError: it is not installed, fails, or does not answer in time; in its own words.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, errors="replace")
    except FileNotFoundError:
        raise ProveError(f"SLURM's `{command[0]}` is not installed here.") from None
    except subprocess.TimeoutExpired:
        raise ProveError(f"SLURM's `{command[0]}` has not answered for {PATIENCE_SECONDS:.0f} s.") from None
    if done.returncode:
        raise ProveError(f"SLURM's `{command[0]}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _arrays(launch: LaunchDir) -> Path:
    return launch.slurm / "arrays.json"


def _submit_array(launch: LaunchDir, offset: int, elements: int, options: SlurmOptions) -> str:
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError

    executor = SlurmExecutor(folder=launch.slurm)
    executor.update_parameters(**_parameters(launch, options))
    executor.parameters["map_count"] = elements
    try:
        with redirect_stderr(io.StringIO()):  # submitit prints what it raises
            return str(executor._submit_command(command(launch, offset, options)).job_id)
    except FailedJobError as error:
        raise _refusal(str(error), options) from None
    except OSError as error:
        raise ProveError(f"The batch script can't be written: {launch.slurm} ({error.strerror}).") from error


def command(launch: LaunchDir, offset: int, options: SlurmOptions) -> str:
    """The shell command of a task.

    As a step of its own (`srun`) it hears of a preemption at once, when the cluster gives a grace time; a batch script
    hears of it only at the end of that. Not srun's to inherit are the cores: sbatch's --cpus-per-task is no default of
    srun's since SLURM 22.05.
    """
    step = ["srun", "--unbuffered", "--nodes=1", "--ntasks=1", f"--cpus-per-task={options.cpus}"]
    worker = [options.python, "-m", "prove.launch.task", str(launch.path.resolve())]
    return "exec " + shlex.join([*step, *worker, "--offset", str(offset)])


def _parameters(launch: LaunchDir, options: SlurmOptions) -> dict[str, Any]:
    """submitit's parameters: those that it knows by name, the rest as additional ones."""
    chosen: dict[str, Any] = {
        "job_name": job_name(launch.id),
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "gpus_per_node": options.gpus,
        "cpus_per_task": options.cpus,
        "ntasks_per_node": 1,
        "mem": options.memory,
        "time": options.time,
        "setup": list(options.setup) or None,
        "array_parallelism": options.parallel,
        "signal_delay_s": options.signal_seconds,
    }
    own = {
        **options.directives,
        "output": f"{str(launch.slurm.resolve()).replace('%', '%%')}/%A_%a.out",
        "signal": f"USR1@{options.signal_seconds}",
        "requeue" if options.requeue else "no-requeue": True,
    }
    fixed = {"use_srun": False, "stderr_to_stdout": True, "wckey": None, "additional_parameters": own}
    return chosen | fixed  # None where submitit would fill in a default of its own, such as five minutes


def _refusal(said: str, options: SlurmOptions) -> ProveError:
    lines = [line for line in said.splitlines() if line.startswith(("sbatch:", "Unable", "srun:"))]
    words = "\n".join(lines or said.splitlines()[-5:]).replace("sbatch: error: ", "").replace("sbatch: ", "")
    about = next((option for word, option in _BLAMED.items() if word in words.lower()), None)
    if about is None:
        return ProveError(f"SLURM refuses the jobs: {words}")
    given = {name: getattr(options, name) for name in about.replace(" or ", ", ").split(", ")}
    now = "; ".join(f"{name}: {value}" for name, value in given.items() if value is not None)
    return ProveError(f"SLURM refuses the jobs: {words}", hint=f"Change {about} (now {now or 'not given'}).")
