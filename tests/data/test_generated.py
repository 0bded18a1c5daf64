"""What a manifest of generated images says is held against the dataset and the disk."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from data_samples import camvid, write_image

from prove.catalog.label_spaces import CAMVID11
from prove.cli.manifest import make_manifest
from prove.data.check import check
from prove.data.compose import compose
from prove.data.generated import COLUMNS, GeneratedSet, read_generated, same_proportions
from prove.data.generated_files import propose, write_manifest
from prove.data.source import Dataset, open_dataset, resolve_dataset
from prove.errors import ProveError
from prove.spec.recipe import Recipe

FIRST, SECOND = "0001TP_006690", "0006R0_f00930"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three training images, two for validation."""
    return open_dataset(resolve_dataset("CamVid"), root=camvid(tmp_path / "camvid"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images at night and one in fog, and a sound manifest."""
    folder = tmp_path / "gen" / "cycleGAN"
    rows = [("night", FIRST), ("night", SECOND), ("foggy", FIRST)]
    for number, (target, name) in enumerate(rows):
        write_image(folder / target / f"{name}.png", seed=50 + number)
    write(folder, [row(f"{target}/{name}.png", f"train/{name}.png", target=target) for target, name in rows])
    return folder


def row(gen: str, original: str, *, dataset: str = "CamVid", target: str = "night") -> dict[str, str]:
    values = (gen, original, Path(original).stem, "day", dataset, target)
    return dict(zip(COLUMNS, values, strict=True))


def write(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read(folder: Path, dataset: Dataset) -> GeneratedSet:
    found = read_generated(folder, folder.name, dataset)
    found.raise_if_bad("CamVid")
    return found


def test_a_generated_image_has_the_label_of_its_original(folder: Path, dataset: Dataset) -> None:
    found = read(folder, dataset)
    assert [sample.id for sample in found.samples] == [
        f"gen_cycleGAN/foggy/{FIRST}", f"gen_cycleGAN/night/{FIRST}", f"gen_cycleGAN/night/{SECOND}",
    ]  # fmt: skip
    real = {sample.id: sample for sample in dataset.train}
    for sample, original in zip(found.samples, found.originals, strict=True):
        target = sample.id.split("/")[1]
        assert sample.label == real[original].label
        assert sample.image == folder / target / f"{original}.png"
        assert sample.condition == target


def test_paths_may_be_absolute_and_go_through_links(folder: Path, dataset: Dataset, tmp_path: Path) -> None:
    plain = read(folder, dataset)
    (tmp_path / "link").symlink_to(dataset.root)
    rows = rows_of(folder)
    rows[0]["original_path"] = str(dataset.root / "train" / f"{FIRST}.png")
    rows[1]["original_path"] = str(tmp_path / "link" / "train" / f"{SECOND}.png")
    rows[2]["gen_path"] = str(folder / rows[2]["gen_path"])
    write(folder, rows)
    assert read(folder, dataset) == plain


def test_several_images_of_one_original_and_target_are_told_apart(folder: Path, dataset: Dataset) -> None:
    write_image(folder / "night" / "again.png", seed=9)
    write(folder, [*rows_of(folder), row("night/again.png", f"train/{FIRST}.png")])
    ids = [sample.id for sample in read(folder, dataset).samples]
    assert f"gen_cycleGAN/night/{FIRST}#2" in ids
    assert len(set(ids)) == 4


def test_a_byte_order_mark_and_blank_lines_are_no_fault(folder: Path, dataset: Dataset) -> None:
    file = folder / "manifest.csv"
    file.write_text("\ufeff" + file.read_text().replace("\n", "\n\n"), encoding="utf-8")
    assert len(read(folder, dataset).samples) == 3


def test_lines_of_other_known_datasets_are_left_alone(folder: Path, dataset: Dataset) -> None:
    write(folder, [*rows_of(folder), row("x.png", "y.png", dataset="ACDC")])
    found = read(folder, dataset)
    assert (found.rows, dict(found.elsewhere)) == (3, {"ACDC": 1})
    write(folder, [row("x.png", "y.png", dataset="ACDC")])
    with pytest.raises(ProveError, match="holds no image of CamVid, only of ACDC"):
        read(folder, dataset)


Change = Callable[[dict[str, str]], object]

FAULTS: dict[str, tuple[Change, str]] = {
    "missing": (lambda r: r.update(gen_path="night/gone.png"), r"line 4, gen_path: .*night/gone\.png does not exist"),
    "unknown original": (
        lambda r: r.update(original_path="train/0000.png"),
        r"line 4, original_path: train/0000\.png is no training image of CamVid",
    ),
    "validation": (
        lambda r: r.update(original_path="val/0001TP_006690.png"),
        r"line 4, original_path: val/0001TP_006690\.png is a validation image",
    ),
    "repeated": (
        lambda r: r.update(gen_path=f"night/../night/{FIRST}.png"),
        rf"line 4, gen_path: .*night/{FIRST}\.png stands in line 2 too",
    ),
    "other dataset": (
        lambda r: r.update(dataset="CamVd"), r"line 4, dataset: 'CamVd' is no dataset\. Did you mean 'CamVid'\?",
    ),
    "empty": (lambda r: r.update(target_domain=" "), r"line 4, target_domain: it is empty"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_line_is_named(fault: str, folder: Path, dataset: Dataset) -> None:
    change, message = FAULTS[fault]
    rows = rows_of(folder)
    change(rows[2])
    write(folder, rows)
    with pytest.raises(ProveError, match=message) as caught:
        read(folder, dataset)
    assert "manifest.csv can't be trained on:\n" in caught.value.message
    assert f"prove data manifest {folder} --dataset CamVid --check" in caught.value.hint


def test_a_real_image_is_no_generated_one(folder: Path, dataset: Dataset) -> None:
    rows = rows_of(folder)
    rows[0]["gen_path"] = str(dataset.val.samples[0].image)
    write(folder, rows)
    with pytest.raises(ProveError, match=r"line 2, gen_path: .* is an image of the dataset"):
        read(folder, dataset)


def test_a_link_to_a_real_image_is_no_generated_one(folder: Path, dataset: Dataset) -> None:
    image = folder / "night" / f"{FIRST}.png"
    image.unlink()
    image.symlink_to(dataset.val.samples[0].image)
    with pytest.raises(ProveError, match=rf"line 2, gen_path: .*night/{FIRST}\.png is an image of the dataset"):
        read(folder, dataset)


def test_a_copy_of_a_validation_image_is_found_before_training(
    folder: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    composed = compose(dataset, Recipe("gen_cycleGAN", None, 0.5), generated_root=folder.parent)
    assert check(composed).errors == ()
    copied = dataset.val.samples[1].image
    shutil.copy(copied, folder / "night" / f"{FIRST}.png")
    found = check(composed).errors
    assert [(finding.kind, finding.where) for finding in found] == [("shared_image", str(copied))]
    assert "is in val, and a copy of it in train" in found[0].message
    with pytest.raises(typer.Exit):
        make_manifest(folder, "CamVid", dataset.root, None, "", check=True, force=False, json_output=False)
    assert f"error: shared_image: Image {copied} is in val" in capsys.readouterr().out
    noise = compose(dataset, Recipe("gen_random_noise", None, 0.5))
    assert check(noise).errors == ()


def test_a_manifest_with_one_fault_has_one(folder: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where no image is left: that the split is empty then is no fault of its own."""
    write(folder, [{**rows_of(folder)[0], "original_path": "train/nobody.png"}])
    with pytest.raises(typer.Exit):
        make_manifest(folder, "CamVid", dataset.root, None, "", check=True, force=False, json_output=False)
    told = capsys.readouterr().out
    assert told.count("error: ") == 1
    assert "1 errors" in told


def test_damaged_images_are_listed_by_the_command_that_looks_at_them(folder: Path, dataset: Dataset) -> None:
    def hint() -> str:
        composed = compose(dataset, Recipe("gen_cycleGAN", None, 0.5), generated_root=folder.parent)
        with pytest.raises(ProveError) as caught:
            check(composed).raise_if_bad()
        return caught.value.hint

    generated = "`prove data manifest FOLDER --dataset CamVid --check` lists"
    (folder / "night" / f"{FIRST}.png").write_text("no image")
    assert hint() == f"{generated} them all."
    dataset.val.samples[0].image.write_text("no image")
    assert hint() == f"`prove data check CamVid` lists those of real images, {generated} those of generated ones."
    write_image(folder / "night" / f"{FIRST}.png")
    assert hint() == "`prove data check CamVid` lists them all."


def test_images_of_other_streets_are_no_originals(tmp_path: Path) -> None:
    """Every seed of SynthStreet draws other scenes under the same names; other counts, from seven on, the same ones."""
    street, same, *others = (
        open_dataset(resolve_dataset(f"SynthStreet(height=64, width={width}, train={train}, val=1, seed={seed})"))
        for width, train, seed in ((64, 7, 0), (64, 9, 0), (64, 7, 1), (96, 7, 0), (64, 6, 0))
    )
    folder = tmp_path / "gen" / "cut"
    names = [sample.image.name for sample in street.train]
    for number, name in enumerate(names):
        write_image(folder / "fog" / name, 64, 64, seed=number)
    write_manifest(folder, propose(folder, street).rows)
    first = [read_generated(folder, "cut", each) for each in (street, same)]
    assert [sample.label.read_bytes() for sample in first[0].samples] == [
        sample.label.read_bytes() for sample in first[1].samples
    ]
    for each in others:
        with pytest.raises(
            ProveError, match=r"holds no image of SynthStreet\(.*only of SynthStreet\(height=64, width=64"
        ):
            read_generated(folder, "cut", each)


def test_an_original_belongs_to_the_member_that_its_line_names(tmp_path: Path) -> None:
    """One member's folder lies in the other's, and both have an image at the path that is given."""
    roots = [camvid(tmp_path), camvid(tmp_path / "inner")]
    for split in ("train", "val"):
        for number, path in enumerate(sorted((roots[1] / split).iterdir())):
            write_image(path, seed=200 + number)
    (tmp_path / "own.yaml").write_text(
        f"name: Own\nroot: .\nclasses: [{', '.join(CAMVID11.classes)}]\nencoding: camvid\n"
        "train: {images: train, labels: trainannot}\nval: {images: val, labels: valannot}\n"
    )
    joint = open_dataset(resolve_dataset(f"multi_CamVid+{tmp_path / 'own.yaml'}"), root=f"CamVid={roots[1]}")
    folder = tmp_path / "gen" / "cut"
    write_image(folder / "a.png", seed=300)
    for dataset, root in (("CamVid", roots[1]), ("Own", roots[0])):
        write(folder, [row("a.png", f"train/{FIRST}.png", dataset=dataset)])
        found = read_generated(folder, "cut", joint)
        assert [sample.label for sample in found.samples] == [root / "trainannot" / f"{FIRST}.png"]
    write(folder, [row("a.png", str(roots[0] / f"train/{FIRST}.png"), dataset="CamVid")])
    (fault,) = read_generated(folder, "cut", joint).faults
    assert (fault.kind, "is no training image of CamVid" in fault.message) == ("unknown_original", True)


def test_all_faults_are_counted_and_the_first_of_each_kind_named(folder: Path, dataset: Dataset) -> None:
    for name in (FIRST, SECOND):
        (folder / "night" / f"{name}.png").unlink()
    rows = rows_of(folder)
    rows[2]["original_path"] = "train/elsewhere/0001TP_006690.png"
    write(folder, rows)
    with pytest.raises(ProveError) as caught:
        read(folder, dataset)
    text = caught.value.message
    assert f"missing generated images: 2, first in line 2, gen_path: {folder}/night/{FIRST}.png does not exist" in text
    assert "originals that are no training images: 1, first in line 4" in text
    assert f"One of that name is {dataset.root}/train/{FIRST}.png" in text


FILES: dict[str, tuple[bytes | None, str]] = {
    "none": (None, r"has no manifest\.csv"),
    "empty": (b"", r"line 1: the column 'gen_path' is missing"),
    "no lines": (b"gen_path,original_path,name,domain,dataset,target_domain\n", "lists no images"),
    "not UTF-8": (b"gen_path,original_path,name,domain,dataset,target_domain\n\xff\xfe", "is not UTF-8 text"),
    "misspelt column": (
        b"gen_path,orignal_path,name,domain,dataset,target_domain\n1,2,3,4,5,6\n",
        r"(?s)line 1: the column 'original_path' is missing.*Is it 'orignal_path'\?",
    ),
    "semicolons": (b"gen_path;original_path;name;domain;dataset;target_domain\n", "the column 'gen_path' is missing"),
    "column twice": (b"gen_path,original_path,name,domain,dataset,target_domain,name\n", "column 'name' stands twice"),
    "short line": (
        b"gen_path,original_path,name,domain,dataset,target_domain\na,b,c,d,CamVid\n",
        "line 2: 5 values under 6 columns",
    ),
    "open quote": (b'gen_path,original_path,name,domain,dataset,target_domain\n"a,b\n', "not CSV"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_manifest(case: str, tmp_path: Path, dataset: Dataset) -> None:
    content, message = FILES[case]
    if content is not None:
        (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(ProveError, match=message):
        read_generated(tmp_path, "x", dataset)


@pytest.mark.parametrize(
    ("size", "kind", "severity"), [((6, 8), None, ""), ((3, 4), "resized_image", "warning"),
                                   ((24, 32), "resized_image", "warning"), ((8, 8), "size_mismatch", "error")],
)  # fmt: skip
def test_sizes(size: tuple[int, int], kind: str | None, severity: str, folder: Path, dataset: Dataset) -> None:
    """Labels are 6 by 8 pixels: an image of the same proportions is resized and that is said, others are refused."""
    write_image(folder / "night" / f"{FIRST}.png", *size)
    samples = read(folder, dataset).samples
    mixed = replace(dataset, train=replace(dataset.train, samples=(*dataset.train.samples, *samples)))
    found = [(each.kind, each.severity) for each in check(mixed).findings if each.kind != "absent_class"]
    assert found == ([] if kind is None else [(kind, severity)])


def test_a_damaged_generated_image_is_a_fault_of_the_data(folder: Path, dataset: Dataset) -> None:
    (folder / "night" / f"{FIRST}.png").write_bytes(b"not an image")
    samples = read(folder, dataset).samples
    report = check(replace(dataset, train=replace(dataset.train, samples=samples)))
    assert [each.kind for each in report.errors] == ["unreadable_image"]
    with pytest.raises(ProveError, match="prove data manifest FOLDER --dataset CamVid --check"):
        report.raise_if_bad()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [((1080, 1920), (288, 512), True), ((1080, 1920), (512, 512), False), ((375, 1242), (188, 621), True),
     ((375, 1242), (187, 621), True), ((375, 1242), (190, 621), False), ((360, 480), (180, 240), True),
     ((1024, 2048), (256, 256), False), ((100, 100), (100, 101), False), ((90, 60), (45, 30), True)],
)  # fmt: skip
def test_proportions(one: tuple[int, int], other: tuple[int, int], same: bool) -> None:
    assert same_proportions(one, other) is same_proportions(other, one) is same


def test_a_list_for_a_joint_dataset_names_the_member(folder: Path, dataset: Dataset) -> None:
    """Relative paths count from the member's root; the condition is the member's as well."""
    joint = open_dataset(
        resolve_dataset("multi_CamVid+SynthStreet(height=64, width=64, train=2, val=1)"), root=f"CamVid={dataset.root}"
    )
    write(folder, [*rows_of(folder), row("x.png", "y.png", dataset="ACDC")])
    found = read_generated(folder, "cycleGAN", joint)
    found.raise_if_bad(joint.definition.name)
    plain = read_generated(folder, "cycleGAN", dataset)
    assert [sample.image for sample in found.samples] == [sample.image for sample in plain.samples]
    assert [sample.label for sample in found.samples] == [sample.label for sample in plain.samples]
    assert [sample.condition for sample in found.samples] == ["CamVid/foggy", "CamVid/night", "CamVid/night"]
    own = {sample.id: sample.encoding for sample in joint.train}
    assert all(sample.encoding == own[f"CamVid/{sample.id.split('/')[-1]}"] for sample in found.samples)
    rows = rows_of(folder)
    rows[0]["original_path"] = "val/0001TP_006690.png"
    write(folder, rows)
    assert [fault.kind for fault in read_generated(folder, "cycleGAN", joint).faults] == ["validation_image"]
