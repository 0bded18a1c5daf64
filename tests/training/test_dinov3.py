"""The DINOv3 backbone, its pyramid and its linear head, against transformers' DINOv3 and laws that they must keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from prove.errors import ProveError
from prove.training import registered  # noqa: F401 - brings up the stack
from prove.training.dinov3 import DINOv3Backbone, PatchLinearHead, ViTPyramid, halved
from prove.training.pretrained import check_arrived

LOSS = {"type": "ProveTerm", "term": "ce", "loss_name": "loss_ce"}


def transformers_model(seed: int = 0) -> Any:
    """transformers' DINOv3 in the size "tiny", random but with the published models' zero attention biases."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    torch.manual_seed(seed)
    model = DINOv3ViTModel(
        DINOv3ViTConfig(
            hidden_size=64, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4, num_register_tokens=4
        )
    ).eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.3)
        if name.endswith(("q_proj.bias", "v_proj.bias")):
            nn.init.zeros_(parameter)
    return model


def published(model: Any) -> dict[str, Tensor]:
    """Its weights as the hub's files name them."""
    return {name.removeprefix("model."): value.clone() for name, value in model.state_dict().items()}


def meta(model: Any) -> dict[str, Tensor]:
    """Its weights as Meta's files name them: by hand, from the module names of facebookresearch/dinov3."""
    state = published(model)
    found = {
        "cls_token": state["embeddings.cls_token"],
        "storage_tokens": state["embeddings.register_tokens"],
        "mask_token": state["embeddings.mask_token"].squeeze(1),
        "patch_embed.proj.weight": state["embeddings.patch_embeddings.weight"],
        "patch_embed.proj.bias": state["embeddings.patch_embeddings.bias"],
        "rope_embed.periods": torch.rand(4),
        "norm.weight": state["norm.weight"],
        "norm.bias": state["norm.bias"],
    }
    for k in range(4):
        mine, theirs = f"blocks.{k}", f"layer.{k}"
        attention = f"{theirs}.attention"
        found[f"{mine}.attn.qkv.weight"] = torch.cat([state[f"{attention}.{p}_proj.weight"] for p in "qkv"])
        found[f"{mine}.attn.qkv.bias"] = torch.cat([torch.zeros(64), torch.rand(64), torch.zeros(64)])
        found[f"{mine}.attn.qkv.bias_mask"] = torch.cat([torch.ones(64), torch.zeros(64), torch.ones(64)])
        for ours, name in (("attn.proj", "attention.o_proj"), ("mlp.fc1", "mlp.up_proj"), ("mlp.fc2", "mlp.down_proj"),
                           ("norm1", "norm1"), ("norm2", "norm2")):  # fmt: skip
            for part in ("weight", "bias"):
                found[f"{mine}.{ours}.{part}"] = state[f"{theirs}.{name}.{part}"]
        for branch in "12":
            found[f"{mine}.ls{branch}.gamma"] = state[f"{theirs}.layer_scale{branch}.lambda1"]
    return found


def backbone(file: Path | None = None, **options: Any) -> DINOv3Backbone:
    init = {"type": "Pretrained", "checkpoint": str(file)} if file else None
    built = DINOv3Backbone(**{"size": "tiny", **options}, init_cfg=init)
    built.init_weights()
    return built


@pytest.mark.parametrize("spelling", ["transformers", "meta", "timm"])
def test_it_is_dinov3_whatever_the_file_calls_its_weights(spelling: str, tmp_path: Path) -> None:
    """Equal features to transformers' model, map by map, at a size that is no square."""
    reference = transformers_model()
    file = tmp_path / "weights.safetensors"
    if spelling == "meta":
        file = tmp_path / "weights.pth"
        torch.save(meta(reference), file)
    elif spelling == "transformers":
        save_file(published(reference), file)
    else:
        torch.save(meta(reference), tmp_path / "meta.pth")
        save_file(dict(backbone(tmp_path / "meta.pth").vit.state_dict()), file)
    images = torch.randn(2, 3, 48, 80)
    model = nn.Module()
    model.backbone = net = backbone(file)
    check_arrived(model, file)
    with torch.no_grad():
        maps = net(images)
        hidden = reference(pixel_values=images, output_hidden_states=True).hidden_states[1:]
        expected = [reference.norm(each)[:, 5:].transpose(1, 2).reshape(2, 64, 3, 5) for each in hidden]
    assert len(maps) == 4
    for found, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "layers", "blocks"),
    [("small", 4, (2, 5, 8, 11)), ("base", 4, (2, 5, 8, 11)), ("small", 1, (11,)), ("tiny", 4, (0, 1, 2, 3))],
)
def test_maps_come_from_evenly_spaced_blocks(size: str, layers: int, blocks: tuple[int, ...]) -> None:
    assert DINOv3Backbone(size=size, layers=layers).out_layers == blocks


