"""The tables of label maps, held against what others published."""

from __future__ import annotations

import csv
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from test_datasets import CITYSCAPES_LABELS, mmseg_metainfo

from prove.catalog import label_spaces as ls
from prove.catalog.label_maps import LABEL_MAPS, LabelMap, MapRow, has_map, known_space, label_map, targets, unified
from prove.cli.label_maps import as_markdown
from prove.errors import ProveError

VISTAS = LABEL_MAPS.get("mapillary66 to cityscapes19")

# MSeg (Lambert et al., CVPR 2020), MSeg_master.tsv: classes of Vistas that share a universal class with one of
# Cityscapes' 19.
MSEG = {
    "road": "Pothole; Parking; Road; Bike Lane; Service Lane; Crosswalk - Plain; Lane Marking - General; "
    "Lane Marking - Crosswalk",
    "sidewalk": "Sidewalk; Curb; Curb Cut; Pedestrian Area",
    "building": "Building; Phone Booth",
    "wall": "Wall",
    "fence": "Fence",
    "pole": "Utility Pole; Pole",
    "traffic light": "Traffic Light",
    "traffic sign": "Traffic Sign (Back); Traffic Sign (Front); Traffic Sign Frame",
    "vegetation": "Vegetation",
    "terrain": "Terrain; Sand",
    "sky": "Sky",
    "person": "Person",
    "rider": "Other Rider; Bicyclist; Motorcyclist",
    "car": "Car; Caravan",
    "truck": "Truck",
    "bus": "Bus",
    "train": "On Rails",
    "motorcycle": "Motorcycle",
    "bicycle": "Bicycle",
}
# Where Cityscapes' own definitions say otherwise than MSeg: what is there parking, caravan or the back of a sign is
# ignored, what carries a sign is pole, and a booth is no house.
NOT_AS_MSEG = {
    "Parking": None,
    "Phone Booth": None,
    "Traffic Sign (Back)": None,
    "Traffic Sign Frame": "pole",
    "Caravan": None,
}

# The tables of the original study's code: class: target; what is not named is ignored.
STUDY = {
    "mapillary66 to cityscapes19": {
        "road": "Road; Bike Lane; Service Lane; Lane Marking - General; Lane Marking - Crosswalk",
        "sidewalk": "Sidewalk; Curb Cut; Pedestrian Area; Curb; Crosswalk - Plain",
        "building": "Building; Bridge; Tunnel",
        "wall": "Wall; Barrier",
        "fence": "Fence; Guard Rail",
        "pole": "Pole; Utility Pole; Traffic Sign Frame; Street Light",
        "traffic light": "Traffic Light",
        "traffic sign": "Traffic Sign (Front); Traffic Sign (Back)",
        "vegetation": "Vegetation",
        "terrain": "Terrain; Sand; Mountain",
        "sky": "Sky",
        "person": "Person",
        "rider": "Bicyclist; Motorcyclist; Other Rider",
        "car": "Car",
        "truck": "Truck",
        "bus": "Bus",
        "train": "On Rails",
        "motorcycle": "Motorcycle",
        "bicycle": "Bicycle",
    },
    "outside24 to cityscapes19": {
        "fence": "barrier",
        "bicycle": "bicycle",
        "building": "building; tunnel",
        "vegetation": "grass; vegetation",
        "terrain": "ground; mountain; sand",
        "person": "person",
        "pole": "pole; street light",
        "road": "road",
        "sidewalk": "sidewalk",
        "traffic sign": "sign",
        "sky": "sky",
        "traffic light": "traffic light",
        "car": "vehicle",
    },
    "cityscapes19 to union42": {
        **{name: name for name in ls.CITYSCAPES19.classes if name != "rider"},
        "bicyclist": "rider",
    },
    "mapillary66 to union42": {
        "road": "Road; Service Lane",
        "sidewalk": "Sidewalk; Curb Cut; Pedestrian Area",
        "parking": "Parking",
        "rail track": "Rail Track",
        "bike lane": "Bike Lane",
        "building": "Building",
        "wall": "Wall",
        "fence": "Fence",
        "guard rail": "Guard Rail",
        "bridge": "Bridge",
        "tunnel": "Tunnel",
        "barrier": "Curb; Barrier",
        "pole": "Pole; Traffic Sign Frame",
        "traffic light": "Traffic Light",
        "traffic sign": "Traffic Sign (Back); Traffic Sign (Front)",
        "street light": "Street Light",
        "utility pole": "Utility Pole",
        "other object": "Banner; Bench; Bike Rack; Billboard; Catch Basin; CCTV Camera; Fire Hydrant; Junction Box; "
        "Mailbox; Manhole; Phone Booth; Pothole; Trash Can",
        "vegetation": "Vegetation",
        "terrain": "Terrain; Sand",
        "sky": "Sky",
        "water": "Water",
        "snow": "Snow",
        "mountain": "Mountain",
        "person": "Person",
        "bicyclist": "Bicyclist",
        "motorcyclist": "Motorcyclist",
        "other rider": "Other Rider",
        "car": "Car",
        "truck": "Truck",
        "bus": "Bus",
        "train": "On Rails",
        "motorcycle": "Motorcycle",
        "bicycle": "Bicycle",
        "caravan": "Caravan",
        "trailer": "Trailer",
        "boat": "Boat",
        "other vehicle": "Other Vehicle",
        "wheeled slow": "Wheeled Slow",
        "animal": "Bird; Ground Animal",
        "lane marking": "Lane Marking - General",
        "crosswalk": "Crosswalk - Plain; Lane Marking - Crosswalk",
    },
}


