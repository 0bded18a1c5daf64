"""Several datasets as one: labels, shares, names, places."""

from __future__ import annotations

import csv
import shutil
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from data_samples import camvid, write_image, write_label
from PIL import Image

from prove.catalog.label_spaces import CAMVID11, CITYSCAPES19, MAPILLARY66
from prove.data.check import check
from prove.data.compose import compose
from prove.data.definition import located, resolve_dataset, spelling
from prove.data.joint import absolute_roots, shares
from prove.data.labels import read_label
from prove.data.manifest import fingerprint
from prove.data.source import open_dataset
from prove.data.stats import label_statistics
from prove.errors import ProveError
from prove.spec.recipe import Recipe

BOTH = "multi_CamVid+MapillaryVistas"


def vistas(root: Path, train: int = 4, val: int = 2, seed: int = 0) -> Path:
    """Vistas' layout with every class in each label: by colour in even ones, by value in odd ones."""
    rng = np.random.default_rng(seed)
    palette = np.array(MAPILLARY66.palette, dtype=np.uint8)
    for split, count in (("training", train), ("validation", val)):
        for k in range(count):
            write_image(root / split / "images" / f"v{k}.jpg", 10, 12, seed=100 * seed + 10 * count + k)
            values = rng.permutation(np.resize(np.arange(66), 120)).reshape(10, 12).astype(np.uint8)
            write_label(root / split / "v1.2" / "labels" / f"v{k}.png", palette[values] if k % 2 == 0 else values)
    return root


@pytest.fixture
def roots(tmp_path: Path) -> str:
    camvid(tmp_path / "c", train=3, val=2)
    vistas(tmp_path / "v")
    return f"CamVid={tmp_path / 'c'},MapillaryVistas={tmp_path / 'v'}"


def table(source: str, target: str) -> dict[str, str]:
    rows = csv.DictReader((files("prove.catalog") / "label_maps.csv").read_text(encoding="utf-8").splitlines())
    return {r["class"]: r["target_class"] for r in rows if (r["source"], r["target"]) == (source, target)}


def slowly(path: Path, target: str, classes: tuple[str, ...]) -> np.ndarray:
    """A label file as train ids of a space, pixel by pixel, from the table on file."""
    pixels = np.asarray(Image.open(path))
    is_camvid = "annot" in str(path)
    source, names = ("camvid11", CAMVID11.classes) if is_camvid else ("mapillary66", MAPILLARY66.classes)
    goes = table(source, target)
    found = np.full(pixels.shape[:2], 255)
    for row in range(pixels.shape[0]):
        for column in range(pixels.shape[1]):
            value = pixels[row, column]
            if pixels.ndim == 3:
                value = MAPILLARY66.palette.index(tuple(int(k) for k in value))
            if int(value) < len(names) and goes[names[int(value)]] != "ignore":
                found[row, column] = classes.index(goes[names[int(value)]])
    return found


@pytest.mark.parametrize("space", ["cityscapes19", "union42"])
def test_labels_are_read_in_one_space_pixel_by_pixel(roots: str, space: str) -> None:
    dataset = open_dataset(resolve_dataset(f"{BOTH}@{space}"), root=roots)
    for manifest in dataset.splits:
        assert manifest.label_space.name == space
        for sample in manifest:
            read = read_label(sample.label, manifest.encoding_of(sample), manifest.label_space)
            assert (read == slowly(sample.label, space, manifest.label_space.classes)).all(), sample.id
    assert check(dataset).errors == ()
    pixels = sum(
        np.bincount(slowly(s.label, space, dataset.train.label_space.classes).ravel(), minlength=256)
        for s in dataset.train
    )
    counted = label_statistics(dataset.train)
    assert counted.pixels.tolist() == pixels[: dataset.train.label_space.num_classes].tolist()
    assert counted.ignored == pixels[255]


def test_samples_are_those_of_all_members_under_their_names(roots: str, tmp_path: Path) -> None:
    dataset = open_dataset(resolve_dataset(BOTH), root=roots)
    assert [(s.id, s.condition, s.pool) for s in dataset.train] == [
        ("CamVid/0001TP_006690", "CamVid/dusk", "CamVid"),
        ("CamVid/0006R0_f00930", "CamVid/day", "CamVid"),
        ("CamVid/0016E5_00390", "CamVid/day", "CamVid"),
        *((f"MapillaryVistas/v{k}", "MapillaryVistas", "MapillaryVistas") for k in range(4)),
    ]
    assert len(dataset.val) == 4
    assert dataset.draws == ()  # an epoch is every sample once
    assert dataset.root == tmp_path