def test_the_large_one_has_the_published_size() -> None:
    """24 blocks and 300 million parameters (Siméoni 2025); built without memory for them."""
    with torch.device("meta"):
        large = DINOv3Backbone(size="large", layers=4)
    assert large.out_layers == (5, 11, 17, 23)
    assert sum(each.numel() for each in large.parameters()) == pytest.approx(300e6, rel=0.02)


class PatchMeans(nn.Module):
    """Stands in for the ViT: a token is the mean of its patch."""

    blocks = (None,) * 4

    def forward_intermediates(self, images: Tensor, indices: list[int], **options: Any) -> list[Tensor]:
        assert all(side % 16 == 0 for side in images.shape[-2:])
        return [F.avg_pool2d(images, 16) for _ in indices]


@pytest.mark.parametrize(("height", "width"), [(360, 480), (361, 95), (64, 64), (17, 33)])
def test_maps_cover_exactly_the_image(height: int, width: int) -> None:
    """A ramp over the image is the same ramp when its map is stretched over the image again, as heads do it."""
    net = backbone()
    net.vit = PatchMeans()
    rows = torch.arange(height, dtype=torch.float32).view(1, 1, -1, 1) + 0.5
    columns = torch.arange(width, dtype=torch.float32).view(1, 1, 1, -1) + 0.5
    ramps = torch.cat([rows.expand(1, 1, height, width), columns.expand(1, 1, height, width)], dim=1)
    for found in net(ramps):
        assert found.shape[-2:] == (-(-height // 16), -(-width // 16))
        again = F.interpolate(found, size=(height, width), mode="bilinear", align_corners=False)
        inner = (..., slice(height // 4, -(height // 4)), slice(width // 4, -(width // 4)))
        assert (
            float((again - ramps)[inner].abs().max()) < 0.75
        )  # padded to 368 rows, it is 5 pixels off at three quarters


def test_a_size_that_divides_is_left_alone() -> None:
    net = backbone()
    seen: list[Tensor] = []
    net.vit.patch_embed.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    images = torch.randn(1, 3, 32, 64)
    net(images)
    assert torch.equal(seen[0], images)


def test_pyramid_strides() -> None:
    """Strides 4, 8, 16 and 32, and the channels that the catalogue tells the head."""
    from prove.catalog.models import MODELS

    torch.manual_seed(0)
    levels = ViTPyramid(dim=64)(tuple(torch.randn(2, 64, 6, 8) for _ in range(4)))
    assert [tuple(level.shape[-2:]) for level in levels] == [(24, 32), (12, 16), (6, 8), (3, 4)]
    edits = MODELS.get("dinov3_tiny_mask2former").edits
    assert [level.shape[1] for level in levels] == edits["decode_head"]["in_channels"]


def test_each_level_has_a_layer_of_its_own() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(1, 16, 4, 4, requires_grad=True) for _ in range(4)]
    levels = ViTPyramid(dim=16)(tuple(maps))
    for k, level in enumerate(levels):
        reached = torch.autograd.grad(level.sum(), maps, allow_unused=True, retain_graph=True)
        assert [gradient is not None for gradient in reached] == [each == k for each in range(4)]


@pytest.mark.parametrize(("height", "width"), [(23, 30), (23, 7), (22, 30), (1, 5)])
def test_halving_leans_to_no_side(height: int, width: int) -> None:
    """Pooling of a mirrored map is the mirrored pooling; windows of two from the left are not, on 23 rows."""
    torch.manual_seed(0)
    features = torch.randn(1, 2, height, width)
    found = halved(features)
    assert found.shape[-2:] == (-(-height // 2), -(-width // 2))
    for side in (-1, -2):
        assert torch.equal(halved(features.flip(side)), found.flip(side))


def test_frozen_means_frozen() -> None:
    net = backbone(frozen=True)
    net.train()
    assert not any(each.requires_grad for each in net.parameters())
    assert not any(module.training for module in net.vit.modules())
    assert not any(each.requires_grad for each in net(torch.randn(1, 3, 32, 32)))
    free = backbone()
    free.train()
    assert all(module.training for module in free.vit.modules())
    maps = free(torch.randn(1, 3, 32, 32))
    sum(each.square().sum() for each in maps).backward()
    assert [name for name, each in free.named_parameters() if each.grad is None] == []


def test_one_seed_one_network() -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return backbone().state_dict()

    one, same, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["vit.patch_embed.proj.weight"], other["vit.patch_embed.proj.weight"])


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: without(state, "blocks.3.mlp.fc2.bias"), r"it has no blocks\.3\.mlp\.fc2\.bias\."),
        (lambda state: {**state, "blocks.4.norm1.weight": torch.ones(64)}, r"blocks\.4\.norm1\.weight is not of this"),
        (lambda state: {**state, "cls_token": torch.ones(1, 1, 32)}, "cls_token is 1x1x32, not 1x1x64"),
        (lambda state: {"conv1.weight": torch.ones(3)}, r"it has no cls_token and \d+ more like it"),
        (
            lambda state: {**state, "blocks.1.attn.qkv.bias": torch.ones(192)},
            r"bias that is not zero \(blocks\.1\.attn\.qkv\.bias\)",
        ),
        (
            lambda state: {"state_dict": {f"backbone.vit.{name}": value for name, value in state.items()}},
            r"is the checkpoint of a whole model, not of a backbone",
        ),
    ],
    ids=["missing", "too much", "another size", "another network", "biases", "a whole model"],
)
def test_a_file_that_does_not_fit_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(change(meta(transformers_model())), file)
    with pytest.raises(ProveError, match=message):
        backbone(file)


def test_biases_of_transformers_are_refused_too(tmp_path: Path) -> None:
    state = published(transformers_model())
    state["layer.2.attention.v_proj.bias"] += 0.1
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ProveError, match=r"layer\.2\.attention\.v_proj\.bias"):
        backbone(tmp_path / "weights.safetensors")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(ProveError, match=rf"{name} can't be read"):
            backbone(tmp_path / name)


