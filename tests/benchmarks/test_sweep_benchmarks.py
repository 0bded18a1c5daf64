"""The benchmarks of sweeps measure what they say, and run end to end at a small size."""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from prove.rundir import RunDir
from prove.spec.event import State
from prove.spec.experiment import read_experiment
from prove.store import Store

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmarks by name, as their scripts do."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def measured(tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """The figures and the report of a run of the benchmark; a limit that is missed is no failure here."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / "sweeps.py"), "--rounds", "1", *arguments, "--folder", str(tmp_path),
         "--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md")],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    assert (tmp_path / "a.md").exists(), done.stderr
    assert (tmp_path / "a.md").read_text() == done.stdout
    return json.loads((tmp_path / "a.json").read_text()), done.stdout


def test_a_process_is_timed_with_its_children(module: Any, tmp_path: Path) -> None:
    timing = module("sweep_timing")
    burn = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    taken = timing.cost(["sh", "-c", '"$0" -c "$1"; exit 0', sys.executable, burn])
    assert taken.cpu >= 0.3
    assert taken.wall > 0.29
    timing.cost([sys.executable, "-c", "print('said')"], output=tmp_path / "said")
    assert (tmp_path / "said").read_text() == "said\n"


def test_a_command_that_fails_is_not_a_measurement(module: Any) -> None:
    timing, measuring = module("sweep_timing"), module("measuring")
    with pytest.raises(measuring.MeasurementError, match="exit code 3: no such thing"):
        timing.cost(["sh", "-c", "echo no such thing >&2; exit 3"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux's /proc")
def test_the_peak_is_the_process_s_own(module: Any, tmp_path: Path) -> None:
    timing = module("sweep_timing")
    peaks = {}
    for mib in (1, 65):
        code = f"{timing.PEAK}\nfilled = bytes([1]) * ({mib} << 20)"
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "peak")], check=True)
        peaks[mib] = int((tmp_path / "peak").read_text()) / 1024
    assert peaks[65] - peaks[1] == pytest.approx(64, abs=4)


def test_figures_are_compared_in_the_same_round(module: Any) -> None:
    """A machine that slows down tenfold after the first round: the ratios don't notice."""
    timing = module("sweep_timing")
    turns = [{"a": timing.Cost(6.0 * slow, 1.0), "floor": timing.Cost(2.0 * slow, 0.5)} for slow in (1.0, 10.0, 10.0)]
    assert timing.ratio(turns, "a", "floor").median == 3.0
    assert timing.beyond(turns, "a", "floor", lambda each: each.cpu).median == 0.5
    assert timing.column(turns, "a").median == 60.0
    assert timing.ratio(turns, "b", "floor") is None
    assert timing.seconds(None) == "-"


def test_limits_and_sections_survive_a_file(module: Any) -> None:
    timing = module("sweep_timing")
    section = timing.Section("T", ["text"], ("a", "b"), [("1", "2")], [timing.Limit("x", 1.4, 1.5, at_least=True)])
    again = timing.Section.from_dict(json.loads(json.dumps(section.to_dict())))
    assert again.markdown() == ["## T", "", "text", "", "| a | b |", "|---|---|", "| 1 | 2 |", ""]
    assert [limit.met for limit in again.limits] == [False]
    assert timing.Limit("x", 1.6, 1.5).line() == "| x | 1.6 | at most 1.5 | **missed** |"


def test_matrices_have_the_cells_that_they_are_named_for(module: Any, tmp_path: Path) -> None:
    folders = module("sweep_folders")
    for file, cells in (
        (folders.matrix_file(tmp_path, 1500), 1500),
        (folders.filtered_file(tmp_path, 20_000), 1000),
        (folders.small_file(tmp_path, 25), 25),
    ):
        found = [tuple(sorted(cell.items())) for cell in read_experiment(file).cells()]
        assert len(set(found)) == len(found) == cells