def test_weights_share_an_epoch_to_the_sample() -> None:
    for total in (*range(3, 40), 4175):
        for weights in ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 3, "b": 5, "c": 7}, {"a": 1, "b": 1, "c": 1}):
            whole = sum(weights.values())
            if total * min(weights.values()) < whole:
                continue
            counts = dict(shares(weights, total))
            assert sum(counts.values()) == total
            for name, weight in weights.items():
                assert abs(Fraction(total * weight, whole) - counts[name]) < 1
            kept = {n: counts[n] - Fraction(total * w, whole) for n, w in weights.items()}
            raised = [Fraction(total * weights[n] % whole, whole) for n, by in kept.items() if by > 0]
            lowered = [Fraction(total * weights[n] % whole, whole) for n, by in kept.items() if by < 0]
            assert not raised or not lowered or min(raised) >= max(lowered)  # the largest remainders were raised
    with pytest.raises(ProveError, match=r"b weighs 1 of 101, which of an epoch of 50 images is none"):
        shares({"a": 100, "b": 1}, 50)


def test_weights_count_by_their_proportion(roots: str) -> None:
    dataset = open_dataset(resolve_dataset("multi_2*CamVid+MapillaryVistas"), root=roots)
    assert dataset.draws == (("CamVid", 5), ("MapillaryVistas", 2))  # of 7, two thirds are 4.67
    same = [
        "multi_1*MapillaryVistas+2*CamVid",
        "multi_0.5*MapillaryVistas+CamVid",
        "multi_4*CamVid+2*MapillaryVistas",
    ]
    assert {resolve_dataset(text).name for text in same} == {"multi_2*CamVid+1*MapillaryVistas"}
    canonical = [resolve_dataset(text).canonical() for text in (*same, BOTH, "multi_1*CamVid+1*MapillaryVistas")]
    assert canonical[0] == canonical[1] == canonical[2]
    assert canonical[0] != canonical[3] != canonical[4] != canonical[0]  # once each is not half and half


def test_identity_holds_members_maps_and_space_but_no_place(roots: str, tmp_path: Path) -> None:
    one, other = resolve_dataset(BOTH), resolve_dataset("multi_MapillaryVistas+CamVid@cityscapes19")
    assert one.canonical() == other.canonical()
    assert one.name == other.name == BOTH
    members = one.canonical()["members"]
    assert [member["name"] for member in members] == ["CamVid", "MapillaryVistas"]
    assert [member["labels"]["space"] for member in members] == ["cityscapes19"] * 2
    union = resolve_dataset(f"{BOTH}@union42")
    assert union.canonical() != one.canonical()
    assert union.name == f"{BOTH}@union42"
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "c", moved)
    there = f"CamVid={moved},MapillaryVistas={tmp_path / 'v'}"
    first, second = open_dataset(one, root=roots), open_dataset(one, root=there)
    assert fingerprint(first.train) == fingerprint(second.train)
    assert fingerprint(first.train) != fingerprint(open_dataset(union, root=roots).train)
    assert str(tmp_path) not in str(one.canonical())


def test_a_space_that_all_have_stays() -> None:
    assert resolve_dataset("multi_ACDC+BDD10k").label_space == CITYSCAPES19
    assert "labels" not in str(resolve_dataset("multi_ACDC+BDD10k").canonical())
    both = resolve_dataset("multi_SynthStreet(seed=1,train=9)+SynthStreet")
    assert [member.name for member in both.members] == ["SynthStreet", "SynthStreet(train=9 seed=1)"]
    assert resolve_dataset(both.name).canonical() == both.canonical()
    assert resolve_dataset("multi_CamVid+SynthStreet(height=64, width=80)").default_crop == (64, 80)


def test_one_dataset_in_another_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVE_CAMVID_ROOT", str(camvid(tmp_path / "c")))
    plain, mapped = resolve_dataset("CamVid"), resolve_dataset("CamVid@cityscapes19")
    dataset = open_dataset(mapped)
    for sample in dataset.val:
        read = read_label(sample.label, dataset.val.encoding_of(sample), dataset.val.label_space)
        assert (read == slowly(sample.label, "cityscapes19", CITYSCAPES19.classes)).all()
    assert plain.canonical() == {"dataset": "CamVid"}
    assert mapped.canonical()["dataset"] == "CamVid"
    assert mapped.canonical() != resolve_dataset("CamVid@union42").canonical()
    assert resolve_dataset("ACDC@cityscapes19") == resolve_dataset("ACDC")


