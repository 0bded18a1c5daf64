from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prove.catalog.datasets import CONDITIONS
from prove.data import synthstreet
from prove.data.check import check
from prove.data.definition import SynthStreetSize
from prove.data.manifest import fingerprint
from prove.data.source import Dataset, open_dataset, resolve_dataset
from prove.data.stats import label_statistics, pixel_counts
from prove.errors import ProveError

SMALL = SynthStreetSize(height=64, width=128, train=7, val=7, seed=0)
NAME = "SynthStreet(height=64, width=128, train=7, val=7)"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthstreet.generate(tmp_path_factory.mktemp("drawn") / "synthstreet", SMALL)


@pytest.fixture
def dataset(drawn: Path) -> Dataset:
    return open_dataset(resolve_dataset(NAME), root=drawn)


def contents(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_parameters_same_bytes(drawn: Path, tmp_path: Path) -> None:
    again = synthstreet.generate(tmp_path / "again", SMALL)
    assert contents(again) == contents(drawn)
    assert len(contents(drawn)) == 2 * (7 + 7) + 1


def test_pixels_are_those_of_this_version() -> None:
    """The dataset's identity says version 1. If this fails, raise SYNTHSTREET_VERSION, or runs on both get mixed up."""
    digest = hashlib.sha256()
    for index, _ in enumerate(CONDITIONS):
        image, label, _ = synthstreet.draw_image(SMALL, "train", index)
        digest.update(image.tobytes() + label.tobytes())
    assert digest.hexdigest()[:16] == "e64ebaa25199cd52"


def test_another_seed_or_split_draws_other_streets() -> None:
    image, label, _ = synthstreet.draw_image(SMALL, "train", 0)
    for size, split in ((SynthStreetSize(64, 128, 7, 7, seed=1), "train"), (SMALL, "val")):
        other_image, other_label, _ = synthstreet.draw_image(size, split, 0)  # type: ignore[arg-type]
        assert (label != other_label).mean() > 0.1
        assert (image != other_image).mean() > 0.5


def test_more_images_leave_the_first_ones_alone() -> None:
    more = SynthStreetSize(64, 128, train=70, val=7)
    for index in (0, 6):
        assert np.array_equal(
            synthstreet.draw_image(SMALL, "train", index)[0], synthstreet.draw_image(more, "train", index)[0]
        )


def test_it_is_sound_and_every_class_occurs_in_both_splits(dataset: Dataset) -> None:
    assert check(dataset).findings == ()
    for manifest in dataset.splits:
        assert (pixel_counts(manifest) > 0).all()
        assert sorted(sample.condition for sample in manifest) == sorted(CONDITIONS)


def test_classes_are_imbalanced_as_in_cityscapes() -> None:
    """Road, building and vegetation make up most of Cityscapes; riders and traffic lights are below a percent."""
    size = SynthStreetSize(96, 192, train=28, val=1)
    labels = np.stack([synthstreet.draw_image(size, "train", k)[1] for k in range(28)])
    share = np.bincount(labels.ravel(), minlength=256) / (labels != 255).sum()
    road, building, vegetation = share[[0, 2, 8]]
    assert road + building + vegetation > 0.5
    assert share[[6, 12, 17]].max() < 0.01  # traffic light, rider, motorcycle
    assert 0.003 < (labels == 255).mean() < 0.1


def test_conditions_look_different() -> None:
    means = {}
    for index, condition in enumerate(CONDITIONS):
        image, _, drawn_condition = synthstreet.draw_image(SynthStreetSize(96, 192), "train", index)
        assert drawn_condition == condition
        means[condition] = image.mean(axis=(0, 1))
    brightness = {name: mean.mean() for name, mean in means.items()}
    assert min(brightness, key=lambda name: brightness[name]) == "night"
    assert means["dawn_dusk"][0] > means["dawn_dusk"][2] * 1.1  # red over blue
    assert brightness["foggy"] > brightness["rainy"]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 131), (128, 96)])
