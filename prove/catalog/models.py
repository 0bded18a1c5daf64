"""The models PROVE knows by name, each built from a config that ships inside mmsegmentation or PROVE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prove.catalog.registry import Registry

_WEIGHTS = "https://mmassets.onedl.ai"

WHOLE_IMAGE: Mapping[str, Any] = {"test_cfg": {"mode": "whole"}}
"""SegFormer's Cityscapes configs slide a window over the image, its ADE20K configs do not; its position encoding is
convolutional and takes any size (Xie 2021, arXiv:2105.15203, section 3.1). One protocol for all named models."""

Kind = Literal["per_pixel", "mask_classification"]


@dataclass(frozen=True)
class ModelEntry:
    """One model.

    Attributes:
        name: the study's name.
        config: path of the config below mmsegmentation's ``configs/``; one that begins with ``prove/`` is PROVE's own,
            in ``prove/build/model_configs``.
        kind: ``per_pixel`` heads minimise loss terms on logits; ``mask_classification`` heads have a set criterion of
            their own, beside which per-pixel terms are applied to the semantic map.
        crop_size: default training crop, height and width in pixels.
        base_lr: the config's learning rate, meant for ``base_batch`` images per step.
        lr_scaling: how the rate follows the batch size: ``linear`` for SGD (Goyal 2017, arXiv:1706.02677), ``sqrt``
            for Adam and its kin (Malladi 2022, arXiv:2205.10287).
        weights: URL of the pretrained backbone; None when there is none.
        min_batch: smallest batch that its batch norms can train with.
        edits: what is changed in the config's ``model``; ``_delete_`` drops what stood in that place.
        summary: one line for a list.
    """

    name: str
    config: str
    base_lr: float
    base_batch: int
    lr_scaling: Literal["linear", "sqrt"]
    summary: str
    kind: Kind = "per_pixel"
    crop_size: tuple[int, int] = (512, 512)
    weights: str | None = None
    min_batch: int = 1
    edits: Mapping[str, Any] = field(default_factory=dict)

    def lr(self, batch_size: int) -> float:
        """The learning rate for a batch size, images per step."""
        ratio = batch_size / self.base_batch
        return self.base_lr * (ratio if self.lr_scaling == "linear" else ratio**0.5)


DINOV3_WEIGHTS = "https://huggingface.co/timm/{name}.lvd1689m/resolve/main/model.safetensors"
"""timm's conversions of Meta's weights (DINOv3 licence). The name carries no hash to check the file against."""

_DINOV3 = {
    "vits16": ("small", 384, "vit_small_patch16_dinov3"),
    "vitb16": ("base", 768, "vit_base_patch16_dinov3"),
    "vitl16": ("large", 1024, "vit_large_patch16_dinov3"),
}

_MASK2FORMER_R50 = "mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py"
_MASK2FORMER_SWIN_T = "mask2former/mask2former_swin-t_8xb2-90k_cityscapes-512x1024.py"


def _dinov3_linear(name: str, *, frozen: bool) -> ModelEntry:
    size, dim, timm_name = _DINOV3[name]
    weights = DINOV3_WEIGHTS.format(name=timm_name)
    return ModelEntry(
        f"dinov3_{name}{'_frozen' if frozen else ''}_linear",
        f"prove/dinov3{'_frozen' if frozen else ''}_linear.py",
        base_lr=0.001 if frozen else 0.0001,
        base_batch=16,
        lr_scaling="sqrt",
        weights=weights,
        edits={
            "backbone": {"size": size, "init_cfg": {"checkpoint": weights}},
            "decode_head": {"in_channels": dim, "channels": dim},
        },
        summary=f"DINOv3 {_spelled(name)}{', frozen,' if frozen else ''} with a linear head",
    )


def _dinov3_mask2former(name: str, *, frozen: bool) -> ModelEntry:
    size, dim, timm_name = _DINOV3[name]
    weights = DINOV3_WEIGHTS.format(name=timm_name)
    backbone = {
        "_delete_": True,
        "type": "DINOv3Backbone",
        "size": size,
        "layers": 4,
        "frozen": frozen,
        "init_cfg": {"type": "Pretrained", "checkpoint": weights},
    }
    return ModelEntry(
        f"dinov3_{name}{'_frozen' if frozen else ''}_mask2former",
        _MASK2FORMER_R50,
        kind="mask_classification",
        base_lr=0.0001,
        base_batch=16,
        lr_scaling="sqrt",
        weights=weights,
        edits={"backbone": backbone, **_pyramid(dim)},
        summary=f"Mask2Former on a feature pyramid over DINOv3 {_spelled(name)}{', frozen' if frozen else ''}",
    )


def _pyramid(dim: int) -> dict[str, Any]:
    """The neck between a ViT of this width and Mask2Former's head, and what the head is told of it."""
    return {
        "neck": {"type": "ViTPyramid", "dim": dim},
        "decode_head": {"in_channels": [dim // 4, dim // 2, dim, dim]},
    }


def _spelled(name: str) -> str:
    return f"ViT-{name[3].upper()}/{name[4:]}"


def _small_mask2former(in_channels: list[int]) -> dict[str, Any]:
    """Mask2Former's head with an eighth of its width, 20 queries, 2 decoder layers and 1 encoder layer."""
    wide = {"embed_dims": 32, "num_heads": 4}
    return {
        "in_channels": in_channels,
        "feat_channels": 32,
        "out_channels": 32,
        "num_queries": 20,
        "pixel_decoder": {
            "norm_cfg": {"num_groups": 8},
            "encoder": {
                "num_layers": 1,
                "layer_cfg": {"self_attn_cfg": wide, "ffn_cfg": {"embed_dims": 32, "feedforward_channels": 64}},
            },
            "positional_encoding": {"num_feats": 16},
        },
        "positional_encoding": {"num_feats": 16},
        "transformer_decoder": {
            "num_layers": 2,
            "layer_cfg": {
                "self_attn_cfg": wide,
                "cross_attn_cfg": wide,
                "ffn_cfg": {"embed_dims": 32, "feedforward_channels": 64},
            },
        },
    }


MODELS = Registry(
    "model",
    (
        ModelEntry(
            "deeplabv3plus_r50",
            "deeplabv3plus/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py",
            base_lr=0.01,
            base_batch=8,
            lr_scaling="linear",
            weights=f"{_WEIGHTS}/pretrain/third_party/resnet50_v1c-2cccc1ad.pth",
            min_batch=2,
            summary="DeepLabV3+ on ResNet-50, with an auxiliary head",
        ),
        ModelEntry(
            "pspnet_r50",
            "pspnet/pspnet_r50-d8_4xb2-80k_cityscapes-512x1024.py",
            base_lr=0.01,
            base_batch=8,
            lr_scaling="linear",
            weights=f"{_WEIGHTS}/pretrain/third_party/resnet50_v1c-2cccc1ad.pth",
            min_batch=2,
            summary="PSPNet on ResNet-50, with an auxiliary head",
        ),
        ModelEntry(
            "segformer_mit-b3",
            "segformer/segformer_mit-b3_8xb1-160k_cityscapes-1024x1024.py",
            base_lr=0.00006,
            base_batch=8,
            lr_scaling="sqrt",
            weights=f"{_WEIGHTS}/mmsegmentation/v0.5/pretrain/segformer/mit_b3_20220624-13b1141c.pth",
            edits=WHOLE_IMAGE,
            summary="SegFormer-B3",
        ),
        ModelEntry(
            "segnext_mscan-b",
            "segnext/segnext_mscan-b_1xb16-adamw-160k_ade20k-512x512.py",
            base_lr=0.00006,
            base_batch=16,
            lr_scaling="sqrt",
            weights=f"{_WEIGHTS}/mmsegmentation/v0.5/pretrain/segnext/mscan_b_20230227-3ab7d230.pth",
            summary="SegNeXt-B with a Hamburger head",
        ),
        ModelEntry(
            "hrnet_hr48",
            "hrnet/fcn_hr48_4xb2-80k_cityscapes-512x1024.py",
            base_lr=0.01,
            base_batch=8,
            lr_scaling="linear",
            weights=f"{_WEIGHTS}/pretrain/third_party/hrnetv2_w48-d2186c55.pth",
            summary="HRNetV2-W48 with an FCN head",
        ),
        ModelEntry(
            "mask2former_swin-b",
            "mask2former/mask2former_swin-b-in22k-384x384-pre_8xb2-90k_cityscapes-512x1024.py",
            kind="mask_classification",
            base_lr=0.0001,
            base_batch=16,
            lr_scaling="sqrt",
            weights=(
                f"{_WEIGHTS}/mmsegmentation/v0.5/pretrain/swin/swin_base_patch4_window12_384_22k_20220317-e5c09f74.pth"
            ),
            summary="Mask2Former on Swin-B; its set criterion is the primary loss",
        ),
        ModelEntry(
            "segformer_mit-b0",
            "segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py",
            base_lr=0.00006,
            base_batch=8,
            lr_scaling="sqrt",
            weights=f"{_WEIGHTS}/mmsegmentation/v0.5/pretrain/segformer/mit_b0_20220624-7e0fe6dd.pth",
            edits=WHOLE_IMAGE,
            summary="SegFormer-B0, trains on a laptop",
        ),
        ModelEntry(
            "deeplabv3plus_r18",
            "deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py",
            base_lr=0.01,
            base_batch=8,
            lr_scaling="linear",
            weights=f"{_WEIGHTS}/pretrain/third_party/resnet18_v1c-b5776b93.pth",
            min_batch=2,
            summary="DeepLabV3+ on ResNet-18, with an auxiliary head, trains on a laptop",
        ),
        ModelEntry(
            "fcn_tiny",
            "fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py",
            base_lr=0.01,
            base_batch=8,
            lr_scaling="linear",
            crop_size=(128, 128),
            edits={
                "backbone": {"depth": 18, "stem_channels": 8, "base_channels": 8},
                "decode_head": {"in_channels": 64, "channels": 16},
                "auxiliary_head": {"in_channels": 32, "channels": 8},
            },
            summary="A very small FCN with an auxiliary head, for tests and demonstrations; no pretrained weights",
        ),
        *(_dinov3_linear(name, frozen=frozen) for name in _DINOV3 for frozen in (False, True)),
        *(_dinov3_mask2former(name, frozen=frozen) for name in _DINOV3 for frozen in (False, True)),
        ModelEntry(
            "dinov3_tiny_linear",
            "prove/dinov3_linear.py",
            base_lr=0.0001,
            base_batch=16,
            lr_scaling="sqrt",
            crop_size=(128, 128),
            edits={
                "backbone": {"size": "tiny", "init_cfg": None},
                "decode_head": {"in_channels": 64, "channels": 64},
            },
            summary="A very small DINOv3 with a linear head, for tests and demonstrations; no pretrained weights",
        ),
        ModelEntry(
            "dinov3_tiny_mask2former",
            _MASK2FORMER_R50,
            kind="mask_classification",
            base_lr=0.0001,
            base_batch=16,
            lr_scaling="sqrt",
            crop_size=(128, 128),
            edits={
                "backbone": {"_delete_": True, "type": "DINOv3Backbone", "size": "tiny"},
                **_pyramid(64),
                "decode_head": _small_mask2former([16, 32, 64, 64]),
            },
            summary="A very small DINOv3 with a small Mask2Former, for tests and demonstrations; no pretrained weights",
        ),
        ModelEntry(
            "mask2former_tiny",
            _MASK2FORMER_SWIN_T,
            kind="mask_classification",
            base_lr=0.0001,
            base_batch=16,
            lr_scaling="sqrt",
            crop_size=(128, 128),
            edits={
                "backbone": {
                    "embed_dims": 24,
                    "depths": [1, 1, 1, 1],
                    "num_heads": [1, 2, 4, 8],
                    "drop_path_rate": 0.0,
                    "init_cfg": None,
                },
                "decode_head": _small_mask2former([24, 48, 96, 192]),
            },
            summary="A very small Mask2Former on a thin Swin, for tests and demonstrations; no pretrained weights",
        ),
    ),
)
