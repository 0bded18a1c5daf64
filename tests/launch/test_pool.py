"""A pool does every run of its launch once, and says rightly what became of each."""

from __future__ import annotations

import signal
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from launches import QUICK, TWO, WORKER, assert_nobody_left, assignment, events, make_launch, meanwhile, run_of

from prove.errors import ProveError
from prove.launch.folder import Assignment, Launch, LaunchDir
from prove.launch.pool import check_slots, run_launch, run_pool
from prove.launch.slots import Slot
from prove.launch.timing import Timing
from prove.launch.view import PoolOutcome, PoolView
from prove.rundir import read_json


def test_a_run_gets_the_files_that_its_launch_keeps(results: Path) -> None:
    runs = [
        assignment(0, model_config="model-1.py", terms={"mine": "ab"}),
        assignment(1),
        assignment(2, terms={"mine": "cd"}),
    ]
    folder = make_launch(results, runs, {})
    assert folder.assignments(0) == runs
    for name in ("model-1.py", "ab.yaml", "ab.py", "cd.yaml", "cd.py"):
        (folder.files / name).write_text(f"content of {name}")
    run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    run = run_of(folder, runs[0])
    assert run.model_config.read_text() == "content of model-1.py"
    assert [path.read_text() for path in run.term_files("mine")] == ["content of ab.yaml", "content of ab.py"]
    other = run_of(folder, runs[2])  # another version of that term
    assert [path.read_text() for path in other.term_files("mine")] == ["content of cd.yaml", "content of cd.py"]
    assert not run_of(folder, runs[1]).model_config.exists()
    assert not run_of(folder, runs[1]).terms.exists()


