"""What a training on several datasets draws."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import Runs, events

from prove.rundir import read_json

SYNTH = "SynthStreet(height=64, width=96, train=8, val=7)"


def dataset_and_sampler(source: str, camvid: Path, seed: int = 3) -> tuple[Any, Any]:
    from prove.training import registered  # noqa: F401 - brings the stack up
    from prove.training.dataset import ManifestDataset, PositionSampler

    pipeline = [{"type": "LoadSample"}, {"type": "PackSegInputs", "meta_keys": ("sample_id", "condition")}]
    dataset = ManifestDataset(source, f"CamVid={camvid}", "train", pipeline, seed=seed)
    return dataset, PositionSampler(dataset, seed)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (f"multi_{SYNTH}+CamVid", {"CamVid": 6, "SynthStreet": 8}),
        (f"multi_1*{SYNTH}+1*CamVid", {"CamVid": 7, "SynthStreet": 7}),
        (f"multi_1*{SYNTH}+5*CamVid", {"CamVid": 12, "SynthStreet": 2}),
    ],
)
def test_every_epoch_holds_exactly_the_shares(source: str, expected: dict[str, int], camvid: Path) -> None:
    dataset, sampler = dataset_and_sampler(source, camvid)
    drawn = [dataset.samples[index] for index, _ in islice(iter(sampler), 14 * 12)]
    for epoch in range(12):
        assert Counter(sample.pool for sample in drawn[14 * epoch : 14 * (epoch + 1)]) == expected
    for pool in expected:
        times = Counter(sample.id for sample in drawn if sample.pool == pool)
        assert max(times.values()) - min(times.values()) <= 1  # every image of a dataset as often as the others


def test_labels_reach_the_model_in_the_common_classes(camvid: Path) -> None:
    dataset, _ = dataset_and_sampler(f"multi_{SYNTH}+CamVid", camvid)
    assert dataset.metainfo["classes"][:3] == ["road", "sidewalk", "building"]
    seen = {"CamVid": set[int](), "SynthStreet": set[int]()}
    for index in range(len(dataset)):
        item = dataset[index]["data_samples"]
        seen[item.sample_id.split("/")[0]] |= set(np.unique(item.gt_sem_seg.data.numpy()).tolist())
    assert seen["CamVid"] == {10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12, 255}  # sky, building, ... bicyclist; void
    assert seen["SynthStreet"] == {*range(19), 255}


def test_a_run_on_several_datasets(camvid: Path, tmp_path: Path) -> None:
    runs = Runs(camvid, tmp_path)
    source = f"multi_2*CamVid+{SYNTH}"
    run = runs.make(dataset=source, data_root=f"CamVid={camvid}", loss="ce(class_weight=auto) + 0.3*lovasz")
    assert runs.train(run) == 0, run.log.read_text()
    (recorded,) = events(run, "finished")
    assert {name.split("/")[0] for name in recorded["last"]["conditions"]} == {"CamVid", "SynthStreet"}
    assert recorded["last"]["images"] == 10
    job = read_json(run.job)
    assert job["dataset"]["name"] == f"multi_2*CamVid+1*{SYNTH}"
    assert [member["weight"] for member in job["dataset"]["members"]] == [2, 1]
    with np.load(run.predictions) as kept:
        root = Path(read_json(run.env)["data_root"])
        assert all((root / str(path)).is_file() for path in kept["paths"])
