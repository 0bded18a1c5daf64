"""DINOv3 for MMSegmentation: the backbone out of timm, a feature pyramid on it, and a linear head.

timm is imported where a model is built: it takes a second that no other model has any use for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from prove.errors import ProveError, unknown
from prove.training.dinov3_weights import load_dinov3

PATCH = 16

SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": (
        "vit_small_patch16_dinov3",
        # Blocks that a pretrained ViT's layer scale of 1e-5 does not silence at the start.
        {"embed_dim": 64, "depth": 4, "num_heads": 4, "init_values": 1.0},
    ),
    "small": ("vit_small_patch16_dinov3", {}),
    "base": ("vit_base_patch16_dinov3", {}),
    "large": ("vit_large_patch16_dinov3", {}),
}
"""timm's name of each size, and what is changed in it; ``tiny`` is for tests."""


@MODELS.register_module()
class DINOv3Backbone(BaseModule):  # type: ignore[misc]
    """A ViT/16 of DINOv3 (Siméoni 2025, arXiv:2508.10104), as timm builds it.

    Images go in as [N, 3, H, W], normalised; out comes a tuple of maps [N, D, ceil(H/16), ceil(W/16)]: the patch tokens
    of ``layers`` evenly spaced blocks, the last one among them (of 12 blocks and four maps: 3, 6, 9, 12), each through
    the ViT's final layer norm, as in DINOv3's own dense tasks. Each map covers exactly the image: one whose sides don't
    divide by 16 is resized up to the next size that does. Padding it instead would shift what a head stretches over the
    image, by up to 15 pixels.

    Args:
        size: one of `SIZES`.
        layers: how many maps; a divisor of the number of blocks.
        frozen: no gradient, no change, evaluation mode for ever.
        init_cfg: ``dict(type="Pretrained", checkpoint=FILE)``, a file that `load_dinov3` reads; None keeps timm's
            random initialisation.

    Raises:
        ProveError: an unknown size, an impossible number of layers, or an ``init_cfg`` of another type.
    """

    def __init__(
        self, size: str = "small", layers: int = 4, frozen: bool = False, init_cfg: dict[str, Any] | None = None
    ) -> None:
        import timm

        super().__init__(init_cfg)
        if size not in SIZES:
            raise unknown("DINOv3 size", size, SIZES)
        if init_cfg is not None and init_cfg.get("type") != "Pretrained":
            raise ProveError(
                f"DINOv3Backbone knows no init_cfg of type {init_cfg.get('type')!r}.",
                hint="Write dict(type='Pretrained', checkpoint='FILE or URL'), or None for random weights.",
            )
        name, changes = SIZES[size]
        self.vit: Any = timm.create_model(name, pretrained=False, num_classes=0, **changes)
        depth = len(self.vit.blocks)
        if not 1 <= layers <= depth or depth % layers:
            raise ProveError(f"A DINOv3 of size {size!r} has {depth} blocks, of which {layers} can't be evenly spaced.")
        self.size = size
        self.out_layers = tuple(depth * k // layers - 1 for k in range(1, layers + 1))
        self.frozen = frozen
        if frozen:
            self.vit.requires_grad_(False)
            self.vit.eval()

    def init_weights(self) -> None:
        """Read the pretrained weights, if there are any."""
        if self.init_cfg is not None:
            load_dinov3(self.vit, Path(self.init_cfg["checkpoint"]))
        self._is_init = True

    def train(self, mode: bool = True) -> DINOv3Backbone:
        """As any module, except that a frozen ViT stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.vit.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        height, width = (-(-side // PATCH) * PATCH for side in images.shape[-2:])
        if (height, width) != tuple(images.shape[-2:]):
            images = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.vit.forward_intermediates(
                images, indices=list(self.out_layers), norm=True, intermediates_only=True
            )
        return tuple(maps)


@MODELS.register_module()
class ViTPyramid(BaseModule):  # type: ignore[misc]
    """Four maps at strides 4, 8, 16 and 32 from four maps of a ViT/16, the shallowest layer first.

    The simple feature pyramid of ViTDet (Li 2022, arXiv:2203.16527, section 3) without its output convolutions, which
    Mask2Former's pixel decoder has at its entrance; each level takes a layer of its own instead of all the last.
    In: four [N, D, h, w]. Out: [N, D/4, 4h, 4w], [N, D/2, 2h, 2w], [N, D, h, w] and [N, D, ceil(h/2), ceil(w/2)], all
    over the same part of the image.

    Args:
        dim: D, a multiple of 4.
    """

    def __init__(self, dim: int, init_cfg: dict[str, Any] | None = None) -> None:
        from timm.layers import LayerNorm2d

        super().__init__(init_cfg)
        half, quarter = dim // 2, dim // 4
        self.stride4 = nn.Sequential(
            nn.ConvTranspose2d(dim, half, 2, stride=2),
            LayerNorm2d(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
        )
        self.stride8 = nn.ConvTranspose2d(dim, half, 2, stride=2)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        first, second, third, fourth = maps
        return self.stride4(first), self.stride8(second), third, halved(fourth)


def halved(features: Tensor) -> Tensor:
    """Max pooling to ceil(h/2) x ceil(w/2) that covers the whole map evenly, also where a side is odd."""
    height, width = features.shape[-2:]
    if height % 2 == 0 and width % 2 == 0:
        return F.max_pool2d(features, 2)
    return F.adaptive_max_pool2d(features, (-(-height // 2), -(-width // 2)))


@MODELS.register_module()
class PatchLinearHead(BaseDecodeHead):  # type: ignore[misc]
    """Batch norm and a 1x1 convolution on patch tokens: the linear head of DINOv3's evaluation.

    Args:
        options: those of MMSegmentation's `BaseDecodeHead`; ``channels`` must equal ``in_channels``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.channels != self.in_channels:
            raise ProveError(
                f"PatchLinearHead has channels={self.channels} and in_channels={self.in_channels}; they must be equal."
            )
        self.norm = nn.BatchNorm2d(self.channels)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        logits: Tensor = self.cls_seg(self.norm(self._transform_inputs(inputs)))
        return logits
