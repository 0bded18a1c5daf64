"""Pretrained backbones: found where they lie, refused with a way out, and really loaded."""

from __future__ import annotations

import hashlib
import http.client
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner.checkpoint import get_external_models
from safetensors.torch import load_file, save

from prove.build.configs import load, pretrained_sources, shipped
from prove.build.model import patch_model
from prove.build.objective import plan_heads
from prove.build.weights import chosen_file, fetch, file_name, hub_url
from prove.catalog.losses import resolve
from prove.cli.config import show
from prove.cli.request import RunRequest, plan, with_weights
from prove.errors import ProveError
from prove.spec import parse

NESTED = "bisenetv1/bisenetv1_r18-d32-in1k-pre_4xb4-160k_cityscapes-1024x1024.py"
PLAIN = "deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py"
INIT = "segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py"


def patched(config: Config, weights: str | None) -> dict[str, Any]:
    model = {**config.model.to_dict(), "data_preprocessor": {"type": "SegDataPreProcessor"}}
    heads = plan_heads(model, resolve(parse("ce")))
    return patch_model(model, heads=heads, num_classes=11, crop_size=(64, 64), class_weight=None, weights=weights)


@pytest.mark.parametrize("name", ["resnet50_v1c", "resnet18_v1c", "msra/hrnetv2_w48"])
def test_hub_names_are_mmengines(name: str) -> None:
    assert hub_url(f"open-mmlab://{name}") == get_external_models()[name]


def test_an_unknown_hub_name_names_the_nearest() -> None:
    with pytest.raises(ProveError, match="resnet50_v1c"):
        hub_url("open-mmlab://resnet50_v1d_")


def test_a_file_in_the_cache_is_used(tmp_path: Path) -> None:
    cache = tmp_path / "weights"
    cache.mkdir()
    url = get_external_models()["resnet18_v1c"]
    (cache / url.rsplit("/", 1)[-1]).write_bytes(b"weights")
    (cache / "vit.pth").write_bytes(b"weights")
    assert fetch("open-mmlab://resnet18_v1c", cache) == cache / "resnet18_v1c-b5776b93.pth"
    assert fetch("pretrain/vit.pth", cache) == cache / "vit.pth"


def test_missing_weights_say_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(ProveError) as caught:
        fetch("pretrain/vit_large.pth", tmp_path / "weights")
    assert str(tmp_path / "weights" / "vit_large.pth") in caught.value.hint
    assert "--no-pretrained" in caught.value.hint


