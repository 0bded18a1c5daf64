"""Launches of trivial workers: what tests of the pool share."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from journal import make_job

from prove.build.job_config import Placement
from prove.launch.folder import Assignment, Launch, LaunchDir
from prove.launch.slots import Slot
from prove.launch.timing import Timing
from prove.rundir import RunDir

WORKER = "trivial_worker:main"
HERE = Path(__file__).parent
QUICK = Timing(tick=0.02, watch=0.02, heartbeat=0.1, grace=20.0, again=0.05)
TWO = (Slot("cpu:0", 1), Slot("cpu:1", 1))


def assignment(seed: int, steps: int = 3, **changes: Any) -> Assignment:
    job = make_job(seed, max_iters=max(10, steps))
    fields = {"key": job.key, "job": job.to_dict(), "placement": dataclasses.asdict(Placement("SynthStreet"))}
    return Assignment(**{**fields, **changes})


def make_launch(
    results: Path, assignments: Sequence[Assignment], plan: Mapping[str, Any], name: str = "one", **changes: Any
) -> LaunchDir:
    """A launch folder as `prove sweep` leaves it, and the plan of its workers."""
    results.mkdir(exist_ok=True)
    (results / "plan.json").write_text(json.dumps(plan))
    folder = LaunchDir.of(results, name)
    fields = {"launcher": "local", "host": "here", "pid": 1, "user": "me", "created_at": 0.0, "worker": WORKER}
    folder.begin()
    folder.create(Launch(id=name, **{**fields, **changes}), [assignments], {})
    return folder


def events(run: RunDir, kind: str) -> list[dict[str, Any]]:
    if not run.events.exists():
        return []
    whole = [line for line in run.events.read_text().splitlines(keepends=True) if line.endswith("\n")]
    found = []
    for line in whole:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # a line that a kill cut short
    return [event for event in found if event["kind"] == kind]


def run_of(folder: LaunchDir, each: Assignment) -> RunDir:
    return RunDir.of(folder.results, each.key)


def wait_until(happened: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.005)


def processes(results: Path) -> dict[int, str]:
    """Command lines of the living processes that have this test's mark, by number."""
    mark = f"PROVE_TEST_MARK={results}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # gone meanwhile
    return found


def assert_nobody_left(folder: LaunchDir) -> None:
    """No process of this test lives, and every lock is free."""
    wait_until(lambda: not processes(folder.results), f"processes left: {processes(folder.results)}")
    assert not folder.is_held()
    held = [path.name for path in (folder.results / "runs").glob("*") if RunDir(path).is_held()]
    assert not held


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread while the block runs; what fails there fails here."""
    problems: list[BaseException] = []

    def careful() -> None:
        try:
            act()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=careful)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if problems:
        raise problems[0]


POOL = """
import sys
from pathlib import Path
from launches import QUICK, TWO
from prove.launch.folder import LaunchDir
from prove.launch.lines import Lines
from prove.launch.pool import run_pool
launch = LaunchDir(Path(sys.argv[1]))
with launch.lock():
    outcome = run_pool(launch, launch.assignments(0), TWO, launcher="local", show=Lines(print), timing=QUICK)
print(outcome)
sys.exit(outcome.exit_code)
"""


def start_pool(folder: LaunchDir, script: str = POOL) -> subprocess.Popen[str]:
    """A pool in a process of its own, with this test's mark in its environment and in all that it starts."""
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=marked(folder.results),
    )


def marked(results: Path) -> dict[str, str]:
    paths = [str(HERE), str(HERE.parent)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PROVE_TEST_MARK": str(results)}
