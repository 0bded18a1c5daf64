"""The runs as a pandas frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prove.spec.job import METRICS
from prove.store.rows import COLUMNS, OUTCOME
from prove.store.store import Store

if TYPE_CHECKING:
    import pandas as pd


def load(results: str | Path, experiment: str | None = None) -> pd.DataFrame:
    """A frame with a row per run, after recording what its folder has reported since the last time.

    Args:
        results: the results folder.
        experiment: only the runs of this experiment.

    Returns:
        Columns: ``key, dataset, model, strategy, loss, seed, max_iters, state, failure, ...``, the metrics ``mIoU,
        aAcc, mAcc, fwIoU, bIoU, bF1, ECE`` of the last checkpoint in percent (NaN until the run is finished), and
        ``created_at, updated_at, started_at, finished_at`` as UTC times.

    Raises:
        ProveError: nothing is there, or the database can't be read.
    """
    import pandas as pd

    folder = Path(results)
    with Store.open_existing(folder) as store:
        store.refresh()
        rows = [run.to_dict() for run in store.runs(experiment)]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    for column in ("created_at", "updated_at", "started_at", "finished_at"):
        frame[column] = pd.to_datetime(frame[column].astype(float), unit="s", utc=True)
    numbers = [*METRICS, *OUTCOME]
    frame[numbers] = frame[numbers].astype(float)
    return frame
