"""What several tests of the store compare, and processes that work on a store at the same time."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from prove.store import LaunchRow, Store
from prove.store.connection import Row
from tests.journal import START, encoded, event, whole_life

TABLES = ("attempts", "results", "curves", "evidence", "environments")

REPORTED = [event("environment", 1.0, environment={"code": "ab"}), event("grads", 1.0, iteration=0, heads={})]

CHUNKED = encoded(whole_life()[:8]) + b'{"kind": "tr\xff\n[1]\n\n' + encoded([*REPORTED, *whole_life()[8:]])
"""A whole life, with three lines in it that are no events."""


def rows(store: Store) -> dict[str, list]:
    """Everything that events can bring about, without the times of looking and the numbers of rows."""
    found: dict[str, list] = {
        table: [_plain(row) for row in store.connection.query(f"SELECT * FROM {table}")] for table in TABLES
    }
    found = {table: sorted(rows, key=repr) for table, rows in found.items()}
    found["runs"] = [(run.to_dict() | {"created_at": 0}) for run in store.runs()]
    found["problems"] = [problem.to_dict() for problem in store.problems()]
    return found


def _plain(row: Row) -> Row:
    return row[1:]  # without run_id


def ingested(results: Path) -> dict[str, list]:
    with Store.open(results) as store:
        store.ingest()
        return rows(store)


def a_launch(name: str = "one", at: float = START) -> LaunchRow:
    return LaunchRow(name, "local", "node1", 77, "anna", None, at, max_attempts=3)


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


INGESTER = """
    import sys
    from pathlib import Path
    from prove.store import Store, ingest
    ingest.BATCH = 1  # a transaction per run: as many chances to collide as can be
    print("ready", flush=True)
    sys.stdin.readline()
    with Store.open(Path(sys.argv[1])) as store:
        print(store.ingest())
"""


def ingest_together(results: Path, count: int) -> list[int]:
    """How many events each of several processes found new; they start at the same time."""
    processes = [run_python(INGESTER, results) for _ in range(count)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return list(map(int, answers))


CLAIMER = """
    import sys
    from pathlib import Path
    from prove.spec.event import State
    from prove.store import LaunchRow, Store
    results, name = Path(sys.argv[1]), sys.argv[2]
    with Store.open(results) as store:
        for number, line in enumerate(sys.stdin):
            launch = LaunchRow(f"{name}-{number}", "local", "host", 1, "anna", None, 0.0, 3)
            taken = store.claim(launch, {key: 0 for key in line.split()}, [State.PLANNED])
            print(" ".join(sorted(taken)), flush=True)
"""


def claim_together(store: Store, rounds: list[list[list[str]]]) -> None:
    """Have processes claim at the same time, and check that each run is taken by just one, round by round.

    Args:
        rounds: the keys that each process asks for; all are planned.
    """
    names = ["anna", "bo", "cleo"][: len(rounds[0])]
    claimers = [run_python(CLAIMER, store.results_folder, name) for name in names]
    for number, wanted in enumerate(rounds):
        for claimer, some in zip(claimers, wanted, strict=True):
            assert claimer.stdin is not None
            claimer.stdin.write(" ".join(some) + "\n")
        for claimer in claimers:
            assert claimer.stdin is not None
            claimer.stdin.flush()
        taken = [set(claimer.stdout.readline().split()) for claimer in claimers if claimer.stdout is not None]
        assert sum(map(len, taken)) == len(set.union(*taken))
        assert set.union(*taken) == {key for some in wanted for key in some}
        for name, some in zip(names, taken, strict=True):
            assert {claim.key for claim in store.claims(f"{name}-{number}")} == some
            store.close_launch(f"{name}-{number}")
    for claimer in claimers:
        claimer.communicate(timeout=60)
        assert claimer.returncode == 0
