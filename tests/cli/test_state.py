import importlib.util
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from prove.cli import COMMANDS, app
from prove.rundir import write_json
from prove.spec import METRICS, ModelRef
from prove.store import Store
from tests.journal import EVIDENCE, encoded, event, failed, finished, make_job, make_run, started, whole_life

PROVE = [sys.executable, "-m", "prove.cli"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no settings from outside."""
    for name in ("PROVE_DB", "PROVE_RESULTS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prove(*arguments: object) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


def answer(*arguments: object) -> Any:
    result = prove(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_status_of_nothing(home: Path) -> None:
    result = prove("status")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No runs yet in results/" in result.stderr
    assert answer("status")["runs"] == []
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("command", [("show", "abcd"), ("logs", "abcd"), ("db", "info"), ("db", "upgrade")])
def test_asking_nothing_for_something(home: Path, command: tuple[str, ...]) -> None:
    result = prove(*command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: There ")
    assert "\nhint: " in result.stderr
    assert list(home.iterdir()) == []


def test_status(home: Path) -> None:
    done = make_run(home / "results", whole_life(), seed=0)
    bad = make_run(home / "results", [started(), failed()], seed=1)
    with Store.open(home / "results") as store:
        store.upsert(make_job(2), "ce", experiment="aux_weight")
    result = prove("status")
    lines = result.stdout.splitlines()
    assert lines[0] == "1 planned, 1 finished, 1 failed"
    assert lines[1].split() == ["key", "dataset", "model", "loss", "seed", "state", "iteration", "mIoU"]
    row = next(line for line in lines if line.startswith(done.key))
    assert row.split()[-4:] == ["0", "finished", "40/40", "40.00"]
    assert f"{bad.key} failed (diverged): decode.focal is not finite at [20]" in result.stderr
    document = answer("status")
    assert document["counts"]["finished"] == 1
    assert {run["key"]: run["mIoU"] for run in document["runs"]} == {
        done.key: 40.0,
        bad.key: None,
        make_job(2).key: None,
    }
    assert [run["seed"] for run in answer("status", "aux_weight")["runs"]] == [2]
    unknown = prove("status", "aux_wait")
    assert unknown.exit_code == 2
    assert "Did you mean 'aux_weight'?" in unknown.stderr


def test_status_lists_no_more_than_asked_for_and_says_so(home: Path) -> None:
    with Store.open(home / "results") as store:
        store.register([(make_job(seed), "ce") for seed in range(60)])
    result = prove("status")
    assert len(result.stdout.splitlines()) == 2 + 50
    assert "... and 10 more" in result.stderr
    assert len(answer("status", "-n", 3)["runs"]) == 60


def test_hours_are_those_of_the_attempts_whatever_came_of_them(home: Path) -> None:
    """Two runs of 1800 s and 900 s on a GPU, the second again for 450 s; one of 7200 s on the CPU."""
    gpu = {"device": "GPU"}
    make_run(home / "results", [started() | gpu, finished(at=1800.0)], seed=0)
    make_run(
        home / "results", [started() | gpu, failed(at=900.0), started(1000.0, 2) | gpu, finished(1450.0, 2)], seed=1
    )
    make_run(home / "results", [started(), event("interrupted", 7200.0, reason="signal SIGTERM", iteration=3)], seed=2)
    with Store.open(home / "results") as store:
        store.refresh()
        store.register([(make_job(seed), "ce") for seed in (1, 2)], experiment="mine")
    found = answer("status", "--hours", "loss")
    assert found["by"] == "loss"
    by_loss = {each["name"]: each for each in found["hours"]}
    assert by_loss["ce + 0.3*focal"] == {
        "name": "ce + 0.3*focal", "gpu_hours": pytest.approx(0.5), "cpu_hours": 0.0, "runs": 1,
    }  # fmt: skip
    assert (by_loss["ce"]["gpu_hours"], by_loss["ce"]["cpu_hours"]) == (pytest.approx(0.375), pytest.approx(2.0))
    assert [(each["name"], each["runs"]) for each in answer("status", "--hours", "experiment")["hours"]] == [
        ("", 1), ("mine", 2),
    ]  # fmt: skip
    assert [each["runs"] for each in answer("status", "mine", "--hours", "model")["hours"]] == [2]
    wrong = prove("status", "--hours", "los")
    assert (wrong.exit_code, "Did you mean 'loss'" in wrong.stderr) == (2, True)


def test_the_matrix_counts_each_cell_by_state(home: Path) -> None:
    make_run(home / "results", whole_life(), seed=0)
    make_run(home / "results", [started(), failed()], seed=1)
    with Store.open(home / "results") as store:
        store.refresh()
        store.register([(make_job(seed), "ce + 0.3*focal") for seed in range(5)], experiment="mine")
        store.register([(make_job(9, model=ModelRef("pspnet_r50"), strategy="other"), "ce")], experiment="mine")
    lines = prove("status", "mine").stdout.splitlines()
    assert lines[0] == "4 planned, 1 finished, 1 failed"
    assert lines[2:5] == ["SynthStreet", "loss            fcn_tiny", "ce + 0.3*focal  1F 1X 3P"]
    assert [line.split() for line in lines[6:9]] == [["SynthStreet,", "other"], ["loss", "pspnet_r50"], ["ce", "1P"]]
    assert lines[-1] == "F finished, X failed, P planned"


def test_status_reports_lines_that_could_not_be_read(home: Path) -> None:
    make_run(home / "results", encoded([started(), finished()]) + b"garbage\n")
    assert "1 line in the run folders could not be read" in prove("status").stderr


@pytest.mark.parametrize("columns", ["80", "100"])
def test_status_fits_a_terminal(home: Path, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    make_run(home / "results", whole_life())
    monkeypatch.setenv("COLUMNS", columns)
    lines = prove("status").stdout.splitlines()
    assert max(map(len, lines)) <= int(columns)
    for whole in (make_job().key, "finished", "40/40", "40.00"):
        assert any(whole in line for line in lines)


def test_the_results_folder_from_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(home / "elsewhere", whole_life())
    monkeypatch.setenv("PROVE_RESULTS", str(home / "elsewhere"))
    assert answer("status")["counts"]["finished"] == 1
    assert answer("status", "--results", home / "empty")["counts"]["finished"] == 0


def test_show(home: Path) -> None:
    run = make_run(home / "results", [*whole_life(), event("sang", attempt=2)])
    run.config.write_text("model = {}\n")
    write_json(run.env, {"prove": "0.1.0", "host": "box", "packages": {"torch": "2.11"}})
    text = prove("show", run.key[:6]).stdout
    for fact in (
        f"{run.key}  finished",
        "ce + 0.3*focal",
        "40 of 40",
        "mIoU 41.00 at iteration 30",
        "interrupted: signal SIGTERM",
        "decode_head",
        "focal[gamma]",  # brackets are not markup
        "6.5%",
        "+0.87",
        "night",
        "rider",
        "123,456",
        str(Path("results") / "runs" / run.key / "config.py"),
        "unknown kind of event 'sang'",
        "box",
    ):
        assert fact in text, fact
    document = answer("show", run.key)
    assert document["key"] == run.key
    assert {metric: document[metric] for metric in METRICS} == {m: 40.0 + i for i, m in enumerate(METRICS)}
    assert document["job"] == make_job().to_dict()
    assert [attempt["ending"] for attempt in document["attempts"]] == ["interrupted", "finished"]
    assert document["evidence"] == EVIDENCE
    assert document["results"]["last"]["conditions"]["day"]["mIoU"] == 40.0
    assert document["results"]["best"]["overall"]["mIoU"] == 41.0
    assert document["results"]["last"]["classes"]["rider"] == {
        "Acc": None,
        "IoU": None,
        "bF1": None,
        "bIoU": None,
        "support": 0.0,
    }
    assert document["environment"]["packages"] == {"torch": "2.11"}
    assert document["paths"]["config"] == str(Path("results") / "runs" / run.key / "config.py")
    assert len(document["problems"]) == 1


def test_show_what_has_only_been_planned(home: Path) -> None:
    with Store.open(home / "results") as store:
        store.upsert(make_job(), "ce")
    result = prove("show", make_job().key)
    assert result.exit_code == 0
    assert "planned" in result.stdout
    document = answer("show", make_job().key)
    assert (document["attempts"], document["evidence"], document["results"], document["environment"]) == (
        [],
        None,
        {},
        None,
    )


def test_show_a_failure_with_its_advice(home: Path) -> None:
    run = make_run(home / "results", [started(), failed()])
    text = prove("show", run.key).stdout
    for fact in ("failed (diverged)", "decode.focal is not finite at [20]", "Lower --lr."):
        assert fact in text


def test_an_unknown_key_names_the_latest_runs(home: Path) -> None:
    run = make_run(home / "results", whole_life())
    result = prove("show", "ffffffff")
    assert (result.exit_code, result.stdout) == (2, "")
    assert run.key in result.stderr
    assert "Traceback" not in result.stderr


def test_logs(home: Path) -> None:
    run = make_run(home / "results", whole_life())
    assert "has not written a log" in prove("logs", run.key).stderr
    run.log.write_text("".join(f"line {i} [x]\n" for i in range(100)))
    assert prove("logs", run.key).stdout.splitlines() == [f"line {i} [x]" for i in range(50, 100)]
    assert prove("logs", run.key, "-n", 2).stdout == "line 98 [x]\nline 99 [x]\n"
    assert answer("logs", run.key, "-n", 1) == {
        "key": run.key,
        "state": "finished",
        "log": str(Path("results") / "runs" / run.key / "log.txt"),
        "lines": ["line 99 [x]"],
    }
    followed = prove("logs", run.key, "-f", "-n", 1)
    assert followed.stdout == "line 99 [x]\n"
    assert f"{run.key} is finished: max_iters" in followed.stderr
    assert prove("logs", run.key, "-f", "--json").exit_code == 2


@contextmanager
def following(key: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [*PROVE, "logs", key, "-f"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_logs_follow_until_the_run_ends(home: Path) -> None:
    run = make_run(home / "results", [started(host="elsewhere")])
    run.log.write_text("begin\n")
    with following(run.key) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begin\n"
        with open(run.log, "a") as log:
            log.write("middle\n")
        assert process.stdout.readline() == b"middle\n"
        with open(run.log, "a") as log:
            log.write("end\n")
        with open(run.events, "ab") as events:
            events.write(encoded([finished()]))
        out, err = process.communicate(timeout=60)
        assert out == b"end\n"
        assert b"is finished" in err
        assert process.returncode == 0


def test_ctrl_c_is_130(home: Path) -> None:
    run = make_run(home / "results", [started(host="elsewhere")])
    run.log.write_text("begin\n")
    with following(run.key) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert b"Traceback" not in err


def test_db_info_and_upgrade(home: Path) -> None:
    make_run(home / "results", whole_life())
    prove("status")
    facts = answer("db", "info")
    assert facts["revision"] == facts["newest_revision"]
    assert facts["integrity"] == "ok"
    assert facts["rows"]["runs"] == 1
    assert facts["rows"]["attempts"] == 2
    assert "journal_mode" in prove("db", "info").stdout
    assert answer("db", "upgrade") == {"before": facts["revision"], "after": facts["revision"], "copy": None}


def test_a_newer_database_is_exit_code_2(home: Path) -> None:
    with Store.open(home / "results") as store:
        store.connection.execute("UPDATE alembic_version SET version_num = '0099'")
    for command in (("status",), ("show", "abcd"), ("db", "upgrade")):
        result = prove(*command)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "written by a newer PROVE" in result.stderr
    assert answer("db", "info")["revision"] == "0099"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("stauts",), "status"),
        (("status", "--resluts", "x"), "--results"),
        (("db", "infos"), "info"),
        (("status", "-n", "zero"), "--limit"),
        (("show",), "KEY"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], expected: str) -> None:
    result = prove(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_version_and_help() -> None:
    from importlib.metadata import version

    assert prove("--version").stdout == f"prove {version('prove-seg')}\n"
    for flag in ("-h", "--help"):
        text = prove(flag).stdout
        assert all(f"  {entry.name} " in text and entry.help in text for entry in COMMANDS)
        assert max(map(len, text.splitlines())) <= 80


PRESENT = [entry for entry in COMMANDS if importlib.util.find_spec(entry.target.split(":")[0])]


@pytest.mark.parametrize("entry", PRESENT, ids=lambda entry: entry.name)
def test_the_help_that_is_stated_is_the_command_s_own(entry: Any) -> None:
    target = entry.load()
    text = target.info.help if isinstance(target, typer.Typer) else inspect.getdoc(target)
    assert text.splitlines()[0] == entry.help
    assert entry.help[-1] == "."


def commands() -> list[tuple[str, Any]]:
    found = []
    for entry in PRESENT:
        target = entry.load()
        if isinstance(target, typer.Typer):
            found += [
                (f"{entry.name} {info.name or info.callback.__name__}", info.callback)
                for info in target.registered_commands
            ]
        else:
            found.append((entry.name, target))
    return found


@pytest.mark.parametrize(("name", "function"), commands())
def test_every_command_takes_json_and_results_and_has_help(name: str, function: Any) -> None:
    text = prove(*name.split(), "--help").stdout
    assert "--json" in text
    assert "--results" in text
    assert inspect.getdoc(function)


HEAVY = ("torch", "torchvision", "mmseg", "mmengine", "mmcv", "cv2", "pandas", "alembic", "sqlalchemy", "scipy")


@pytest.mark.parametrize(
    "arguments", [("--help",), ("status",), ("status", "--json"), ("show", "KEY"), ("logs", "KEY")]
)
def test_reading_imports_nothing_heavy(home: Path, arguments: tuple[str, ...]) -> None:
    run = make_run(home / "results", whole_life())
    Store.open(home / "results").close()
    code = (
        "import sys\n"
        "from prove.cli import main\n"
        "sys.argv = ['prove', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        f"heavy = set({HEAVY!r}) & set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else code)"
    )
    asked = [run.key if argument == "KEY" else argument for argument in arguments]
    done = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_goes_away_is_no_error(home: Path) -> None:
    with Store.open(home / "results") as store:
        store.register([(make_job(seed), "ce") for seed in range(3000)])
    command = f"'{sys.executable}' -m prove.cli status --json | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env={**os.environ})
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr
