"""CutMix and MixUp against their definitions: pixels, labels, shares, and what a loss of a mixed batch is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prove.errors import ProveError
from prove.losses import Objective
from prove.losses.distance_maps import distance_maps
from prove.training.stack import load_stack

load_stack()

from mmengine.structures import PixelData  # noqa: E402
from mmseg.models.data_preprocessor import SegDataPreProcessor  # noqa: E402
from mmseg.models.decode_heads import FCNHead  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

from prove.training.dataset import DISTANCE_MAPS  # noqa: E402
from prove.training.fused_heads import fuse_heads, require_mixable  # noqa: E402
from prove.training.mixing import SECOND_LABELS, SECOND_MAPS, CutMix, MixUp, mix_of  # noqa: E402
from prove.training.objective import labels_of  # noqa: E402
from prove.training.seeding import generator  # noqa: E402

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CUT = CutMix(alpha=1.0, size=(24, 32), fill=MEAN[::-1])
UP = MixUp(alpha=0.2, size=(24, 32), fill=MEAN[::-1])


def batch(sizes: tuple[tuple[int, int], ...] = ((24, 32),) * 3, maps: bool = False) -> dict[str, Any]:
    """Images of random pixels, whose labels are other for every image: 2k, 2k + 1 or 255."""
    rng = torch.Generator().manual_seed(0)
    images, samples = [], []
    for index, size in enumerate(sizes):
        images.append(torch.randint(0, 256, (3, *size), generator=rng, dtype=torch.uint8))
        label = torch.randint(0, 2, (1, *size), generator=rng) + 2 * index
        label[:, :5, :7] = 255
        sample = SegDataSample(metainfo={"sample_id": f"image {index}"})
        sample.gt_sem_seg = PixelData(data=label)
        if maps:
            found = torch.from_numpy(distance_maps(label[0].numpy(), 6))
            sample.set_data({DISTANCE_MAPS: PixelData(data=found)})
        samples.append(sample)
    return {"inputs": images, "data_samples": samples}


def copied(given: dict[str, Any]) -> tuple[list[Tensor], Tensor]:
    return [image.clone() for image in given["inputs"]], labels_of(given["data_samples"]).clone()


class Fixed:
    """Draws what it is told to."""

    def __init__(self, share: float, *whole: int) -> None:
        self.share, self.whole = share, list(whole)

    def beta(self, a: float, b: float) -> float:
        return self.share

    def integers(self, high: int) -> int:
        return self.whole.pop(0)


def drawn(share: float, *whole: int) -> Any:
    return Fixed(share, *whole)


# CutMix


@pytest.mark.parametrize("iteration", range(6))
def test_cutmix_takes_each_pixel_with_its_label_from_one_of_two_images(iteration: int) -> None:
    """Pixel by pixel, against a loop."""
    plain = batch()
    images, labels = copied(plain)
    mixed = CUT(plain, generator("test", iteration))
    for index in range(3):
        sample = mixed["data_samples"][index]
        pasted = 0
        for row in range(24):
            for column in range(32):
                top, left, bottom, right = sample.mix_box
                inside = top <= row < bottom and left <= column < right
                source = (index + 2) % 3 if inside else index
                assert torch.equal(mixed["inputs"][index][:, row, column], images[source][:, row, column])
                assert sample.gt_sem_seg.data[0, row, column] == labels[source, row, column]
                pasted += inside
        assert sample.mix_share == pytest.approx(1 - pasted / (24 * 32), abs=1e-12)
    assert all(torch.equal(image, before) for image, before in zip(plain["inputs"], images, strict=True))
    assert torch.equal(labels_of(plain["data_samples"]), labels)


def test_the_box_is_that_of_the_paper() -> None:
    """Sides W sqrt(1 - share) and H sqrt(1 - share) around the centre, cut off at the borders."""
    inside = CUT(batch(), drawn(0.75, 12, 16))["data_samples"][0]
    assert inside.mix_box == (6, 8, 18, 24)
    assert inside.mix_share == 0.75
    corner = CUT(batch(), drawn(0.75, 0, 31))["data_samples"][0]
    assert corner.mix_box == (0, 23, 6, 32)
    assert corner.mix_share == 1 - 6 * 9 / (24 * 32)
    nothing = CUT(batch(), drawn(1.0, 3, 3))["data_samples"][0]
    assert nothing.mix_share == 1.0


def test_shares_are_drawn_from_the_papers_distributions() -> None:
    """Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2a + 1)); the centre of a box is uniform."""
    few = batch(((24, 32),) * 2)
    up = np.array([UP(few, generator("s", k))["data_samples"][0].mix_share for k in range(1500)])
    assert up.mean() == pytest.approx(0.5, abs=0.05)
    assert up.var() == pytest.approx(1 / (4 * 1.4), rel=0.08)
    boxes = np.array([CUT(few, generator("s", k))["data_samples"][0].mix_box for k in range(1500)])
    uncut = boxes[(boxes[:, 0] > 0) & (boxes[:, 2] < 24)]
    heights = (uncut[:, 2] - uncut[:, 0]) / 24
    assert len(uncut) > 300
    assert heights.max() < 1
    rows = np.random.default_rng(0)
    expected = []
    for _ in range(20000):
        side, row = (1 - rows.beta(1, 1)) ** 0.5, rows.integers(24)
        half = int(24 * side) // 2
        if row - half > 0 and row + half < 24:
            expected.append(2 * half / 24)
    assert heights.mean() == pytest.approx(np.mean(expected), abs=0.03)


# MixUp


def test_mixup_weighs_pixels_and_keeps_both_labels() -> None:
    plain = batch()
    images, labels = copied(plain)
    mixed = UP(plain, drawn(0.3))
    for index, sample in enumerate(mixed["data_samples"]):
        partner = (index + 2) % 3
        expected = 0.3 * images[index].double() + 0.7 * images[partner].double()
        torch.testing.assert_close(mixed["inputs"][index].double(), expected, atol=1e-4, rtol=0)
        assert torch.equal(sample.gt_sem_seg.data[0], labels[index])
        assert torch.equal(getattr(sample, SECOND_LABELS).data[0], labels[partner])
        assert sample.mix_share == 0.3
        assert sample.sample_id == f"image {index}"
    assert all(torch.equal(image, before) for image, before in zip(plain["inputs"], images, strict=True))


# both


@pytest.mark.parametrize("mix", [CUT, UP], ids=["CutMix", "MixUp"])
def test_smaller_images_are_padded_as_the_model_would_pad_them(mix: Any) -> None:
    """With an own share of 1 nothing is mixed: the model must get what it would have got."""
    for to_rgb in (True, False):
        preprocessor = SegDataPreProcessor(
            mean=MEAN, std=STD, bgr_to_rgb=to_rgb, size=(24, 32), pad_val=0, seg_pad_val=255
        )
        sizes = ((24, 32), (20, 32), (13, 9))
        fill = MEAN[::-1] if to_rgb else MEAN
        mixed = type(mix)(mix.alpha, mix.size, fill)(batch(sizes), drawn(1.0, 3, 3))
        expected, got = preprocessor(batch(sizes), True), preprocessor(mixed, True)
        torch.testing.assert_close(got["inputs"], expected["inputs"], atol=1e-5, rtol=0)
        assert torch.equal(labels_of(got["data_samples"]), labels_of(expected["data_samples"]))


def test_an_ignored_margin_is_pasted_with_the_box() -> None:
    mixed = CUT(batch(((24, 32), (10, 10))), drawn(0.25, 12, 16))
    top, left, bottom, right = mixed["data_samples"][0].mix_box
    label = mixed["data_samples"][0].gt_sem_seg.data[0]
    assert (label[max(top, 10) : bottom, left:right] == 255).all()
    assert set(label[top:10, left:10].unique().tolist()) <= {2, 3, 255}


@pytest.mark.parametrize("mix", [CUT, UP], ids=["CutMix", "MixUp"])
def test_what_is_drawn_depends_on_seed_and_iteration_alone(mix: Any) -> None:
    def images(*parts: Any) -> Tensor:
        torch.randn(3)
        np.random.random(3)
        return torch.stack(mix(batch(), generator(*parts))["inputs"])

    assert torch.equal(images("mix", 0, 7), images("mix", 0, 7))
    assert not torch.equal(images("mix", 0, 7), images("mix", 0, 8))
    assert not torch.equal(images("mix", 0, 7), images("mix", 1, 7))


@pytest.mark.parametrize("mix", [CUT, UP], ids=["CutMix", "MixUp"])
def test_one_image_is_not_mixed_with_itself(mix: Any) -> None:
    with pytest.raises(ProveError, match="this batch has one image"):
        mix(batch(((24, 32),)), generator("a"))


def test_distance_maps_are_those_of_the_labels_or_gone() -> None:
    """Distances in an image with a pasted box are other than those of its parts."""
    plain = batch(maps=True)
    for sample in CUT(plain, drawn(0.5, 12, 16))["data_samples"]:
        assert DISTANCE_MAPS not in sample
    for sample in UP(plain, drawn(0.5))["data_samples"]:
        for labels, maps in (("gt_sem_seg", DISTANCE_MAPS), (SECOND_LABELS, SECOND_MAPS)):
            expected = distance_maps(getattr(sample, labels).data[0].numpy(), 6)
            assert np.array_equal(getattr(sample, maps).data.numpy(), expected)


def test_a_mix_comes_from_the_options_of_the_loop() -> None:
    assert mix_of(None) is None
    assert mix_of({"type": "CutMix", "alpha": 1.0, "size": [24, 32], "fill": list(MEAN[::-1])}) == CUT
    with pytest.raises(ProveError, match="MixDown"):
        mix_of({"type": "MixDown", "alpha": 1.0, "size": (24, 32), "fill": MEAN})


# losses under MixUp

TERMS = ("ce", "0.3*focal", "0.5*lovasz", "0.2*dice", "0.1*boundary", "0.1*distance", "0.4*hausdorff")


def head(*terms: str) -> Any:
    losses = [{"type": "ProveTerm", "term": text, "loss_name": f"loss_{i}"} for i, text in enumerate(terms)]
    made = FCNHead(num_convs=0, concat_input=False, in_channels=4, channels=4, num_classes=6, loss_decode=losses)
    fuse_heads(nn.ModuleList([made]))
    return made


def logits() -> Tensor:
    return torch.randn((3, 6, 24, 32), generator=torch.Generator().manual_seed(4)).double().requires_grad_()


@pytest.mark.parametrize("maps", [False, True])
def test_every_term_is_mixed_in_value_and_gradient(maps: bool) -> None:
    mixed = UP(batch(maps=maps), drawn(0.3))["data_samples"]
    ours = logits()
    found = head(*TERMS).loss_by_feat(ours, mixed)
    second = torch.stack([getattr(sample, SECOND_LABELS).data[0] for sample in mixed])
    for index, text in enumerate(TERMS):
        weight = 1.0 if "*" not in text else float(text.split("*")[0])
        theirs = logits()
        objective = Objective(text.split("*")[-1])
        own, other = (objective(theirs, labels).total for labels in (labels_of(mixed), second))
        expected = weight * (0.3 * own + 0.7 * other)
        assert found[f"loss_{index}"].item() == pytest.approx(expected.item(), rel=1e-7)  # maps are float32
        (mine,) = torch.autograd.grad(found[f"loss_{index}"], ours, retain_graph=True)
        (gradient,) = torch.autograd.grad(expected, theirs, retain_graph=True)
        torch.testing.assert_close(mine, gradient, rtol=1e-5, atol=1e-10)
        (one_label,) = torch.autograd.grad(weight * own, theirs)
        assert (mine - one_label).norm() > 0.05 * one_label.norm()


def test_for_cross_entropy_it_is_the_papers_soft_label() -> None:
    """Zhang 2018, equation 2 and after: cross-entropy with the labels' one-hot vectors mixed."""
    plain = batch()
    for sample in plain["data_samples"]:
        label = sample.gt_sem_seg.data
        label[label == 255] = 0
    mixed = UP(plain, drawn(0.3))["data_samples"]
    scores = logits()
    value = head("ce").loss_by_feat(scores, mixed)["loss_0"]
    own, other = (
        nn.functional.one_hot(torch.stack([getattr(s, name).data[0] for s in mixed]), 6).movedim(-1, 1).double()
        for name in ("gt_sem_seg", SECOND_LABELS)
    )
    expected = nn.functional.cross_entropy(scores, 0.3 * own + 0.7 * other)
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)


