"""Whatever is killed, when and how often: every run ends up finished exactly once, and nobody is left behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from launches import (
    QUICK,
    TWO,
    assert_nobody_left,
    assignment,
    events,
    make_launch,
    meanwhile,
    processes,
    run_of,
    start_pool,
    wait_until,
)

from prove.launch.folder import Assignment, LaunchDir
from prove.launch.pool import run_pool
from prove.launch.view import PoolOutcome, PoolView

STEADY = {"default": {"steps": 40, "seconds": 0.005}}


def launch_of(results: Path, count: int, **changes: object) -> tuple[LaunchDir, list[Assignment]]:
    runs = [assignment(seed, steps=40) for seed in range(count)]
    return make_launch(results, runs, STEADY, max_attempts=50, **changes), runs


def assert_all_finished_once(folder: LaunchDir, runs: Sequence[Assignment]) -> None:
    for each in runs:
        run = run_of(folder, each)
        assert [event["iteration"] for event in events(run, "finished")] == [40], run.path
        steps = [event["iteration"] for event in events(run, "train")]
        assert sorted(set(steps)) == list(range(1, 41))
    assert_nobody_left(folder)


def pids(folder: LaunchDir, runs: Sequence[Assignment]) -> list[int]:
    """Workers that have started and not ended."""
    found = []
    for each in runs:
        run = run_of(folder, each)
        begun = events(run, "started")
        if begun and run.is_held():
            found.append(begun[-1]["pid"])
    return found


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def zygotes(folder: LaunchDir) -> list[int]:
    """The processes that fork: those workers whose parent is another of them are forks."""
    named = {pid for pid, command in processes(folder.results).items() if "prove.launch.zygote" in command}
    return [pid for pid in named if parent(pid) not in named]


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def finish(pool: subprocess.Popen[str]) -> str:
    output, _ = pool.communicate(timeout=120)
    return output


@pytest.mark.parametrize("seed", range(3))
def test_workers_killed_at_random(results: Path, seed: int) -> None:
    folder, runs = launch_of(results, 6)
    rng = random.Random(seed)
    pool = start_pool(folder)
    for _ in range(8):
        wait_until(lambda: pids(folder, runs) or pool.poll() is not None, "a worker")
        time.sleep(rng.uniform(0, 0.1))
        for pid in pids(folder, runs)[: rng.randint(1, 2)]:
            kill(pid)
    output = finish(pool)
    assert pool.returncode == 0, output
    assert_all_finished_once(folder, runs)


@pytest.mark.parametrize("seed", range(2))
def test_zygotes_killed_at_random(results: Path, seed: int) -> None:
    folder, runs = launch_of(results, 6)
    rng = random.Random(seed)
    pool = start_pool(folder)
    for _ in range(3):
        done = sum(len(events(run_of(folder, each), "started")) for each in runs)
        wait_until(
            lambda done=done: (
                sum(len(events(run_of(folder, each), "started")) for each in runs) > done or pool.poll() is not None
            ),
            "another worker",
        )
        time.sleep(rng.uniform(0, 0.1))
        for pid in zygotes(folder):
            kill(pid)
    output = finish(pool)
    assert pool.returncode == 0, output
    assert_all_finished_once(folder, runs)


def test_a_zygote_that_never_comes_up(results: Path) -> None:
    folder, runs = launch_of(results, 3, worker="suicidal_worker:main")
    outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert set(outcome.not_started) == {each.key for each in runs}
    assert_nobody_left(folder)


@pytest.mark.parametrize("seed", range(4))
def test_pools_killed_at_random(results: Path, seed: int) -> None:
    """The workers notice, checkpoint and stop; the next pool goes on."""
    folder, runs = launch_of(results, 6)
    rng = random.Random(seed)
    for _ in range(5):
        pool = start_pool(folder)
        wait_until(folder.is_held, "the pool's lock")
        time.sleep(rng.uniform(0, 0.6))
        kill(pool.pid)
        finish(pool)
        # the next one does not wait for the workers of this one: it must see that they hold their runs
    pool = start_pool(folder)
    output = finish(pool)
    assert pool.returncode == 0, output
    assert_all_finished_once(folder, runs)


def test_a_killed_pool_leaves_checkpoints_and_nobody(results: Path) -> None:
    folder, runs = launch_of(results, 2)
    pool = start_pool(folder)
    wait_until(lambda: len(pids(folder, runs)) == 2, "both workers")
    kill(pool.pid)
    finish(pool)
    assert_nobody_left(folder)
    for each in runs:
        assert [event["reason"] for event in events(run_of(folder, each), "interrupted")] == ["signal SIGTERM"]


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_one_signal_stops_all_with_checkpoints(results: Path, which: signal.Signals) -> None:
    folder, runs = launch_of(results, 4)
    pool = start_pool(folder)
    wait_until(lambda: len(pids(folder, runs)) == 2, "both workers")
    kill(pool.pid, which)
    output = finish(pool)
    assert pool.returncode == 130, output
    assert f"signal='{which.name}'" in output
    ends = [event["reason"] for each in runs for event in events(run_of(folder, each), "interrupted")]
    assert ends == ["signal SIGTERM"] * 2
    assert_nobody_left(folder)
    pool = start_pool(folder)
    assert finish(pool)
    assert_all_finished_once(folder, runs)


def test_a_second_ctrl_c_ends_all(results: Path) -> None:
    runs = [assignment(seed) for seed in range(2)]
    plan = {"default": {"steps": 10_000, "seconds": 0.01, "deaf": True}}
    folder = make_launch(results, runs, plan)
    pool = start_pool(folder)
    wait_until(lambda: len(pids(folder, runs)) == 2, "both workers")
    kill(pool.pid, signal.SIGINT)
    time.sleep(0.3)
    assert pool.poll() is None
    kill(pool.pid, signal.SIGINT)
    output = finish(pool)
    assert pool.returncode == 130, output
    assert not [event for each in runs for event in events(run_of(folder, each), "interrupted")]
    assert_nobody_left(folder)


def test_ctrl_c_before_anything_started(results: Path) -> None:
    folder, runs = launch_of(results, 4, worker="slow_import_worker:main")
    pool = start_pool(folder)
    wait_until(lambda: zygotes(folder), "the zygote")
    kill(pool.pid, signal.SIGINT)
    output = finish(pool)
    assert pool.returncode == 130, output
    assert not [each for each in runs if run_of(folder, each).path.exists()]
    assert_nobody_left(folder)


def test_run_folders_deleted_while_they_are_trained(results: Path) -> None:
    folder, runs = launch_of(results, 4)

    def vandal() -> None:
        wait_until(lambda: len(pids(folder, runs)) == 2, "both workers")
        for each in runs:
            shutil.rmtree(run_of(folder, each).path, ignore_errors=True)

    with meanwhile(vandal):
        outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert sorted(outcome.finished) == sorted(each.key for each in runs)
    assert_all_finished_once(folder, runs)


def test_the_launch_folder_deleted_while_it_works(results: Path) -> None:
    """Nothing more starts; what runs goes on to its end."""
    folder, runs = launch_of(results, 4)
    started: list[str] = []

    def show(view: PoolView) -> None:
        if len(view.active) == 2 and not started:
            started.extend(run.key for run in view.active)
            shutil.rmtree(folder.path)

    outcome = run_pool(folder, runs, TWO, launcher="local", show=show, timing=QUICK)
    assert sorted(outcome.finished) == sorted(started)
    assert len(outcome.interrupted) == 2
    assert_nobody_left(folder)


def test_a_worker_that_someone_else_stops_goes_on(results: Path) -> None:
    folder, runs = launch_of(results, 1)

    def somebody() -> None:
        wait_until(lambda: pids(folder, runs), "the worker")
        kill(pids(folder, runs)[0], signal.SIGTERM)

    outcomes: list[PoolOutcome] = []
    with meanwhile(somebody):
        outcomes.append(run_pool(folder, runs, TWO, launcher="local", timing=QUICK))
    assert outcomes[0].finished == (runs[0].key,)
    assert_all_finished_once(folder, runs)


def test_processes_that_a_dead_worker_leaves_are_ended(results: Path) -> None:
    runs = [assignment(0)]
    folder = make_launch(results, runs, {"0": {"leaves": True, "die": {"1": 2}}})
    outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert outcome.finished == (runs[0].key,)
    assert_nobody_left(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a tmpfs can't be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    hog = place / "hog"
    with open(hog, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"0" * 4096)
    return hog


def test_a_disk_that_is_full_for_a_while(small_disk: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [assignment(seed) for seed in range(4)]
    folder = make_launch(small_disk / "results", runs, {}, max_attempts=1000)
    hog = fill(small_disk)
    monkeypatch.setenv("PROVE_TEST_MARK", str(folder.results))
    views: list[PoolView] = []

    def show(view: PoolView) -> None:
        views.append(view)
        if len(views) == 3:
            hog.unlink()

    timing = type(QUICK)(tick=0.02, watch=0.02, heartbeat=0.1, grace=20.0, again=1.0)
    outcome = run_pool(folder, runs, TWO, launcher="local", show=show, timing=timing)
    assert sorted(outcome.finished) == sorted(each.key for each in runs)
    for each in runs:
        assert len(events(run_of(folder, each), "finished")) == 1
    assert_nobody_left(folder)


def test_a_disk_that_stays_full_stops_the_pool_and_fails_nothing(
    small_disk: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [assignment(seed) for seed in range(2)]
    folder = make_launch(small_disk / "results", runs, {})
    monkeypatch.setenv("PROVE_TEST_MARK", str(folder.results))
    fill(small_disk)
    outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert set(outcome.interrupted) == {each.key for each in runs}
    assert (outcome.signal, outcome.exit_code) == ("a full disk", 130)
    assert (outcome.finished, outcome.failed, outcome.not_started) == ((), {}, {})
    assert_nobody_left(folder)


def test_detached_it_is_its_own_process(results: Path) -> None:
    """What `prove sweep --detach` starts: the inherited lock is held as long as it works."""
    folder, runs = launch_of(results, 2, options={"jobs": 2, "threads": 1})
    with folder.lock() as lock:
        pool = subprocess.Popen(
            [sys.executable, "-m", "prove.launch.pool", str(folder.path), "--lock", str(lock)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=(lock,),
            start_new_session=True,
        )
    assert folder.is_held()
    wait_until(lambda: len(pids(folder, runs)) == 2, "both workers")
    output = finish(pool)
    assert pool.returncode == 0, output
    for each in runs:
        assert f"{each.key}  started on cpu:" in output
        assert f"{each.key}  finished at iteration 40, mIoU 12.50" in output
    assert_all_finished_once(folder, runs)


def test_detached_and_told_nonsense(results: Path) -> None:
    folder, _ = launch_of(results, 1)
    shutil.rmtree(folder.path)
    done = subprocess.run(
        [sys.executable, "-m", "prove.launch.pool", str(folder.path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, f"There is no {folder.record}.\n")
