from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.spec.event import FailureKind, State
from prove.store.fold import MALFORMED, Progress, advance, derive_state, settle
from tests.journal import START, event, failed, finished, interrupted, started, train, validated, whole_life


@pytest.mark.parametrize(
    ("events", "alive", "state"),
    [
        ([], None, State.PLANNED),
        ([], False, State.PLANNED),
        ([started()], True, State.RUNNING),
        ([started()], None, State.RUNNING),
        ([started()], False, State.INTERRUPTED),
        ([started(), train(5)], False, State.INTERRUPTED),
        ([started(), finished()], False, State.FINISHED),
        ([started(), finished()], True, State.FINISHED),
        ([started(), failed()], False, State.FAILED),
        ([started(), interrupted()], False, State.INTERRUPTED),
        ([started(), failed(), started(40, attempt=2)], True, State.RUNNING),
        ([started(), finished(), started(60, attempt=2)], True, State.RUNNING),
        ([started(), failed(), finished()], False, State.FINISHED),
        ([started(), finished(), failed(60)], False, State.FINISHED),
        ([started(), finished(), interrupted(60)], False, State.FINISHED),
        ([started(), finished(), train(40)], False, State.FINISHED),
        # A new attempt that ended before it could say `started`.
        ([started(), finished(), failed(60, attempt=2)], False, State.FAILED),
        ([started(), finished(), interrupted(60, attempt=2)], False, State.INTERRUPTED),
        ([started(), failed(), interrupted(60, attempt=2)], False, State.INTERRUPTED),
        ([failed()], False, State.FAILED),
        ([started(), finished(), failed(60, attempt=2), started(70, attempt=2)], True, State.RUNNING),
        (
            [started(), finished(), failed(60, attempt=2), started(70, attempt=2), finished(attempt=2)],
            False,
            State.FINISHED,
        ),
        ([started(), finished(), train(5, attempt=2)], True, State.RUNNING),
        ([started(), finished(), train(5, attempt=2)], False, State.INTERRUPTED),
        ([started(), finished(), started(60, attempt=2), finished(attempt=2), failed(80)], False, State.FINISHED),
        (whole_life(), False, State.FINISHED),
        (whole_life()[:-1], False, State.INTERRUPTED),
    ],
)
def test_state(events: list, alive: bool | None, state: State) -> None:
    assert derive_state(events, alive) is state


KINDS = st.sampled_from(["started", "train", "validated", "finished", "failed", "interrupted"])


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(KINDS, max_size=12), st.booleans())
def test_finished_if_and_only_if_the_newest_attempt_said_so(kinds: list[str], alive: bool) -> None:
    attempt, events = 0, []
    makers = {"finished": finished, "failed": failed, "interrupted": interrupted}
    for kind in kinds:
        attempt += kind == "started"
        if kind == "started":
            events.append(started(attempt=attempt))
        elif kind == "train":
            events.append(train(5, attempt=attempt))
        elif kind == "validated":
            events.append(validated(5, attempt=attempt))
        else:
            events.append(makers[kind](attempt=attempt))
    tail = kinds[len(kinds) - 1 - kinds[::-1].index("started") :] if "started" in kinds else kinds
    assert (derive_state(events, alive) is State.FINISHED) == ("finished" in tail)


def test_a_new_attempt_forgets_the_outcome_of_the_old_one() -> None:
    before = reduce(advance, [started(), validated(10), failed()], Progress())
    assert (before.failure, before.advice) == (FailureKind.DIVERGED, "Lower --lr.")
    resumed = advance(before, started(40, attempt=2, resumed_from=10))
    assert (resumed.failure, resumed.message, resumed.advice, resumed.finished_at) == (None, "", "", None)
    assert (resumed.iteration, resumed.attempts, resumed.val_mIoU) == (10, 2, 20.0)
    fresh = advance(reduce(advance, [started(), finished()], Progress()), started(60, attempt=2))
    assert (fresh.metrics, fresh.best_mIoU, fresh.val_mIoU, fresh.train_seconds) == ({}, None, None, None)


def test_an_attempt_that_failed_before_it_started_leaves_no_result() -> None:
    before = reduce(advance, [started(), finished()], Progress())
    after = advance(before, failed(60, attempt=2, iteration=0))
    assert (after.state, after.failure, after.attempts) == (State.FAILED, FailureKind.DIVERGED, 2)
    assert (after.metrics, after.train_seconds, after.finished_at) == ({}, None, START + 60)
    assert (after.iteration, after.best_mIoU) == (40, 41.0)  # its checkpoints are where they were


def test_a_derived_interruption_is_undone_by_a_sign_of_life() -> None:
    lost = settle(reduce(advance, [started(), train(5)], Progress()), alive=False)
    assert lost.state is State.INTERRUPTED
    assert advance(lost, train(10)).state is State.RUNNING
    assert advance(lost, finished()).state is State.FINISHED


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        event("sang"),
        {**train(5), "time": "noon"},
        {**train(5), "attempt": True},
        {**train(5), "iteration": -1},
        {**train(5), "iteration": 10**30},
        {**failed(), "failure": "bored"},
        {**finished(), "last": None},
        {**validated(5), "metrics": [1, 2]},
    ],
)
def test_what_is_not_of_the_format_raises(wrong: dict) -> None:
    with pytest.raises(MALFORMED):
        advance(advance(Progress(), started()), wrong)
