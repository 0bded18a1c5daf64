"""The benchmarks measure what they say, and run end to end."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmarks by name, as their scripts do."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def tables(markdown: str) -> list[list[list[str]]]:
    """The cells of each table, its rule left out; fails where a row has not as many as the head."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n?)+", markdown, flags=re.MULTILINE):
        rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()]
        assert len({len(row) for row in rows}) == 1, block
        assert set("".join(rows[1])) == {"-"}, block
        found.append([rows[0], *rows[2:]])
    return found


class Times:
    """A clock on which each call takes what it returns, times the speed of the machine, which drifts."""

    def __init__(self, speeds: list[float]) -> None:
        self.speeds = speeds

    def seconds(self, call: Any) -> float:
        return call() * self.speeds.pop(0)


def test_ratios_are_of_the_same_round(module: Any) -> None:
    """A machine that slows down tenfold after the first round: the ratios don't notice."""
    measuring = module("measuring")
    order: list[str] = []

    def call(name: str, cost: float) -> Any:
        return lambda: order.append(name) or cost

    blocks = [{"a": call("a", 6.0)}, {"b": call("b", 1.0)}]
    clock = Times([1.0] * 3 + [10.0] * 20)
    resets: list[int] = []
    shares = [{"a": 3}, {"b": 2}]
    first, second = measuring.interleave(call("baseline", 2.0), blocks, shares, 3, clock, lambda: resets.append(1))
    assert order == ["baseline", "a", "baseline", "baseline"] + ["baseline", "a", "baseline", "b", "baseline"] * 2
    assert len(resets) == len(order)
    assert first == [{"a": 6.0, "baseline": 2.0}, {"a": 60.0, "baseline": 20.0}, {"a": 60.0, "baseline": 20.0}]
    assert [set(turn) for turn in second] == [{"baseline"}, {"b", "baseline"}, {"b", "baseline"}]
    a, b = measuring.ratios(first, "a"), measuring.ratios(second, "b")
    assert (a.median, a.rounds, b.median, b.rounds) == (3.0, 3, 0.5, 2)
    assert measuring.ratios(first, "a", "a").median == 1.0
    assert measuring.ratios(first, "c") is None


def test_the_median_of_ratios_not_the_ratio_of_medians(module: Any) -> None:
    measuring = module("measuring")
    turns = [{"a": 1.0, "baseline": 1.0}, {"a": 4.0, "baseline": 2.0}, {"a": 3.0, "baseline": 30.0}]
    assert measuring.ratios(turns, "a") == measuring.Spread(1.0, 0.55, 1.5, 3)  # 3 / 2 the other way


@pytest.mark.parametrize(("seconds", "rounds"), [(0.001, 9), (0.4, 5), (60.0, 3)])
def test_slow_contenders_take_part_in_fewer_rounds(module: Any, seconds: float, rounds: int) -> None:
    measuring = module("measuring")
    share = measuring.rounds_of(seconds, 9, budget=2.0)
    assert share == rounds
    assert sum(measuring.takes_part(turn, share, 9) for turn in range(9)) == rounds


MEMORY = """
import numpy as np, torch
from torch.nn import functional as F
from measuring import MeasurementError, peak_beyond_inputs
torch.set_num_threads(1)
mebibyte = 2**20
logits = torch.randn(1, 8, 512, 1024, requires_grad=True)
labels = torch.randint(0, 8, (1, 512, 1024))
small = torch.randn(1, 8, 64, 64, requires_grad=True)
kept = []

def peak(call, warm_up=lambda: None):
    def forget():
        logits.grad = small.grad = None
    found = peak_beyond_inputs(warm_up, call, forget, "cpu")
    return found.bytes / mebibyte, found.kept / mebibyte

print(*peak(lambda: F.cross_entropy(logits, labels).backward(),
            lambda: F.cross_entropy(small, labels[:, :64, :64]).backward()))
print(*peak(lambda: np.ones(24 * mebibyte, np.uint8).sum()))
print(*peak(lambda: torch.ones(6 * mebibyte).max(), lambda: torch.ones(9).max()))
print(*peak(lambda: kept or kept.append(np.ones(24 * mebibyte, np.uint8))))
try:
    peak(lambda: 1 / 0)
except MeasurementError as error:
    print(error)
try:
    peak(lambda: __import__("os")._exit(3))
except MeasurementError as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident sets are read from Linux's /proc")
def test_peak_memory_on_known_calls() -> None:
    """`F.cross_entropy` needs three times its logits (16 MiB here); numpy's memory and what is kept count too."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER)},
    )
    lines = done.stdout.splitlines()
    (ce, ce_kept), (numpys, _), (torchs, _), (cached, held) = (
        [float(word) for word in line.split()] for line in lines[:4]
    )
    assert ce == pytest.approx(48, abs=3)
    assert ce_kept < 2
    assert numpys == pytest.approx(24, abs=2)
    assert torchs == pytest.approx(24, abs=2)
    assert (cached, held) == (pytest.approx(24, abs=2), pytest.approx(24, abs=2))
    assert lines[4:] == ["ZeroDivisionError: division by zero", "the process ended with exit code 3"]


