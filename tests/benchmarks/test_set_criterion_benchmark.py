"""The benchmark of the set criterion runs end to end, and its matching takes as few operations as its page says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "set_criterion.py"


def test_few_operations_lead_to_the_assignment() -> None:
    small = {"rounds": 1, "layers": 2, "queries": 20, "points": 20, "classes": 19}
    options = ["--no-memory", "--masks", "8", "12", *(f"--{name}={value}" for name, value in small.items())]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=True)
    rows = [line.strip("|").split("|") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    matching = {name.strip(): int(counts[-1]) for name, *counts in rows}
    assert len(matching) == 7
    assert 0 < matching["m2f"] < 100
    assert matching["m2f"] < 0.6 * min(matching["mmseg"], matching["Hugging Face"])
    assert all(float(seconds) > 0 for _, _, seconds, *_ in rows)