def test_places_by_flag_folder_variable_and_shared_folder(
    roots: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ids(root: str | None) -> list[str]:
        return [sample.id for sample in open_dataset(resolve_dataset(BOTH), root=root).train]

    expected = ids(roots)
    both = tmp_path / "both"
    shutil.copytree(tmp_path / "c", both / "CamVid")
    shutil.copytree(tmp_path / "v", both / "MapillaryVistas")
    assert ids(str(both)) == expected
    monkeypatch.setenv("PROVE_CAMVID_ROOT", str(tmp_path / "c"))
    monkeypatch.setenv("PROVE_MAPILLARYVISTAS_ROOT", str(tmp_path / "v"))
    assert ids(None) == expected
    assert ids(f"CamVid={both / 'CamVid'}") == expected
    with pytest.raises(ProveError, match="Unknown member 'Camvid'") as caught:
        ids("Camvid=/x")
    assert "Did you mean 'CamVid'" in caught.value.hint
    with pytest.raises(ProveError, match="CamVid stands twice"):
        ids("CamVid=/x,CamVid=/y")
    with pytest.raises(ProveError, match="holds a folder of no member"):
        ids(str(tmp_path / "c" / "train"))
    with pytest.raises(ProveError, match=r"CamVid: --data-root names .*nowhere, which does not exist"):
        ids(f"CamVid={tmp_path / 'nowhere'}")
    with pytest.raises(ProveError, match="neither a folder nor a list"):
        ids("CamVid=")


def test_paths_are_made_absolute_for_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_roots("CamVid=c,ACDC=/data/acdc") == f"CamVid={tmp_path}/c,ACDC=/data/acdc"
    assert absolute_roots("c") == f"{tmp_path}/c"
    (tmp_path / "a=b").mkdir()
    assert absolute_roots("a=b") == f"{tmp_path}/a=b"
    assert located("multi_2*own.yaml+CamVid@union42") == f"multi_2*{tmp_path}/own.yaml+CamVid@union42"
    assert located("own.yaml") == f"{tmp_path}/own.yaml"
    assert located("SynthStreet(height=64, seed=1)") == "SynthStreet(height=64, seed=1)"


def test_an_image_of_both_members_in_train_and_val_is_an_error(tmp_path: Path) -> None:
    camvid(tmp_path / "c")
    (tmp_path / "own.yaml").write_text(
        f"name: Own\nroot: c\nclasses: [{', '.join(CAMVID11.classes)}]\nencoding: camvid\n"
        "train: {images: val, labels: valannot}\nval: {images: train, labels: trainannot}\n"
    )
    dataset = open_dataset(resolve_dataset(f"multi_CamVid+{tmp_path / 'own.yaml'}"), root=f"CamVid={tmp_path / 'c'}")
    assert dataset.train.label_space == CAMVID11  # the classes are those of CamVid
    assert {finding.kind for finding in check(dataset).errors} == {"shared_image"}


def test_a_copy_in_the_other_member_s_validation_is_an_error(roots: str, tmp_path: Path) -> None:
    dataset = open_dataset(resolve_dataset(BOTH), root=roots)
    assert check(dataset).errors == ()
    copy = tmp_path / "v" / "validation" / "images" / "v0.jpg"
    shutil.copy(tmp_path / "c" / "train" / "0001TP_006690.png", copy)
    write_label(
        tmp_path / "v" / "validation" / "v1.2" / "labels" / "v0.png", np.arange(48, dtype=np.uint8).reshape(6, 8)
    )
    assert [(finding.kind, finding.where) for finding in check(dataset).errors] == [("shared_image", str(copy))]


def test_conditions_are_filtered_by_their_full_name(roots: str) -> None:
    dataset = open_dataset(resolve_dataset("multi_1*CamVid+1*MapillaryVistas"), root=roots)
    found = compose(dataset, Recipe(domain_filter=("CamVid/day", "MapillaryVistas")))
    assert found.train.conditions == ("CamVid/day", "MapillaryVistas")
    assert found.draws == (("CamVid", 3), ("MapillaryVistas", 3))
    with pytest.raises(ProveError, match="condition 'day'") as caught:
        compose(dataset, Recipe(domain_filter=("day",)))
    assert "CamVid/day" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("multi_CamVid", "joins one dataset with nothing", "two or more"),
        ("multi_", "joins one dataset with nothing", "two or more"),
        ("multi_CamVid+Camvit", "Unknown dataset 'Camvit'", "Did you mean 'CamVid'"),
        ("multi_CamVid+CamVid", "CamVid stands twice", "more weight"),
        ("multi_2*CamVid+CamVid", "CamVid stands twice", "more weight"),
        ("multi_CamVid+", "a member without a name", "multi_"),
        ("multi_two*CamVid+ACDC", "The weight 'two' of CamVid", "2\\*ACDC"),
        ("multi_-1*CamVid+ACDC", "The weight '-1' of CamVid", "2\\*ACDC"),
        ("multi_nan*CamVid+ACDC", "The weight 'nan' of CamVid", "2\\*ACDC"),
        ("multi_0*CamVid+ACDC", "The weight of CamVid in .* is 0", "Leave it out"),
        ("multi_0.0*CamVid+ACDC", "The weight of CamVid in .* is 0", "Leave it out"),
        ("multi_*CamVid+ACDC", r"Unknown dataset '\*CamVid'", "CamVid"),
        ("multi_100000*CamVid+ACDC", "finer than 1 to 10000", "Round"),
        ("multi_CamVid+ACDC@union24", "Unknown label space 'union24'", "Did you mean 'union42'"),
        ("multi_CamVid+ACDC@camvid11", "labels of ACDC .* can't be read as 'camvid11'", "union42"),
        ("multi_CamVid@union42+ACDC", "names the label space of CamVid alone", "@union42"),
        ("multi_CamVid+multi_ACDC", "can't be a member", "members"),
        ("multi_ADE20K+ACDC", r"labels of ADE20K \(ade20k150\) can't be read as 'cityscapes19'", "data map"),
        ("CamVid@mapillary66", "labels of CamVid .* can't be read as 'mapillary66'", "cityscapes19, union42"),
        ("CamVid@", "Unknown dataset 'CamVid@'", "CamVid"),
    ],
)
def test_what_can_t_be_joined_is_refused(text: str, said: str, hint: str) -> None:
    with pytest.raises(ProveError, match=said) as caught:
        resolve_dataset(text)
    assert hint.replace("\\", "") in caught.value.hint


