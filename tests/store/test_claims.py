import os
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from prove.errors import ProveError
from prove.spec.event import FailureKind, State
from prove.store import Claim, Settlement, Store
from prove.store.fold import LOST
from tests.journal import START, encoded, failed, finished, interrupted, make_job, make_run, started, train
from tests.store.store_samples import a_launch, claim_together, run_python

FREE = (State.PLANNED, State.INTERRUPTED, State.FAILED)


def keys_of(count: int) -> list[str]:
    return [make_job(seed).key for seed in range(count)]


def planned(store: Store, count: int) -> list[str]:
    store.register([(make_job(seed), "ce") for seed in range(count)])
    return keys_of(count)


def claimed(store: Store, events: list | None = None, name: str = "one") -> str:
    """One run that a launch holds, with these events reported since."""
    run = make_run(store.results_folder)
    store.register([(make_job(), "ce")])
    assert store.claim(a_launch(name), {run.key: 4}, FREE) == {run.key}
    if events:
        run.events.write_bytes(encoded(events))
        store.ingest()
    return run.key


def test_a_claim_takes_what_nobody_has(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        keys = planned(store, 5)
        assert store.claim(a_launch("one"), {keys[0]: 0, keys[1]: 3}, FREE) == set(keys[:2])
        assert store.claim(a_launch("two"), dict.fromkeys(keys[:4], 0), FREE) == set(keys[2:4])
        assert store.claim(a_launch("one"), dict.fromkeys(keys, 9), FREE) == {keys[4]}
        assert store.claim(a_launch("two"), dict.fromkeys([*keys, "0123456789ab"], 9), FREE) == set()
        assert store.claims("one") == [
            Claim(keys[0], "one", 0, State.QUEUED, 0),
            Claim(keys[1], "one", 3, State.QUEUED, 0),
            Claim(keys[4], "one", 9, State.QUEUED, 0),
        ]
        assert [claim.launch for claim in store.claims()] == ["one"] * 3 + ["two"] * 2
        assert store.states([*keys, "0123456789ab"]) == {
            key: (State.QUEUED, "two" if key in keys[2:4] else "one") for key in keys
        }
        row = store.run(keys[1])
        assert (row.launch, row.task, row.state) == ("one", 3, State.QUEUED)


def test_a_claim_asks_for_the_state(tmp_path: Path) -> None:
    make_run(tmp_path, [started(), finished()], seed=0)
    make_run(tmp_path, [started(), failed()], seed=1)
    make_run(tmp_path, [started(), interrupted()], seed=2)
    with Store.open(tmp_path) as store:
        store.refresh()
        keys = planned(store, 4)
        tasks = dict.fromkeys(keys, 0)
        assert store.claim(a_launch(), tasks, [State.PLANNED, State.INTERRUPTED]) == set(keys[2:])
        assert store.claim(a_launch(), tasks, [State.FAILED]) == {keys[1]}
        row = store.run(keys[1])
        assert (row.state, row.failure, row.message, row.advice) == (State.QUEUED, None, "", "")
        assert store.run(keys[0]).state is State.FINISHED


def test_launches_are_remembered_until_they_are_closed(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        keys = planned(store, 3)
        late, early = a_launch("a-late", START + 5), a_launch("b-early", START)
        store.claim(late, {keys[0]: 0}, FREE)
        store.claim(early, {keys[1]: 0}, FREE)
        assert store.open_launches() == [early, late]
        store.submitted("a-late", ["71", "72"])
        assert [row.slurm_jobs for row in store.open_launches()] == [None, ("71", "72")]
        store.reassign("a-late", {keys[0]: 6, keys[1]: 6})
        assert [claim.task for claim in store.claims()] == [6, 0]
        store.close_launch("a-late")
        assert store.open_launches() == [early]
        assert [claim.key for claim in store.claims()] == [keys[1]]
        assert store.states(keys[:1]) == {keys[0]: (State.PLANNED, None)}
        assert store.claim(a_launch("c"), dict.fromkeys(keys, 0), FREE) == {keys[0], keys[2]}


@pytest.mark.parametrize(
    ("events", "settlement", "state"),
    [
        ([], State.PLANNED, State.PLANNED),
        ([], None, State.PLANNED),
        ([], State.CANCELLED, State.CANCELLED),
        ([started(), train(5)], State.INTERRUPTED, State.INTERRUPTED),
        ([started(), train(5)], State.FAILED, State.FAILED),
        ([started(), interrupted()], None, State.INTERRUPTED),
        ([started(), interrupted()], State.FAILED, State.FAILED),
        ([started(), failed()], None, State.FAILED),
        ([started(), failed()], State.INTERRUPTED, State.FAILED),
        ([started(), finished()], None, State.FINISHED),
        ([started(), finished()], State.FAILED, State.FINISHED),
        ([started(), finished()], State.QUEUED, State.FINISHED),
    ],
)
def test_a_claim_ends_and_what_the_events_concluded_stays(
    tmp_path: Path, events: list, settlement: State | None, state: State
) -> None:
    with Store.open(tmp_path) as store:
        key = claimed(store, events)
        before = store.run(key)
        kind = FailureKind.TIMEOUT if settlement is State.FAILED else None
        assert store.settle([Settlement(key, "one", settlement, kind, "Its time was up.")]) == 1
        row = store.run(key)
        assert (row.state, row.launch, row.task) == (state, None, None)
        assert store.claims() == []
        if before.state in (State.FINISHED, State.FAILED):
            assert (row.message, row.failure, row.advice) == (before.message, before.failure, before.advice)
        elif state is State.FAILED:
            assert (row.failure, row.message) == (kind, "Its time was up.")
            assert row.advice == FailureKind.TIMEOUT.advice
            assert row.finished_at == row.updated_at
        assert store.settle([Settlement(key, "one", State.FAILED, FailureKind.KILLED)]) == 0
        assert store.run(key) == row


def test_an_attempt_that_was_cut_short_ends_with_the_settlement(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        key = claimed(store, [started(), train(5)])
        store.settle([Settlement(key, "one", State.INTERRUPTED, message="Node n3 went down.")])
        (attempt,) = store.attempts(key)
        assert (attempt.ending, attempt.reason, attempt.ended_at) == ("interrupted", "Node n3 went down.", START + 5)


def test_an_attempt_that_said_how_it_ended_is_left_alone(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        key = claimed(store, [started(), interrupted()])
        store.settle([Settlement(key, "one", State.FAILED, FailureKind.NODE_LOST, "Node n3 went down.")])
        assert store.attempts(key)[0].reason == "signal SIGTERM"


def test_a_run_that_its_launch_will_start_again_stays_claimed(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        key = claimed(store, [started(), train(5)])
        assert store.settle([Settlement(key, "one", State.QUEUED)]) == 1
        row = store.run(key)
        assert (row.state, row.launch, row.task, row.iteration) == (State.QUEUED, "one", 4, 5)
        assert store.attempts(key)[0].reason == LOST
        run = make_run(tmp_path)
        with open(run.events, "ab") as file:
            file.write(encoded([started(30.0, attempt=2, resumed_from=5), train(10, attempt=2)]))
        store.ingest()
        assert (store.run(key).state, store.run(key).launch) == (State.RUNNING, "one")


def test_what_was_claimed_by_another_since_is_not_settled(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        key = claimed(store)
        store.close_launch("one")
        store.claim(a_launch("two"), {key: 0}, FREE)
        assert store.settle([Settlement(key, "one", State.FAILED, FailureKind.KILLED)]) == 0
        assert store.states([key]) == {key: (State.QUEUED, "two")}


def test_unread_news_put_a_settlement_off(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with Store.open(tmp_path) as store:
        key = claimed(store, [started()])
        with open(run.events, "ab") as file:
            file.write(encoded([finished()]))
        lost = Settlement(key, "one", State.FAILED, FailureKind.KILLED, LOST)
        assert store.settle([lost]) == 0
        store.ingest()
        assert store.settle([lost]) == 1
        assert store.run(key).state is State.FINISHED


def test_a_finished_run_that_was_to_be_trained_again_and_was_not_is_finished(tmp_path: Path) -> None:
    make_run(tmp_path, [started(), finished()])
    with Store.open(tmp_path) as store:
        store.refresh()
        key = make_job().key
        before = store.run(key)
        for settlement in (State.PLANNED, State.INTERRUPTED, State.FAILED, None):
            assert store.claim(a_launch(), {key: 0}, [State.FINISHED]) == {key}
            assert store.run(key).state is State.QUEUED
            assert store.settle([Settlement(key, "one", settlement, None, "Called off.")]) == 1
            assert store.run(key) == before
        store.claim(a_launch(), {key: 0}, [State.FINISHED])
        store.close_launch("one")
        assert store.run(key) == before


def test_the_dead_of_an_open_launch_are_its_own_affair(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        key = claimed(store, [started(), train(5)])
        store.refresh()
        assert store.run(key).state is State.RUNNING
        store.close_launch("one")
        store.refresh()
        assert store.run(key).state is State.INTERRUPTED


def test_cancel_and_retry_concern_what_nobody_holds(tmp_path: Path) -> None:
    for seed, last in enumerate([finished(), failed(), interrupted(), train(5)]):
        make_run(tmp_path, [started(host="elsewhere"), last], seed)
    with Store.open(tmp_path) as store:
        store.refresh()
        keys = planned(store, 6)
        store.claim(a_launch(), {keys[5]: 0}, FREE)
        assert store.reset(keys, State.CANCELLED) == 3
        states = [store.run(key).state for key in keys]
        cancelled = State.CANCELLED
        assert states == [State.FINISHED, cancelled, cancelled, State.RUNNING, cancelled, State.QUEUED]
        assert store.run(keys[1]).failure is None
        assert store.reset(keys, State.PLANNED) == 3
        assert store.counts()[State.PLANNED] == 3
        with pytest.raises(ValueError, match="finished"):
            store.reset(keys, State.FINISHED)


def test_a_cancelled_run_starts_anew_when_it_is_claimed_again(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        (key,) = planned(store, 1)
        store.reset([key], State.CANCELLED)
        assert store.claim(a_launch(), {key: 0}, FREE) == set()
        assert store.claim(a_launch(), {key: 0}, [State.CANCELLED]) == {key}
        run = make_run(tmp_path, [started()])
        store.ingest()
        assert store.run(run.key).state is State.RUNNING


def test_many_keys(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        keys = planned(store, 1234)
        assert len(store.claim(a_launch(), dict.fromkeys(keys, 0), FREE)) == 1234
        assert set(store.states(iter(keys))) == set(keys)
        assert store.settle(Settlement(key, "one", State.PLANNED) for key in keys) == 1234


# Several processes


def test_those_who_claim_at_the_same_time_share_without_overlap(tmp_path: Path) -> None:
    chooser = random.Random(4)
    with Store.open(tmp_path) as store:
        keys = planned(store, 60)
        claim_together(store, [[chooser.sample(keys, 40) for _ in range(3)] for _ in range(30)])


DYING = """
    import sys
    from pathlib import Path
    from prove.spec.event import State
    from prove.store import LaunchRow, Store, claims
    held = claims._held
    def pause(connection, launch_id):
        found = held(connection, launch_id)
        if found:
            print(len(found), flush=True)  # after the updates, before the commit
            sys.stdin.readline()
        return found
    claims._held = pause
    with Store.open(Path(sys.argv[1])) as store:
        launch = LaunchRow("dying", "local", "host", 1, "anna", None, 0.0, 3)
        store.claim(launch, {key: 0 for key in sys.argv[2:]}, [State.PLANNED])
"""


def test_a_claimer_killed_before_its_commit_leaves_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        keys = planned(store, 5)
    with run_python(DYING, tmp_path, *keys) as claimer:
        assert claimer.stdout is not None
        assert claimer.stdout.readline() == "5\n"
        with Store.open(tmp_path, patience_seconds=0.05) as store, pytest.raises(ProveError, match="locked by another"):
            store.claim(a_launch(), {keys[0]: 0}, FREE)
        os.kill(claimer.pid, signal.SIGKILL)
        claimer.wait()
    with Store.open(tmp_path) as store:
        assert store.open_launches() == []
        assert store.claims() == []
        assert store.claim(a_launch(), dict.fromkeys(keys, 0), FREE) == set(keys)
    with closing(sqlite3.connect(tmp_path / "prove.db")) as link:
        assert link.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
