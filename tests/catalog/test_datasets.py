from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from prove.catalog import label_spaces as ls
from prove.catalog.datasets import CONDITIONS, DATASETS
from prove.errors import ProveError

# The public definition, cityscapesscripts/helpers/labels.py: id, name, trainId.
CITYSCAPES_LABELS = """
0 unlabeled 255; 1 ego vehicle 255; 2 rectification border 255; 3 out of roi 255; 4 static 255; 5 dynamic 255;
6 ground 255; 7 road 0; 8 sidewalk 1; 9 parking 255; 10 rail track 255; 11 building 2; 12 wall 3; 13 fence 4;
14 guard rail 255; 15 bridge 255; 16 tunnel 255; 17 pole 5; 18 polegroup 255; 19 traffic light 6; 20 traffic sign 7;
21 vegetation 8; 22 terrain 9; 23 sky 10; 24 person 11; 25 rider 12; 26 car 13; 27 truck 14; 28 bus 15; 29 caravan 255;
30 trailer 255; 31 train 16; 32 motorcycle 17; 33 bicycle 18
"""


def mmseg_metainfo(module: str, dataset: str) -> dict[str, list[object]]:
    """Classes and palette as MMSegmentation's source has them; not imported, because that takes seconds."""
    spec = importlib.util.find_spec("mmseg")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = (Path(spec.submodule_search_locations[0]) / "datasets" / f"{module}.py").read_text()
    (body,) = (n.body for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == dataset)
    (call,) = (n.value for n in body if isinstance(n, ast.Assign) and n.targets[0].id == "METAINFO")  # type: ignore[attr-defined]
    assert isinstance(call, ast.Call)
    return {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}


def test_cityscapes_label_ids_follow_the_published_table() -> None:
    encoding = dict(ls.CITYSCAPES_LABEL_IDS.ids)
    rows = [row.split() for row in CITYSCAPES_LABELS.replace("\n", " ").split(";")]
    assert len(rows) == 34
    for raw, *name, train_id in rows:
        assert encoding.pop(int(raw)) == int(train_id)
        if train_id != "255":
            assert ls.CITYSCAPES19.classes[int(train_id)] == " ".join(name)
    assert encoding == {255: 255}


@pytest.mark.parametrize(
    ("space", "module", "dataset"),
    [
        (ls.CITYSCAPES19, "cityscapes", "CityscapesDataset"),
        (ls.CITYSCAPES19, "bdd100k", "BDD100KDataset"),
        (ls.MAPILLARY66, "mapillary", "MapillaryDataset_v1"),
        (ls.ADE20K150, "ade", "ADE20KDataset"),
    ],
)
def test_label_spaces_agree_with_mmsegmentation(space: ls.LabelSpace, module: str, dataset: str) -> None:
    info = mmseg_metainfo(module, dataset)
    assert list(space.classes) == [str(name).strip() for name in info["classes"]]  # one of ADE20K's ends in a space
    assert [list(color) for color in space.palette] == [list(color) for color in info["palette"]]  # type: ignore[call-overload]


def test_class_counts_of_the_study() -> None:
    counts = {entry.name: entry.label_space.num_classes for entry in DATASETS}
    assert counts == {
        "SynthStreet": 19, "CamVid": 11, "Cityscapes": 19, "ACDC": 19, "BDD10k": 19, "IDD-AW": 19,
        "MapillaryVistas": 66, "OUTSIDE15k": 24, "ADE20K": 150,
    }  # fmt: skip


def test_camvid_ignores_its_twelfth_label() -> None:
    assert dict(ls.CAMVID_IDS.ids)[11] == 255
    assert dict(ls.CAMVID_IDS.ids)[10] == 10


def test_ade20k_ignores_its_zero_and_counts_from_one() -> None:
    assert dict(ls.ADE20K_IDS.ids) == {0: 255, **{raw: raw - 1 for raw in range(1, 151)}}


def test_every_encoding_leads_into_its_label_space() -> None:
    for entry in DATASETS:
        for layout in entry.layouts:
            for files in layout.labels:
                targets = {t for _, t in (*files.encoding.ids, *files.encoding.colors)}
                assert targets <= {*range(entry.label_space.num_classes), 255}
                assert targets >= set(range(entry.label_space.num_classes))


def test_study_datasets_have_the_stratified_layout() -> None:
    for name in ("ACDC", "BDD10k", "IDD-AW", "MapillaryVistas", "OUTSIDE15k", "Cityscapes"):
        (layout,) = (entry for entry in DATASETS.get(name).layouts if entry.name == "stratified")
        assert layout.train.images == f"train/images/{name}"
        assert layout.val.labels == f"test/labels/{name}"


def test_conditions_are_those_of_the_study() -> None:
    assert DATASETS.get("SynthStreet").conditions == CONDITIONS
    assert set(DATASETS.get("ACDC").conditions) < set(CONDITIONS)


@pytest.mark.parametrize(
    ("classes", "palette", "message"),
    [
        (("a", "a"), ((0, 0, 0), (1, 1, 1)), "names a class twice: a"),
        (("a",), (), "1 classes but 0 colours"),
        ((), (), "0 classes"),
    ],
)
def test_label_space_refuses_nonsense(classes: tuple[str, ...], palette: tuple[ls.Color, ...], message: str) -> None:
    with pytest.raises(ProveError, match=message):
        ls.LabelSpace("x", classes, palette)


def test_by_color_refuses_two_classes_of_one_color() -> None:
    space = ls.LabelSpace("x", ("a", "b"), ((1, 2, 3), (1, 2, 3)))
    with pytest.raises(ProveError, match="'a' and 'b' share the colour"):
        ls.by_color(space)