def by_class(table: dict[str, str]) -> dict[str, str]:
    return {name: target for target, names in table.items() for name in names.split("; ")}


def rows_on_file() -> list[dict[str, str]]:
    return list(csv.DictReader((files("prove.catalog") / "label_maps.csv").read_text(encoding="utf-8").splitlines()))


def test_every_class_of_vistas_has_a_row_by_the_names_of_mmsegmentation() -> None:
    names = mmseg_metainfo("mapillary", "MapillaryDataset_v1")["classes"]
    for target in ("cityscapes19", "union42"):
        assert [
            row["class"] for row in rows_on_file() if (row["source"], row["target"]) == ("mapillary66", target)
        ] == [
            *names  # type: ignore[misc]
        ]


def test_every_source_class_goes_somewhere_or_says_why_not() -> None:
    rows = rows_on_file()
    for source, target in {(row["source"], row["target"]) for row in rows}:
        chosen = [row for row in rows if (row["source"], row["target"]) == (source, target)]
        assert [row["class"] for row in chosen] == [*ls.LABEL_SPACES.get(source).classes]
        for row in chosen:
            if row["target_class"] == "ignore":
                assert row["note"]
            else:
                assert row["target_class"] in ls.LABEL_SPACES.get(target).classes
            assert set(row["study"].split()) <= set(" ".join((*ls.LABEL_SPACES.get(target).classes, "ignore")).split())


def test_label_ids_lead_where_cityscapes_published_that_they_do() -> None:
    found = LABEL_MAPS.get("cityscapes34 to cityscapes19")
    rows = [row.split() for row in CITYSCAPES_LABELS.replace("\n", " ").split(";")]
    assert [" ".join(name) for _, *name, _ in rows] == [*found.source.classes]
    assert [found.train_id(k) for k in range(34)] == [int(train_id) for *_, train_id in rows]
    assert dict(ls.CITYSCAPES_LABEL_IDS.ids) == {**{k: found.train_id(k) for k in range(34)}, 255: 255}


def test_vistas_goes_where_mseg_puts_it_but_for_what_cityscapes_defines_otherwise() -> None:
    mseg = by_class(MSEG)
    differing = {row.source: row.target for row in VISTAS.rows if row.target != mseg.get(row.source)}
    assert differing == NOT_AS_MSEG


@pytest.mark.parametrize("name", STUDY)
def test_the_table_says_where_the_original_study_put_a_class(name: str) -> None:
    study = by_class(STUDY[name])
    for row in LABEL_MAPS.get(name).rows:
        ours = row.target or "ignore"
        expected = study.get(row.source, "ignore")
        assert (row.study or ours) == expected, row
        assert row.study != ours


