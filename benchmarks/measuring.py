"""Time and memory of calls, side by side: what the benchmarks of the losses and of the training step share."""

from __future__ import annotations

import ctypes
import datetime
import gc
import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

Call = Callable[[], object]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
"""Options of glibc's ``mallopt``."""

SLOW_WARM_UP = 0.5
"""Seconds of a warm-up beyond which the peak is that of one call, not of a second."""

BASELINE = "baseline"
"""Name of the call that the others of its block are compared with."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


class Clock:
    """Seconds that a call takes on a device: wall time on a CPU; between events, the cache flushed, on a GPU."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self._flush = torch.empty(2**28, dtype=torch.int8, device=device) if self.cuda else None

    def seconds(self, call: Call) -> float:
        if self._flush is None:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        self._flush.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000


def rounds_of(seconds: float, rounds: int, budget: float) -> int:
    """How many of the rounds a call of this length takes part in: all, or as many as fit the budget, but three."""
    return max(min(3, rounds), min(rounds, int(budget / max(seconds, 1e-9))))


def takes_part(turn: int, share: int, rounds: int) -> bool:
    """Whether a call with ``share`` of the rounds is measured in this one; they are spread evenly."""
    return (turn + 1) * share // rounds > turn * share // rounds


def interleave(
    baseline: Call,
    blocks: Sequence[Mapping[str, Call]],
    shares: Sequence[Mapping[str, int]],
    rounds: int,
    clock: Clock,
    between: Call = lambda: None,
) -> list[list[dict[str, float]]]:
    """Seconds of every call in every round.

    The rounds are outermost, so that a slow minute of the machine hits all blocks alike. In a round the baseline runs
    before the first block and after each.

    Args:
        baseline: what the others are compared with.
        blocks: contenders by name.
        shares: of each block, the rounds in which each contender takes part.
        between: runs before each call and is not timed.

    Returns:
        For each block a list over rounds of seconds by name; those of `BASELINE` are the mean of the runs before and
        after the block.
    """

    def timed(call: Call) -> float:
        between()
        return clock.seconds(call)

    seconds: list[list[dict[str, float]]] = [[] for _ in blocks]
    for turn in range(rounds):
        before = timed(baseline)
        for calls, share, turns in zip(blocks, shares, seconds, strict=True):
            taken = {name: timed(calls[name]) for name, count in share.items() if takes_part(turn, count, rounds)}
            after = timed(baseline)
            turns.append({**taken, BASELINE: (before + after) / 2})
            before = after
    return seconds


def ratios(turns: Sequence[Mapping[str, float]], name: str, to: str = BASELINE) -> Spread | None:
    """Quartiles of the ratios of one call to another in the rounds in which both took part; None if there is none."""
    shared = [turn[name] / turn[to] for turn in turns if name in turn and to in turn]
    return Spread.of(shared) if shared else None


class MeasurementError(Exception):
    """What was to be measured failed; the message says how."""


def describe(error: Exception) -> str:
    """An exception in one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:117] + '...' if len(text) > 120 else text}"


@dataclass(frozen=True)
class Peak:
    """Bytes beyond the inputs at the peak of a call.

    Attributes:
        bytes: above what there was before the first call: what a call needs, and what earlier ones have kept.
        kept: of these, what is still held after a call, the gradient freed.
    """

    bytes: int
    kept: int


def peak_beyond_inputs(warm_up: Call, call: Call, forget: Call, device: str) -> Peak:
    """Peak memory of a call whose inputs exist already; see `Peak`.

    On a CPU it is the resident set of a process forked for the purpose, so that every allocator counts: torch's,
    numpy's, a compiled kernel's. This process must not have started threads.

    Args:
        warm_up: the call on smaller inputs, so that code that loads or compiles on first use is not counted.
        forget: frees what the call leaves behind in its inputs: their gradient.

    Raises:
        MeasurementError: a call failed.
    """
    if device == "cuda":
        try:
            return _cuda_peak(warm_up, call, forget)
        except Exception as error:  # whatever the measured code raises is the outcome
            raise MeasurementError(describe(error)) from error
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_resident_peak, args=(warm_up, call, forget, sender))
    child.start()
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:
        child.join()
        outcome = f"the process ended with exit code {child.exitcode}"
    child.join()
    if isinstance(outcome, str):
        raise MeasurementError(outcome)
    before, after, peak = outcome
    return Peak(bytes=peak - before, kept=after - before)


def _resident_peak(warm_up: Call, call: Call, forget: Call, sender: Connection) -> None:
    libc = ctypes.CDLL(None)
    for option, value in ((M_MMAP_THRESHOLD, 1 << 16), (M_TRIM_THRESHOLD, 0), (M_TOP_PAD, 0)):
        libc.mallopt(option, value)  # what is freed goes back to the system at once

    def settled() -> int:
        forget()
        gc.collect()
        libc.malloc_trim(0)
        return _status("VmRSS")

    try:
        start = time.perf_counter()
        warm_up()
        quick = time.perf_counter() - start < SLOW_WARM_UP
        before = settled()
        if quick:  # the peak of a first call would count what it loads; a slow one is loaded by its warm-up
            call()
            settled()
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the high-water mark of the resident set
        call()
        peak = _status("VmHWM")
        sender.send((before, settled(), peak))
    except Exception as error:  # whatever the measured code raises is the outcome
        sender.send(describe(error))
    sender.close()


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _cuda_peak(warm_up: Call, call: Call, forget: Call) -> Peak:
    warm_up()
    forget()
    before = torch.cuda.memory_allocated()
    call()
    forget()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    forget()
    return Peak(bytes=peak - before, kept=torch.cuda.memory_allocated() - before)


def reuse_memory() -> None:
    """From here on glibc keeps what is freed, however large, and hands it out again."""
    libc = ctypes.CDLL(None)
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
        libc.mallopt(option, value)


def limit_threads(threads: int) -> None:
    """Threads of torch and, where it is installed, of numba's parallel loops."""
    torch.set_num_threads(threads)
    try:
        import numba
    except ImportError:
        return
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


def machine(device: str, threads: int, packages: Sequence[str]) -> dict[str, Any]:
    """What was measured on, for the head of a report."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    about: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": found,
    }
    if device == "cuda":
        about["gpu"] = torch.cuda.get_device_name()
    return about


def machine_line(about: Mapping[str, Any]) -> str:
    """`machine` as a sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    gpu = f"{about['gpu']}; " if "gpu" in about else ""
    return (
        f"Machine: {gpu}{about['cpu']}, {about['cores']} cores, threads: {about['threads']}; {about['system']}, "
        f"Python {about['python']}, {versions}; {about['date']}."
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "CPU"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")


def as_json(value: Any) -> Any:
    """For ``json.dumps(default=...)``: dataclasses as mappings."""
    return asdict(value)
