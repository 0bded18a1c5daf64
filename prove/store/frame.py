"""The runs as a pandas frame."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prove.spec.job import METRICS, TrainSettings
from prove.store.cells import without_seed
from prove.store.rows import COLUMNS, OUTCOME
from prove.store.store import Store

if TYPE_CHECKING:
    import pandas as pd


SETTINGS = tuple(field.name for field in fields(TrainSettings) if field.name != "max_iters")
"""The training settings, which are columns of the frame; ``max_iters`` is a column of the runs already."""


def _settings(job: str) -> dict[str, Any]:
    train = json.loads(job)["train"]
    train["crop_size"] = "x".join(map(str, train["crop_size"]))
    stop = train["early_stop"]
    train["early_stop"] = stop and ", ".join(f"{name} {value}" for name, value in stop.items())
    config = hashlib.sha256(without_seed(job).encode()).hexdigest()[:12]
    return {**{name: train.get(name) for name in SETTINGS}, "config": config}


def load(results: str | Path, experiment: str | None = None) -> pd.DataFrame:
    """A frame with a row per run, after recording what its folder has reported since the last time.

    Args:
        results: the results folder.
        experiment: only the runs of this experiment.

    Returns:
        Columns: ``key, dataset, model, strategy, loss, seed, max_iters, state, failure, ...``, the metrics ``mIoU,
        aAcc, mAcc, fwIoU, bIoU, bF1, ECE`` of the last checkpoint in percent (NaN until the run is finished), and
        ``created_at, updated_at, started_at, finished_at`` as UTC times. Of the training settings ``batch_size,
        crop_size, lr, pretrained, ...``; and ``config``, the same for runs that differ in nothing but the seed: two
        runs with one ``loss`` text may have trained for different lengths, or with other code of a term of your own.

    Raises:
        ProveError: nothing is there, or the database can't be read.
    """
    import pandas as pd

    folder = Path(results)
    with Store.open_existing(folder) as store:
        store.refresh()
        rows = [run.to_dict() for run in store.runs(experiment)]
        jobs: dict[str, str] = dict(store.connection.query("SELECT key, job FROM runs"))
    settings = [_settings(jobs[row["key"]]) for row in rows]
    frame = pd.DataFrame(
        [{**row, **more} for row, more in zip(rows, settings, strict=True)], columns=[*COLUMNS, *SETTINGS, "config"]
    )
    for column in ("created_at", "updated_at", "started_at", "finished_at"):
        frame[column] = pd.to_datetime(frame[column].astype(float), unit="s", utc=True)
    numbers = [*METRICS, *OUTCOME]
    frame[numbers] = frame[numbers].astype(float)
    return frame
