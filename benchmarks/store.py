"""What the database costs: registering, claiming, ingesting, looking, reports; beside the same done with bare sqlite3.

    python benchmarks/store.py [--runs 10000] [--logged 200] [--following 1000] [--rounds 5] [--folder DIR] [--json]

The floor of a row does in plain `sqlite3` and `json` what can't be avoided: it parses and stores the same lines, lists
and stats the same folders, writes and reads the same rows. PROVE and floor take turns; the table shows medians of CPU
seconds (user and system) and of wall seconds, and the median of the ratios of CPU seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import resource
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prove.rundir import RunDir
from prove.spec import METRICS, Job, LossExpr, LossTerm, ModelRef, TrainSettings, WeightSchedule
from prove.spec.event import State, encode
from prove.store import LaunchRow, Resampled, Settlement, Store

CLASSES = [f"class {number}" for number in range(19)]
CONDITIONS = ["clear", "fog", "night", "rain"]

TRAINED = 300
"""Reports of training of a run that is ingested whole."""

LINES = 3
"""New lines of a run that is followed."""

CURVES = """
    CREATE TABLE curves (run INTEGER, split TEXT, iteration INTEGER, payload TEXT, PRIMARY KEY (run, split, iteration))
    WITHOUT ROWID
"""

RUNS = """
    CREATE TABLE runs (id INTEGER PRIMARY KEY, key TEXT UNIQUE, job TEXT, dataset TEXT, model TEXT, loss TEXT,
    seed INTEGER, state TEXT, updated_at REAL, iteration INTEGER, size INTEGER, mtime INTEGER, launch TEXT)
"""

REGISTER = "INSERT INTO runs (key, job, dataset, model, loss, seed, state) VALUES (?, ?, ?, ?, ?, ?, 'planned')"


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    Attributes:
        count: of what ``unit`` names.
        cpu, wall, floor: seconds; medians. ``floor`` is of CPU.
        ratio: median of the rounds' ratios of CPU seconds to the floor's.
    """

    name: str
    count: int
    unit: str
    cpu: float
    wall: float
    floor: float
    ratio: float

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"microseconds_each": 1e6 * self.cpu / self.count}


Jobs = list[tuple[Job, str]]


def make_jobs(count: int) -> Jobs:
    """Jobs with the keys and texts that a sweep has made by the time it registers them."""
    train = TrainSettings(max_iters=15000, batch_size=16, crop_size=(512, 512), lr=0.01, eval_interval=2000)
    dataset = {"name": "Bench", "classes": CLASSES, "ignore_index": 255}
    weighted = (WeightSchedule(first=weight, last=weight) for weight in (0.1, 0.3, 0.5))
    losses = [LossExpr((LossTerm("ce"), LossTerm("focal", weight, (("gamma", 2),)))) for weight in weighted]
    cells = [
        (ModelRef(model), loss, str(loss))
        for model in ("deeplabv3plus_r50", "segformer_mit-b3", "hrnet_hr48")
        for loss in losses
    ]
    chosen = ((seed, *cells[seed % len(cells)]) for seed in range(count))
    jobs = [(Job(dataset, model, loss, train, seed=seed), text) for seed, model, loss, text in chosen]
    assert all(job.key and job.canonical for job, _ in jobs)
    return jobs


def report(chooser: random.Random, iteration: int) -> dict[str, Any]:
    def percents(names: tuple[str, ...]) -> dict[str, float]:
        return {name: 100 * chooser.random() for name in names}

    return {
        "iteration": iteration,
        "metrics": percents(METRICS),
        "conditions": {name: percents(METRICS) for name in CONDITIONS},
        "classes": {name: percents(("IoU", "Acc", "bIoU", "bF1")) | {"support": 123456} for name in CLASSES},
    }


def train_event(chooser: random.Random, iteration: int) -> dict[str, Any]:
    return {
        "kind": "train",
        "time": 1.7e9 + iteration * 2.003,
        "attempt": 1,
        "iteration": iteration,
        "lr": 0.01 * (1 - iteration / 40000) ** 0.9,
        "loss": chooser.random(),
        "terms": {f"decode.{name}": chooser.random() for name in ("ce", "focal", "lovasz")},
        "weights": {"decode.ce": 1.0, "decode.focal": 0.3, "decode.lovasz": 0.1},
        "seconds_per_iteration": chooser.random(),
        "peak_memory_mib": 10240.5,
    }


