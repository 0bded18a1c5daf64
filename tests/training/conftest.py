"""What tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import Runs


@pytest.fixture
def runs(camvid: Path, tmp_path: Path) -> Runs:
    """Makes and trains tiny jobs."""
    return Runs(camvid, tmp_path)