def test_classes_of_one_s_own_can_t_be_joined_with_others(tmp_path: Path) -> None:
    (tmp_path / "yard.yaml").write_text(
        "name: Yard\nclasses: [ground, tree]\ntrain: {images: a, labels: b}\nval: {images: c, labels: d}\n"
    )
    with pytest.raises(ProveError, match=r"labels of Yard \(2 classes\) can't be read"):
        resolve_dataset(f"multi_CamVid+{tmp_path / 'yard.yaml'}")
    with pytest.raises(ProveError, match=r"labels of Yard can't be read as 'union42': no map knows its 2 classes"):
        resolve_dataset(f"{tmp_path / 'yard.yaml'}@union42")


def test_a_definition_is_spelt_as_it_can_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "my yard.yaml").write_text(
        f"name: Yard\nclasses: [{', '.join(CAMVID11.classes)}]\n"
        "train: {images: a, labels: b}\nval: {images: c, labels: d}\n"
    )
    yard = f"{tmp_path}/my yard.yaml"
    for text in (
        "CamVid", "CamVid@union42", "SynthStreet(height=64, train=4)@union42", yard, f"{yard}@cityscapes19",
        f"multi_CamVid+{yard}", f"multi_2*CamVid+1*{yard}@union42", "multi_ACDC+CamVid", "multi_ACDC+CamVid@union42",
    ):  # fmt: skip
        definition = resolve_dataset(text)
        assert spelling(definition) == text
        again = resolve_dataset(spelling(definition))
        assert (again.name, again.canonical()) == (definition.name, definition.canonical())


def test_a_dataset_without_places_says_how_to_name_them() -> None:
    with pytest.raises(ProveError, match="Where is ACDC"):
        open_dataset(resolve_dataset("multi_CamVid+ACDC"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--datasets", "ACDC", "BDD10k", "CamVid"], "multi_ACDC+BDD10k+CamVid"),
        (["--datasets", "ACDC"], "ACDC"),
        (["--dataset", "multi_2*ACDC+BDD10k"], "multi_2*ACDC+BDD10k"),
    ],
)
def test_the_study_s_entry_point_takes_several(
    flags: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import unified_training

    seen: list[str] = []
    monkeypatch.setattr("sys.argv", ["unified_training.py", *flags, "--model", "fcn_tiny"])
    monkeypatch.setattr(unified_training, "carry_out", lambda request, results: seen.append(request.dataset) or 0)
    assert unified_training.main() == 0
    assert seen == [expected]


@pytest.mark.parametrize("text", [BOTH, "multi_2*CamVid+MapillaryVistas"])
def test_a_filter_leaves_something_of_every_member(roots: str, text: str) -> None:
    """What is called training on both must be."""
    dataset = open_dataset(resolve_dataset(text), root=roots)
    with pytest.raises(ProveError, match="No training image of MapillaryVistas has the condition CamVid/day"):
        compose(dataset, Recipe(domain_filter=("CamVid/day",)))
    kept = compose(dataset, Recipe(domain_filter=("CamVid/day", "MapillaryVistas"))).train
    assert {sample.pool for sample in kept} == {"CamVid", "MapillaryVistas"}
