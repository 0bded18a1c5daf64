"""The datasets PROVE knows by name, and where each keeps its files. Data; `prove.data.scan` walks it."""

from __future__ import annotations

from dataclasses import dataclass

from prove.catalog import label_spaces as ls
from prove.catalog.label_spaces import Encoding, LabelSpace
from prove.catalog.registry import Registry

CONDITIONS = ("clear_day", "cloudy", "dawn_dusk", "foggy", "rainy", "snowy", "night")
_STUDY_NAMES = (("fog", "foggy"), ("rain", "rainy"), ("snow", "snowy"), ("lowlight", "night"), ("dusk", "dawn_dusk"))
FIRST_FOLDER = r"^([^/]+)/"


@dataclass(frozen=True)
class ConditionRule:
    """How the condition of an image (weather, time of day) follows from its sample id.

    Args:
        pattern: a regular expression searched in the id; its first group is the condition.
        names: pairs (what the group holds, in lower case; the condition that is reported).
        default: the condition where the pattern isn't found; `None` makes that an error.
    """

    pattern: str = ""
    names: tuple[tuple[str, str], ...] = ()
    default: str | None = "all"


@dataclass(frozen=True)
class SplitFolders:
    """Image and label folder of a split, relative to the dataset's root.

    ``{condition}`` stands for one folder, which then begins the sample id. A wildcard pattern in `glob` (relative to
    `images`) narrows the images down.
    """

    images: str
    labels: str
    glob: str = ""


@dataclass(frozen=True)
class LabelFiles:
    """A spelling of label files: an image ``x + image_suffix`` has its label in ``x + suffix``."""

    suffix: str
    encoding: Encoding


@dataclass(frozen=True)
class Layout:
    """One way a dataset lies on disk.

    Args:
        image_suffixes: any of these; the longest that fits is taken off to give the sample id.
        labels: in order of preference; the first spelling of which a label folder holds any file is used.
        prefixes: folders under the root that may hold it all, such as the one that unpacking the archive creates.
    """

    name: str
    train: SplitFolders
    val: SplitFolders
    image_suffixes: tuple[str, ...]
    labels: tuple[LabelFiles, ...]
    condition: ConditionRule = ConditionRule()
    prefixes: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class DatasetEntry:
    """A dataset by name.

    Args:
        conditions: the conditions its images are reported by; ``("all",)`` where files don't tell.
        default_crop: (height, width) of training crops.
        generated: PROVE draws it itself.
    """

    name: str
    label_space: LabelSpace
    conditions: tuple[str, ...]
    layouts: tuple[Layout, ...]
    default_crop: tuple[int, int]
    description: str
    paper: str = ""
    generated: bool = False


def _folders(images: str, labels: str, train: str = "train", val: str = "val") -> tuple[SplitFolders, SplitFolders]:
    """Both splits from one pattern with ``{split}``."""
    train_folders = SplitFolders(images.replace("{split}", train), labels.replace("{split}", train))
    return train_folders, SplitFolders(images.replace("{split}", val), labels.replace("{split}", val))


def _stratified(name: str, image_suffixes: tuple[str, ...], labels: tuple[LabelFiles, ...]) -> Layout:
    """The original study's splits by condition; what it calls test is what it validates on."""
    return Layout(
        "stratified",
        *_folders(f"{{split}}/images/{name}", f"{{split}}/labels/{name}", val="test"),
        image_suffixes=image_suffixes,
        labels=labels,
        condition=ConditionRule(FIRST_FOLDER, _STUDY_NAMES, default=None),
    )


_TRAIN_IDS = ls.CITYSCAPES_TRAIN_IDS
_LABEL_IDS = ls.CITYSCAPES_LABEL_IDS
_BY_FOLDER = ConditionRule(FIRST_FOLDER, _STUDY_NAMES, default=None)

DATASETS: Registry[DatasetEntry] = Registry("dataset")

