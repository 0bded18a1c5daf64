import json
import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.rundir import RunDir
from prove.spec import METRICS
from prove.spec.event import State
from prove.store import Store
from prove.store.engine import EngineConnection
from tests.journal import (
    EVIDENCE,
    START,
    encoded,
    event,
    failed,
    finished,
    interrupted,
    make_job,
    make_run,
    started,
    train,
    validated,
    whole_life,
)
from tests.store.store_samples import CHUNKED, ingest_together, ingested, rows, run_python


def test_a_whole_life(tmp_path: Path) -> None:
    run = make_run(tmp_path, whole_life())
    with Store.open(tmp_path) as store:
        assert store.ingest() == len(whole_life())
        row = store.run(run.key)
        assert (row.state, row.iteration, row.max_iters, row.attempts) == (State.FINISHED, 40, 40, 2)
        assert row.metrics == {metric: 40.0 + index for index, metric in enumerate(METRICS)}
        assert (row.best_mIoU, row.best_iteration, row.train_seconds) == (41.0, 30, 48.5)
        assert (row.started_at, row.finished_at, row.updated_at) == (START, START + 50, START + 50)
        assert (row.dataset, row.model, row.loss, row.seed) == ("SynthStreet", "fcn_tiny", "ce + 0.3*focal", 0)
        assert row.job == make_job()
        first, second = store.attempts(run.key)
        assert (first.ending, first.reason, first.resumed_from, first.iteration) == (
            "interrupted",
            "signal SIGTERM",
            0,
            25,
        )
        assert (second.ending, second.resumed_from, second.iteration, second.pid) == ("finished", 20, 40, 4242)
        assert store.evidence(run.key) == EVIDENCE
        curve = store.curve(run.key, "train")
        # What the first attempt reported beyond 20 was undone when the second resumed from there.
        assert [(point.iteration, point.values["loss"]) for point in curve] == [
            (5, 1.5),
            (10, 1.5),
            (15, 1.5),
            (20, 1.5),
            (25, 1.2),
            (30, 1.2),
            (35, 1.2),
            (40, 1.2),
        ]
        assert [point.values["metrics"]["mIoU"] for point in store.curve(run.key, "val")] == [18.0, 40.0]
        results = {(r.checkpoint, r.scope, r.name, r.metric): r.value for r in store.results(run.key)}
        assert results["last", "overall", "", "mIoU"] == 40.0
        assert results["best", "condition", "night", "mIoU"] is None
        assert results["last", "class", "road", "support"] == 123456
        assert len(results) == 2 * (7 + 2 * 7 + 2 * 5)


def test_again_changes_nothing(tmp_path: Path) -> None:
    make_run(tmp_path, whole_life())
    first = ingested(tmp_path)
    with Store.open(tmp_path) as store:
        assert store.ingest() == 0
    assert ingested(tmp_path) == first


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(st.integers(1, len(CHUNKED) - 1), max_size=12))
def test_any_split_of_the_bytes_ends_in_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    whole, pieces = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("pieces")
    make_run(whole, CHUNKED)
    run = make_run(pieces)
    edges = [0, *sorted(cuts), len(CHUNKED)]
    with Store.open(pieces) as store:
        for low, high in pairwise(edges):
            with open(run.events, "ab") as file:
                file.write(CHUNKED[low:high])
            store.ingest()
        found = rows(store)
    assert found == ingested(whole)
    assert len(found["problems"]) == 3


def test_a_partial_last_line_waits_for_its_end(tmp_path: Path) -> None:
    line = encoded([finished()])
    run = make_run(tmp_path, encoded([started()]) + line[:-1])
    with Store.open(tmp_path) as store:
        assert store.ingest() == 1
        assert store.run(run.key).state is State.RUNNING
        with open(run.events, "ab") as file:
            file.write(line[-1:])
        assert store.ingest() == 1
        assert store.run(run.key).state is State.FINISHED
        assert store.problems() == []


def test_a_line_that_cannot_be_read_is_reported_and_not_in_the_way(tmp_path: Path) -> None:
    torn = encoded([train(5)])[:20] + b"\n"
    strange = encoded([event("sang", 3.0, song="la")])
    start = encoded([started()])
    run = make_run(tmp_path, start + torn + strange + encoded([{**started(9.0), "pid": {"a": 1}}, finished()]))
    with Store.open(tmp_path) as store:
        assert store.ingest() == 2
        assert store.run(run.key).state is State.FINISHED
        problems = store.problems(run.key)
        assert [problem.position for problem in problems[:2]] == [len(start), len(start) + len(torn)]
        assert len(problems) == 3
        assert problems[0].line == torn.decode().rstrip("\n")
        assert "'sang'" in problems[1].message


@pytest.mark.parametrize("text", ['"\\ud800"', '"a\\u0000b"'])
def test_texts_that_no_database_takes(tmp_path: Path, text: str) -> None:
    line = json.dumps(interrupted()).replace('"signal SIGTERM"', text).encode() + b"\n"
    run = make_run(tmp_path, encoded([started()]) + line)
    with Store.open(tmp_path) as store:
        assert store.ingest() == 2
        assert store.run(run.key).state is State.INTERRUPTED


