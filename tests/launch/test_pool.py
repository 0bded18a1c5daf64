"""A pool does every run of its launch once, and says rightly what became of each."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from launches import QUICK, TWO, assert_nobody_left, assignment, events, make_launch, meanwhile, run_of

from prove.errors import ProveError
from prove.launch.loop import Timing
from prove.launch.pool import run_launch, run_pool
from prove.launch.view import PoolOutcome, PoolView
from prove.rundir import read_json


def test_a_run_gets_the_files_that_its_launch_keeps(results: Path) -> None:
    runs = [assignment(0, model_config="model-1.py", terms=("mine",)), assignment(1)]
    folder = make_launch(results, runs, {})
    for name in ("model-1.py", "mine.yaml", "mine.py"):
        (folder.files / name).write_text(f"content of {name}")
    run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    run = run_of(folder, runs[0])
    assert run.model_config.read_text() == "content of model-1.py"
    assert [path.read_text() for path in run.term_files("mine")] == ["content of mine.yaml", "content of mine.py"]
    assert not run_of(folder, runs[1]).model_config.exists()
    assert not run_of(folder, runs[1]).terms.exists()


def test_every_run_is_done_once(results: Path) -> None:
    runs = [assignment(seed) for seed in range(12)]
    folder = make_launch(results, runs, {})
    views: list[PoolView] = []
    outcome = run_pool(folder, runs, TWO, launcher="local", show=views.append, timing=QUICK)
    assert outcome == PoolOutcome(finished=outcome.finished)
    assert sorted(outcome.finished) == sorted(each.key for each in runs)
    for each in runs:
        run = run_of(folder, each)
        assert [event["launcher"] for event in events(run, "started")] == ["local"]
        assert len(events(run, "finished")) == 1
        assert read_json(run.job) == each.job
    ended = [run for view in views for run in view.ended]
    assert sorted(run.key for run in ended) == sorted(each.key for each in runs)
    assert {run.state for run in ended} == {"finished"}
    assert {run.slot for run in ended} == {"cpu:0", "cpu:1"}
    assert max(len(view.active) for view in views) <= 2
    assert (views[-1].finished, views[-1].queued, views[-1].failed, views[-1].active) == (12, 0, 0, ())
    assert folder.heartbeat.exists()
    assert_nobody_left(folder)


def test_threads_are_the_slots_and_a_cpu_slot_has_no_cuda(results: Path) -> None:
    runs = [assignment(0)]
    runs = [assignment(0, placement={**runs[0].placement, "threads": 7, "cuda": True})]
    folder = make_launch(results, runs, {})
    run_pool(folder, runs, TWO, launcher="slurm 12_3", timing=QUICK)
    launch = read_json(run_of(folder, runs[0]).launch)
    assert (launch["placement"]["threads"], launch["placement"]["cuda"]) == (1, False)
    assert launch["launcher"] == "slurm 12_3"


def test_a_finished_run_is_not_trained_again(results: Path) -> None:
    runs = [assignment(seed) for seed in range(3)]
    run_pool(make_launch(results, runs[:2], {}), runs[:2], TWO, launcher="local", timing=QUICK)
    folder = make_launch(results, runs, {}, name="two")
    outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert sorted(outcome.finished) == sorted(each.key for each in runs)
    assert [len(events(run_of(folder, each), "started")) for each in runs] == [1, 1, 1]


def test_what_fails_is_not_repeated_and_does_not_stop_the_others(results: Path) -> None:
    runs = [assignment(seed) for seed in range(4)]
    folder = make_launch(results, runs, {"1": {"fail": "diverged"}, "2": {"silent": 2}})
    outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert outcome.failed == {runs[1].key: "diverged: as planned"}
    assert outcome.not_started == {runs[2].key: "this worker can't start"}
    assert sorted(outcome.finished) == sorted([runs[0].key, runs[3].key])
    assert outcome.exit_code == 1
    assert len(events(run_of(folder, runs[1]), "started")) == 1
    assert run_of(folder, runs[2]).log.read_text().endswith("could not start: this worker can't start\n")


def test_a_killed_run_goes_on_from_its_checkpoint(results: Path) -> None:
    runs = [assignment(seed) for seed in range(3)]
    folder = make_launch(results, runs, {"0": {"die": {"1": 1, "2": 2}}})
    outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert sorted(outcome.finished) == sorted(each.key for each in runs)
    run = run_of(folder, runs[0])
    assert [event["resumed_from"] for event in events(run, "started")] == [0, 1, 2]
    assert [event["iteration"] for event in events(run, "train")] == [1, 2, 3]
    assert len(events(run, "finished")) == 1


def test_a_run_that_is_always_killed_is_given_up(results: Path) -> None:
    runs = [assignment(0), assignment(1)]
    plan = {"0": {"steps": 9, "die": {"1": 1, "2": 2, "3": 3}}, "1": {"silent": 9}}
    folder = make_launch(results, runs, plan)
    outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert outcome.failed[runs[0].key] == "killed: its worker was killed by SIGKILL; it was started 3 times"
    assert outcome.failed[runs[1].key] == (
        "killed: its worker ended with code 9 and did not say how its run ended (this worker can't start); "
        "it was started 3 times"
    )
    assert len(events(run_of(folder, runs[0]), "started")) == 3


def test_max_attempts_is_the_launchs(results: Path) -> None:
    runs = [assignment(0)]
    folder = make_launch(results, runs, {"0": {"die": {"1": 1}}}, max_attempts=1)
    outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert list(outcome.failed) == [runs[0].key]
    assert len(events(run_of(folder, runs[0]), "started")) == 1


def test_a_run_that_another_process_holds_is_waited_for(results: Path) -> None:
    runs = [assignment(0), assignment(1)]
    folder = make_launch(results, runs, {})
    held = run_of(folder, runs[0])
    held.create()
    views: list[PoolView] = []

    def show(view: PoolView) -> None:
        views.append(view)
        if view.finished == 1 and not view.active:
            lock.__exit__(None, None, None)

    lock = held.lock()
    lock.__enter__()
    outcome = run_pool(folder, runs, TWO, launcher="local", show=show, timing=QUICK)
    assert outcome.finished == (runs[1].key, runs[0].key)
    assert len(events(held, "started")) == 1


def test_called_off_before_and_while_it_runs(results: Path) -> None:
    runs = [assignment(seed, steps=10_000) for seed in range(4)]
    folder = make_launch(results, runs, {"default": {"steps": 10_000, "seconds": 0.01}, "1": {"steps": 3}})
    folder.call_off(runs[3].key)

    def show(view: PoolView) -> None:
        if any(run.iteration for run in view.active if run.key == runs[0].key):
            folder.call_off(runs[0].key)
            folder.call_off(runs[2].key)

    outcome = run_pool(folder, runs, TWO, launcher="local", show=show, timing=QUICK)
    assert sorted(outcome.cancelled) == sorted(runs[number].key for number in (0, 2, 3))
    assert outcome.finished == (runs[1].key,)
    assert outcome.exit_code == 0
    assert len(events(run_of(folder, runs[0]), "interrupted")) == 1
    assert not run_of(folder, runs[3]).path.exists()


def test_a_closed_launch_starts_nothing_more(results: Path) -> None:
    runs = [assignment(seed) for seed in range(6)]
    folder = make_launch(results, runs, {"default": {"seconds": 0.1}})

    def show(view: PoolView) -> None:
        if view.active:
            folder.close()

    outcome = run_pool(folder, runs, TWO, launcher="local", show=show, timing=QUICK)
    assert len(outcome.finished) == 2  # those that ran go on to their end
    assert len(outcome.interrupted) == 4


def test_a_worker_that_is_deaf_is_ended_after_the_grace(results: Path) -> None:
    runs = [assignment(0, steps=10_000)]
    folder = make_launch(results, runs, {"0": {"steps": 10_000, "seconds": 0.01, "deaf": True}})
    timing = Timing(tick=0.02, watch=0.02, grace=0.2)

    def show(view: PoolView) -> None:
        if any(run.iteration for run in view.active):
            folder.call_off(runs[0].key)

    outcome = run_pool(folder, runs, TWO, launcher="local", show=show, timing=timing)
    assert outcome.cancelled == (runs[0].key,)
    assert not events(run_of(folder, runs[0]), "interrupted")
    assert_nobody_left(folder)


def test_a_worker_that_cannot_be_imported(results: Path) -> None:
    runs = [assignment(0), assignment(1)]
    folder = make_launch(results, runs, {}, worker="no_such_module:main")
    outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert set(outcome.not_started) == {each.key for each in runs}
    assert all("No module named 'no_such_module'" in why for why in outcome.not_started.values())


def test_a_results_folder_that_cannot_be_written(results: Path) -> None:
    runs = [assignment(0)]
    folder = make_launch(results, runs, {})
    (results / "runs").write_text("a file where a folder should be")
    outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert list(outcome.not_started) == [runs[0].key]
    assert "can't be written" in outcome.not_started[runs[0].key]


def test_signal_handlers_are_put_back(results: Path) -> None:
    def mine(number: int, frame: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGUSR1, mine)
    try:
        runs = [assignment(0)]
        run_pool(make_launch(results, runs, {}), runs, TWO, launcher="local", timing=QUICK)
        assert signal.getsignal(signal.SIGUSR1) is mine
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_pool_in_a_thread(results: Path) -> None:
    runs = [assignment(0)]
    folder = make_launch(results, runs, {})
    outcomes: list[PoolOutcome] = []
    with meanwhile(lambda: outcomes.append(run_pool(folder, runs, TWO, launcher="local", timing=QUICK))):
        pass
    assert outcomes[0].finished == (runs[0].key,)


def test_the_launchs_options_make_the_slots(results: Path) -> None:
    runs = [assignment(seed) for seed in range(4)]
    folder = make_launch(results, runs, {}, options={"jobs": 3, "threads": 1})
    views: list[PoolView] = []
    run_launch(folder, runs, show=views.append)
    assert {run.slot for view in views for run in view.ended} <= {"cpu:0", "cpu:1", "cpu:2"}
    folder = make_launch(results, runs, {}, name="two", options={"jobs": 0})
    with pytest.raises(ProveError, match="--jobs 0"):
        run_launch(folder, runs)


def test_an_idle_pool_costs_next_to_nothing(results: Path) -> None:
    runs = [assignment(seed, steps=10_000) for seed in range(2)]
    folder = make_launch(results, runs, {"default": {"steps": 10_000, "seconds": 0.1}})
    spent: list[tuple[float, float]] = []

    def show(view: PoolView) -> None:
        if len(view.active) == 2 and all(run.iteration for run in view.active):
            spent.append((time.monotonic(), time.thread_time()))
            if spent[-1][0] - spent[0][0] > 3:
                folder.close()
                for each in runs:
                    folder.call_off(each.key)

    run_pool(folder, runs, TWO, launcher="local", show=show)
    seconds, busy = (last - first for first, last in zip(spent[0], spent[-1], strict=True))
    assert busy / seconds < 0.02  # a hundredth of a core, and as much again for the machine's moods


def test_progress_and_what_is_left(results: Path) -> None:
    runs = [assignment(seed, steps=30) for seed in range(3)]
    folder = make_launch(results, runs, {"default": {"steps": 30, "seconds": 0.01}})
    views: list[PoolView] = []
    run_pool(folder, runs, TWO[:1], launcher="local", show=views.append, timing=QUICK)
    running = [run for view in views for run in view.active if run.state == "running" and run.iteration]
    assert running
    for run in running:
        assert run.loss == pytest.approx(1 / run.iteration)
        assert run.max_iters == 30
        assert run.seconds_per_iteration == 0.01
    known = [view.eta_seconds for view in views if view.eta_seconds is not None and view.active]
    assert known[0] > known[-1] >= 0
