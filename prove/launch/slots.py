"""What this machine has, and how many runs go on in it side by side."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prove.errors import ProveError

GIB_PER_RUN = 2.0
"""Main memory that a run on the CPU is given, where nothing else is said."""

MOST_PER_GPU = 8
"""Slots of a GPU that is shared as far as memory goes."""

USABLE = 0.9
"""Share of a GPU's memory that runs side by side may need."""

CONTEXT_MIB = 600.0
"""What a process needs on a GPU beside its tensors: the CUDA context and the kernels."""

FRAGMENTED = 1.1
"""Memory that torch holds, relative to the tensors' peak."""

PATIENCE = 30.0
"""Seconds that NVIDIA's tool is waited for."""

DRIVER = Path("/dev/nvidiactl")
"""Is there where NVIDIA's driver is."""


@dataclass(frozen=True)
class Gpu:
    """A GPU or a part of one.

    Attributes:
        name: what ``CUDA_VISIBLE_DEVICES`` calls it: an index, or the UUID of a GPU or of a MIG instance.
        memory_mib: all that it has; None where nobody says.
    """

    name: str
    memory_mib: float | None = None


@dataclass(frozen=True)
class Machine:
    """What this process may use.

    Attributes:
        cores: logical CPUs.
        memory_gib: main memory.
    """

    cores: int
    memory_gib: float
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time.

    Attributes:
        name: ``cpu:0``, ``gpu:1``, ``gpu:1.2``: the third one on GPU 1.
        threads: of the training process.
        environment: variables of its workers.
        gpu: the GPU that it is on, as ``CUDA_VISIBLE_DEVICES`` calls it; None without.
        shared_mib: memory of that GPU, where it takes a further run only when it is known to fit (``--per-gpu auto``);
            None where it always takes one.
    """

    name: str
    threads: int
    environment: Mapping[str, str] = field(default_factory=dict)
    gpu: str | None = None
    shared_mib: float | None = None


def slots(
    machine: Machine,
    runs: int,
    *,
    jobs: int | None = None,
    per_gpu: int | Literal["auto"] | None = None,
    threads: int | None = None,
    workers: int = 0,
) -> tuple[Slot, ...]:
    """Places for runs, such that together they don't take more cores than there are.

    Args:
        runs: how many there are to do.
        jobs: how many go on at a time at most; None for what the machine bears.
        per_gpu: how many share a GPU: a number (1 by default), or ``auto``, as many as are known to fit.
        threads: of each training process; None to share the cores out.
        workers: data-loading processes of each run, which take cores too.

    Raises:
        ProveError: a number below 1; sharing GPUs where there are none.
    """
    for name, number in (("jobs", jobs), ("per-gpu", per_gpu), ("threads", threads)):
        if isinstance(number, int) and number < 1:
            raise ProveError(f"--{name} {number} is less than 1.")
    runs = max(1, runs)
    if not machine.gpus:
        if per_gpu is not None:
            raise ProveError(f"--per-gpu {per_gpu}, but no GPU is visible here.", hint="Use --jobs N.")
        count = jobs or min(
            runs,
            max(1, machine.cores // ((threads or 1) + workers)),
            max(1, int(machine.memory_gib // GIB_PER_RUN)),
        )
        share = threads or max(1, machine.cores // count - workers)
        return tuple(Slot(f"cpu:{number}", share) for number in range(count))
    each = _per_gpu(machine, per_gpu)
    count = min(jobs or runs, each * len(machine.gpus))
    share = threads or max(1, machine.cores // count - workers)
    found = []
    for number in range(count):
        turn, index = divmod(number, len(machine.gpus))  # one on each GPU before any has two
        gpu = machine.gpus[index]
        found.append(
            Slot(
                name=f"gpu:{index}" if each == 1 else f"gpu:{index}.{turn}",
                threads=share,
                environment={"CUDA_VISIBLE_DEVICES": gpu.name},
                gpu=gpu.name,
                shared_mib=gpu.memory_mib if per_gpu == "auto" else None,
            )
        )
    return tuple(found)


def _per_gpu(machine: Machine, asked: int | Literal["auto"] | None) -> int:
    if asked != "auto":
        return asked or 1
    if any(gpu.memory_mib is None for gpu in machine.gpus):
        return 1  # nothing could be known to fit
    return max(1, min(MOST_PER_GPU, machine.cores // len(machine.gpus)))


def fits(memory_mib: float, running: Sequence[float | None], candidate: float | None) -> bool:
    """Whether one more run fits beside those that share a GPU.

    Args:
        memory_mib: what the GPU has.
        running: peak memory of the tensors of each run that is on it, measured; None where it is not known yet.
        candidate: that of runs like the one that is to be added.
    """
    if not running:
        return True
    peaks = [*running, candidate]
    known = [peak * FRAGMENTED + CONTEXT_MIB for peak in peaks if peak is not None]
    return len(known) == len(peaks) and sum(known) <= USABLE * memory_mib


def machine_for(devices: Iterable[str]) -> Machine:
    """What this process may use for runs that ask for these devices; its GPUs are looked for only if a run may use one.

    Raises:
        ProveError: as `visible_gpus`.
    """
    gpus = visible_gpus() if any(device != "cpu" for device in devices) else ()
    return Machine(cores=_cores(), memory_gib=_memory_gib(), gpus=gpus)


def visible_gpus() -> tuple[Gpu, ...]:
    """The NVIDIA devices that this process may use, named as ``CUDA_VISIBLE_DEVICES`` names them.

    Raises:
        ProveError: there is a driver, but which GPUs it has can't be found out: that is not the same as none.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = gpus_of(visible, "", "")
    if not DRIVER.exists() or (visible is not None and not named):
        return ()
    try:
        listing = _nvidia_smi("-L")
        memory = _nvidia_smi("--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")
    except (OSError, subprocess.SubprocessError) as error:
        if named and isinstance(error, FileNotFoundError):
            return named  # a container may lack the tool
        raise ProveError(
            f"There is an NVIDIA driver, but its GPUs can't be asked for: {_why(error)}.",
            hint="`nvidia-smi` must work here; --device cpu trains on the CPU on purpose.",
        ) from error
    return gpus_of(visible, listing, memory)


