"""SynthStreet's clear days in other weather: nothing moves, only light and air change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prove.catalog.datasets import CONDITIONS
from prove.data import synthstreet, synthweather
from prove.data.compose import compose
from prove.data.definition import SynthStreetSize
from prove.data.manifest import fingerprint
from prove.data.source import open_dataset, resolve_dataset
from prove.errors import ProveError
from prove.spec.recipe import Recipe

SMALL = SynthStreetSize(height=64, width=128, train=15, val=1)
NAME = "SynthStreet(height=64, width=128, train=15, val=1)"


@pytest.mark.parametrize("index", [0, 2, 6, 13])
def test_the_scene_stays_where_it_is(index: int) -> None:
    """Whatever condition a scene was drawn in; lit windows once decided how much else was drawn."""
    image, label, condition = synthstreet.draw_image(SMALL, "train", index)
    for seen in CONDITIONS:
        other, same, said = synthstreet.draw_image(SMALL, "train", index, seen)
        assert np.array_equal(same, label)
        assert said == seen
        changed = (image != other).any(axis=2).mean()
        assert changed == 0 if seen == condition else changed > 0.5


def test_it_looks_like_the_condition() -> None:
    size = SynthStreetSize(96, 192)
    means = {seen: synthstreet.draw_image(size, "train", 0, seen)[0].mean(axis=(0, 1)) for seen in CONDITIONS}
    brightness = {seen: mean.mean() for seen, mean in means.items()}
    assert min(brightness, key=lambda seen: brightness[seen]) == "night"
    assert means["dawn_dusk"][0] > means["dawn_dusk"][2] * 1.1  # red over blue
    assert brightness["foggy"] > brightness["rainy"]


def test_every_clear_day_is_seen_in_every_other_condition() -> None:
    dataset = open_dataset(resolve_dataset(NAME))
    mixed = compose(dataset, Recipe("gen_synthweather", None, 0.5))
    made = [sample for sample in mixed.train if sample.pool]
    clear = {sample.id: sample for sample in dataset.train if sample.condition == "clear_day"}
    assert len(clear) == 3
    assert len(made) == 3 * 6
    assert {sample.condition for sample in made} == set(CONDITIONS[1:])
    for sample in made:
        original = clear[sample.id.split("/", 2)[2]]
        index = int(original.id[-5:])
        image, label, _ = synthstreet.draw_image(SMALL, "train", index, sample.condition)
        assert np.array_equal(np.asarray(Image.open(sample.image)), image)
        assert np.array_equal(np.asarray(Image.open(sample.label)), label)


def test_it_is_drawn_once_and_again_when_it_was_changed(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = synthweather.ensure_weather(SMALL)
    assert own_cache in folder.parents
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    with monkeypatch.context() as patched:
        patched.setattr(synthweather, "draw_image", None)
        assert synthweather.ensure_weather(SMALL) == folder
    victim = next(folder.rglob("*.png"))
    victim.write_bytes(victim.read_bytes()[:-50])
    assert synthweather.ensure_weather(SMALL) == folder
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_half_of_it_is_nothing(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pixels: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthweather, "png_bytes", fail)
    with pytest.raises(ProveError, match="No space left"):
        synthweather.ensure_weather(SMALL)
    assert [path for path in (own_cache / "synthstreet").iterdir() if path.is_dir()] == []


def test_another_place_of_the_dataset_has_the_same_images(tmp_path: Path) -> None:
    recipe = Recipe("gen_synthweather", ("clear_day",), 0.25)
    here = compose(open_dataset(resolve_dataset(NAME)), recipe)
    elsewhere = synthstreet.generate(tmp_path / "copy", SMALL)
    there = compose(open_dataset(resolve_dataset(NAME), root=elsewhere), recipe)
    assert fingerprint(here.train) == fingerprint(there.train)


def test_other_datasets_have_no_other_weather(camvid: Path) -> None:
    with pytest.raises(ProveError, match="CamVid is not drawn"):
        compose(open_dataset(resolve_dataset("CamVid"), root=camvid), Recipe("gen_synthweather", None, 0.5))
