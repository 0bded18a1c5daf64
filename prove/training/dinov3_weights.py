"""Pretrained weights of DINOv3 in the three spellings that are about, and a strict look at whether they fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prove.errors import ProveError
from prove.training.pretrained import read_weights, require_backbone

_TRANSFORMERS = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"^(?:model\.)?layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
    (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
)
"""Names in transformers' `DINOv3ViTModel`, and what timm calls the same."""

_META = (
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
)
"""Names in Meta's own files, and what timm calls the same."""

_NO_WEIGHTS = re.compile(r"mask_token$|^rope|\.bias_mask$|^local_cls_norm\.")
"""What only pretraining needs, or what follows from the size."""


def load_dinov3(vit: Any, file: Path) -> None:
    """Read pretrained weights into timm's DINOv3 ViT: all of them, or none.

    Args:
        vit: timm's model.
        file: a ``.safetensors`` or ``.pth`` file with timm's names, Meta's (``dinov3_vits16_pretrain_*.pth``) or
            transformers' (``facebook/dinov3-*``).

    Raises:
        ProveError: it can't be read, it is the checkpoint of a whole model, or it is not exactly what this model needs.
    """
    given = read_weights(file)
    found = {name: value for name, value in timm_names(given, file).items() if not _NO_WEIGHTS.search(name)}
    wanted = vit.state_dict()
    problems = [f"it has no {name}" for name in wanted if name not in found]
    problems += [f"{name} is not of this model" for name in found if name not in wanted]
    problems += [
        f"{name} is {_size(found[name])}, not {_size(value)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    if problems:
        require_backbone(given, file)
        more = f" and {len(problems) - 1} more like it" if len(problems) > 1 else ""
        raise ProveError(
            f"The pretrained weights in {file} do not fit this DINOv3: {problems[0]}{more}.",
            hint=f"This backbone is {len(vit.blocks)} blocks {vit.embed_dim} wide with plain MLPs; "
            "take that size's file, or --no-pretrained (for all arms alike).",
        )
    vit.load_state_dict(found, strict=True)


def timm_names(state: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    """A checkpoint's tensors under timm's names.

    Raises:
        ProveError: its attention has biases, which timm leaves out because in the published models they are zero.
    """
    if "embeddings.cls_token" in state:
        return _renamed(_joined(state, file), _TRANSFORMERS)
    for name in [name for name in state if name.endswith(".attn.qkv.bias")]:
        query, _, value = state[name].chunk(3)  # the key's is masked in Meta's model: it never acts
        _require_zero((query, value), name, file)
    return _renamed({name: value for name, value in state.items() if not name.endswith(".attn.qkv.bias")}, _META)


def _joined(state: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Query, key and value as one matrix, as timm and Meta have them."""
    joined = {}
    for name, value in state.items():
        part = re.search(r"\.attention\.([qkv])_proj\.(weight|bias)$", name)
        if part is None:
            joined[name] = value
        elif part[2] == "bias":
            _require_zero((value,), name, file)
        elif part[1] == "q":
            stem = name[: part.start()]
            others = [state[each] for k in "kv" if (each := f"{stem}.attention.{k}_proj.weight") in state]
            if len(others) < 2:
                raise ProveError(f"{file} has {name} without the key's and the value's.", hint="Fetch the file anew.")
            joined[f"{stem}.attention.qkv.weight"] = torch.cat([value, *others])
    return joined


def _require_zero(biases: tuple[Any, ...], name: str, file: Path) -> None:
    if any(bool(bias.count_nonzero()) for bias in biases):
        raise ProveError(
            f"{file} has an attention bias that is not zero ({name}), which timm's DINOv3 leaves out.",
            hint="Use one of the published DINOv3 files; in those it is zero.",
        )


def _renamed(state: Mapping[str, Any], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def _size(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a scalar"