@pytest.mark.parametrize("state", [State.FINISHED, State.FAILED, State.RUNNING])
def test_made_up_lives_are_read_as_what_they_are(module: Any, tmp_path: Path, state: State) -> None:
    folders = module("sweep_folders")
    folders.cost(
        folders.prove("sweep", folders.small_file(tmp_path, 5), "--register-only", "--results", tmp_path / "r")
    )
    (key, job), *_ = folders.registered(tmp_path / "r")
    folders.write_run(tmp_path / "r", key, job, folders.life(random.Random(0), state))
    with Store.open(tmp_path / "r") as store:
        store.refresh()
        assert store.problems() == []
        assert Counter(run.state for run in store.runs()) == {state: 1, State.PLANNED: 4}
    assert RunDir.of(tmp_path / "r", key).events.exists()


@pytest.mark.slow
def test_recording_and_showing(tmp_path: Path) -> None:
    figures, report = measured(
        tmp_path, "--parts", "register,million,status", "--jobs", "500", "--cells", "2000", "--peers", ""
    )
    assert list(figures) == ["register", "million", "status"]
    turns = {part: figures[part]["section"]["figures"]["500"] for part in ("register", "status")}
    assert set(turns["register"][0]) == {
        "sweep --register-only", "the same again", "sweep --dry-run, all known", "bare sqlite3",
    }  # fmt: skip
    assert set(turns["status"][0]) == {
        "status", "status EXPERIMENT", "status --json", "sweep, nothing is left to do", "an empty Typer app",
    }  # fmt: skip
    assert all(each["wall"] > 0 for part in turns.values() for each in part[0].values())
    (limit,) = figures["million"]["section"]["limits"]
    assert 0.5 < limit["value"] < 2
    assert "| peak memory of 2,000 cells to that of 1,000 |" in report


@pytest.mark.slow
def test_watching(tmp_path: Path) -> None:
    figures, report = measured(tmp_path, "--parts", "watch", "--running", "20", "--watch-seconds", "6")
    found = figures["watch"]["section"]["figures"]
    assert 0 <= found["percent"] < 100
    assert len(found["gaps"]) == len(found["ages"]) >= 1
    assert all(gap > 1.5 for gap in found["gaps"])  # it rests for two seconds between two looks
    assert "| CPU, of one core |" in report


LOG = """
2026/11/21 15:06:32 - mmengine - INFO - Iter(train) [10/60]  lr: 4.5e-04  loss: 3.1
2026/11/21 15:06:32 - mmengine - INFO - Saving checkpoint at 60 iterations
2026/11/21 15:06:33 - mmengine - INFO - Iter(val) [4/8]    eta: 0:00:01  time: 0.3
2026/11/21 15:06:34 - mmengine - INFO - Iter(val) [8/8]    mIoU: 4.4565  aAcc: 42.0261  time: 0.3221
"""


def test_what_the_loop_did_is_read_from_its_log(module: Any, tmp_path: Path) -> None:
    train, measuring = module("sweep_train"), module("measuring")
    (tmp_path / "20261121").mkdir()
    (tmp_path / "20261121" / "a.log").write_text(LOG)
    (tmp_path / "iter_60.pth").touch()
    found = train._logged(tmp_path)
    assert found == {"iterations": 60, "images": 8, "validations": 1, "mIoU": 4.4565, "checkpoints": 1}
    train._require_same_work({"k": found}, {"k": found}, "the loop", 60)
    with pytest.raises(measuring.MeasurementError, match="images are 8 in the sweep, 4 by the loop"):
        train._require_same_work({"k": found}, {"k": {**found, "images": 4}}, "the loop", 60)
    with pytest.raises(measuring.MeasurementError, match="not 40"):
        train._require_same_work({"k": found}, {"k": found}, "the loop", 40)
    (tmp_path / "20261121" / "a.log").write_text("it crashed")
    with pytest.raises(measuring.MeasurementError, match="no sign of training"):
        train._logged(tmp_path)


def test_unknown_parts_are_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "sweeps.py"), "--parts", "statsu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "statsu is none of register, million" in done.stderr