def test_what_is_asked_for_in_vain_is_refused() -> None:
    with pytest.raises(ProveError, match="Unknown DINOv3 size 'smal'"):
        DINOv3Backbone(size="smal")
    with pytest.raises(ProveError, match=r"has 12 blocks, of which 5 can't be evenly spaced"):
        DINOv3Backbone(size="small", layers=5)
    with pytest.raises(ProveError, match="no init_cfg of type 'Kaiming'"):
        DINOv3Backbone(size="tiny", init_cfg={"type": "Kaiming", "layer": "Conv2d"})
    with pytest.raises(ProveError, match="channels=32 and in_channels=64"):
        PatchLinearHead(in_channels=64, channels=32, num_classes=5, loss_decode=LOSS)


def test_the_linear_head_is_linear() -> None:
    """In evaluation mode it maps patches one by one, and sums and multiples to sums and multiples."""
    torch.manual_seed(0)
    head = PatchLinearHead(in_channels=6, channels=6, num_classes=5, in_index=0, loss_decode=LOSS)
    nn.init.normal_(head.norm.running_mean)
    head.eval()
    one, other = torch.randn(2, 1, 6, 3, 4)
    with torch.no_grad():
        zero = head((torch.zeros(1, 6, 3, 4),))
        found = head((2 * one - 3 * other,)) - zero
        torch.testing.assert_close(found, 2 * (head((one,)) - zero) - 3 * (head((other,)) - zero))
        single = head((one[..., 1:2, 2:3],))
        torch.testing.assert_close(head((one,))[..., 1:2, 2:3], single)
