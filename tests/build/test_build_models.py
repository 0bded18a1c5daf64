"""What PROVE changes in a model's config is right for every model of the catalogue, against the shipped configs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.runner.checkpoint import get_external_models

from prove.build.configs import entry_of_file, load, shipped, walk
from prove.build.job_config import BuiltConfig, Placement, build_config
from prove.build.objective import for_model
from prove.catalog.losses import resolve, short
from prove.catalog.models import MODELS
from prove.cli.request import Plan, RunRequest, plan
from prove.errors import ProveError
from prove.spec import parse

NAMES = [entry.name for entry in MODELS]


@pytest.fixture
def planned(camvid: Path) -> Any:
    def of(**flags: Any) -> Plan:
        settings = {"dataset": "CamVid", "data_root": str(camvid), "pretrained": False, "device": "cpu", "threads": 1,
                    "batch_size": 2, "crop_size": "64x96", "max_iters": 200}  # fmt: skip
        return plan(RunRequest(**{**settings, **flags}))

    return of


def built(chosen: Plan, **changes: Any) -> BuiltConfig:
    return build_config(chosen.job, chosen.dataset, dataclasses.replace(chosen.placement, **changes))


def terms_of(head: Any) -> list[str]:
    return [short(parse(term["term"])) for term in head["loss_decode"]]


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_says_what_the_shipped_config_says(name: str) -> None:
    entry = MODELS.get(name)
    config = Config.fromfile(shipped(entry.config), import_custom_modules=False)
    named = re.findall(r"_(\d+)xb(\d+)-", entry.config)
    batch = int(named[0][0]) * int(named[0][1]) if named else config.auto_scale_lr.base_batch_size
    assert entry.base_lr == config.optim_wrapper.optimizer.lr
    assert entry.base_batch == batch
    assert (entry.lr_scaling == "sqrt") == (config.optim_wrapper.optimizer.type == "AdamW")
    assert (entry.kind == "per_pixel") == (config.model.decode_head.type != "Mask2FormerHead")
    if "tiny" in name:
        assert entry.weights is None
        return
    config.merge_from_dict({"model": dict(entry.edits)})
    init = config.model.backbone.get("init_cfg") or {}
    source = config.model.get("pretrained") or init.get("checkpoint")
    if source.startswith("open-mmlab://"):
        source = get_external_models()[source.removeprefix("open-mmlab://")]
    assert entry.weights == source


@pytest.mark.parametrize("name", NAMES)
def test_a_config_given_by_path_is_read_like_the_catalogue(name: str) -> None:
    entry = MODELS.get(name)
    path = shipped(entry.config)
    read = entry_of_file(path, load(path))
    for field in ("base_lr", "base_batch", "lr_scaling", "kind"):
        assert getattr(read, field) == getattr(entry, field)


@pytest.mark.parametrize("name", NAMES)
def test_classes_norms_and_sizes(name: str, planned: Any) -> None:
    chosen = planned(model=name)
    model = built(chosen).config.model
    counts = [node["num_classes"] for node in walk(model) if "num_classes" in node]
    assert counts
    assert set(counts) == {11}
    assert "SyncBN" not in str(model)
    assert "Pretrained" not in str(model)
    assert model.get("pretrained") is None
    assert model.data_preprocessor["size"] == (64, 96)
    assert model.data_preprocessor["seg_pad_val"] == 255
    assert "size_divisor" not in model.data_preprocessor
    heads = [head for key in ("decode_head", "auxiliary_head") if (head := model.get(key)) is not None]
    assert all(head["ignore_index"] == 255 for head in heads)
    if MODELS.get(name).kind == "mask_classification":
        assert model.decode_head["type"] == "SemanticMask2FormerHead"
    else:
        assert [terms_of(head) for head in heads] == [["ce"], ["0.4*ce"]][: len(heads)]


DINOV3 = [entry.name for entry in MODELS if entry.name.startswith("dinov3_vit")]


@pytest.mark.parametrize("name", DINOV3)
def test_a_dinov3_is_what_its_name_says(name: str, planned: Any) -> None:
    """Size, freezing, head and the file that timm keeps the weights of this size in."""
    import timm

    _, size, *frozen, head = name.split("_")
    chosen = planned(model=name, pretrained=True)
    model = built(chosen).config.model
    full = {"vits16": "small", "vitb16": "base", "vitl16": "large"}[size]
    assert model.backbone["size"] == full
    assert model.backbone["frozen"] == (frozen == ["frozen"])
    published = timm.models.get_pretrained_cfg(f"vit_{full}_patch16_dinov3.lvd1689m")
    assert published is not None
    hub = published.hf_hub_id
    assert model.backbone["init_cfg"]["checkpoint"] == f"https://huggingface.co/{hub}/resolve/main/model.safetensors"
    assert published.mean == pytest.approx([value / 255 for value in model.data_preprocessor["mean"]], abs=1e-4)
    assert published.std == pytest.approx([value / 255 for value in model.data_preprocessor["std"]], abs=1e-4)
    width = timm.create_model(f"vit_{full}_patch16_dinov3", num_classes=0, depth=1).embed_dim
    if head == "linear":
        assert model.decode_head["in_channels"] == model.decode_head["channels"] == width
        assert "neck" not in model
    else:
        assert model.neck == {"type": "ViTPyramid", "dim": width}
        assert model.decode_head["in_channels"] == [width // 4, width // 2, width, width]


def test_mask2former_on_dinov3_has_the_shipped_head(planned: Any) -> None:
    """Nothing but the widths of its inputs differs from the head that mask2former_swin-b has."""
    swin, dinov3 = (
        dict(built(planned(model=name)).config.model.decode_head)
        for name in ("mask2former_swin-b", "dinov3_vits16_mask2former")
    )
    assert swin.pop("in_channels") != dinov3.pop("in_channels")
    assert swin == dinov3


def test_slide_inference_of_a_config_file_follows_the_crop(planned: Any) -> None:
    """SegFormer's config slides windows of 1024 in steps of 768."""
    path = shipped(MODELS.get("segformer_mit-b0").config)
    chosen = planned(model=str(path))
    test = build_config(chosen.job, chosen.dataset, chosen.placement, model_file=path).config.model.test_cfg
    assert (test.mode, test.crop_size, test.stride) == ("slide", (64, 96), (48, 72))