def life(chooser: random.Random, trained: int) -> bytes:
    """The events of a whole run: ``trained`` reports of training, four validations, the end."""

    def event(kind: str, at: int, **fields: Any) -> dict[str, Any]:
        return {"kind": kind, "time": 1.7e9 + at * 2.003, "attempt": 1, **fields}

    where = {"host": "node7", "pid": 4242, "launcher": "slurm", "device": "cuda"}
    events = [event("started", 0, **where, resumed_from=0, max_iters=trained), event("wired", 0, evidence={"ok": True})]
    for iteration in range(1, trained + 1):
        events.append(train_event(chooser, iteration))
        if iteration % max(1, trained // 4) == 0:
            events.append(event("validated", iteration, images=500, **report(chooser, iteration)))
            events.append(event("best", iteration, iteration=iteration, monitor="mIoU", value=60 + chooser.random()))
            file = f"checkpoints/iter_{iteration}.pth"
            events.append(event("checkpoint", iteration, iteration=iteration, file=file))
    last, best = report(chooser, trained), report(chooser, trained)
    end = {"iteration": trained, "reason": "max_iters", "last": last, "best": best}
    events.append(event("finished", trained, **end, train_seconds=7200.5, peak_memory_mib=10240.5))
    return b"".join(map(encode, events))


Seconds = tuple[float, float]
"""CPU and wall."""


def seconds(call: Callable[..., object], *arguments: object) -> Seconds:
    def cpu() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    before, start = cpu(), time.perf_counter()
    call(*arguments)
    return cpu() - before, time.perf_counter() - start


def measured(name: str, count: int, unit: str, rounds: list[tuple[Seconds, Seconds]]) -> Measured:
    """The medians of rounds, each of PROVE's seconds and of the floor's."""
    return Measured(
        name,
        count,
        unit,
        cpu=statistics.median(ours[0] for ours, _ in rounds),
        wall=statistics.median(ours[1] for ours, _ in rounds),
        floor=statistics.median(floor[0] for _, floor in rounds),
        ratio=statistics.median(ours[0] / max(floor[0], 1e-6) for ours, floor in rounds),
    )


def bare(path: Path) -> sqlite3.Connection:
    link = sqlite3.connect(path, isolation_level=None)
    link.execute("PRAGMA journal_mode = wal")
    link.execute("PRAGMA synchronous = normal")
    link.execute(RUNS)
    link.execute(CURVES)
    return link


def write(link: sqlite3.Connection, *statements: tuple[str, Iterable[tuple[Any, ...]]]) -> None:
    link.execute("BEGIN IMMEDIATE")
    for sql, rows in statements:
        link.executemany(sql, rows)
    link.execute("COMMIT")


def bare_register(link: sqlite3.Connection, jobs: Jobs) -> None:
    rows = [(job.key, job.canonical, job.dataset_name, job.model.name, loss, job.seed) for job, loss in jobs]
    write(link, (REGISTER, rows))


def registering(folder: Path, jobs: Jobs, rounds: int) -> Iterator[Measured]:
    new, again = [], []
    keys = [(job.key,) for job, _ in jobs]
    for number in range(rounds):
        place = folder / f"register-{number}"
        with Store.open(place) as store, closing(bare(place / "bare.db")) as link:
            for times in (new, again):
                ours = seconds(store.register, jobs, "sweep")
                if times is new:
                    floor = seconds(bare_register, link, jobs)
                else:
                    check = "UPDATE runs SET loss = loss WHERE key = ? AND loss IS NULL"
                    floor = seconds(write, link, (check, keys))
                times.append((ours, floor))
        shutil.rmtree(place)
    yield measured("register, all of them new", len(jobs), "jobs", new)
    yield measured("register, all of them known", len(jobs), "jobs", again)


def claiming(folder: Path, jobs: Jobs, rounds: int) -> Iterator[Measured]:
    keys = [job.key for job, _ in jobs]
    tasks = {key: number // 8 for number, key in enumerate(keys)}
    place = folder / "claims"
    looked, claimed, settled = [], [], []
    with Store.open(place) as store, closing(bare(place / "bare.db")) as link:
        store.register(jobs)
        bare_register(link, jobs)

        def bare_states() -> None:
            for key in keys:
                link.execute("SELECT state, launch FROM runs WHERE key = ?", (key,)).fetchone()

        def bare_claim(launch: str | None) -> None:
            write(link, ("UPDATE runs SET launch = ? WHERE key = ?", [(launch, key) for key in keys]))

        for number in range(rounds):
            launch = LaunchRow(f"launch-{number}", "local", "host", 1, "user", None, 0.0, 3)
            ends = [Settlement(key, launch.id, State.PLANNED) for key in keys]
            looked.append((seconds(store.states, keys), seconds(bare_states)))
            floor = seconds(bare_claim, "launch")
            claimed.append((seconds(store.claim, launch, tasks, [State.PLANNED]), floor))
            floor = seconds(bare_claim, None)
            settled.append((seconds(store.settle, ends), floor))
    yield measured("states", len(keys), "runs", looked)
    yield measured("claim", len(keys), "runs", claimed)
    yield measured("settle", len(keys), "runs", settled)


def bare_ingest(link: sqlite3.Connection, numbers: dict[str, int], tails: Iterable[tuple[Path, int]]) -> None:
    """Parse and store the lines of files from a byte on; note how far each has come."""
    curves: list[tuple[int, str, int, str]] = []
    seen = []
    for path, start in tails:
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read()
            stat = os.fstat(file.fileno())
        number, iteration = numbers[path.parent.name], 0
        for line in data.splitlines():
            event = json.loads(line)
            if event["kind"] in ("train", "validated"):
                iteration = event["iteration"]
                curves.append((number, event["kind"], iteration, line.decode()))
        seen.append((iteration, stat.st_size, stat.st_mtime_ns, number))
    progress = "UPDATE runs SET iteration = ?, size = ?, mtime = ? WHERE id = ?"
    write(link, ("INSERT INTO curves VALUES (?, ?, ?, ?)", curves), (progress, seen))


def numbered(link: sqlite3.Connection) -> dict[str, int]:
    return dict(link.execute("SELECT key, id FROM runs"))


def ingesting(folder: Path, jobs: Jobs, rounds: int) -> Iterator[Measured]:
    data = life(random.Random(1), TRAINED)
    count, times = len(jobs) * data.count(b"\n"), []
    for number in range(rounds):
        place = folder / f"ingest-{number}"
        runs = [make_folder(place, job, data) for job, _ in jobs]
        with Store.open(place) as store, closing(bare(place / "bare.db")) as link:
            store.register(jobs)
            bare_register(link, jobs)
            numbers = numbered(link)
            floor = seconds(bare_ingest, link, numbers, [(run.events, 0) for run in runs])
            times.append((seconds(store.ingest), floor))
            assert store.counts() == {State.FINISHED: len(jobs)}
        shutil.rmtree(place)
    yield measured("ingest whole runs", count, "events", times)


def following(folder: Path, jobs: Jobs, rounds: int) -> Iterator[Measured]:
    chooser, place, times = random.Random(2), folder / "follow", []
    begun = b"".join(life(chooser, 40).splitlines(keepends=True)[:-1])
    runs = [make_folder(place, job, begun) for job, _ in jobs]
    with Store.open(place) as store, closing(bare(place / "bare.db")) as link:
        store.register(jobs)
        store.ingest()
        bare_register(link, jobs)
        numbers = numbered(link)
        for number in range(rounds):
            sizes = [(run.events, run.events.stat().st_size) for run in runs]
            for run in runs:
                first = 41 + LINES * number
                with open(run.events, "ab") as file:
                    file.writelines(encode(train_event(chooser, first + line)) for line in range(LINES))
            floor = seconds(bare_ingest, link, numbers, sizes)
            times.append((seconds(store.ingest), floor))
    shutil.rmtree(place)
    yield measured(f"follow runs by {LINES} new lines", len(jobs), "runs", times)


def looking(folder: Path, jobs: Jobs, rounds: int) -> Iterator[Measured]:
    place, times = folder / "look", []
    begun = b"".join(life(random.Random(3), 4).splitlines(keepends=True)[:4])
    for job, _ in jobs:
        make_folder(place, job, begun)
    with Store.open(place) as store, closing(bare(place / "bare.db")) as link:
        store.register(jobs)
        store.ingest()
        bare_register(link, jobs)

        def look() -> None:
            with Store.open(place) as fresh:
                fresh.refresh()
                fresh.counts()
                fresh.runs(limit=50)
                fresh.problems()

        def bare_look() -> None:
            with os.scandir(place / "runs") as folders:
                for each in folders:
                    os.stat(f"{each.path}/events.jsonl")
            link.execute("SELECT key, size, mtime FROM runs").fetchall()
            link.execute("SELECT state, COUNT(*) FROM runs GROUP BY state").fetchall()
            link.execute("SELECT * FROM runs ORDER BY updated_at DESC LIMIT 50").fetchall()

        for _ in range(rounds):
            times.append((seconds(look), seconds(bare_look)))
    shutil.rmtree(place)
    yield measured("refresh, counts and 50 rows, nothing new", len(jobs), "runs", times)


def reporting(folder: Path, jobs: Jobs, rounds: int) -> Iterator[Measured]:
    """What a report reads of all runs, beside the bare SELECT of as many bytes."""
    place, chooser = folder / "report", random.Random(4)
    facts = {f"fact {number}": "x" * 32 for number in range(24)}
    payload = chooser.randbytes(4 * 1000 + 150)
    said, drawn = [], []
    events = b"".join(life(chooser, 4).splitlines(keepends=True))
    told = encode({"kind": "environment", "time": 1.7e9, "attempt": 1, "environment": facts})
    first, rest = events.split(b"\n", 1)
    for job, _ in jobs:
        make_folder(place, job, first + b"\n" + told + rest)
    with Store.open(place) as store, closing(bare(place / "bare.db")) as link:
        store.register(jobs)
        store.ingest()
        rows = dict(store.connection.query("SELECT id, finished_at FROM runs"))
        for metric in ("mIoU", "aAcc", "bIoU"):
            found = {run_id: Resampled(at, payload) for run_id, at in rows.items()}
            store.save_replicates("last", "overall", metric, found)
        link.execute("CREATE TABLE texts (id INTEGER PRIMARY KEY, payload TEXT)")
        link.execute("CREATE TABLE blobs (id INTEGER PRIMARY KEY, payload BLOB)")
        write(
            link,
            ("INSERT INTO texts VALUES (?, ?)", [(run_id, json.dumps(facts)) for run_id in rows]),
            ("INSERT INTO blobs VALUES (?, ?)", [(run_id, payload) for run_id in rows]),
        )

        def bare_read(table: str) -> None:
            dict(link.execute(f"SELECT id, payload FROM {table}").fetchall())

        for _ in range(rounds):
            said.append((seconds(store.environments), seconds(bare_read, "texts")))
            ours = seconds(store.replicates, "last", "overall", "mIoU", rows)
            drawn.append((ours, seconds(bare_read, "blobs")))
    shutil.rmtree(place)
    yield measured("read environments", len(jobs), "runs", said)
    yield measured("read resampled metrics", len(jobs), "runs", drawn)


def make_folder(results: Path, job: Job, events: bytes) -> RunDir:
    run = RunDir.of(results, job.key)
    run.path.mkdir(parents=True)
    run.events.write_bytes(events)
    return run


def table(rows: Iterable[Measured]) -> Iterator[str]:
    yield "| | number | CPU, s | wall, s | each, µs of CPU | floor, s of CPU | ratio |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        each = 1e6 * row.cpu / row.count
        times = f"{row.cpu:.3f} | {row.wall:.3f} | {each:.1f} | {row.floor:.3f} | {row.ratio:.2f}"
        yield f"| {row.name} | {row.count:,} {row.unit} | {times} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="registered, claimed, looked at and reported")
    parser.add_argument("--logged", type=int, default=200, help="ingested whole")
    parser.add_argument("--following", type=int, default=1_000, help="followed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work; default: the system's temporary folder")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    asked = parser.parse_args()
    parts = ((registering, asked.runs), (claiming, asked.runs), (looking, asked.runs))
    parts += ((ingesting, asked.logged), (following, asked.following), (reporting, asked.runs))
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory(dir=asked.folder) as place:
        for part, size in parts:
            rows += part(Path(place), make_jobs(size), asked.rounds)
            sys.stderr.write(f"{rows[-1].name}: done\n")
    if asked.json:
        sizes = {"runs": asked.runs, "logged": asked.logged, "following": asked.following, "rounds": asked.rounds}
        print(json.dumps({**sizes, "rows": [row.to_dict() for row in rows]}, indent=2))
    else:
        print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
