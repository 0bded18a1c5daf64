"""The file of predictions for pictures: sizes, paths, and which images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.structures import PixelData

from prove.training.stack import load_stack

load_stack()

import torch  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

from prove.data.manifest import evenly_spaced  # noqa: E402
from prove.training.metric import ImageCountsMetric  # noqa: E402
from prove.training.predictions import IMAGES, LONGER_SIDE, Picture, encoded, reduced  # noqa: E402


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1080, 1920), (360, 640)),
        ((1024, 2048), (320, 640)),
        ((2000, 1000), (640, 320)),
        ((640, 640), (640, 640)),
        ((72, 96), (72, 96)),
        ((1, 5000), (1, 640)),
        ((641, 3), (640, 3)),
    ],
)
def test_a_label_map_is_reduced_to_the_nearest_pixels(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    """Each pixel that is kept is the one under its centre: no class is made up, and nothing is shifted."""
    rows, columns = np.indices(shape)
    of_rows, of_columns = reduced((rows % 251).astype(np.uint8)), reduced((columns % 251).astype(np.uint8))
    assert of_rows.shape == of_columns.shape == expected
    for axis, (found, size, kept) in enumerate(zip((of_rows, of_columns), shape, expected, strict=True)):
        along = found[:, 0] if axis == 0 else found[0]
        centres = [int((index + 0.5) * size / kept) % 251 for index in range(kept)]
        assert along.tolist() == centres
    assert max(of_rows.shape) <= LONGER_SIDE


def a_picture(name: str, size: tuple[int, int], root: Path) -> Picture:
    rng = np.random.default_rng(len(name))
    blocks = rng.integers(0, 19, (size[0] // 8, size[1] // 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    truth = np.where(rng.random(blocks.shape) < 0.01, 255, blocks).astype(np.uint8)
    return Picture(name, "fog", root / "images" / f"{name}.png", blocks, truth)


def test_the_file_stands_alone_and_is_small(tmp_path: Path) -> None:
    pictures = [a_picture("a", (1080, 1920), tmp_path), a_picture("bb", (96, 64), tmp_path / "elsewhere")]
    root = tmp_path / "data"
    data = encoded(pictures, root=root, classes=["x"] * 19, palette=[[1, 2, 255]] * 19, iteration=7)
    assert len(data) < 100_000
    with np.load(io.BytesIO(data), allow_pickle=False) as kept:
        assert kept["ids"].tolist() == ["a", "bb"]
        assert [(root / path).resolve() for path in kept["paths"]] == [each.image for each in pictures]
        assert kept["palette"].tolist() == [[1, 2, 255]] * 19
        assert (kept["predicted_0"].shape, kept["truth_1"].shape) == ((360, 640), (96, 64))
        np.testing.assert_array_equal(kept["predicted_1"], pictures[1].predicted)
        np.testing.assert_array_equal(kept["truth_1"], pictures[1].truth)
    again = encoded(pictures, root=root, classes=["x"] * 19, palette=[[1, 2, 255]] * 19, iteration=7)
    with np.load(io.BytesIO(data)) as one, np.load(io.BytesIO(again)) as other:
        assert all(np.array_equal(one[name], other[name]) for name in one.files)


def test_the_metric_keeps_the_images_that_it_is_asked_for() -> None:
    def sample(name: str, hit: int) -> dict[str, Any]:
        logits = torch.zeros(3, 4, 5)
        logits[hit] = 1.0
        label = torch.full((1, 4, 5), 2)
        label[0, 0, 0] = 255
        made = SegDataSample(metainfo={"sample_id": name, "condition": "day", "img_path": f"/data/{name}.png"})
        made.set_data({"gt_sem_seg": PixelData(data=label), "seg_logits": PixelData(data=logits)})
        return made.to_dict()

    metric = ImageCountsMetric(("road", "car", "sign"))
    metric.process({}, [sample("before", 0)])
    assert metric.pictures == {}  # none, unless it is told which
    metric.pictured = frozenset({"one", "three"})
    for hit in (1, 2):
        metric.process({}, [sample(name, hit) for name in ("one", "two", "three")])
        assert metric.pictures.keys() == {"one", "three"}
        assert (metric.pictures["three"].predicted == hit).all()
    kept = metric.pictures["one"]
    assert (kept.truth[0, 0], kept.truth[1, 1]) == (255, 2)
    assert (kept.image, kept.condition) == (Path("/data/one.png"), "day")


def test_the_images_are_spread_over_the_validation_set() -> None:
    samples: Any = tuple(range(101))
    assert evenly_spaced(samples, IMAGES) == (0, 25, 50, 75)
    assert evenly_spaced(samples[:3], IMAGES) == (0, 1, 2)