def _why(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"nvidia-smi has not answered for {error.timeout:.0f} s"
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stdout or error.stderr or "").strip().splitlines()
        return f"nvidia-smi failed with code {error.returncode}" + (f" ({said[0]})" if said else "")
    return f"nvidia-smi can't be run ({error})"


def gpus_of(visible: str | None, listing: str, memory: str) -> tuple[Gpu, ...]:
    """The devices that a process may use.

    Args:
        visible: its ``CUDA_VISIBLE_DEVICES``; None when it has none: then it may use all, the MIG instances of a GPU
            that has some.
        listing: what ``nvidia-smi -L`` says.
        memory: what ``nvidia-smi --query-gpu=index,uuid,memory.total --format=csv,noheader,nounits`` says.
    """
    sizes: dict[str, float] = {}
    for line in memory.splitlines():
        index, uuid, size = (part.strip() for part in line.split(","))
        if size.replace(".", "").isdigit():
            sizes[index] = sizes[uuid] = float(size)
    names: list[str] = []
    for line in listing.splitlines():
        if found := re.match(r"GPU (\d+):", line):
            names.append(found[1])
        elif found := re.match(r"\s+MIG .*?(\d+)gb\b.*\(UUID: (MIG-[^)]+)\)", line):
            if names and names[-1].isdigit():
                names.pop()  # a GPU that is split can't be used whole
            names.append(found[2])
            sizes[found[2]] = float(found[1]) * 1024
    if visible is not None:
        names = []
        for name in (part.strip() for part in visible.split(",")):
            if name in ("", "-1", "NoDevFiles"):
                break  # CUDA sees nothing from here on
            names.append(name)
    return tuple(Gpu(name, _size(name, sizes)) for name in names)


def _size(name: str, sizes: Mapping[str, float]) -> float | None:
    """Memory of a device by its name; a UUID may be cut short."""
    matching = {size for known, size in sizes.items() if known == name or (len(name) > 4 and known.startswith(name))}
    return matching.pop() if len(matching) == 1 else None


def _nvidia_smi(*arguments: str) -> str:
    done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout


def _cores() -> int:
    cores = len(os.sched_getaffinity(0))
    for folder in _control_groups():
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _memory_gib() -> float:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _control_groups():
        limit = _read(folder / "memory.max")
        if limit.isdigit():
            size = min(size, int(limit))
    return size / 2**30


def _control_groups() -> list[Path]:
    """Folders of this process's control group (version 2) and of those that hold it."""
    root = Path("/sys/fs/cgroup")
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::"):
            own = root / line[3:].lstrip("/")
            return [folder for folder in (own, *own.parents) if folder == root or root in folder.parents]
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