def test_a_long_list_of_runs_is_never_whole_text_in_memory(results: Path) -> None:
    runs = [assignment(0)] * 3000
    folder = LaunchDir.of(results, "one")
    folder.begin()
    tracemalloc.start()
    try:
        folder.create(Launch("one", "local", "here", 1, "me", 0.0), [runs], {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert folder.assignments(0) == runs
    assert peak < folder.task(0).stat().st_size / 10


@pytest.mark.parametrize("tasks", [[[]], [[assignment(0)], [assignment(1), assignment(2)]]])
def test_a_task_is_read_as_it_was_written(results: Path, tasks: list[list[Assignment]]) -> None:
    folder = LaunchDir.of(results, "one")
    folder.begin()
    folder.create(Launch("one", "local", "here", 1, "me", 0.0), tasks, {})
    assert [folder.assignments(number) for number in range(len(tasks))] == tasks


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


@pytest.mark.parametrize(
    ("device", "gpu", "cuda"), [("auto", None, False), ("auto", "0", True), ("cpu", "0", False), ("cuda", "0", True)]
)
def test_the_slot_says_where_a_run_goes(results: Path, device: str, gpu: str | None, cuda: bool) -> None:
    made = dict(assignment(0).placement)
    runs = [assignment(0, placement={**made, "threads": 7, "cuda": not cuda}, device=device)]
    folder = make_launch(results, runs, {})
    run_pool(folder, runs, [Slot("one", 1, gpu=gpu)], launcher="slurm 12_3", timing=QUICK)
    launch = read_json(run_of(folder, runs[0]).launch)
    assert (launch["placement"]["threads"], launch["placement"]["cuda"]) == (1, cuda)
    assert (launch["launcher"], launch["device"]) == ("slurm 12_3", device)


def test_a_gpu_that_was_asked_for_is_not_replaced_by_the_cpu(results: Path) -> None:
    runs = [assignment(0, device="cuda"), assignment(1)]
    folder = make_launch(results, runs, {})
    outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert outcome.not_started == {runs[0].key: "it was to train on CUDA, and there is no GPU for it here"}
    assert outcome.finished == (runs[1].key,)


def test_what_this_machine_can_not_do_is_refused_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_slots({}, [assignment(0), assignment(1, device="cpu")])
    check_slots({"per_gpu": 2}, [])  # nothing to run, nothing to refuse
    with pytest.raises(ProveError, match="--device cuda, but no CUDA device is visible here"):
        check_slots({}, [assignment(0), assignment(1, device="cuda")])
    with pytest.raises(ProveError, match="--per-gpu 2, but no GPU is visible"):
        check_slots({"per_gpu": 2}, [assignment(0)])


def test_word_is_left_of_runs_that_have_not_said_what_became_of_them(results: Path) -> None:
    runs = [assignment(seed) for seed in range(5)]
    plan = {"0": {"silent": 2}, "1": {"silent": 9}, "2": {"die": {"1": 1, "2": 2}}, "3": {"fail": "diverged"}}
    folder = make_launch(results, runs, plan, max_attempts=2)
    run_pool(folder, runs, TWO, launcher="local", task=7, timing=QUICK)
    word = read_json(folder.outcome(7))
    assert {key: each["kind"] for key, each in word.items()} == {
        runs[0].key: "error",
        runs[1].key: "killed",
        runs[2].key: "killed",
    }
    assert word[runs[0].key]["message"] == "this worker can't start"
    assert word[runs[1].key]["message"].startswith("its worker ended with code 9 and did not say how")
    assert word[runs[2].key]["message"] == "its worker was killed by SIGKILL; it was started 2 times"
    assert not folder.outcome(0).exists()

    again = [runs[0], runs[4]]  # as an element of a SLURM array that is put back does it
    (results / "plan.json").write_text("{}")
    run_pool(folder, again, TWO, launcher="local", task=7, timing=QUICK)
    assert set(read_json(folder.outcome(7))) == {runs[1].key, runs[2].key}


def test_word_is_left_while_the_pool_still_works(results: Path) -> None:
    runs = [assignment(0), assignment(1, steps=10_000)]
    folder = make_launch(results, runs, {"0": {"silent": 2}, "1": {"steps": 10_000, "seconds": 0.01}})
    seen: list[bool] = []

    def show(view: PoolView) -> None:
        if folder.outcome(0).exists() and view.active:
            seen.append(runs[0].key in read_json(folder.outcome(0)))
            folder.call_off(runs[1].key)

    run_pool(folder, runs, TWO, launcher="local", show=show, timing=QUICK)
    assert seen
    assert all(seen)


@pytest.mark.parametrize("by", ["cancel", "close"])
def test_what_is_called_off_a_moment_before_it_would_start_does_not(results: Path, by: str) -> None:
    runs = [assignment(seed) for seed in range(2)]
    folder = make_launch(results, runs, {"0": {"steps": 20, "seconds": 0.01}})
    timing = replace(QUICK, watch=3600.0)  # it looks once, before anything has been called off

    def show(view: PoolView) -> None:
        if view.active and view.active[0].iteration:
            folder.call_off(runs[1].key) if by == "cancel" else folder.close()

    outcome = run_pool(folder, runs, TWO[:1], launcher="local", show=show, timing=timing)
    assert outcome.finished == (runs[0].key,)
    assert (outcome.cancelled if by == "cancel" else outcome.interrupted) == (runs[1].key,)
    assert not run_of(folder, runs[1]).events.exists()


def test_what_is_called_off_before_the_folder_is_complete_stays_called_off(results: Path) -> None:
    folder = LaunchDir.of(results, "one")
    runs = [assignment(seed) for seed in range(2)]
    folder.begin()
    folder.call_off(runs[0].key)
    folder.create(Launch("one", "local", "here", 1, "me", 0.0, worker=WORKER), [runs], {})
    (results / "plan.json").write_text("{}")
    outcome = run_pool(folder, runs, TWO, launcher="local", timing=QUICK)
    assert (outcome.cancelled, outcome.finished) == ((runs[0].key,), (runs[1].key,))


def test_after_a_long_pause_it_goes_on_if_nobody_has_taken_it_for_dead(results: Path) -> None:
    runs = [assignment(seed) for seed in range(3)]
    folder = make_launch(results, runs, {"default": {"steps": 3, "seconds": 0.2}})
    paused: list[bool] = []

    def show(view: PoolView) -> None:
        if len(view.active) == 2 and not paused:
            paused.append(True)
            time.sleep(1.1)

    outcome = run_pool(folder, runs, TWO, launcher="local", show=show, timing=replace(QUICK, pause=1.0))
    assert paused
    assert set(outcome.finished) == {each.key for each in runs}


def test_after_a_long_pause_it_stops_if_somebody_has(results: Path) -> None:
    runs = [assignment(seed) for seed in range(3)]
    folder = make_launch(results, runs, {"default": {"steps": 800, "seconds": 0.01}})
    views: list[PoolView] = []
    paused: list[bool] = []

    def show(view: PoolView) -> None:
        views.append(view)
        if len(view.active) == 2 and all(run.iteration for run in view.active) and not paused:
            paused.append(True)
            folder.close()
            time.sleep(2.1)  # as a suspended process does

    timing = replace(QUICK, pause=2.0)
    outcome = run_pool(folder, runs, TWO, launcher="local", show=show, timing=timing)
    assert set(outcome.interrupted) == {each.key for each in runs}
    assert outcome.signal == "a pause of 2 s"
    assert {run.message for view in views for run in view.ended} == {"stopped by a pause of 2 s"}
    assert len(events(run_of(folder, runs[0]), "interrupted")) == 1
    assert not run_of(folder, runs[2]).events.exists()


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