def test_the_union_has_the_studys_42_classes_each_reached_from_somewhere() -> None:
    assert [*ls.UNION42.classes] == [
        "road", "sidewalk", "parking", "rail track", "bike lane", "building", "wall", "fence", "guard rail", "bridge",
        "tunnel", "barrier", "pole", "traffic light", "traffic sign", "street light", "utility pole", "other object",
        "vegetation", "terrain", "sky", "water", "snow", "mountain", "person", "bicyclist", "motorcyclist",
        "other rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "caravan", "trailer", "boat",
        "other vehicle", "wheeled slow", "animal", "lane marking", "crosswalk",
    ]  # fmt: skip
    for space in (ls.CITYSCAPES19, ls.UNION42):
        unreached = set.intersection(*(set(each.unreachable) for each in LABEL_MAPS if each.target == space))
        assert unreached == set()
    assert len(set(ls.UNION42.palette)) == 42


def test_classes_of_one_name_are_one_class() -> None:
    for each in LABEL_MAPS:
        for row in each.rows:
            same = next((name for name in each.target.classes if name.lower() == row.source.lower()), None)
            if same is not None and not (row.source == "barrier" and row.note):
                assert row.target == same, row


def test_what_nothing_leads_to_is_said() -> None:
    assert LABEL_MAPS.get("outside24 to cityscapes19").unreachable == (
        "wall", "fence", "rider", "truck", "bus", "train", "motorcycle",
    )  # fmt: skip
    assert VISTAS.unreachable == ()


@pytest.mark.parametrize("each", LABEL_MAPS, ids=lambda each: each.name)
def test_an_encoding_is_mapped_value_by_value(each: LabelMap) -> None:
    encoding = ls.by_color(each.source) if each.source.name != "cityscapes34" else ls.train_ids(each.source)
    mapped = unified(encoding, each)
    table = {r["class"]: r["target_class"] for r in rows_on_file() if f"{r['source']} to {r['target']}" == each.name}
    for k, name in enumerate(each.source.classes):
        target = table[name]
        expected = 255 if target == "ignore" else list(each.target.classes).index(target)
        assert dict(mapped.ids)[k] == expected
        if encoding.colors:
            assert dict(mapped.colors)[each.source.palette[k]] == expected
    assert dict(mapped.ids)[255] == 255


A, B = ls.LabelSpace("a", ("x", "y"), ((0, 0, 0), (1, 1, 1))), ls.LabelSpace("b", ("z",), ((0, 0, 0),))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((MapRow("x", "z"),), "every class of 'a' once, in its order; see y"),
        ((MapRow("x", "z"), MapRow("x", "z"), MapRow("y", "z")), "once, in its order; see x"),
        ((MapRow("y", "z"), MapRow("x", "z")), "once, in its order"),
        ((MapRow("x", "z"), MapRow("y", "q")), "'y' leads to 'q', which is no class"),
        ((MapRow("x", "z"), MapRow("y", None)), "ignores 'y' and doesn't say why"),
    ],
)
def test_a_faulty_table_is_refused(rows: tuple[MapRow, ...], said: str) -> None:
    with pytest.raises(ProveError, match=said):
        LabelMap(A, B, rows)


def test_the_digest_is_of_what_the_map_does() -> None:
    first = VISTAS.rows[0]
    renoted = replace(VISTAS, rows=(replace(first, note="another reason"), *VISTAS.rows[1:]))
    moved = replace(VISTAS, rows=(replace(first, target="sky"), *VISTAS.rows[1:]))
    assert renoted.digest == VISTAS.digest != moved.digest


def test_a_space_of_ones_own_with_known_classes_is_that_space() -> None:
    own = ls.LabelSpace("Mine", ls.CAMVID11.classes, ls.CAMVID11.palette)
    assert known_space(own) == ls.CAMVID11
    assert label_map(own, ls.CITYSCAPES19, dataset="Mine").name == "camvid11 to cityscapes19"
    assert not has_map(A, ls.CITYSCAPES19)
    assert targets() == ("cityscapes19", "union42")


def test_without_a_map_it_is_refused_by_name() -> None:
    with pytest.raises(ProveError, match=r"labels of ACDC \(cityscapes19\) can't be read as 'mapillary66'") as caught:
        label_map(ls.CITYSCAPES19, ls.MAPILLARY66, dataset="ACDC")
    assert caught.value.hint == "cityscapes19 can be read as union42."
    with pytest.raises(ProveError, match=r"labels of Yard can't be read as 'union42': no map knows its 2 classes"):
        label_map(A, ls.UNION42, dataset="Yard")


def test_the_page_prints_the_tables_as_they_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "label_maps.md").read_text(encoding="utf-8")
    assert page.endswith("\n".join(as_markdown(each) for each in LABEL_MAPS))