SYNTHSTREET = DATASETS.add(
    DatasetEntry(
        "SynthStreet",
        ls.CITYSCAPES19,
        CONDITIONS,
        (
            Layout(
                "synthstreet",
                *_folders("{split}/images", "{split}/labels"),
                image_suffixes=(".png",),
                labels=(LabelFiles(".png", _TRAIN_IDS),),
                condition=_BY_FOLDER,
            ),
        ),
        default_crop=(128, 256),
        description="Street scenes drawn by PROVE, 19 Cityscapes classes, seven conditions; nothing to download",
        generated=True,
    )
)
CAMVID = DATASETS.add(
    DatasetEntry(
        "CamVid",
        ls.CAMVID11,
        ("day", "dusk"),
        (
            Layout(
                "segnet",
                *_folders("{split}", "{split}annot"),
                image_suffixes=(".png", ".jpg"),
                labels=(LabelFiles(".png", ls.CAMVID_IDS),),
                condition=ConditionRule(r"^(0001TP)", (("0001tp", "dusk"),), default="day"),
                prefixes=("", "CamVid"),
            ),
        ),
        default_crop=(352, 480),
        description="Driving in Cambridge, 367 + 101 images in SegNet's split, 11 classes",
        paper="Brostow et al., PRL 2009; Badrinarayanan et al., PAMI 2017",
    )
)
CITYSCAPES = DATASETS.add(
    DatasetEntry(
        "Cityscapes",
        ls.CITYSCAPES19,
        ("all",),
        (
            Layout(
                "original",
                *_folders("leftImg8bit/{split}", "gtFine/{split}"),
                image_suffixes=("_leftImg8bit.png",),
                labels=(
                    LabelFiles("_gtFine_labelTrainIds.png", _TRAIN_IDS),
                    LabelFiles("_gtFine_labelIds.png", _LABEL_IDS),
                ),
            ),
            _stratified(
                "Cityscapes",
                ("_leftImg8bit.png", ".png"),
                (
                    LabelFiles("_gtFine_labelTrainIds.png", _TRAIN_IDS),
                    LabelFiles("_gtFine_labelIds.png", _LABEL_IDS),
                    LabelFiles("_leftImg8bit.png", _LABEL_IDS),
                    LabelFiles(".png", _LABEL_IDS),
                ),
            ),
        ),
        default_crop=(512, 1024),
        description="Driving in 50 German cities, 2,975 + 500 images, 19 classes",
        paper="Cordts et al., CVPR 2016",
    )
)
ACDC = DATASETS.add(
    DatasetEntry(
        "ACDC",
        ls.CITYSCAPES19,
        ("foggy", "night", "rainy", "snowy"),
        (
            Layout(
                "original",
                *_folders("rgb_anon/{condition}/{split}", "gt/{condition}/{split}"),
                image_suffixes=("_rgb_anon.png",),
                labels=(LabelFiles("_gt_labelTrainIds.png", _TRAIN_IDS), LabelFiles("_gt_labelIds.png", _LABEL_IDS)),
                condition=_BY_FOLDER,
            ),
            _stratified(
                "ACDC",
                ("_rgb_anon.png", ".png"),
                (
                    LabelFiles("_gt_labelTrainIds.png", _TRAIN_IDS),
                    LabelFiles("_gt_labelIds.png", _LABEL_IDS),
                    LabelFiles("_rgb_anon.png", _LABEL_IDS),
                    LabelFiles(".png", _LABEL_IDS),
                ),
            ),
        ),
        default_crop=(512, 512),
        description="Adverse conditions in Switzerland, 1,600 + 406 images, 19 classes",
        paper="Sakaridis et al., ICCV 2021",
    )
)
BDD10K = DATASETS.add(
    DatasetEntry(
        "BDD10k",
        ls.CITYSCAPES19,
        CONDITIONS,
        (
            Layout(
                "original",
                *_folders("images/10k/{split}", "labels/sem_seg/masks/{split}"),
                image_suffixes=(".jpg",),
                labels=(LabelFiles(".png", _TRAIN_IDS),),
                prefixes=("", "bdd100k"),
            ),
            Layout(
                "seg",
                *_folders("images/{split}", "labels/{split}"),
                image_suffixes=(".jpg",),
                labels=(LabelFiles("_train_id.png", _TRAIN_IDS),),
                prefixes=("", "seg", "bdd100k/seg"),
            ),
            _stratified(
                "BDD10k", (".jpg", ".png"), (LabelFiles("_train_id.png", _TRAIN_IDS), LabelFiles(".png", _TRAIN_IDS))
            ),
        ),
        default_crop=(512, 512),
        description="Driving in the USA, 7,000 + 1,000 images of BDD100K, 19 classes",
        paper="Yu et al., CVPR 2020",
    )
)
IDD_AW = DATASETS.add(
    DatasetEntry(
        "IDD-AW",
        ls.CITYSCAPES19,
        ("foggy", "night", "rainy", "snowy"),
        (
            Layout(
                "original",
                *_folders("{split}/{condition}/rgb", "{split}/{condition}/gtSeg"),
                image_suffixes=("_rgb.png",),
                # The archive holds polygons; its toolkit draws csTrainIds masks, whose suffix depends on its version.
                labels=tuple(
                    LabelFiles(suffix, _TRAIN_IDS)
                    for suffix in ("_mask_csTrainIds.png", "_labelcsTrainIds.png", "_csTrainIds.png", "_mask.png")
                ),
                condition=_BY_FOLDER,
                prefixes=("", "IDDAW"),
            ),
            _stratified(
                "IDD-AW",
                ("_rgb.png", ".png"),
                (
                    LabelFiles("_mask_csTrainIds.png", _TRAIN_IDS),
                    LabelFiles("_labelcsTrainIds.png", _TRAIN_IDS),
                    LabelFiles("_mask.png", _TRAIN_IDS),
                    LabelFiles("_rgb.png", _TRAIN_IDS),
                    LabelFiles(".png", _TRAIN_IDS),
                ),
            ),
        ),
        default_crop=(512, 512),
        description="Adverse weather on Indian roads, 5,000 images, as Cityscapes' 19 classes",
        paper="Shaik et al., WACV 2024",
    )
)
MAPILLARY_VISTAS = DATASETS.add(
    DatasetEntry(
        "MapillaryVistas",
        ls.MAPILLARY66,
        CONDITIONS,
        (
            Layout(
                "original",
                *_folders("{split}/images", "{split}/v1.2/labels", "training", "validation"),
                image_suffixes=(".jpg",),
                labels=(LabelFiles(".png", ls.MAPILLARY_IDS_OR_COLORS),),
            ),
            Layout(
                "original-v1.1",
                *_folders("{split}/images", "{split}/labels", "training", "validation"),
                image_suffixes=(".jpg",),
                labels=(LabelFiles(".png", ls.MAPILLARY_IDS_OR_COLORS),),
            ),
            _stratified("MapillaryVistas", (".jpg", ".png"), (LabelFiles(".png", ls.MAPILLARY_IDS_OR_COLORS),)),
        ),
        default_crop=(512, 512),
        description="Street level worldwide, 18,000 + 2,000 images, the 66 classes of v1.2",
        paper="Neuhold et al., ICCV 2017",
    )
)
OUTSIDE15K = DATASETS.add(
    DatasetEntry(
        "OUTSIDE15k",
        ls.OUTSIDE24,
        CONDITIONS,
        (
            Layout(
                "original",
                *_folders("images/{split}", "annotations/{split}", "training", "validation"),
                image_suffixes=(".jpg", ".png"),
                labels=(LabelFiles(".png", ls.OUTSIDE_IDS),),
            ),
            _stratified("OUTSIDE15k", (".jpg", ".png"), (LabelFiles(".png", ls.OUTSIDE_IDS),)),
        ),
        default_crop=(512, 512),
        description="Outdoor scenes gathered from several sets, 24 classes",
    )
)
ADE20K = DATASETS.add(
    DatasetEntry(
        "ADE20K",
        ls.ADE20K150,
        ("all",),
        (
            Layout(
                "original",
                *_folders("images/{split}", "annotations/{split}", "training", "validation"),
                image_suffixes=(".jpg",),
                labels=(LabelFiles(".png", ls.ADE20K_IDS),),
                prefixes=("", "ADEChallengeData2016"),
            ),
        ),
        default_crop=(512, 512),
        description="Scenes indoors and outdoors, 20,210 + 2,000 images, the 150 classes of the 2016 challenge",
        paper="Zhou et al., CVPR 2017",
    )
)
