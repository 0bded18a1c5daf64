from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads the user's cache, config or dataset variables."""
    for name in [name for name in os.environ if name.startswith("PROVE_") and name != "PROVE_CAMVID_ROOT"]:
        monkeypatch.delenv(name)
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PROVE_CACHE", str(cache))
    monkeypatch.setenv("PROVE_CONFIG", str(cache / "config.yaml"))
    return cache
