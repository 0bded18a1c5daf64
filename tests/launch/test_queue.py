"""What `squeue` and `sacct` print, as recorded from SLURM 22.05."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prove.errors import ProveError
from prove.launch import queue
from prove.launch.queue import Queue, TaskStatus, compressed, indices, parse_sacct, parse_squeue

SQUEUE = """\
16|0|COMPLETED|n1|None|prove-x
16|1|FAILED|n2|NonZeroExitCode|prove-x
16|2|FAILED|n3|JobLaunchFailure|prove-x
16|6|PENDING||JobArrayTaskLimit|prove-x
16|7|PENDING||JobArrayTaskLimit|prove-x
16|3|RUNNING|n1|None|prove-x
16|4|COMPLETING|n2|None|prove-x
11|N/A|RUNNING|n4|None|srun-preempt
"""

SACCT = """\
16_0|COMPLETED|0:0|n1|prove-x
16_1|FAILED|3:0|n2|prove-x
16_2|FAILED|0:9|n3|prove-x
16_3|RUNNING|0:0|n1|prove-x
16_4|CANCELLED by 1000|0:0|n2|prove-x
16_5|NODE_FAIL|1:0|n2|prove-x
16_[7-8,10%3]|PENDING|0:0|None assigned|prove-x
11|CANCELLED by 0|0:0|n4|srun-preempt
"""


def test_squeue() -> None:
    live = dict(parse_squeue(SQUEUE))
    assert set(live) == {("16", index) for index in (0, 1, 2, 3, 4, 6, 7)}
    assert live["16", 3] == TaskStatus("RUNNING", "n1", name="prove-x")
    assert live["16", 7] == TaskStatus("PENDING", reason="JobArrayTaskLimit", name="prove-x")
    assert {index: status.life for (_, index), status in live.items()} == {
        0: "over",
        1: "over",
        2: "over",
        6: "waiting",
        7: "waiting",
        3: "running",
        4: "running",
    }


def test_jobs_of_which_anything_is_known() -> None:
    live, past = (
        {("16", 0): TaskStatus("RUNNING")},
        {("16", 1): TaskStatus("COMPLETED"), ("9", 0): TaskStatus("FAILED")},
    )
    assert Queue(live, past).jobs == {"16", "9"}
    assert Queue(live).jobs == {"16"}


def test_sacct() -> None:
    past = dict(parse_sacct(SACCT))
    assert set(past) == {("16", index) for index in (0, 1, 2, 3, 4, 5, 7, 8, 10)}
    assert past["16", 1] == TaskStatus("FAILED", "n2", "3:0", name="prove-x")
    assert past["16", 4].state == "CANCELLED"
    assert past["16", 8] == TaskStatus("PENDING", "", "0:0", name="prove-x")
    assert past["16", 5].life == "over"


def test_the_scheduler_knows_more_of_what_lives_and_the_accounts_of_what_is_over() -> None:
    both = Queue(dict(parse_squeue(SQUEUE)), dict(parse_sacct(SACCT)))
    assert both.find(("16", 1)) == TaskStatus("FAILED", "n2", "3:0", name="prove-x")
    assert both.find(("16", 7)) == TaskStatus("PENDING", reason="JobArrayTaskLimit", name="prove-x")
    assert both.find(("16", 4)) == TaskStatus("COMPLETING", "n2", name="prove-x")
    assert both.find(("16", 9)) is None
    assert Queue(dict(parse_squeue(SQUEUE))).find(("16", 1)) == dict(parse_squeue(SQUEUE))["16", 1]


def test_a_task_that_was_requeued_waits_whatever_ended_it_before() -> None:
    both = Queue(
        dict(parse_squeue("7|5|PENDING||BeginTime|prove-x\n")), dict(parse_sacct("7_5|NODE_FAIL|1:0|n2|prove-x\n"))
    )
    status = both.find(("7", 5))
    assert status is not None
    assert status.life == "waiting"


def test_arrays_of_a_name() -> None:
    both = Queue(
        dict(parse_squeue("101|0|PENDING||Priority|prove-x\n12|0|FAILED||BadConstraints|prove-x\n")),
        dict(parse_sacct("9_0|COMPLETED|0:0|n1|prove-x\n10_0|COMPLETED|0:0|n1|prove-y\n")),
    )
    assert both.arrays("prove-x") == ["9", "101"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", [7]),
        ("[0-3,7-9%2]", [0, 1, 2, 3, 7, 8, 9]),
        ("0-6:2%4", [0, 2, 4, 6]),
        ("N/A", []),
        ("", []),
        ("0-3,...", []),
    ],
)
def test_indices(text: str, expected: list[int]) -> None:
    assert indices(text) == expected


@given(st.sets(st.integers(0, 5000)))
def test_compressed_indices_mean_the_same(wanted: set[int]) -> None:
    job, _, text = compressed("12", wanted).partition("_")
    assert job == "12"
    assert indices(text) == sorted(wanted)


def test_a_cluster_without_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*command: str) -> str:
        if command[0] == "sacct":
            raise ProveError("SLURM's `sacct` failed: Slurm accounting storage is disabled")
        return SQUEUE

    monkeypatch.setattr(queue, "ask", ask)
    assert queue.query(["prove-x"], since=0.0) == Queue(dict(parse_squeue(SQUEUE)), None)


def test_accounts_that_do_not_answer_are_no_empty_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*command: str) -> str:
        if command[0] == "sacct":
            raise ProveError("SLURM's `sacct` failed: Connection refused")
        return SQUEUE

    monkeypatch.setattr(queue, "ask", ask)
    with pytest.raises(ProveError, match="Connection refused"):
        queue.query(["prove-x"], since=0.0)


def test_one_question_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(queue, "ask", lambda *command: asked.append(command[0]) or "")
    queue.query([f"prove-{number}" for number in range(100)], since=1e9)
    assert asked == ["squeue", "sacct"]
