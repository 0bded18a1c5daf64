"""A model given as a config file: what PROVE takes, and what it refuses with a word."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import pytest

from prove.build.configs import digest, entry_of_file, load, shipped
from prove.build.job_config import build_config
from prove.cli.request import Plan, RunRequest, plan
from prove.errors import ProveError

FCN = """
_base_ = [{base!r}]
model = dict(decode_head=dict(dropout_ratio=0.25), pretrained=None)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.02))
param_scheduler = [dict(type="PolyLR", power=0.9, begin=0, end=4000, by_epoch=False)]
"""


@pytest.fixture
def planned(camvid: Path) -> Any:
    def of(model: object, **flags: Any) -> Plan:
        settings = {"dataset": "CamVid", "data_root": str(camvid), "pretrained": False, "device": "cpu", "threads": 1,
                    "batch_size": 2, "crop_size": "64x64", "max_iters": 20}  # fmt: skip
        return plan(RunRequest(model=str(model), **{**settings, **flags}))

    return of


@pytest.fixture
def fcn(tmp_path: Path) -> Path:
    """A user's config, which inherits a base beside it by a relative path."""
    (tmp_path / "base.py").write_text(shipped("_base_/models/fcn_r50-d8.py").read_text())
    path = tmp_path / "mine.py"
    path.write_text(FCN.format(base="./base.py"))
    return path


def test_a_users_file_travels_with_its_run(fcn: Path, planned: Any, tmp_path: Path) -> None:
    chosen = planned(fcn)
    fcn.unlink()
    (tmp_path / "base.py").unlink()
    copy = tmp_path / "run" / "model.py"
    copy.parent.mkdir()
    copy.write_text(chosen.model_config)
    config = build_config(chosen.job, chosen.dataset, chosen.placement, model_file=copy).config
    assert config.model.decode_head["dropout_ratio"] == 0.25
    assert config.model.decode_head["num_classes"] == 11
    assert config.optim_wrapper.optimizer.lr == pytest.approx(0.02 * 2)  # linear; no batch size named: one image
    copy.write_text(chosen.model_config.replace("0.25", "0.5"))
    with pytest.raises(ProveError, match="no longer the config that this job was made from"):
        build_config(chosen.job, chosen.dataset, chosen.placement, model_file=copy)


def test_the_key_follows_what_the_file_defines(fcn: Path, planned: Any) -> None:
    key = planned(fcn).job.key
    fcn.write_text("# a comment\n" + fcn.read_text() + 'data_root = "/elsewhere"\n')
    assert planned(fcn).job.key == key
    fcn.write_text(fcn.read_text().replace("dropout_ratio=0.25", "dropout_ratio=0.5"))
    assert planned(fcn).job.key != key


def test_the_key_does_not_follow_the_files_name(fcn: Path, planned: Any, tmp_path: Path) -> None:
    one = planned(fcn).job
    other = planned(fcn.rename(tmp_path / "renamed.py")).job
    assert (one.model.name, other.model.name) == ("mine", "renamed")
    assert one.key == other.key


@pytest.mark.parametrize(
    ("addition", "same"),
    [
        ("train_cfg = dict(type='IterBasedTrainLoop', max_iters=8000, val_interval=100)", False),
        ("train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=80)", False),
        ("train_cfg = dict(val_interval=100)", True),  # PROVE's own is used
        ("model['test_cfg'] = dict(mode='slide', crop_size=(64, 64), stride=(32, 32))", False),
        ("model['data_preprocessor']['mean'] = [0.0, 0.0, 0.0]", False),
        ("optim_wrapper['clip_grad'] = dict(max_norm=1.0)", False),
        ("param_scheduler[0]['power'] = 1.0", False),
        ("data_root = '/elsewhere'", True),
    ],
)
def test_the_digest_follows_all_that_a_job_takes(addition: str, same: bool, fcn: Path) -> None:
    flat = load(fcn).pretty_text
    fcn.write_text(flat)
    before = digest(load(fcn))
    fcn.write_text(f"{flat}\n{addition}\n")
    assert (digest(load(fcn)) == before) == same


@pytest.mark.parametrize(
    "text",
    [
        "model['pretrained'] = '{}'",
        "model['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='{}')",
        "model['backbone']['init_cfg'] = [dict(type='Pretrained', checkpoint='{}')]",
    ],
)
def test_where_weights_lie_is_no_part_of_the_digest(text: str, fcn: Path) -> None:
    flat = load(fcn).pretty_text

    def of(source: str) -> str:
        fcn.write_text(flat + "\n" + text.format(source) + "\n")
        config = load(fcn)
        found = digest(config)
        assert source in config.pretty_text  # what a run reads stays as it is
        return found

    assert of("/home/one/resnet.pth") == of("/data/resnet.pth") == of("~/weights/resnet.pth")
    assert of("/data/other.pth") != of("/data/resnet.pth")
    assert of("https://a.example/resnet.pth") != of("https://b.example/resnet.pth")


