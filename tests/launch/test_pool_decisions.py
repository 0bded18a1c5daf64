"""What the end of a worker means, how long the rest takes, who shares a GPU."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from launches import QUICK, assert_nobody_left, assignment, events, make_launch, run_of

from prove.launch.folder import LaunchDir
from prove.launch.lines import Lines, duration, summary
from prove.launch.pool import run_pool
from prove.launch.slots import Slot
from prove.launch.timing import Timing
from prove.launch.verdict import End, Verdict, judge
from prove.launch.view import Pace, PoolView, RunView, kind_of
from prove.launch.waiting import Entry, Waiting

FINISHED = {"kind": "finished"}
OUT_OF_MEMORY = {"kind": "failed", "failure": "out_of_memory", "message": "too large"}
INTERRUPTED = {"kind": "interrupted", "reason": "signal SIGTERM"}


@pytest.mark.parametrize(
    ("end", "verdict", "why"),
    [
        (End(FINISHED, 0), Verdict.FINISHED, ""),
        (End(FINISHED, -9, stopped=True), Verdict.FINISHED, ""),  # it said so before it was killed
        (End(OUT_OF_MEMORY, 1), Verdict.FAILED, "out_of_memory: too large"),
        (End(OUT_OF_MEMORY, 1, stopped=True), Verdict.FAILED, "out_of_memory: too large"),
        (End(OUT_OF_MEMORY, 1, shared=True), Verdict.AGAIN_ALONE, "out_of_memory: too large (it shared"),
        (End({**OUT_OF_MEMORY, "failure": "diverged"}, 1, shared=True, max_attempts=9), Verdict.FAILED, "diverged"),
        (End(INTERRUPTED, 130, stopped=True), Verdict.STOPPED, ""),
        (End(INTERRUPTED, 130, max_attempts=2), Verdict.AGAIN, "signal SIGTERM"),
        (End(INTERRUPTED, 130, starts=2, max_attempts=2), Verdict.FAILED, "killed: signal SIGTERM; it was started 2 "),
        (End(None, -9, stopped=True), Verdict.STOPPED, ""),
        (End(None, -9, max_attempts=2), Verdict.AGAIN, "its worker was killed by SIGKILL"),
        (End(None, -11), Verdict.FAILED, "killed: its worker was killed by SIGSEGV; it was started once"),
        (End(None, 0), Verdict.FAILED, "killed: its worker ended with code 0 and did not say how"),
        (End(None, 2, "no such data", spoke=False, max_attempts=9), Verdict.NOT_STARTED, "no such data"),
        (End(None, 2, "", spoke=False), Verdict.NOT_STARTED, "it said nothing"),
        (
            End(None, 2, "", spoke=False, gone=True, max_attempts=2),
            Verdict.AGAIN,
            "its worker ended with code 2 and did not say how its run ended",
        ),
        (End(None, 2, "is being trained", spoke=False, held=True), Verdict.HELD, "is being trained"),
        (End(None, 2, "", spoke=False, stopped=True), Verdict.STOPPED, ""),
        (End(None, 1, "a\nlast", spoke=False, max_attempts=2), Verdict.AGAIN, "its worker ended with code 1 and did "),
    ],
)
def test_the_end_of_a_worker(end: End, verdict: Verdict, why: str) -> None:
    found = judge(end)
    assert found[0] is verdict
    assert found[1].startswith(why)
    assert bool(found[1]) == bool(why)


def test_time_left() -> None:
    pace = Pace()
    assert pace.eta([("a", 50, None)], {"a": 100}, 2) is None
    assert pace.eta([("a", 50, 2.0)], {"a": 100}, 1) == 300
    assert pace.eta([("a", 50, 2.0), ("a", 10, None)], {}, 2) == 100  # the longest one
    pace.measured("a", 30.0, 10)  # with its start and its validations, an iteration takes 3 s
    assert pace.eta([("a", 0, 2.0)], {"a": 100}, 2) == 150
    assert pace.eta([], {"a": 100, "b": 10}, 1) == 330  # of what was never seen, the usual is expected
    pace.measured("b", 5.0, 1)
    assert pace.eta([], {"a": 100, "b": 10, "c": 1}, 1) == 300 + 50 + 4
    assert pace.eta([], {}, 2) == 0


def test_runs_of_a_kind_differ_in_seed_and_length() -> None:
    jobs = [assignment(0).job, assignment(1, steps=99).job]
    assert kind_of(jobs[0]) == kind_of(jobs[1])
    changed = {**jobs[0], "train": {**jobs[0]["train"], "batch_size": 64}}
    assert kind_of(jobs[0]) != kind_of(changed)


def test_the_line() -> None:
    entries = [Entry(assignment(seed)) for seed in range(4)]
    line = Waiting(entries)
    kind = entries[0].kind
    assert (len(line), line.iterations[kind]) == (4, 40)
    assert line.first() is line.take() is entries[0]
    line.put(entries[0], after=3600)
    line.put(line.take())
    assert line.keys() == [entries[number].key for number in (2, 3, 1, 0)]
    assert line.drop([entries[0].key, entries[3].key, "unknown"]) == [entries[3].key, entries[0].key]
    assert (len(line), line.iterations[kind]) == (2, 20)
    line.put(entries[3], after=1e-9)
    time.sleep(0.001)
    assert line.first() is entries[2]
    assert line.keys()[-1] == entries[3].key


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5400, "90 min"), (7500, "2 h 5 min"), (200_000, "2 d 7 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plain_lines() -> None:
    said: list[str] = []
    lines = Lines(said.append)
    run = RunView("aa", "running", "cpu:0", 1, 5, 10, 0.5, None, 1.0, 0.0)
    lines(PoolView((run,), (), 3, 0, 0, 20.0, False))
    lines(PoolView((run,), (), 3, 0, 0, 20.0, False))
    gone = RunView("aa", "queued", "cpu:0", 1, 5, 10, 0.5, None, 1.0, 0.0, "its worker was killed")
    fast = RunView("bb", "finished", "cpu:1", 2, 10, 10, 0.5, 41.234, 1.0, 0.0)
    lines(PoolView((), (gone, fast), 3, 1, 0, None, False))
    assert [line.split("  ", 1)[1] for line in said] == [
        "aa  started on cpu:0",
        "bb  started on cpu:1, attempt 2",
        "aa  queued at iteration 5: its worker was killed",
        "bb  finished at iteration 10, mIoU 41.23",
    ]
    assert summary(PoolView((run,), (), 3, 7, 1, 3600.0, False)) == (
        "7 finished, 1 running, 3 queued, 1 failed, about 60 min left"
    )


# sharing a GPU: the workers are trivial, the GPU is a name

GPU = tuple(Slot(f"gpu:0.{turn}", 1, {"CUDA_VISIBLE_DEVICES": "7"}, gpu="7", shared_mib=10_000.0) for turn in range(3))
FIXED = tuple(Slot(slot.name, 1, slot.environment, gpu="7") for slot in GPU)


def gpu_launch(results: Path, count: int, plan: dict[str, Any], **changes: Any) -> tuple[LaunchDir, list[Any]]:
    runs = [assignment(seed, **changes) for seed in range(count)]
    runs = [assignment(seed, placement={**runs[0].placement, "cuda": True}, **changes) for seed in range(count)]
    return make_launch(results, runs, plan), runs


def most_at_once(views: list[PoolView]) -> int:
    return max(len(view.active) for view in views)


@pytest.mark.parametrize(
    ("known", "measured", "expected"),
    [
        (None, 2000.0, 3),  # 2000 * 1.1 + 600 = 2800 each: three fit into 9000
        (2000.0, 1.0, 3),
        (3500.0, 1.0, 2),  # 4450 each
        (None, 8000.0, 1),
        (8000.0, 1.0, 1),
    ],
)
def test_a_gpu_takes_as_many_as_fit(results: Path, known: float | None, measured: float, expected: int) -> None:
    plan = {"default": {"steps": 20, "seconds": 0.02, "peak_memory_mib": measured}}
    folder, runs = gpu_launch(results, 6, plan, peak_memory_mib=known)
    views: list[PoolView] = []
    outcome = run_pool(folder, runs, GPU, launcher="local", show=views.append, timing=QUICK)
    assert len(outcome.finished) == 6
    assert most_at_once(views) == expected


def test_what_one_run_needs_is_known_while_it_runs(results: Path) -> None:
    plan = {"default": {"steps": 60, "seconds": 0.02, "peak_memory_mib": 2000.0}}
    folder, runs = gpu_launch(results, 2, plan)
    views: list[PoolView] = []
    run_pool(folder, runs, GPU, launcher="local", show=views.append, timing=QUICK)
    assert most_at_once(views) == 2


def test_out_of_memory_beside_others_is_tried_alone_once(results: Path) -> None:
    plan = {
        "default": {"steps": 20, "seconds": 0.01},
        "1": {"failures": ["out_of_memory"]},
        "2": {"failures": ["out_of_memory", "out_of_memory"]},
    }
    folder, runs = gpu_launch(results, 5, plan)
    together: set[str] = set()
    tried: set[str] = set()

    def show(view: PoolView) -> None:
        for run in view.active:
            if run.attempt == 2:
                tried.add(run.key)
                together.update(each.key for each in view.active if each.key != run.key)

    timing = Timing(tick=0.001, watch=0.02, grace=20.0, again=0.05)
    outcome = run_pool(folder, runs, FIXED, launcher="local", show=show, timing=timing)
    assert sorted(outcome.finished) == sorted(runs[number].key for number in (0, 1, 3, 4))
    assert list(outcome.failed) == [runs[2].key]
    assert len(events(run_of(folder, runs[2]), "started")) == 2
    assert tried == {runs[1].key, runs[2].key}
    assert not together, "while a run is tried alone, no other is on its GPU"
    assert_nobody_left(folder)
