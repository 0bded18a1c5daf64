import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "store.py"

SMALL = ["--runs", "40", "--logged", "2", "--following", "5", "--rounds", "1"]


def test_the_benchmark_runs_and_reports_every_part(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, *SMALL, "--folder", tmp_path]
    told = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    counts = {row["name"].split(",")[0]: row["count"] for row in told["rows"]}
    assert counts.pop("ingest whole runs") > 2 * 300
    assert counts == {
        "register": 40,
        "states": 40,
        "claim": 40,
        "settle": 40,
        "refresh": 40,
        "read environments": 40,
        "read resampled metrics": 40,
        "follow runs by 3 new lines": 5,
    }
    assert all(row["cpu"] > 0 and row["wall"] > 0 and row["ratio"] > 0 for row in told["rows"])
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(table) == 2 + len(told["rows"])
    assert list(tmp_path.iterdir()) == []