def test_any_size(height: int, width: int) -> None:
    image, label, _ = synthstreet.draw_image(SynthStreetSize(height, width), "val", 3)
    assert image.shape == (height, width, 3)
    assert label.shape == (height, width)


def test_contact_sheet_shows_a_column_per_condition() -> None:
    assert synthstreet.contact_sheet(SMALL, rows=2).shape == (4 * 64, 7 * 128, 3)


class TestCache:
    def test_drawn_once(self, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = open_dataset(resolve_dataset(NAME))
        assert own_cache in first.root.parents
        monkeypatch.setattr(synthstreet, "generate", None)
        assert fingerprint(open_dataset(resolve_dataset(NAME)).train) == fingerprint(first.train)

    def test_changed_file_is_drawn_again(self) -> None:
        first = open_dataset(resolve_dataset(NAME))
        before = contents(first.root)
        victim = first.train.samples[3].label
        victim.write_bytes(victim.read_bytes()[:-100])
        (first.root / "val" / "images" / "night" / "val_00006.png").unlink()
        assert contents(open_dataset(resolve_dataset(NAME)).root) == before

    def test_two_processes_at_once(self, own_cache: Path) -> None:
        code = (
            "from prove.data.source import *; from prove.data.manifest import fingerprint as f; "
            f"d = open_dataset(resolve_dataset({NAME!r})); print(d.root, f(d.train), f(d.val))"
        )
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        processes = [
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(2)
        ]
        answers = [process.communicate()[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
        assert answers[0] == answers[1] != ""
        assert [path.suffix for path in (own_cache / "synthstreet").iterdir() if path.is_file()] == [".lock"]
        assert sum(path.is_dir() for path in (own_cache / "synthstreet").iterdir()) == 1

    def test_unwritable_cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("PROVE_CACHE", str(tmp_path / "file" / "below"))
        with pytest.raises(ProveError, match=r"(?s)Can't create the cache folder.*Set PROVE_CACHE"):
            open_dataset(resolve_dataset(NAME))


class TestNamedFolder:
    def test_other_parameters_are_refused(self, drawn: Path) -> None:
        with pytest.raises(ProveError, match="because it was drawn with seed=0, not 4"):
            open_dataset(resolve_dataset(NAME.replace(")", ", seed=4)")), root=drawn)

    def test_no_synthstreet_there(self, tmp_path: Path) -> None:
        with pytest.raises(ProveError, match=r"synthstreet\.json is missing"):
            open_dataset(resolve_dataset(NAME), root=tmp_path)

    def test_its_own_variable(self, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROVE_DATA_ROOT", "/nowhere/at/all")
        monkeypatch.setenv("PROVE_SYNTHSTREET_ROOT", str(drawn))
        assert open_dataset(resolve_dataset(NAME)).root == drawn

    def test_existing_folder_is_not_overwritten(self, drawn: Path) -> None:
        before = contents(drawn)
        with pytest.raises(ProveError, match="exists and is not an empty folder"):
            synthstreet.generate(drawn, SMALL)
        assert contents(drawn) == before

    def test_failure_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(pixels: object) -> bytes:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(synthstreet, "png_bytes", fail)
        with pytest.raises(ProveError, match="No space left"):
            synthstreet.generate(tmp_path / "new", SMALL)
        assert list(tmp_path.iterdir()) == []


def test_record_says_what_was_drawn(drawn: Path, dataset: Dataset) -> None:
    record = json.loads((drawn / synthstreet.RECORD).read_text())
    assert {key: record[key] for key in vars(SMALL)} == vars(SMALL)
    assert record["fingerprints"] == {manifest.split: fingerprint(manifest) for manifest in dataset.splits}


def test_statistics(dataset: Dataset) -> None:
    counted = label_statistics(dataset.val)
    pixels, images, ignored = counted.pixels, counted.images, counted.ignored
    assert pixels.sum() + ignored == 7 * 64 * 128
    assert images.max() == 7
