"""`prove db`: what it says of a database, and how runs travel from one results folder to another."""

import gzip
import hashlib
import io
import json
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prove.cli import app
from prove.rundir import RunDir, write_json
from prove.spec.event import State
from prove.store import LaunchRow, Store, schema
from tests.journal import encoded, failed, finished, interrupted, make_job, make_run, started, train, whole_life


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no settings from outside."""
    for name in ("PROVE_DB", "PROVE_RESULTS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prove(*arguments: object) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


def answer(*arguments: object, code: int = 0) -> Any:
    result = prove(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def complete_run(results: Path, seed: int = 0, events: list | None = None) -> RunDir:
    """A run folder with all that travels, and with what does not."""
    run = make_run(results, whole_life() if events is None else events, seed)
    run.terms.mkdir()
    for path in (*run.term_files("mine"), run.config, run.log, run.confusion, run.best_confusion, run.model_config):
        path.write_bytes(f"{path.name} of {seed}".encode())
    write_json(run.env, {"torch": "2.11"})
    write_json(run.evidence, {"ok": True})
    write_json(run.launch, {"placement": {"root": "/home/anna/data"}})
    run.checkpoint(40).write_bytes(b"weights")
    (run.path / "worker.lock").touch()
    return run


TRAVELS = {
    "job.json",
    "events.jsonl",
    "config.py",
    "model.py",
    "log.txt",
    "env.json",
    "evidence.json",
    "confusion.npz",
    "confusion_best.npz",
    "terms/mine.yaml",
    "terms/mine.py",
}


def contents(run: RunDir) -> dict[str, bytes]:
    files = (path for path in run.path.rglob("*") if path.is_file())
    return {path.relative_to(run.path).as_posix(): path.read_bytes() for path in files}


def test_runs_travel_with_all_but_their_checkpoints(home: Path) -> None:
    runs = [complete_run(home / "a", seed) for seed in range(3)]
    with Store.open(home / "a") as store:
        store.register([(make_job(0), "ce + 0.3*focal"), (make_job(1), "ce + 0.3*focal")], "aux_weight")
        store.register([(make_job(1), "ce + 0.3*focal"), (make_job(9), "ce")], "ablation")
    told = answer("db", "export", "all.tar.gz", "--results", "a")
    assert told == {"file": "all.tar.gz", "exported": 3, "left_out": 0}
    merged = answer("db", "import", "all.tar.gz", "--results", "b")
    assert merged["added"] == sorted(run.key for run in runs)
    assert merged["conflicts"] == []
    for run in runs:
        there = RunDir.of(home / "b", run.key)
        before = contents(run)
        assert contents(there) == {name: before[name] for name in TRAVELS}
    with Store.open(home / "a") as ours, Store.open(home / "b") as theirs:
        ours.refresh()
        for run in runs:
            assert theirs.results(run.key) == ours.results(run.key)
            assert theirs.attempts(run.key) == ours.attempts(run.key)
            assert theirs.curve(run.key) == ours.curve(run.key)
            assert theirs.run(run.key).metrics == ours.run(run.key).metrics
            assert theirs.run(run.key).loss == ours.run(run.key).loss
        assert {run.seed for run in theirs.runs("aux_weight")} == {0, 1}
        assert {run.seed for run in theirs.runs("ablation")} == {1}
    again = answer("db", "import", "all.tar.gz", "--results", "b")
    assert (again["added"], again["same"]) == ([], merged["added"])
    assert [path.name for path in (home / "b").iterdir()].count("replaced") == 0
    assert not list((home / "b" / "runs").glob(".import*"))


def test_one_experiment_travels_and_the_same_runs_make_the_same_bytes(home: Path) -> None:
    for seed in range(3):
        complete_run(home / "a", seed)
    with Store.open(home / "a") as store:
        store.register([(make_job(2), "ce")], "aux_weight")
    for name in ("one.tar.gz", "two.tar.gz"):
        told = answer("db", "export", name, "--experiment", "aux_weight", "--results", "a")
        assert told["exported"] == 1
    assert (home / "one.tar.gz").read_bytes() == (home / "two.tar.gz").read_bytes()
    assert answer("db", "import", "one.tar.gz", "--results", "b")["added"] == [make_job(2).key]
    result = prove("db", "export", "three.tar.gz", "--experiment", "aux_wait", "--results", "a")
    assert result.exit_code == 2
    assert "Did you mean 'aux_weight'" in result.stderr
    assert not (home / "three.tar.gz").exists()


def test_what_runs_is_left_out(home: Path) -> None:
    complete_run(home / "a", 0, [started(host="node1"), train(5)])
    complete_run(home / "a", 1, [started(host="node1"), interrupted()])
    complete_run(home / "a", 2)
    with Store.open(home / "a") as store:
        store.register([(make_job(seed), "ce") for seed in range(4)])
        store.refresh()
        launch = LaunchRow("one", "local", "node1", 1, "anna", None, 0.0, 3)
        store.claim(launch, {make_job(1).key: 0}, [State.INTERRUPTED])
    result = prove("db", "export", "all.tar.gz", "--results", "a")
    assert result.exit_code == 0
    assert "Exported 1 run to all.tar.gz. Left out, because they are running or queued: 2." in result.stderr
    with RunDir.of(home / "a", make_job(2).key).lock():
        assert answer("db", "export", "less.tar.gz", "--results", "a")["exported"] == 0


def test_an_existing_file_is_not_written_over(home: Path) -> None:
    complete_run(home / "a")
    (home / "thesis.tex").write_text("x")
    result = prove("db", "export", "thesis.tex", "--results", "a")
    assert (result.exit_code, (home / "thesis.tex").read_text()) == (2, "x")
    result = prove("db", "export", "no/such/folder.tar.gz", "--results", "a")
    assert result.exit_code == 2
    assert "can't be written" in result.stderr


def merged(home: Path, ours: list, theirs: list, code: int = 0) -> tuple[dict, RunDir]:
    """What becomes of a run with some events here, and others there."""
    complete_run(home / "theirs", 0, theirs)
    answer("db", "export", "theirs.tar.gz", "--results", "theirs")
    run = complete_run(home / "ours", 0, ours)
    with Store.open(home / "ours") as store:
        store.refresh()
    return answer("db", "import", "theirs.tar.gz", "--results", "ours", code=code), run


FIRST = [started(), train(5), interrupted()]


@pytest.mark.parametrize(
    "ours",
    [
        FIRST,
        [started(), failed()],
        [],
        [*FIRST, started(30.0, attempt=2, resumed_from=5), train(7, attempt=2, loss=9.0), interrupted(attempt=2)],
    ],
)
def test_theirs_is_taken_where_it_is_finished_and_ours_is_not(home: Path, ours: list) -> None:
    theirs = [*FIRST, started(26.0, attempt=2, resumed_from=5), train(10, attempt=2), finished(attempt=2)]
    told, run = merged(home, ours, theirs)
    assert told["replaced"] == [run.key]
    assert run.events.read_bytes() == encoded(theirs)
    aside = home / "ours" / "replaced" / f"{run.key}-1"
    assert (aside / "checkpoints" / "iter_40.pth").read_bytes() == b"weights"
    assert not run.checkpoint(40).exists()
    with Store.open(home / "ours") as store, Store.open(home / "theirs") as source:
        row = store.run(run.key)
        assert (row.state, row.metrics["mIoU"]) == (State.FINISHED, 40.0)
        assert store.curve(run.key) == source.curve(run.key)
        assert store.attempts(run.key) == source.attempts(run.key)


def test_a_second_folder_that_is_replaced_does_not_displace_the_first(home: Path) -> None:
    _, run = merged(home, FIRST, whole_life())
    shutil.rmtree(run.path)
    complete_run(home / "ours", 0, [started(), failed()])
    assert answer("db", "import", "theirs.tar.gz", "--results", "ours")["replaced"] == [run.key]
    assert {path.name for path in (home / "ours" / "replaced").iterdir()} == {f"{run.key}-1", f"{run.key}-2"}


@pytest.mark.parametrize("ours", [FIRST, whole_life()])
def test_ours_stays_where_theirs_is_not_finished(home: Path, ours: list) -> None:
    told, run = merged(home, ours, [started(), failed()])
    assert told["kept"] == [run.key]
    assert run.events.read_bytes() == encoded(ours)


def test_two_results_for_one_job_are_a_conflict(home: Path) -> None:
    ours, theirs = [started(), finished(mean=40.0)], [started(), finished(mean=42.5)]
    told, run = merged(home, ours, theirs, code=1)
    assert told["conflicts"] == [{"key": run.key, "ours": 40.0, "theirs": 42.5}]
    assert run.events.read_bytes() == encoded(ours)
    result = prove("db", "import", "theirs.tar.gz", "--results", "ours")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{run.key}  mIoU 40.00 here, 42.50 there" in result.stderr


def test_what_somebody_holds_here_stays(home: Path) -> None:
    complete_run(home / "theirs", 0)
    complete_run(home / "theirs", 1)
    answer("db", "export", "theirs.tar.gz", "--results", "theirs")
    with Store.open(home / "ours") as store:
        store.register([(make_job(seed), "ce") for seed in range(2)])
        launch = LaunchRow("one", "local", "node1", 1, "anna", None, 0.0, 3)
        store.claim(launch, {make_job(0).key: 0}, [State.PLANNED])
    run = make_run(home / "ours", [], 1)
    with run.lock():
        told = answer("db", "import", "theirs.tar.gz", "--results", "ours")
    assert told["held"] == sorted(make_job(seed).key for seed in range(2))
    assert told["added"] == []
    with Store.open(home / "ours") as store:
        assert store.counts() == {State.PLANNED: 1, State.QUEUED: 1}


# Archives that no export writes


def archive(path: Path, members: dict[str, bytes], manifest: dict | None = None, **more: Any) -> None:
    """An archive with these files; its manifest is right unless another is given."""
    if manifest is None:
        files: dict[str, dict[str, str]] = {}
        for name, content in members.items():
            key, _, rest = name.removeprefix("runs/").partition("/")
            files.setdefault(key, {})[rest] = hashlib.sha256(content).hexdigest()
        runs = {k: {"state": "finished", "loss": "ce", "experiments": [], "files": f} for k, f in files.items()}
        manifest = {"format": 1, "runs": runs}
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {**members, "manifest.json": json.dumps(manifest).encode(), **more}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


KEY = make_job(0).key


def sound() -> dict[str, bytes]:
    job = json.dumps(make_job(0).to_dict()).encode()
    return {f"runs/{KEY}/job.json": job, f"runs/{KEY}/events.jsonl": encoded(whole_life())}


def a_link(tar: tarfile.TarFile, name: str, kind: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    tar.addfile(member)


def refused(path: Path, why: str) -> None:
    """The import says why, and leaves nothing."""
    before = sorted(Path("b").rglob("*")) if Path("b").exists() else []
    result = prove("db", "import", path, "--results", "b")
    assert result.exit_code == 2, result.output
    assert why in result.stderr
    assert "Traceback" not in result.output
    runs = Path("b") / "runs"
    assert not runs.exists() or list(runs.iterdir()) == []
    assert [path for path in before if not path.exists()] == []


def test_the_archives_of_these_tests_are_sound(home: Path) -> None:
    archive(home / "x.tar.gz", sound())
    assert answer("db", "import", "x.tar.gz", "--results", "b")["added"] == [KEY]


@pytest.mark.parametrize(
    "name",
    [
        "../outside.txt",
        "/etc/cron.d/prove",
        f"runs/{KEY}/../../../outside.txt",
        f"runs/{KEY}/terms/../../../outside.py",
        f"runs/{KEY}/checkpoints/best.pth",
        f"runs/{KEY}/.bashrc",
        f"runs/{KEY}/terms/.py",
        "runs/nokey/job.json",
        "prove.db",
    ],
)
def test_a_name_that_is_no_file_of_a_run_is_refused(home: Path, name: str) -> None:
    archive(home / "x.tar.gz", {**sound(), name: b"evil"})
    refused(home / "x.tar.gz", "is not a file of a run")
    assert not (home / "outside.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(home: Path, kind: bytes) -> None:
    with tarfile.open(home / "x.tar.gz", "w:gz") as tar:
        a_link(tar, f"runs/{KEY}/log.txt", kind)
    refused(home / "x.tar.gz", "is not a plain file")


def changed(**changes: Any) -> Callable[[dict], dict]:
    return lambda run: {**run, **changes}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda manifest: {**manifest, "format": 2}, "is of format 2; this PROVE reads format 1"),
        (lambda manifest: {"runs": {}}, "it has no manifest"),
        (lambda manifest: {"format": 1}, "not as expected"),
        (lambda manifest: {"format": 1, "runs": {}}, f"of run {KEY} is not what was exported"),
        (lambda manifest: {"format": 1, "runs": {KEY: {"mIoU": 99}}}, "not as expected"),
        (lambda manifest: {"format": 1, "runs": [KEY]}, "not as expected"),
        ("files", "job.json of run"),
        ("experiments", "not as expected"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(home: Path, change: Any, why: str) -> None:
    archive(home / "right.tar.gz", sound())
    with tarfile.open(home / "right.tar.gz") as tar:
        content = tar.extractfile("manifest.json")
        assert content is not None
        manifest = json.load(content)
    if change == "files":
        manifest["runs"][KEY]["files"]["job.json"] = "0" * 64
    elif change == "experiments":
        manifest["runs"][KEY]["experiments"] = [3]
    else:
        manifest = change(manifest)
    archive(home / "x.tar.gz", sound(), manifest)
    refused(home / "x.tar.gz", why)


def test_a_job_that_is_not_the_folder_s_is_refused(home: Path) -> None:
    files = sound()
    other = json.dumps(make_job(1).to_dict()).encode()
    archive(home / "x.tar.gz", {**files, f"runs/{KEY}/job.json": other})
    refused(home / "x.tar.gz", f"is the job {make_job(1).key}")
    archive(home / "x.tar.gz", {**files, f"runs/{KEY}/job.json": b"[" * 100_000})
    refused(home / "x.tar.gz", "can't be read")
    del files[f"runs/{KEY}/events.jsonl"]
    archive(home / "x.tar.gz", files)
    refused(home / "x.tar.gz", "lacks its job or its events")


def test_damaged_files_are_refused(home: Path) -> None:
    path = home / "x.tar.gz"
    complete_run(home / "a")
    answer("db", "export", "whole.tar.gz", "--results", "a")
    whole = (home / "whole.tar.gz").read_bytes()
    for kept in (0, 10, len(whole) // 2, len(whole) * 9 // 10):
        path.write_bytes(whole[:kept])
        refused(path, "is not a sound archive of runs")
    path.write_bytes(b"PK" + whole)
    refused(path, "is not a sound archive of runs")
    path.write_bytes(gzip.compress(b"mIoU,aAcc\n" * 1000))
    refused(path, "is not a sound archive of runs")
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0x55]) + whole[middle + 1 :])
    refused(path, "is not a sound archive of runs")
    archive(path, sound(), **{"late.txt": b"after the manifest"})
    refused(path, "comes after the manifest")
    with tarfile.open(path, "w:gz") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo(f"runs/{KEY}/log.txt"))
    refused(path, "is in it twice")


def test_a_file_that_is_not_there(home: Path) -> None:
    result = prove("db", "import", "none.tar.gz", "--results", "b")
    assert result.exit_code == 2
    assert "There is no file none.tar.gz" in result.stderr
    assert list(home.iterdir()) == []


def test_an_export_that_dies_leaves_no_half_file(home: Path) -> None:
    for seed in range(3):
        complete_run(home / "a", seed)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from prove.store import Store, archive, merge\n"
        "real, left = archive._put, [5]\n"
        "def dying(*arguments):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os._exit(9)\n"
        "    real(*arguments)\n"
        "archive._put = dying\n"
        "with Store.open(Path('a')) as store:\n"
        "    store.refresh(); merge.export_runs(store, Path('runs.tar.gz'))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=home, check=False).returncode == 9
    assert not (home / "runs.tar.gz").exists()


# What `prove db` says of the database itself


def test_info_counts_launches(home: Path) -> None:
    with Store.open(home / "results") as store:
        store.register([(make_job(0), "ce")])
        store.claim(LaunchRow("one", "slurm", "login", 1, "anna", None, 0.0, 3), {KEY: 0}, [State.PLANNED])
    facts = answer("db", "info")
    assert facts["rows"]["launches"] == 1
    assert (facts["revision"], facts["integrity"]) == (schema.HEAD, "ok")
    assert "launches          1" in prove("db", "info").stdout


def test_a_database_of_the_first_revision_is_upgraded_and_keeps_its_runs(home: Path) -> None:
    (home / "results").mkdir()
    schema.migrate(f"sqlite:///{home}/results/prove.db", "0001")
    with closing(sqlite3.connect(home / "results" / "prove.db")) as link, link:
        link.execute(
            "INSERT INTO runs "
            "(key, job, dataset, model, strategy, loss, seed, max_iters, state, created_at, updated_at) "
            "VALUES (?, ?, 'SynthStreet', 'fcn_tiny', 'baseline', 'ce', 0, 40, 'planned', 1.0, 1.0)",
            (KEY, json.dumps(make_job(0).to_dict())),
        )
    make_run(home / "results", whole_life())
    result = prove("status")
    assert result.exit_code == 2
    assert "prove db upgrade" in result.stderr
    told = answer("db", "upgrade")
    assert (told["before"], told["after"]) == ("0001", schema.HEAD)
    assert Path(told["copy"]).name == "prove.db.revision-0001"
    assert answer("status")["counts"]["finished"] == 1
    with Store.open(home / "results") as store:
        (row,) = store.runs()
        assert (row.key, row.launch, row.task, row.created_at) == (KEY, None, None, 1.0)