def test_a_share_of_one_is_the_plain_loss() -> None:
    plain = batch()
    mixed = UP(plain, drawn(1.0))["data_samples"]
    made = head("ce", "0.5*lovasz")
    with torch.no_grad():
        found, expected = (made.loss_by_feat(logits(), samples) for samples in (mixed, plain["data_samples"]))
    assert {name: value.item() for name, value in found.items()} == {
        name: pytest.approx(value.item(), rel=1e-12) for name, value in expected.items()
    }


def test_a_loss_that_was_put_into_a_head_later_is_mixed_too() -> None:
    """MMSegmentation's own way of evaluating losses, once for each map of labels."""
    made = head("ce")
    made.loss_decode[0].term.register_forward_hook(lambda module, inputs, output: 2 * output)
    mixed = UP(batch(), drawn(0.3))["data_samples"]
    plain = head("ce").loss_by_feat(logits(), mixed)["loss_0"].item()
    assert made.loss_by_feat(logits(), mixed)["loss_0"].item() == pytest.approx(2 * plain, rel=1e-6)


def test_a_batch_with_half_its_second_labels_is_an_error() -> None:
    samples = UP(batch(), drawn(0.3))["data_samples"]
    samples[1].pop(SECOND_LABELS)
    with pytest.raises(ValueError, match="some have none"):
        head("ce").loss_by_feat(logits(), samples)
    samples = UP(batch(), drawn(0.3))["data_samples"]
    samples[1].set_metainfo({"mix_share": 0.5})
    with pytest.raises(ValueError, match=r"shares \[0.3, 0.5\]"):
        head("ce").loss_by_feat(logits(), samples)


def test_a_head_with_losses_of_its_own_is_refused_by_name() -> None:
    class OwnHead(FCNHead):  # type: ignore[misc]
        def loss_by_feat(self, seg_logits: Any, batch_data_samples: Any) -> Any:
            return {}

    ce = {"type": "ProveTerm", "term": "ce", "loss_name": "loss_ce"}
    own = OwnHead(num_convs=0, concat_input=False, in_channels=4, channels=4, num_classes=6, loss_decode=ce)
    fuse_heads(nn.ModuleList([own]))
    with pytest.raises(ProveError, match="decode_head: OwnHead computes them in a way of its own"):
        require_mixable("decode_head", own)
    require_mixable("decode_head", head("ce"))