@pytest.mark.parametrize("name", NAMES)
def test_named_models_see_the_whole_image(name: str, planned: Any) -> None:
    """One protocol of evaluation for all of them."""
    assert built(planned(model=name)).config.model.test_cfg.mode == "whole"


@pytest.mark.parametrize(("name", "rate"), [("deeplabv3plus_r50", 0.01 * 2), ("segformer_mit-b3", 0.00006 * 2**0.5)])
def test_learning_rate_follows_the_batch_size(name: str, rate: float, planned: Any) -> None:
    """Linearly for SGD, with the square root for Adam; both configs are meant for 8 images per step."""
    chosen = planned(model=name, batch_size=16)
    assert chosen.job.train.lr == pytest.approx(rate)
    assert built(chosen).config.optim_wrapper.optimizer.lr == chosen.job.train.lr
    assert planned(model=name, lr=0.5).job.train.lr == 0.5


def test_mixed_precision_on_cuda_only(planned: Any) -> None:
    chosen = planned(model="fcn_tiny")
    assert built(chosen).config.optim_wrapper.type == "OptimWrapper"
    assert built(chosen, cuda=True).config.optim_wrapper.type == "AmpOptimWrapper"
    assert built(planned(model="fcn_tiny", amp=False), cuda=True).config.optim_wrapper.type == "OptimWrapper"


def test_where_a_job_runs_is_no_part_of_it(planned: Any, camvid: Path) -> None:
    one, other = planned(model="fcn_tiny"), planned(model="fcn_tiny", threads=2, workers=3)
    assert one.placement != other.placement
    assert one.job.key == other.job.key
    elsewhere = Placement(source="CamVid", data_root=str(camvid), num_workers=2, threads=4, cuda=True)
    assert built(one).heads == build_config(one.job, one.dataset, elsewhere).heads


@pytest.mark.parametrize(
    "name", ["fcn_tiny", "segformer_mit-b0", "mask2former_swin-b", "dinov3_vits16_linear", "dinov3_vits16_mask2former"]
)
def test_the_written_config_reads_back_the_same(name: str, planned: Any, tmp_path: Path) -> None:
    config = built(planned(model=name, loss="ce + 0.5->0.1*focal(gamma=2) + 0.1*dice")).config
    path = tmp_path / "config.py"
    path.write_text(config.pretty_text)
    assert Config.fromfile(path, import_custom_modules=False).to_dict() == config.to_dict()


def test_terms_reach_every_head(planned: Any) -> None:
    model = built(planned(model="deeplabv3plus_r18", aux_loss="lovasz")).config.model
    terms = [terms_of(head) for head in (model.decode_head, model.auxiliary_head)]
    assert terms == [["ce", "0.3*lovasz"], ["0.4*ce", "0.3*lovasz"]]


@pytest.mark.parametrize(
    ("loss", "iterations"),
    [("ce + constant(0.3, start=0.96)*focal", 20), ("ce + 0->0.3*focal", 1)],
)
def test_a_term_that_never_weighs_anything_is_refused(loss: str, iterations: int, planned: Any) -> None:
    settings = {"dataset": "SynthStreet", "data_root": None, "model": "fcn_tiny", "eval_interval": 1}
    with pytest.raises(ProveError, match=rf"focal' weighs nothing in any of the {iterations} iterations"):
        planned(loss=loss, max_iters=iterations, **settings)


def test_a_term_that_weighs_something_once_is_planned_and_a_proof_asks_for_no_weight(planned: Any) -> None:
    assert planned(model="fcn_tiny", loss="ce + constant(0.3, start=0.95)*focal", max_iters=20)
    assert planned(model="fcn_tiny", loss="ce + 0->0.3*focal", max_iters=2)
    late = RunRequest(model="fcn_tiny", loss="ce + constant(0.3, start=0.5)*focal", max_iters=1, eval_interval=1)
    assert plan(late, proof_only=True).job.loss.labels == ("ce", "focal")


@pytest.mark.parametrize(
    ("asked", "minimised"),
    [
        ("ce", "m2f"),
        ("ce + 0.3*focal", "m2f + 0.3*focal"),
        ("m2f + 0.3*focal", "m2f + 0.3*focal"),
        ("ce(label_smoothing=0.1)", "m2f + ce(label_smoothing=0.1)"),
    ],
)
def test_mask_classification_keeps_its_criterion(asked: str, minimised: str, planned: Any) -> None:
    assert short(for_model(resolve(parse(asked)), "mask_classification", "mask2former_swin-b")) == minimised
    chosen = planned(model="mask2former_swin-b", loss=asked)
    assert short(chosen.job.loss) == minimised
    head = built(chosen).config.model.decode_head
    assert head["type"] == "SemanticMask2FormerHead"
    assert len(head["semantic_terms"]) == minimised.count("+")


def test_a_per_pixel_model_has_no_set_criterion(planned: Any) -> None:
    with pytest.raises(ProveError, match="set criterion of mask-classification models; fcn_tiny has per-pixel heads"):
        planned(model="fcn_tiny", loss="m2f + 0.3*focal")