def test_trained_logits_are_mostly_right_and_sure(module: Any) -> None:
    inputs = module("loss_inputs")
    trained, untrained = (inputs.batch(kind, (2, 7, 96, 160)) for kind in ("trained", "untrained"))
    labels = trained.labels
    valid = labels != inputs.IGNORE
    assert float(valid.float().mean()) == pytest.approx(0.95, abs=0.01)
    probs = trained.logits.detach().double().softmax(dim=1)
    own = probs.gather(1, torch.where(valid, labels, 0)[:, None])[:, 0][valid]
    right = (probs.argmax(dim=1) == labels)[valid]
    assert 0.85 <= float(right.double().mean()) <= 0.9
    assert float(own[right].median()) > 0.99
    assert float((own[right] < 0.9).double().mean()) > 0.02  # soft borders
    assert untrained.accuracy < 0.3
    assert torch.equal(untrained.labels, labels)
    assert torch.equal(inputs.batch("trained", (2, 7, 96, 160)).logits, trained.logits)
    assert trained.low.shape == (2, 7, 24, 40)


def test_a_limit_is_met_or_exceeded(module: Any) -> None:
    report, measuring = module("loss_report"), module("measuring")
    cell = report.Cell("ce", "PROVE", "1x2x4x4", "trained", False, {"time": 1.2, "memory": 1.3, "copies": 1.5})
    assert not cell.over
    cell.time, cell.memory = measuring.Spread(1.2, 1.0, 1.4, 3), 1.31
    assert (cell.verdict("time"), cell.verdict("memory"), cell.verdict("copies")) == ("ok", "**over**", "")
    assert cell.over


def test_asked_is_what_the_table_of_numbers_says(module: Any) -> None:
    rows = module("loss_rows")
    asked = {row.name: (row.time, row.memory) for row in rows.ROWS if not row.alone}
    assert asked == {
        "ce": (1.2, 1.3),
        "ce(class_weight=[...], label_smoothing=0.1)": (1.2, 1.3),
        "ce + focal": (1.3, 1.3),
        "ce + dice": (1.5, 1.3),
        "ce + tversky": (1.5, 1.3),
        "ce + focal + dice": (1.7, 1.3),
        "ce + lovasz": (2.5, 1.5),
        "ce + lovasz(method=binned)": (2.5, 1.5),
        "ce + lovasz(method=exact)": (9.0, 4.0),
        "ce + boundary": (2.5, 2.0),
    }


@pytest.mark.slow
def test_losses_side_by_side(tmp_path: Path) -> None:
    """All libraries on a small batch: every figure is there, and the losses are the same."""
    done = run(
        "losses.py", "--sizes", "2x4x48x64", "--logits", "untrained", "--rounds", "3", "--budget", "0.1",
        "--rows", "ce + focal + dice;form=sigmoid;ohem",
        "-o", str(tmp_path / "a.md"), "--json", str(tmp_path / "a.json"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["lacking"] == []
    cells = {(cell["objective"], cell["contender"]): cell for cell in document["measured"] if not cell["upsample"]}
    assert set(cells) == {
        *(("ce + focal + dice", name) for name in ("PROVE", "PROVE unfused", "MONAI", "kornia")),
        *(("focal(form=sigmoid)", name) for name in ("PROVE", "PROVE unfused", "mmseg", "smp", "MONAI", "torchvision")),
        *(("ce(ohem)", name) for name in ("PROVE", "PROVE unfused", "mmseg")),
    }
    broken = cells.pop(("focal(form=sigmoid)", "mmseg"))  # its one-hot labels lack the classes, on a CPU
    assert "RuntimeError" in broken["error"]
    for (objective, contender), cell in cells.items():
        assert not cell["error"]
        assert 0 < cell["time"]["low"] <= cell["time"]["median"] <= cell["time"]["high"]
        assert cell["memory"] > 0
        if "per image" not in cell["note"]:
            assert cell["value_error"] < 1e-5, (objective, contender)
            assert cell["gradient_error"] < 1e-4, (objective, contender)
    upsampled = [cell for cell in document["measured"] if cell["upsample"] and cell["contender"] == "PROVE"]
    assert len(upsampled) == 1
    assert upsampled[0]["value_error"] < 1e-5
    assert upsampled[0]["upsampled_time"]["median"] > 0

    markdown = (tmp_path / "a.md").read_text()
    assert markdown == done.stdout
    assert document["machine"]["cpu"] in markdown
    found = tables(markdown)
    heads = [table[0][:2] for table in found]
    assert heads == [["objective", "time"], ["objective", "PROVE"], ["objective", "time / unfused"],
                     ["objective", "contender"]]  # fmt: skip
    assert found[0][1][0] == "ce + focal + dice"
    assert [row[found[1][0].index("mmseg")] for row in found[1][1:]][1].startswith("fails [")
    assert "focal(form=sigmoid), mmseg: RuntimeError" in markdown


def test_unknown_kinds_and_sizes_are_refused() -> None:
    done = run("losses.py", "--sizes", "2x19x256", "--logits", "tuned")
    assert done.returncode == 2
    assert "is not a size such as 2x19x256x512" in done.stderr


def test_training_steps_side_by_side(tmp_path: Path) -> None:
    done = run(
        "step.py", "--models", "fcn_tiny", "--crop", "32x32", "--rounds", "3", "--objectives", "ce; ce + 0.3*dice",
        "-o", str(tmp_path / "a.md"), "--json", str(tmp_path / "a.json"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "a.json").read_text())
    assert [each["objective"] for each in document["measured"]] == ["ce", "ce + 0.3*dice", "stock mmseg"]
    for each in document["measured"]:
        assert each["to_ce"]["median"] > 0
        assert each["to_stock"]["median"] > 0
        assert each["loss_seconds"] > 0
    assert document["measured"][0]["to_ce"]["median"] == 1.0
    assert document["measured"][2]["to_stock"]["median"] == 1.0
    markdown = (tmp_path / "a.md").read_text()
    assert markdown == done.stdout
    assert [row[0] for row in tables(markdown)[0]] == ["objective", "ce", "ce + 0.3*dice", "stock mmseg"]