def test_events_written_anew_replace_what_was_recorded(tmp_path: Path) -> None:
    run = make_run(tmp_path, whole_life())
    ingested(tmp_path)
    again = [{**e, "time": e["time"] + 1000} for e in [started(), *(train(i) for i in range(1, 41)), validated(40)]]
    run.events.write_bytes(encoded(again))
    found = ingested(tmp_path)
    other = tmp_path / "other"
    make_run(other, again)
    assert found == ingested(other)
    assert found["results"] == []


def test_a_fresh_attempt_voids_the_curve_and_the_results(tmp_path: Path) -> None:
    run = make_run(tmp_path, whole_life())
    ingested(tmp_path)
    with open(run.events, "ab") as file:
        file.write(encoded([started(100.0, attempt=3), train(5, attempt=3)]))
    with Store.open(tmp_path) as store:
        store.ingest()
        assert [point.iteration for point in store.curve(run.key)] == [5]
        assert store.results(run.key) == []
        assert store.evidence(run.key) is None
        row = store.run(run.key)
        assert (row.state, row.attempts, set(row.metrics.values())) == (State.RUNNING, 3, {None})


@pytest.mark.parametrize("together", [True, False])
def test_a_failure_without_a_start_voids_the_results_and_keeps_the_curve(tmp_path: Path, together: bool) -> None:
    late = failed(100.0, attempt=3, iteration=0)
    run = make_run(tmp_path, [*whole_life(), late] if together else whole_life())
    with Store.open(tmp_path) as store:
        store.ingest()
        curve = store.curve(run.key)
        if not together:
            assert store.results(run.key) != []
            with open(run.events, "ab") as file:
                file.write(encoded([late]))
            store.ingest()
        row = store.run(run.key)
        assert (row.state, row.attempts, set(row.metrics.values())) == (State.FAILED, 3, {None})
        assert store.results(run.key) == []
        assert store.curve(run.key) == curve
        assert len(curve) == 10
        assert [attempt.ending for attempt in store.attempts(run.key)] == ["interrupted", "finished", "failed"]


def test_folders_without_a_row_and_folders_that_are_no_runs(tmp_path: Path) -> None:
    run = make_run(tmp_path, whole_life())
    stray = tmp_path / "runs" / "notes"
    stray.mkdir()
    (stray / "events.jsonl").write_bytes(encoded([started()]))
    (tmp_path / "runs" / "README").write_text("not a folder")
    moved = tmp_path / "runs" / "0123456789ab"
    moved.mkdir()
    (moved / "events.jsonl").write_bytes(encoded([started()]))
    (moved / "job.json").write_bytes(run.job.read_bytes())
    with Store.open(tmp_path) as store:
        store.refresh()
        assert [row.key for row in store.runs()] == [run.key]
        assert {problem.key for problem in store.problems()} == {"notes", "0123456789ab"}
        store.refresh()
        assert len(store.problems()) == 2


def test_two_ingesters_at_the_same_time(tmp_path: Path) -> None:
    many = [started(), *(train(i) for i in range(1, 200)), *whole_life()[1:]]
    for seed in range(20):
        make_run(tmp_path, many, seed)
    # Neither the database nor its tables exist: they also race to create them.
    assert sum(ingest_together(tmp_path, 3)) == 20 * len(many)
    alone = tmp_path / "alone"
    for seed in range(20):
        make_run(alone, many, seed)
    together, separate = ingested(tmp_path), ingested(alone)
    assert together["runs"] == separate["runs"]
    assert len(together["curves"]) == len(separate["curves"])
    assert len(together["results"]) == len(separate["results"])


WORKER = """
    import sys, time
    from pathlib import Path
    from prove.rundir import RunDir
    run = RunDir(Path(sys.argv[1]))
    with run.lock():
        with open(run.events, "ab") as file:
            file.write(bytes.fromhex(sys.argv[2]))
        print("working", flush=True)
        sys.stdin.readline()
"""


def test_a_killed_worker_is_interrupted_and_a_living_one_runs(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with run_python(WORKER, run.path, encoded([started(), train(5)]).hex()) as worker, Store.open(tmp_path) as store:
        assert worker.stdout is not None
        worker.stdout.readline()
        store.refresh()
        assert store.run(run.key).state is State.RUNNING
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        store.refresh()
        row = store.run(run.key)
        assert (row.state, row.iteration) == (State.INTERRUPTED, 5)
        assert "killed" in row.message
        assert store.attempts(run.key)[0].ending == "interrupted"
        before = rows(store)
        store.refresh()
        assert rows(store) == before
        with open(run.events, "ab") as file:  # it had only seemed dead
            file.write(encoded([finished()]))
        store.refresh()
        assert store.run(run.key).state is State.FINISHED
        assert store.attempts(run.key)[0].ending == "finished"


def test_another_host_s_worker_is_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path, [started(host="node17"), train(5)])
    with Store.open(tmp_path) as store:
        store.refresh()
        assert store.run(run.key).state is State.RUNNING


