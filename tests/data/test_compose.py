"""What a job trains on: the filter, the share of real images, and what of it validation sees (nothing)."""

from __future__ import annotations

import csv
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from data_samples import camvid, write_image, write_label

from prove.data.compose import compose, counts_in_words
from prove.data.definition import Member
from prove.data.generated import COLUMNS, POOL
from prove.data.manifest import Manifest, Sample, fingerprint
from prove.data.noise import noise_pixels
from prove.data.source import Dataset, open_dataset, resolve_dataset
from prove.data.stats import epoch_frequencies, pixel_counts
from prove.errors import ProveError
from prove.spec.recipe import Recipe


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Training images 0001TP (dusk), 0006R0 and 0016E5 (day)."""
    return open_dataset(resolve_dataset("CamVid"), root=camvid(tmp_path / "camvid"))


@pytest.fixture
def root(tmp_path: Path, dataset: Dataset) -> Path:
    """Generated images ``cycleGAN``: all three training images in fog, the dusk one by day as well."""
    folder = tmp_path / "gen" / "cycleGAN"
    folder.mkdir(parents=True)
    (tmp_path / "gen" / "raw").mkdir()
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for target, sample in [*(("fog", s) for s in dataset.train), ("day", dataset.train.samples[0])]:
            write_image(folder / target / f"{sample.id}.png", seed=len(target))
            table.writerow([f"{target}/{sample.id}.png", sample.image, sample.id, "x", "CamVid", target])
    return folder.parent


def joined(dataset: Dataset, weights: dict[str, int], each: int, draws: tuple[tuple[str, int], ...]) -> Dataset:
    """A joint dataset of so many images in each member, two of five by day, the others at night."""
    samples = tuple(
        Sample(f"{pool}/{k:02}", Path("x"), Path("y"), "day" if k % 5 < 2 else "night", pool=pool)
        for pool in weights
        for k in range(each)
    )
    members = tuple(Member(name, dataset.definition, weight) for name, weight in weights.items())
    definition = replace(dataset.definition, members=members)
    return replace(dataset, definition=definition, train=replace(dataset.train, samples=samples), draws=draws)


def test_images_without_conditions_have_none_to_choose(dataset: Dataset) -> None:
    samples = tuple(replace(sample, condition="all") for sample in dataset.train)
    plain = replace(dataset, train=replace(dataset.train, samples=samples))
    with pytest.raises(ProveError, match="The images of CamVid have no conditions to choose day from") as caught:
        compose(plain, Recipe("baseline", ("day",)))
    assert "There are" not in caught.value.hint


def pools(dataset: Dataset) -> dict[str, int]:
    return {pool: sum(sample.pool == pool for sample in dataset.train) for pool, _ in dataset.draws}


class TestFilter:
    def test_training_is_narrowed_and_validation_is_not(self, dataset: Dataset) -> None:
        found = compose(dataset, Recipe(domain_filter=("day",)))
        assert [sample.condition for sample in found.train] == ["day", "day"]
        assert found.val == dataset.val
        assert found.draws == ()

    def test_an_unknown_condition_names_the_nearest(self, dataset: Dataset) -> None:
        with pytest.raises(ProveError) as caught:
            compose(dataset, Recipe(domain_filter=("day", "dsk")))
        assert caught.value.message == "No training image of CamVid has the condition 'dsk'."
        assert caught.value.hint == "Did you mean 'dusk'? There are day, dusk."

    def test_shares_of_joined_datasets_stay(self, dataset: Dataset) -> None:
        """Weights 3:1 over a hundred images; the filter leaves 40 of them."""
        joint = joined(dataset, {"a": 3, "b": 1}, 50, draws=(("a", 75), ("b", 25)))
        assert compose(joint, Recipe(domain_filter=("day",))).draws == (("a", 30), ("b", 10))

    def test_shares_are_rounded_once(self, dataset: Dataset) -> None:
        """11:9 of ten images is 5.5 and 4.5, so 6 and 4; of six it is 3.3 and 2.7, but 6:4 of six would be 4 and 2."""
        ten = joined(dataset, {"a": 11, "b": 9}, 5, draws=(("a", 6), ("b", 4)))
        assert compose(ten, Recipe(domain_filter=("night",))).draws == (("a", 3), ("b", 3))
        assert dict(compose(ten, Recipe("gen_random_noise", None, 0.6)).draws) == {"a": 3, "b": 3, POOL: 4}


class TestShare:
    @pytest.mark.parametrize("total", [2, 3, 10, 50, 98, 367, 1600])
    @pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 0.29, 0.3, 0.5, 0.75, 0.9, 1.0])
    def test_it_is_the_nearest_that_a_whole_number_of_images_allows(
        self, total: int, ratio: float, dataset: Dataset
    ) -> None:
        """In exact fractions: in floating point 0.29 of 50 is below 14.5."""
        samples = tuple(Sample(f"{k:05}", Path("x"), Path("y"), "day") for k in range(total))
        large = replace(dataset, train=replace(dataset.train, samples=samples))
        share = Fraction(round(ratio * 100), 100)
        best = min(range(total + 1), key=lambda real: (abs(Fraction(real, total) - share), -real))
        if 0 < ratio < 1 and best in (0, total):
            with pytest.raises(ProveError, match="is less than one image of"):
                compose(large, Recipe("gen_random_noise", None, ratio))
            return
        found = compose(large, Recipe("gen_random_noise", None, ratio))
        drawn = dict(found.draws)
        assert drawn.get(POOL, 0) == total - best
        assert drawn.get("", total if ratio == 1 else 0) == best

    def test_one_is_the_dataset_itself(self, dataset: Dataset, root: Path) -> None:
        assert compose(dataset, Recipe("gen_cycleGAN", None, 1.0), generated_root=root) == dataset

    def test_zero_is_generated_images_alone(self, dataset: Dataset, root: Path) -> None:
        found = compose(dataset, Recipe("gen_cycleGAN", None, 0.0), generated_root=root)
        assert pools(found) == {POOL: 4}
        assert found.draws == ((POOL, 3),)
        assert counts_in_words(found) == "0 real and 3 generated images an epoch, out of 0 and 4"

    def test_a_mixture(self, dataset: Dataset, root: Path) -> None:
        found = compose(dataset, Recipe("gen_cycleGAN+baseline", None, 0.3), generated_root=root)
        assert pools(found) == {"": 3, POOL: 4}
        assert dict(found.draws) == {"": 1, POOL: 2}
        assert [sample.id for sample in found.train] == sorted(sample.id for sample in found.train)
        assert counts_in_words(found) == "1 real and 2 generated images an epoch, out of 3 and 4"
        assert counts_in_words(dataset) == ""
        assert fingerprint(found.train) != fingerprint(dataset.train)
        assert found.val == dataset.val

    def test_generated_images_come_with_their_originals(self, dataset: Dataset, root: Path) -> None:
        """The filter is for real images: of the one by dusk there are two, one in fog and one by day."""
        found = compose(dataset, Recipe("gen_cycleGAN", ("dusk",), 0.0), generated_root=root)
        assert sorted(sample.condition for sample in found.train) == ["day", "fog"]
        assert {sample.id.rpartition("/")[2] for sample in found.train} == {"0001TP_006690"}

    def test_filtered_away(self, dataset: Dataset, root: Path) -> None:
        file = root / "cycleGAN" / "manifest.csv"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[:1] + [line for line in lines if "0001TP" in line]))
        with pytest.raises(
            ProveError, match="No generated image of gen_cycleGAN was made from an image that is trained"
        ):
            compose(dataset, Recipe("gen_cycleGAN", ("day",), 0.5), generated_root=root)

    def test_all_real_images_are_one_pool_where_datasets_are_joined_without_weights(self, dataset: Dataset) -> None:
        samples = tuple(replace(sample, pool=f"set {k}") for k, sample in enumerate(dataset.train))
        joint = replace(dataset, train=replace(dataset.train, samples=samples))
        found = compose(joint, Recipe("gen_random_noise", None, 0.7))
        assert found.draws == (("", 2), (POOL, 1))
        assert pools(found) == {"": 3, POOL: 3}

    def test_weights_divide_the_real_part(self, dataset: Dataset) -> None:
        joint = joined(dataset, {"a": 3, "b": 1}, 50, draws=(("a", 75), ("b", 25)))
        assert dict(compose(joint, Recipe("gen_random_noise", None, 0.4)).draws) == {"a": 30, "b": 10, POOL: 60}

    def test_missing_share(self, dataset: Dataset, root: Path) -> None:
        with pytest.raises(ProveError, match="needs a share of real images"):
            compose(dataset, Recipe("gen_cycleGAN"), generated_root=root)


class TestWhere:
    def test_the_variable_and_the_config_file(
        self, dataset: Dataset, root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = Recipe("gen_cycleGAN", None, 0.5)
        by_flag = compose(dataset, recipe, generated_root=root)
        (own_cache / "config.yaml").write_text(f"gen_root: {root}\n")
        assert compose(dataset, recipe) == by_flag
        monkeypatch.setenv("PROVE_GEN_ROOT", str(root / "absent"))
        with pytest.raises(ProveError, match=r"\$PROVE_GEN_ROOT names .*absent, which does not exist"):
            compose(dataset, recipe)
        monkeypatch.setenv("PROVE_GEN_ROOT", str(root))
        (own_cache / "config.yaml").write_text("gen_root: [1]\n")
        assert compose(dataset, recipe) == by_flag

    def test_nobody_says_where(self, dataset: Dataset) -> None:
        with pytest.raises(ProveError, match=r"(?s)Where are the images of gen_cycleGAN\?.*PROVE_GEN_ROOT"):
            compose(dataset, Recipe("gen_cycleGAN", None, 0.5))

    def test_a_misspelt_name_of_what_is_built_in(self, dataset: Dataset) -> None:
        with pytest.raises(
            ProveError, match=r"(?s)Where are the images.*Did you mean gen_synthweather, which is built in"
        ):
            compose(dataset, Recipe("gen_synthwether", None, 0.5))

    def test_a_misspelt_name(self, dataset: Dataset, root: Path) -> None:
        with pytest.raises(ProveError, match=r"(?s)no generated images 'cyclegan'.*Did you mean gen_cycleGAN\?"):
            compose(dataset, Recipe("gen_cyclegan", None, 0.5), generated_root=root)

    def test_a_name_that_is_too_long_for_a_folder(self, dataset: Dataset, root: Path) -> None:
        with pytest.raises(ProveError, match="no generated images 'xxx"):
            compose(dataset, Recipe(f"gen_{300 * 'x'}", None, 0.5), generated_root=root)

    def test_a_folder_without_a_manifest(self, dataset: Dataset, root: Path) -> None:
        with pytest.raises(ProveError, match=r"(?s)raw has no manifest\.csv.*prove data manifest"):
            compose(dataset, Recipe("gen_raw", None, 0.5), generated_root=root)

    def test_a_folder_with_the_name_of_what_is_built_in(self, dataset: Dataset, root: Path) -> None:
        (root / "random_noise").mkdir()
        with pytest.raises(ProveError, match=r"gen_random_noise is built in, and .*random_noise"):
            compose(dataset, Recipe("gen_random_noise", None, 0.5), generated_root=root)

    def test_a_share_of_one_does_not_excuse_a_missing_folder(self, dataset: Dataset, root: Path) -> None:
        with pytest.raises(ProveError, match="no generated images 'other'"):
            compose(dataset, Recipe("gen_other", None, 1.0), generated_root=root)


class TestNoise:
    def test_every_label_once_more(self, dataset: Dataset) -> None:
        found = compose(dataset, Recipe("gen_random_noise", None, 0.0))
        assert [(s.label, s.condition, s.noise) for s in found.train] == [
            (s.label, s.condition, True) for s in dataset.train
        ]

    def test_pixels_depend_on_the_id_alone_and_say_nothing(self) -> None:
        one = noise_pixels("gen_random_noise/a", 200, 300)
        assert np.array_equal(one, noise_pixels("gen_random_noise/a", 200, 300))
        assert (one != noise_pixels("gen_random_noise/b", 200, 300)).mean() > 0.99
        counts = np.bincount(one.ravel(), minlength=256)
        expected = one.size / 256
        assert ((counts - expected) ** 2 / expected).sum() < 350  # chi-squared, 255 degrees of freedom: p = 7e-5
        plane = one[..., 0].astype(float)
        assert abs(np.corrcoef(plane[:, :-1].ravel(), plane[:, 1:].ravel())[0, 1]) < 0.02


def test_class_frequencies_are_those_of_an_epoch(tmp_path: Path, dataset: Dataset) -> None:
    """Three images of class 0 and one of class 1, of which an epoch takes 1 and 5."""
    labels = [write_label(tmp_path / f"{k}.png", value) for k, value in enumerate((0, 0, 0, 1))]
    samples = tuple(Sample(str(k), label, label, "day", pool="ab"[k == 3]) for k, label in enumerate(labels))
    train = replace(dataset.train, samples=samples)
    drawn = epoch_frequencies(replace(dataset, train=train, draws=(("a", 1), ("b", 5))))
    assert drawn.pixels[:3] == (48, 5 * 48, 0)
    assert drawn.pixels_around[:3] == (48, 5 * 48, 0)
    plain = epoch_frequencies(dataset)
    assert list(plain.pixels) == pixel_counts(dataset.train).tolist()


def test_orphans_stay_faults_of_the_dataset(dataset: Dataset, root: Path) -> None:
    faulty: Manifest = replace(dataset.train, labels_without_image=(Path("orphan.png"),))
    found = compose(replace(dataset, train=faulty), Recipe("gen_cycleGAN", None, 0.5), generated_root=root)
    assert found.train.labels_without_image == (Path("orphan.png"),)
