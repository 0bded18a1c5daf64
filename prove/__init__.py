"""PROVE: does this loss really help?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def load(results: str | Path, experiment: str | None = None) -> pd.DataFrame:
    """A pandas frame with a row per run of a results folder; see `prove.store.frame.load`."""
    from prove.store.frame import load as load_frame

    return load_frame(results, experiment)
