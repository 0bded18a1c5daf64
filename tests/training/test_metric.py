"""PROVE's metric and terms inside MMSegmentation agree with MMSegmentation's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData

from prove.training.stack import load_stack

load_stack()

from mmseg.evaluation import IoUMetric  # noqa: E402
from mmseg.models.losses import CrossEntropyLoss  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

from prove.training.metric import ImageCountsMetric  # noqa: E402
from prove.training.objective import ProveTerm, semantic_logits  # noqa: E402

CLASSES = ("road", "car", "person", "pole", "sky", "tree", "rider")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def sample(index: int, present: int = len(CLASSES)) -> SegDataSample:
    """Random logits that are often right, and a label with ignored pixels that holds the first classes only."""
    classes = len(CLASSES)
    label = torch.randint(0, present, (1, 23, 31))
    logits = torch.randn(classes, 23, 31) + 1.5 * torch.nn.functional.one_hot(label[0], classes).permute(2, 0, 1)
    label[:, :4, index : index + 9] = 255
    made = SegDataSample(metainfo={"sample_id": f"s{index}", "condition": "day"})
    made.set_data(
        {
            "gt_sem_seg": PixelData(data=label),
            "seg_logits": PixelData(data=logits),
            "pred_sem_seg": PixelData(data=logits.argmax(dim=0, keepdim=True)),
        }
    )
    return made


@pytest.mark.parametrize("present", [7, 6])
def test_counts_give_the_iou_metrics_of_mmsegmentation(present: int) -> None:
    """But for a class that is predicted and never there: theirs takes it into the mean as a zero."""
    samples = [sample(index, present).to_dict() for index in range(6)]
    theirs = IoUMetric(iou_metrics=["mIoU"])
    theirs.dataset_meta = {"classes": CLASSES}
    ours = ImageCountsMetric(CLASSES)
    for metric in (theirs, ours):
        metric.process({}, samples)
    expected, found = theirs.evaluate(len(samples)), ours.evaluate(len(samples))
    for name, share in (("mIoU", 7 / present), ("aAcc", 1.0), ("mAcc", 1.0)):
        assert 20 < found[name] < 95
        assert found[name] == pytest.approx(float(expected[name]) * share, abs=0.006)  # theirs have 2 decimals


def head(term: dict[str, Any]) -> Any:
    torch.manual_seed(5)
    return MODELS.build(
        ConfigDict(
            type="FCNHead",
            in_channels=6,
            channels=4,
            num_convs=1,
            num_classes=len(CLASSES),
            dropout_ratio=0.0,
            align_corners=False,
            ignore_index=255,
            norm_cfg={"type": "BN"},
            loss_decode=term,
        )
    )


@pytest.mark.filterwarnings("ignore:Default ``avg_non_ignore`` is False")
@pytest.mark.parametrize("class_weight", [None, [1.0, 2.0, 0.5, 4.0, 1.0, 0.1, 3.0]], ids=["plain", "weighted"])
def test_ce_in_a_head_is_the_cross_entropy_of_mmsegmentation(class_weight: list[float] | None) -> None:
    """Value, and gradient on every weight of the head."""
    text = "0.4*ce" if class_weight is None else f"0.4*ce(class_weight={class_weight})".replace(" ", "")
    ours = head({"type": "ProveTerm", "term": text, "loss_name": "loss_ce"})
    theirs = head(
        {
            "type": "CrossEntropyLoss",
            "loss_weight": 0.4,
            "avg_non_ignore": class_weight is None,  # with weights it crashes, and without it averages over valid ones
            "class_weight": class_weight,
        }
    )
    assert isinstance(ours.loss_decode, ProveTerm)
    assert isinstance(theirs.loss_decode, CrossEntropyLoss)
    theirs.load_state_dict(ours.state_dict())
    features, samples = torch.randn(2, 6, 9, 11), [sample(0), sample(1)]
    values, gradients = [], []
    for each in (ours, theirs):
        losses = each.loss([features], samples, {})
        value = next(losses[name] for name in losses if name.startswith("loss"))
        value.backward()
        values.append(value.item())
        gradients.append(torch.cat([p.grad.flatten() for p in each.parameters()]))
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)
    assert gradients[0].norm() > 0.01


def test_a_head_that_ignores_another_label_is_an_error() -> None:
    built = head({"type": "ProveTerm", "term": "ce", "loss_name": "loss_ce"})
    built.ignore_index = 0
    with pytest.raises(ValueError, match="ignores label 0, loss_ce was built to ignore 255"):
        built.loss_by_feat(torch.randn(1, len(CLASSES), 5, 5), [sample(0)])


def test_the_semantic_map_is_what_mask2former_predicts() -> None:
    """`Mask2FormerHead.predict` on the same class scores and masks."""
    from mmseg.models.decode_heads import Mask2FormerHead

    cls, masks = torch.randn(2, 12, len(CLASSES) + 1), 3 * torch.randn(2, 12, 8, 10)
    fixed = Mask2FormerHead.__new__(Mask2FormerHead)
    torch.nn.Module.__init__(fixed)
    fixed.forward = lambda x, samples: ([None, cls], [None, masks])
    size = (32, 40)
    metas = [{"img_shape": size, "pad_shape": size, "batch_input_shape": size}] * 2
    scores = Mask2FormerHead.predict(fixed, None, metas, None)
    logits = semantic_logits(cls, masks, size)
    assert scores.shape == logits.shape == (2, len(CLASSES), *size)
    assert torch.equal(logits.argmax(dim=1), scores.argmax(dim=1))
    torch.testing.assert_close(logits.softmax(dim=1), scores / scores.sum(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_scores_of_a_set_model_are_normalised_not_softened() -> None:
    """The metric's probabilities of a mask-classification model: shares of its scores."""
    made = sample(0)
    scores = torch.rand(len(CLASSES), 23, 31)
    made.seg_logits.data = scores
    by_score, by_logit = ImageCountsMetric(CLASSES, normalise=True), ImageCountsMetric(CLASSES)
    by_score.process({}, [made.to_dict()])
    made.seg_logits.data = scores.log()
    by_logit.process({}, [made.to_dict()])
    first, second = by_score.evaluate(1), by_logit.evaluate(1)
    assert first == pytest.approx(second, rel=1e-4, nan_ok=True)
