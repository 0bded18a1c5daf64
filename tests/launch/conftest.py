"""What tests of launching share."""

from __future__ import annotations

from pathlib import Path

import pytest
from launches import marked


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder; processes that a test starts know its name, and find the trivial worker."""
    folder = tmp_path / "results"
    for name, value in marked(folder).items():
        monkeypatch.setenv(name, value)
    return folder
