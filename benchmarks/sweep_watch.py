"""`prove watch` beside a thousand runs that report every two seconds: its share of a core, and how old its page is."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import termios
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from measuring import MeasurementError
from sweep_folders import START, fill_running, trained
from sweep_timing import Limit, Section, environment, progress, prove

from prove.launch.folder import LaunchDir
from prove.spec.event import State, encode
from prove.store import LaunchRow, Store

SHARE_PERCENT = 5.0
"""Asked: of one core."""

REPORT_SECONDS = 2.0

LAUNCH = "benchmark"

PATIENCE_SECONDS = 120.0

QUIET_SECONDS = 0.2
"""A pause in what is printed that ends a page."""

REACHED = re.compile(rb"(\d+)/\d+ ")
"""How the page shows the iteration that a run has reached."""

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from sweep_watch import report_for_ever
report_for_ever(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def watch(asked: Namespace, folder: Path) -> Section:
    """Follow runs that report, for a while, on a terminal."""
    progress(f"watch: {asked.running} runs")
    results, files = fill_running(folder, asked.running, _claim)
    listed = folder / "files"
    listed.write_text("\n".join(map(str, files)))
    with _writing(results, listed):
        pages = _follow(results, asked.watch_seconds)
    gaps = [after.at - before.at for before, after in pairwise(pages)]
    if not gaps:
        raise MeasurementError(f"`prove watch` drew {len(pages)} pages in {asked.watch_seconds:.0f} s.")
    wall = pages[-1].at - pages[0].at
    percent = 100 * (pages[-1].cpu - pages[0].cpu) / wall
    ages = [page.age for page in pages[1:]]
    rows = [
        ("CPU, of one core", f"{percent:.1f}%"),
        ("pages drawn", f"{len(gaps)} in {wall:.0f} s"),
        ("seconds between two pages, median (longest)", f"{statistics.median(gaps):.1f} ({max(gaps):.1f})"),
        ("age of the newest report on a page when it is drawn, s, median", f"{statistics.median(ages):.1f}"),
        ("oldest that a page gets before the next, s", f"{max(gaps) + max(ages):.1f}"),
        ("events that were reported in that time, per second", f"{asked.running / REPORT_SECONDS:.0f}"),
    ]
    text = [
        f"{asked.running:,} runs of one local launch, each of which appends a report of training to its events every "
        f"{REPORT_SECONDS:.0f} s; `prove watch` draws its table on a terminal. CPU is that of its process (user and "
        "system, children included) from its second page to its last. It looks the rarer, the more there is to read."
    ]
    figures = {"percent": percent, "gaps": gaps, "ages": ages, "wall": wall}
    limit = Limit(f"`prove watch` of {asked.running:,} runs, % of a core", percent, SHARE_PERCENT)
    return Section("Watch", text, ("", ""), rows, [limit], figures)


def _claim(store: Store, results: Path, keys: Sequence[str]) -> None:
    row = LaunchRow(LAUNCH, "local", socket.gethostname(), os.getpid(), "me", "small", START, 3)
    store.claim(row, dict.fromkeys(keys, 0), (State.PLANNED,))
    LaunchDir.of(results, LAUNCH).begin()


@contextmanager
def _writing(results: Path, listed: Path) -> Iterator[None]:
    """A process that holds the launch and reports for its runs."""
    command = [sys.executable, "-c", WRITER, str(results), str(listed), str(Path(__file__).parent)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
    try:
        assert writer.stdout is not None
        if not writer.stdout.readline():
            raise MeasurementError("The process that reports for the runs has ended.")
        yield
        if writer.poll() is not None:
            raise MeasurementError("The process that reports for the runs has ended.")
    finally:
        writer.kill()
        writer.wait()


def report_for_ever(results: Path, listed: Path) -> None:
    """Append a report to each file every two seconds, evenly; the iteration is the time, in tenths of a second."""
    files = listed.read_text().splitlines()
    descriptors = [os.open(file, os.O_WRONLY | os.O_APPEND) for file in files]
    pause = REPORT_SECONDS / len(files)
    with LaunchDir.of(results, LAUNCH).lock():
        print("ready", flush=True)
        turn = time.monotonic()
        while True:
            for number, descriptor in enumerate(descriptors):
                os.write(descriptor, encode(trained(_now(), time.time() - START)))
                if number % 10 == 9 and (ahead := turn + pause * number - time.monotonic()) > 0:
                    time.sleep(ahead)
            turn += REPORT_SECONDS


def _now() -> int:
    """The time in tenths of a second, its last six digits: an iteration that tells when it was reported."""
    return int(10 * time.time()) % 1_000_000


@dataclass(frozen=True)
class _Page:
    """A page that was drawn.

    Attributes:
        at: when it was complete; seconds of the monotonic clock.
        cpu: seconds that the process had taken by then.
        age: seconds since the newest report on it.
    """

    at: float
    cpu: float
    age: float


def _follow(results: Path, seconds: float) -> list[_Page]:
    """The pages that `prove watch` draws for so long, from the second on: before the first it reads all there is."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    watching = subprocess.Popen(
        prove("watch", "--results", results),
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment(TERM="xterm", LINES="40"),
    )
    os.close(its)
    pages: list[_Page] = []
    try:
        _page(ours, time.monotonic() + PATIENCE_SECONDS)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text := _page(ours, deadline):
            if found := REACHED.findall(text):
                age = (_now() - max(map(int, found))) / 10 - QUIET_SECONDS
                pages.append(_Page(time.monotonic() - QUIET_SECONDS, _cpu_seconds(watching.pid), age))
                deadline = pages[0].at + seconds
    finally:
        watching.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            watching.wait(20)
        watching.kill()
        watching.wait()
        os.close(ours)
    return pages


def _page(terminal: int, deadline: float) -> bytes:
    """What is printed until nothing more comes for an instant; nothing at the deadline.

    Raises:
        MeasurementError: `prove watch` has ended.
    """
    page = b""
    while time.monotonic() < deadline:
        patience = QUIET_SECONDS if page else deadline - time.monotonic()
        if not select.select([terminal], [], [], max(0.0, patience))[0]:
            return page
        try:
            page += os.read(terminal, 65536)
        except OSError:  # its other end is closed
            raise MeasurementError(f"`prove watch` has ended: {page.decode(errors='replace')[-300:]}") from None
    return page


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process and of the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
