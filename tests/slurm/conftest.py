"""One SLURM for all tests of this folder that one process runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "launch"))

from launches import marked
from slurm_cluster import Cluster, missing, until

from prove.store import Store


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(reason)
    with Cluster() as cluster:
        yield cluster
    assert cluster.processes() == []


@pytest.fixture
def results(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A results folder; what a test submits is gone from the cluster when it ends."""
    folder = tmp_path / "results"
    folder.mkdir()
    for name, value in marked(folder).items():
        monkeypatch.setenv(name, value)
    cluster.heal()
    yield folder
    subprocess.run(["scancel", "--user=root"], capture_output=True)
    until(lambda: not cluster.ask("squeue", "-h"), "the jobs of this test are gone")


@pytest.fixture
def store(results: Path) -> Iterator[Store]:
    with Store.open(results) as store:
        yield store
