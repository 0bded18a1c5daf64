"""What an epoch consists of: exact shares from each pool, every image equally often, the same for every objective."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_runs import Runs, events

from prove.catalog.label_spaces import train_ids
from prove.data.compose import compose
from prove.data.generated import COLUMNS, POOL
from prove.data.manifest import Manifest, Sample
from prove.data.source import open_dataset, resolve_dataset
from prove.spec.recipe import Recipe
from prove.training.dataset import BadData, LoadSample, PositionSampler
from prove.training.seeding import mix


@dataclass
class Drawn:
    samples: tuple[Sample, ...]
    draws: tuple[tuple[str, int], ...] = ()


def drawn(sizes: dict[str, int], draws: dict[str, int]) -> Drawn:
    """Samples of several pools, mixed up as ids sorted by name would be."""
    samples = [Sample(f"{k:04}", Path("x"), Path("y"), "day", pool=p) for p, size in sizes.items() for k in range(size)]
    return Drawn(tuple(sorted(samples, key=lambda sample: (sample.id, sample.pool))), tuple(draws.items()))


def epochs(dataset: Drawn, count: int, seed: int = 0) -> list[list[int]]:
    sampler = PositionSampler(dataset, seed)
    stream = [index for index, _ in islice(sampler, count * len(sampler))]
    return [stream[k * len(sampler) : (k + 1) * len(sampler)] for k in range(count)]


def test_without_pools_the_order_is_what_it_always_was() -> None:
    """A permutation of (seed, epoch): batches of earlier runs come again."""
    for epoch, order in enumerate(epochs(drawn({"": 23}, {}), 4, seed=5)):
        assert order == np.random.default_rng(mix("order", 5, epoch)).permutation(23).tolist()
    assert epochs(drawn({"": 23}, {"": 23}), 4, seed=5) == epochs(drawn({"": 23}, {}), 4, seed=5)


MIXTURES: list[tuple[dict[str, int], dict[str, int]]] = [
    ({"": 98, POOL: 84}, {"": 49, POOL: 49}),
    ({"": 7, POOL: 2}, {"": 1, POOL: 6}),
    ({"": 7, POOL: 40}, {"": 6, POOL: 1}),
    ({POOL: 5}, {POOL: 12}),
    ({"a": 10, "b": 3, POOL: 20}, {"a": 5, "b": 5, POOL: 3}),
]


@pytest.mark.parametrize(("sizes", "draws"), MIXTURES)
def test_shares_are_exact_in_every_epoch(sizes: dict[str, int], draws: dict[str, int]) -> None:
    dataset = drawn(sizes, draws)
    for order in epochs(dataset, 25):
        assert Counter(dataset.samples[index].pool for index in order) == Counter(draws)


@pytest.mark.parametrize(("sizes", "draws"), MIXTURES)
def test_every_image_of_a_pool_comes_equally_often(sizes: dict[str, int], draws: dict[str, int]) -> None:
    """After any number of epochs no image came twice more often than another of its pool."""
    dataset = drawn(sizes, draws)
    seen: Counter[int] = Counter()
    for order in epochs(dataset, 25):
        seen.update(order)
        for pool in draws:
            times = [seen[index] for index, sample in enumerate(dataset.samples) if sample.pool == pool]
            assert max(times) - min(times) <= 1


def test_pools_are_mixed_in_an_epoch() -> None:
    """Otherwise batches would be of one kind. 49 of 98: the first half has as many of each, up to chance."""
    dataset = drawn({"": 98, POOL: 84}, {"": 49, POOL: 49})
    halves = [sum(dataset.samples[index].pool == POOL for index in order[:49]) for order in epochs(dataset, 30)]
    assert abs(np.mean(halves) - 24.5) < 2
    assert len({tuple(order) for order in epochs(dataset, 30)}) == 30


@pytest.mark.parametrize("skipped", [0, 1, 6, 7, 8, 50])
def test_a_resumed_stream_goes_on_where_it_was(skipped: int) -> None:
    dataset = drawn({"": 7, POOL: 4}, {"": 4, POOL: 3})
    whole = list(islice(PositionSampler(dataset, 3), 100))
    resumed = PositionSampler(dataset, 3)
    resumed.skip(skipped)
    assert list(islice(resumed, 100 - skipped)) == whole[skipped:]
    assert [position for _, position in whole] == list(range(100))


def test_another_seed_draws_other_images() -> None:
    dataset = drawn({"": 50, POOL: 40}, {"": 5, POOL: 5})
    assert not np.array_equal(epochs(dataset, 1, seed=0), epochs(dataset, 1, seed=1))


def test_pools_and_draws_must_fit() -> None:
    with pytest.raises(BadData, match="'b', which has no samples"):
        PositionSampler(drawn({"a": 3}, {"a": 2, "b": 1}), 0)
    with pytest.raises(BadData, match="No epoch draws from 'b'"):
        PositionSampler(drawn({"a": 3, "b": 1}, {"a": 2}), 0)


class TestLoading:
    @pytest.fixture
    def manifest(self, camvid: Path) -> Manifest:
        return open_dataset(resolve_dataset("CamVid"), root=camvid).train

    def load(self, sample: Sample, manifest: Manifest) -> dict[str, Any]:
        found = LoadSample().transform({"sample": sample, "manifest": manifest})
        assert found is not None
        return dict(found)

    def test_noise_keeps_the_label(self, camvid: Path) -> None:
        dataset = open_dataset(resolve_dataset("CamVid"), root=camvid)
        noisy = compose(dataset, Recipe("gen_random_noise", None, 0.0)).train
        for real, sample in zip(dataset.train, noisy, strict=True):
            plain, noise = self.load(real, dataset.train), self.load(sample, noisy)
            assert np.array_equal(noise["gt_seg_map"], plain["gt_seg_map"])
            assert noise["img"].shape == plain["img"].shape
            assert abs(float(noise["img"].mean()) - 127.5) < 2
            assert np.array_equal(noise["img"], self.load(sample, noisy)["img"])

    def scaled(self, pixels: np.ndarray[Any, Any], tmp_path: Path) -> tuple[Sample, Manifest]:
        """A label of two halves, 12 by 16 pixels, and a generated image for it."""
        label = np.zeros((12, 16), np.uint8)
        label[:, 8:] = 1
        Image.fromarray(label).save(tmp_path / "label.png")
        Image.fromarray(pixels).save(tmp_path / "image.png")
        sample = Sample("gen_x/a", tmp_path / "image.png", tmp_path / "label.png", "night", scaled=True)
        space = resolve_dataset("CamVid").label_space
        return sample, Manifest("D", "train", space, train_ids(space), (sample,))

    @pytest.mark.parametrize("size", [(12, 16), (6, 8), (24, 32)])
    def test_a_generated_image_is_brought_to_its_label(self, size: tuple[int, int], tmp_path: Path) -> None:
        """Halves of the image stay on halves of the label, which is as it was."""
        pixels = np.zeros((*size, 3), np.uint8)
        pixels[:, size[1] // 2 :] = 255
        found = self.load(*self.scaled(pixels, tmp_path))
        assert found["img"].shape == (12, 16, 3)
        assert np.array_equal(found["gt_seg_map"], np.repeat([[0] * 8 + [1] * 8], 12, axis=0))
        assert (found["img"][:, :7] == 0).all()
        assert (found["img"][:, 9:] == 255).all()

    def test_other_proportions_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadData, match=r"image\.png is 12x12, the label of its original 16x12"):
            self.load(*self.scaled(np.zeros((12, 12, 3), np.uint8), tmp_path))


def batches(target: Path) -> Any:
    """In the worker: write down which samples and which pixels each batch has."""

    def before() -> None:
        from prove.training.runner import ProveTrainLoop

        run_iter = ProveTrainLoop.run_iter

        def traced(self: Any, batch: Any) -> None:
            digest = hashlib.sha256(b"".join(image.numpy().tobytes() for image in batch["inputs"]))
            ids = [sample.metainfo["sample_id"] for sample in batch["data_samples"]]
            with target.open("a") as file:
                file.write(json.dumps([ids, digest.hexdigest()]) + "\n")
            run_iter(self, batch)

        ProveTrainLoop.run_iter = traced

    return before


def test_objectives_of_one_seed_see_the_same_mixture(runs: Runs, tmp_path: Path) -> None:
    """Six images: an epoch is two real ones and four of noise; three iterations of two are one epoch."""
    seen = {}
    for name, loss in (("ce", "ce"), ("lovasz", "ce + 0.3*lovasz")):
        folder = runs.make(
            name, loss=loss, strategy="gen_random_noise", real_gen_ratio=0.3, max_iters=3, eval_interval=3
        )
        assert runs.train(folder, batches(tmp_path / f"{name}.txt")) == 0, folder.log.read_text()
        seen[name] = [json.loads(line) for line in (tmp_path / f"{name}.txt").read_text().splitlines()]
    assert seen["ce"] == seen["lovasz"]
    ids = [name for batch, _ in seen["ce"] for name in batch]
    assert Counter(name.startswith("gen_random_noise/") for name in ids) == {False: 2, True: 4}
    assert len(set(ids)) == 6


def test_an_image_that_vanishes_after_planning_is_named_before_training(
    runs: Runs, camvid: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "gen" / "copies"
    folder.mkdir(parents=True)
    lines = [",".join(COLUMNS)]
    for image in sorted((camvid / "train").iterdir()):
        (folder / image.name).write_bytes(image.read_bytes())
        lines.append(f"{image.name},train/{image.name},{image.stem},day,CamVid,night")
    (folder / "manifest.csv").write_text("\n".join(lines))
    run = runs.make("gone", strategy="gen_copies", gen_root=str(tmp_path / "gen"))
    (folder / image.name).unlink()
    assert runs.train(run) == 1
    (failed,) = events(run, "failed")
    assert failed["failure"] == "bad_data"
    assert f"missing generated images: 1, first in line 7, gen_path: {folder / image.name}" in failed["message"]
    assert failed["iteration"] == 0
    assert not events(run, "train")