def test_a_download_is_checked_against_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"what the server sent"
    digest = hashlib.sha256(content).hexdigest()[:8]

    class Answer:
        headers = {"Content-Length": "2400000"}  # noqa: RUF012

        def __enter__(self) -> Answer:
            return self

        def __exit__(self, *error: object) -> None: ...

        def read(self) -> bytes:
            return content

    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **options: Answer())
    said: list[str] = []
    url = f"https://weights.example/net-{digest}.pth"
    good = fetch(url, tmp_path, said.append)
    assert good.read_bytes() == content
    assert said == [f"downloading the pretrained backbone (2 MB) from {url}"]
    assert fetch(url, tmp_path, said.append) == good
    assert len(said) == 1
    with pytest.raises(ProveError, match="not the file that its name promises"):
        fetch("https://weights.example/net-00000000.pth", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [good.name]


def answering(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Every download brings these bytes."""

    class Answer(io.BytesIO):
        headers: dict[str, str] = {}  # noqa: RUF012

    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **options: Answer(content))


HUB = "https://huggingface.co/timm/vit_{}_patch16_dinov3.lvd1689m/resolve/main/model.safetensors"


def test_the_hubs_files_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are called model.safetensors there: the second model must not train from the first one's weights."""
    small, base = HUB.format("small"), HUB.format("base")
    answering(monkeypatch, save({"cls_token": torch.ones(1, 1, 384)}))
    fetch(small, tmp_path)
    answering(monkeypatch, save({"cls_token": torch.ones(1, 1, 768)}))
    fetch(base, tmp_path)
    assert load_file(fetch(small, tmp_path))["cls_token"].shape == (1, 1, 384)
    assert load_file(fetch(base, tmp_path))["cls_token"].shape == (1, 1, 768)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "vit_base_patch16_dinov3.lvd1689m.safetensors",
        "vit_small_patch16_dinov3.lvd1689m.safetensors",
    ]
    assert file_name("https://weights.example/model.safetensors") == "model.safetensors"


@pytest.mark.parametrize("cut", [1, 40, 4000, None], ids=["last byte", "tensor", "head", "a web page"])
def test_a_safetensors_file_must_be_complete(cut: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name promises no hash."""
    whole = save({f"block{k}": torch.rand(3) for k in range(60)}, metadata={"format": "pt"})
    broken = whole[:-cut] if cut is not None else b"<html>Sign in to go on</html>"
    (tmp_path / "good.safetensors").write_bytes(whole)
    assert fetch(str(tmp_path / "good.safetensors"), tmp_path) == tmp_path / "good.safetensors"
    cache = tmp_path / "cache"
    answering(monkeypatch, broken)
    with pytest.raises(ProveError, match=r"not a complete \.safetensors file"):
        fetch(HUB.format("small"), cache)
    assert not cache.exists()
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(broken)
    for source in (str(mine), HUB.format("small")):
        cache.mkdir(exist_ok=True)
        (cache / file_name(HUB.format("small"))).write_bytes(broken)
        with pytest.raises(ProveError, match=r"is not a complete \.safetensors file"):
            fetch(source, cache)


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    safe, torch_file = tmp_path / "own.safetensors", tmp_path / "own.pth"
    safe.write_bytes(save({"cls_token": torch.ones(3)}))
    torch.save({"conv1.weight": torch.ones(3)}, torch_file)
    url, hub = get_external_models()["resnet18_v1c"], HUB.format("small")
    assert chosen_file(safe, "dinov3_vits16_linear", hub) == safe
    assert chosen_file(torch_file, "dinov3_vits16_linear", hub) == torch_file
    assert chosen_file(str(torch_file), "deeplabv3plus_r18", url) == torch_file
    with pytest.raises(ProveError, match=r"deeplabv3plus_r18 reads its backbone from a \.pth file"):
        chosen_file(safe, "deeplabv3plus_r18", url)
    with pytest.raises(ProveError, match="fcn_tiny has no pretrained backbone"):
        chosen_file(torch_file, "fcn_tiny", None)
    with pytest.raises(ProveError, match=r"nowhere\.pth: there is no such file"):
        chosen_file(tmp_path / "nowhere.pth", "deeplabv3plus_r18", url)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("Network is unreachable"), "Network is unreachable"),
        (TimeoutError(), "TimeoutError"),
        (http.client.IncompleteRead(b"abc", 7), "IncompleteRead"),
    ],
    ids=["offline", "timeout", "cut"],
)
def test_a_failed_download_is_a_clear_message(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr("urllib.request.urlopen", failing)
    with pytest.raises(ProveError, match=rf"can't be downloaded .*{reason}") as caught:
        fetch("https://weights.example/net-00000000.pth", tmp_path)
    assert "--no-pretrained" in caught.value.hint


def test_a_plan_needs_no_weights_until_it_is_carried_out(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def offline(url: str, **options: Any) -> Any:
        asked.append(url)
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setenv("PROVE_CACHE", str(tmp_path / "cache"))
    request = RunRequest("CamVid", "segformer_mit-b0", data_root=str(camvid), device="cpu", max_iters=4, batch_size=2)
    chosen = plan(request)
    show(request)
    url = chosen.placement.weights
    assert url is not None
    assert url.endswith("/mit_b0_20220624-7e0fe6dd.pth")
    assert f"'{url}'" in capsys.readouterr().out
    assert not asked
    with pytest.raises(ProveError, match="can't be downloaded"):
        with_weights(chosen)
    assert asked == [url]
    file = tmp_path / "cache" / "weights" / url.rsplit("/", 1)[-1]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"weights")
    placed = with_weights(chosen)
    assert placed.placement.weights == str(file)
    assert placed.job == chosen.job
    assert with_weights(placed) == placed


@pytest.mark.parametrize("config", [PLAIN, NESTED, INIT])
def test_weights_replace_exactly_what_the_config_names(config: str) -> None:
    read = load(shipped(config))
    assert len(pretrained_sources(read.model)) == 1
    assert pretrained_sources(patched(read, "/some/where.pth")) == ["/some/where.pth"]
    assert pretrained_sources(patched(read, None)) == []
    assert len(pretrained_sources(read.model)) == 1


@pytest.mark.parametrize("config", [PLAIN, NESTED, INIT])
def test_the_built_model_starts_from_the_weights(config: str, tmp_path: Path) -> None:
    """Also where the backbone that they belong to sits inside another module."""
    from prove.training import registered  # noqa: F401, I001 - brings up the stack
    from mmseg.registry import MODELS

    file = str(tmp_path / "backbone.pth")
    read = load(shipped(config))

    def backbone(weights: str | None) -> Any:
        torch.manual_seed(0)
        model = MODELS.build(ConfigDict(patched(read, weights)))
        model.init_weights()
        return model.backbone.context_path.backbone if config == NESTED else model.backbone

    wanted = {
        name: torch.full_like(value, 0.25) if value.is_floating_point() else value
        for name, value in backbone(None).state_dict().items()
    }
    torch.save(wanted, file)
    found = backbone(file).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())


def test_the_users_file_is_part_of_the_job(camvid: Path, tmp_path: Path) -> None:
    """By its content: where it lies and what it is called changes nothing."""
    one, same, other = tmp_path / "one.safetensors", tmp_path / "same.safetensors", tmp_path / "other.safetensors"
    for file, value in ((one, 1.0), (same, 1.0), (other, 2.0)):
        file.write_bytes(save({"cls_token": torch.full((3,), value)}))

    def planned(model: str = "dinov3_vits16_linear", **flags: Any) -> Any:
        return plan(
            RunRequest("CamVid", model, data_root=str(camvid), device="cpu", max_iters=4, batch_size=2, **flags)
        )

    chosen = planned(weights=str(one))
    assert with_weights(chosen).placement.weights == str(one)
    assert planned(weights=str(same)).job.key == chosen.job.key
    assert len({planned().job.key, chosen.job.key, planned(weights=str(other)).job.key}) == 3
    with pytest.raises(ProveError, match=r"segformer_mit-b0 reads its backbone from a \.pth file"):
        planned("segformer_mit-b0", weights=str(one))
    with pytest.raises(ProveError, match="dinov3_tiny_linear has no pretrained backbone"):
        planned("dinov3_tiny_linear", weights=str(one))
    with pytest.raises(ProveError, match="contradict each other"):
        planned(weights=str(one), pretrained=False)