def test_unread_news_forbid_to_conclude_that_a_worker_is_dead(tmp_path: Path) -> None:
    run = make_run(tmp_path, [started()])
    with Store.open(tmp_path) as store:
        store.ingest()
        with open(run.events, "ab") as file:
            file.write(encoded([finished()]))
        assert store.reconcile() == 0
        assert store.run(run.key).state is State.RUNNING


def test_the_same_rows_through_sqlalchemy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    direct, engine = tmp_path / "direct", tmp_path / "engine"
    for results in (direct, engine):
        make_run(results, CHUNKED)

    def connect(url: str, patience_seconds: float) -> Any:
        return EngineConnection(url)

    expected = ingested(direct)
    monkeypatch.setattr("prove.store.store.connect", connect)
    assert ingested(engine) == expected
    assert ingested(engine) == expected
    with Store.open(engine) as store:
        assert isinstance(store.connection, EngineConnection)
        store.upsert(make_job(seed=9), "ce", experiment="loss_ablation")
        assert store.counts("loss_ablation") == {State.PLANNED: 1}
        assert RunDir.of(engine, store.run(make_job(seed=9).key).key).events.exists() is False


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({**train(5), "iteration": None}),
        json.dumps({**validated(5), "iteration": None}),
        json.dumps({**train(5), "time": float("nan")}),
        json.dumps({**finished(), "train_seconds": float("inf")}),
        '{"kind": "train", "time": 1.0, "attempt": 1, "iteration": 5, "deep": ' + "[" * 100_000,
    ],
)
def test_events_that_no_table_could_hold_are_problems(tmp_path: Path, line: str) -> None:
    run = make_run(tmp_path, encoded([started()]) + line.encode() + b"\n" + encoded([train(6)]))
    with Store.open(tmp_path) as store:
        assert store.ingest() == 2
        assert (store.run(run.key).state, store.run(run.key).iteration) == (State.RUNNING, 6)
        assert [problem.position for problem in store.problems(run.key)] == [len(encoded([started()]))]


def test_a_long_first_line_tells_files_apart(tmp_path: Path) -> None:
    def begun(note: str) -> bytes:
        return encoded([{**started(), "note": "x" * 9000 + note}])

    run = make_run(tmp_path, begun("one") + encoded([train(5)]))
    with Store.open(tmp_path) as store:
        store.ingest()
        with open(run.events, "ab") as file:
            file.write(encoded([train(6)]))
        assert store.ingest() == 1
        run.events.write_bytes(begun("two") + encoded([train(6), train(7)]))
        assert store.ingest() == 3
        assert [point.iteration for point in store.curve(run.key)] == [6, 7]


def test_followed_runs_are_written_as_if_read_at_once(tmp_path: Path) -> None:
    """Reports of training alone go a shorter way into the tables."""
    seeds, events = range(3), [started(), *(train(i) for i in range(1, 12))]
    bit_by_bit, at_once = tmp_path / "bit", tmp_path / "once"
    runs = [make_run(bit_by_bit, events[:2], seed) for seed in seeds]
    with Store.open(bit_by_bit) as store:
        store.ingest()
        for number in range(2, len(events)):
            for run in runs[: 1 + number % 3]:
                with open(run.events, "ab") as file:
                    file.write(encoded(events[number : number + 1]))
            store.ingest()
        for run in runs:
            make_run(at_once, run.events.read_bytes(), store.run(run.key).seed)
        found = rows(store)
    expected = ingested(at_once)
    for each in (found, expected):
        each["runs"] = sorted(each["runs"], key=lambda run: run["key"])
    assert found == expected
    assert len(found["curves"]) == 11 + 8 + 5


def test_the_memory_that_a_run_needed_is_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path, [started(), {**finished(), "peak_memory_mib": 812.5}])
    with Store.open(tmp_path) as store:
        store.ingest()
        assert store.run(run.key).peak_memory_mib == 812.5
        with open(run.events, "ab") as file:
            file.write(encoded([started(60.0, attempt=2)]))
        store.ingest()
        assert store.run(run.key).peak_memory_mib == 812.5


@pytest.mark.parametrize(
    "job", ["[]", '{"schema": 1, "loss": [{"name": "ce", "weight": {}, "params": []}]}', "[" * 99_999]
)
def test_a_job_that_cannot_be_read_is_a_problem(tmp_path: Path, job: str) -> None:
    run = make_run(tmp_path, whole_life())
    run.job.write_text(job)
    with Store.open(tmp_path) as store:
        store.refresh()
        assert store.runs() == []
        assert [problem.position for problem in store.problems()] == [-1]


def test_events_that_are_no_file_are_a_problem_until_they_are(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.events.mkdir()
    with Store.open(tmp_path) as store:
        store.refresh()
        assert "can't be read (Is a directory)" in store.problems(run.key)[0].message
        run.events.rmdir()
        make_run(tmp_path, whole_life())
        store.refresh()
        assert store.problems() == []
        assert store.run(run.key).state is State.FINISHED