def test_the_digest_survives_writing_and_reading(fcn: Path, tmp_path: Path) -> None:
    config = load(fcn)
    again = tmp_path / "again.py"
    again.write_text(config.pretty_text)
    assert digest(load(again)) == digest(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = dict(", "can't be read as an MMSegmentation config: .*(SyntaxError|parse)"),
        ("_base_ = './nowhere.py'\n", "can't be read as an MMSegmentation config: .*nowhere.py"),
        ("x = undefined_name\n", "can't be read as an MMSegmentation config: .*undefined_name"),
        ("model = dict(type='MaskRCNN')\n", "defines no `model` with a `decode_head`"),
        ("x = 1\n", "defines no `model` with a `decode_head`"),
        ("model = dict(decode_head=dict(type='FCNHead', num_classes=2))\n", "sets no `optim_wrapper.optimizer.lr`"),
    ],
)
def test_a_broken_file_is_a_clear_message(text: str, message: str, planned: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(ProveError, match=message) as caught:
        planned(path)
    assert str(path) in caught.value.message
    del caught
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MMEngine leaves its copy of such a file open
        gc.collect()


def test_a_missing_file_is_a_clear_message(planned: Any, tmp_path: Path) -> None:
    with pytest.raises(ProveError, match=r"There is no config file .*absent\.py"):
        planned(tmp_path / "absent.py")


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("custom_imports = dict(imports=['my_lab.heads'])\n", "imports 'my_lab.heads' with custom_imports"),
        ("model['decode_head']['sampler'] = dict(type='OHEMPixelSampler')\n", "decode_head has a pixel sampler"),
        ("del data_preprocessor, model['data_preprocessor']\n", "has no `data_preprocessor`"),
        ("optim_wrapper['accumulative_counts'] = 4\n", "adds up the gradients of 4 batches"),
        ("model['pretrained'] = 'a.pth'\nmodel['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='b.pth')\n",
         "weights from 2 places: a.pth, b.pth"),
        ("model['backbone']['pretrained'] = True\n", "has `pretrained=True` in its ResNetV1c"),
        ("model['pretrained'] = True\n", "has `pretrained=True` in its EncoderDecoder"),
    ],
)  # fmt: skip
def test_what_would_train_otherwise_than_asked_is_refused(addition: str, message: str, fcn: Path, planned: Any) -> None:
    flat = load(fcn).pretty_text
    fcn.write_text(flat + "\n" + addition)
    with pytest.raises(ProveError, match=message):
        planned(fcn)


@pytest.mark.parametrize(
    ("config", "head"),
    [
        ("danet/danet_r50-d8_4xb2-40k_cityscapes-512x1024.py", "DAHead"),
        ("ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py", "DDRHead"),
        ("encnet/encnet_r50-d8_4xb2-40k_cityscapes-512x1024.py", "EncHead"),
        ("fastfcn/fastfcn_r50-d32_jpu_enc_4xb2-80k_cityscapes-512x1024.py", "EncHead"),
        ("knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py", "IterativeDecodeHead"),
        ("maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py", "MaskFormerHead"),
        ("pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py", "PIDHead"),
        ("point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py", "PointHead"),
        ("san/san-vit-b16_coco-stuff164k-640x640.py", "SideAdapterCLIPHead"),
        ("vpd/vpd_sd_4xb8-25k_nyu-480x480.py", "VPDDepthHead"),
        ("stdc/stdc1_4xb12-80k_cityscapes-512x1024.py", "OHEMPixelSampler"),
        ("convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py", "mmpretrain"),
    ],
)
def test_families_with_losses_of_their_own_are_refused(config: str, head: str, planned: Any) -> None:
    with pytest.raises(ProveError, match=head):
        planned(shipped(config))


def test_a_per_pixel_head_beside_a_set_criterion_is_refused(planned: Any, tmp_path: Path) -> None:
    """An objective such as ``m2f`` has no meaning there."""
    base = load(shipped("mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py")).pretty_text
    path = tmp_path / "both.py"
    path.write_text(base + "\nmodel['auxiliary_head'] = dict(type='FCNHead', in_channels=1024, channels=8)\n")
    with pytest.raises(ProveError, match="decode_head has a set criterion and its auxiliary_head, a FCNHead"):
        planned(path, loss="m2f")


def issubclass_of(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base) and kind.__module__.startswith("mmseg.")


def test_every_head_with_losses_of_its_own_is_known() -> None:
    """Whoever overrides `loss` or `loss_by_feat` in MMSegmentation is refused, Mask2Former apart."""
    from prove.build.supported import OWN_LOSSES
    from prove.training.stack import load_stack

    load_stack()
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.registry import MODELS

    base = BaseDecodeHead
    heads = {name: kind for name, kind in MODELS.module_dict.items() if issubclass_of(kind, base)}
    own = {name for name, kind in heads.items() if kind.loss_by_feat is not base.loss_by_feat}
    cascade = {name for name, kind in heads.items() if kind.loss is not base.loss} - own  # one more input, same losses
    assert len(heads) > 30
    assert own == set(OWN_LOSSES) - {"MaskFormerHead"}  # that one and Mask2FormerHead are MMDetection's
    assert cascade == {"OCRHead"}


@pytest.mark.parametrize(
    ("config", "paths"),
    [
        ("ocrnet/ocrnet_hr18s_4xb2-40k_cityscapes-512x1024.py", ["decode_head.0", "decode_head.1"]),
        ("bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py",
         ["decode_head", *(f"auxiliary_head.{i}" for i in range(4))]),
        ("upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py", ["decode_head", "auxiliary_head"]),
    ],
)  # fmt: skip
def test_every_head_of_a_shipped_config_is_planned(config: str, paths: list[str], planned: Any, tmp_path: Path) -> None:
    chosen = planned(shipped(config), aux_loss="focal")
    copy = tmp_path / "model.py"
    copy.write_text(chosen.model_config)
    built = build_config(chosen.job, chosen.dataset, chosen.placement, model_file=copy)
    assert [head.path for head in built.heads] == paths
    assert all(len(head.terms) == 2 for head in built.heads)
    assert "SyncBN" not in str(built.config.model)


def test_a_whole_checkpoint_to_start_from_is_refused(tmp_path: Path) -> None:
    """It would be dropped without a word: the run would start from other weights than its config says."""
    path = tmp_path / "finetune.py"
    path.write_text(
        f"_base_ = ['{shipped('fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py')}']\nload_from = 'last.pth'\n"
    )
    with pytest.raises(ProveError, match="load_from"):
        entry_of_file(path, load(path))
