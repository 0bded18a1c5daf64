"""Reductions against torchmetrics, scikit-learn, hand-made examples and their laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, balanced_accuracy_score, jaccard_score
from torchmetrics.functional.classification import multiclass_jaccard_index

from prove.errors import ProveError
from prove.metrics import by_condition, confusion_matrix, summarize

confusions = st.integers(1, 6).flatmap(lambda c: arrays(np.int64, (c, c), elements=st.integers(0, 50)))
quick = settings(deadline=None, derandomize=True, max_examples=40)


def random_maps(seed, classes=6, shape=(40, 50)):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, shape)
    pred = np.where(rng.random(shape) < 0.6, label, rng.integers(0, classes, shape))
    label[rng.random(shape) < 0.1] = 255
    return torch.from_numpy(pred), torch.from_numpy(label)


def test_equals_sklearn_and_torchmetrics():
    pred, label = random_maps(0)
    summary = summarize(confusion_matrix(pred, label, 6).numpy())
    truth, guess = label[label != 255].numpy(), pred[label != 255].numpy()
    assert summary["mIoU"] == pytest.approx(100 * jaccard_score(truth, guess, average="macro"), rel=1e-12)
    assert summary["fwIoU"] == pytest.approx(100 * jaccard_score(truth, guess, average="weighted"), rel=1e-12)
    assert summary["aAcc"] == pytest.approx(100 * accuracy_score(truth, guess), rel=1e-12)
    assert summary["mAcc"] == pytest.approx(100 * balanced_accuracy_score(truth, guess), rel=1e-12)
    np.testing.assert_allclose(summary["IoU"], 100 * jaccard_score(truth, guess, average=None), rtol=1e-12)
    peer = multiclass_jaccard_index(pred, label, 6, average="none", ignore_index=255)
    np.testing.assert_allclose(summary["IoU"], 100 * peer, rtol=1e-6)
    np.testing.assert_array_equal(summary["support"], np.bincount(truth, minlength=6))


def test_absent_class_is_left_out_but_predicting_it_costs():
    #                 predicted 0, 1, 2; class 2 has no ground truth
    confusion = np.array([[6, 0, 2], [1, 3, 0], [0, 0, 0]])
    summary = summarize(confusion)
    np.testing.assert_allclose(summary["IoU"], [100 * 6 / 9, 100 * 3 / 4, np.nan])
    np.testing.assert_allclose(summary["Acc"], [75, 75, np.nan])
    assert summary["mIoU"] == pytest.approx((100 * 6 / 9 + 75) / 2)
    assert summary["mAcc"] == 75
    assert summary["aAcc"] == 75
    assert summary["fwIoU"] == pytest.approx((8 * 100 * 6 / 9 + 4 * 75) / 12)
    assert summary["support"].tolist() == [8, 4, 0]


def test_present_class_never_found_is_zero():
    summary = summarize(np.array([[5, 0], [4, 0]]))
    assert summary["IoU"].tolist() == [pytest.approx(100 * 5 / 9), 0]
    assert summary["mIoU"] == pytest.approx(50 * 5 / 9)


def test_no_ground_truth_at_all_is_nan():
    summary = summarize(np.zeros((3, 3), np.int64))
    assert np.isnan([summary["mIoU"], summary["aAcc"], summary["mAcc"], summary["fwIoU"]]).all()
    assert np.isnan(summary["IoU"]).all()
    assert summary["support"].tolist() == [0, 0, 0]


def test_dataset_miou_is_not_the_mean_over_images():
    images = np.array([[[1, 0], [9, 0]], [[99, 0], [0, 1]]])
    total = summarize(images.sum(0))
    np.testing.assert_array_equal(summarize(images)["IoU"], total["IoU"])
    assert total["mIoU"] == pytest.approx(50 * (100 / 109 + 1 / 10))
    assert total["mIoU"] != pytest.approx(np.mean([summarize(image)["mIoU"] for image in images]))


@quick
@given(confusions)
def test_laws_of_every_confusion_matrix(confusion):
    summary = summarize(confusion)
    present = confusion.sum(1) > 0
    np.testing.assert_array_equal(np.isnan(summary["IoU"]), ~present)
    if present.any():
        assert 0 <= summary["mIoU"] <= summary["mAcc"] <= 100 + 1e-9
        assert summary["fwIoU"] <= summary["aAcc"] + 1e-9
    order = np.random.default_rng(0).permutation(len(confusion))
    renamed = summarize(confusion[np.ix_(order, order)])
    np.testing.assert_array_equal(renamed["IoU"], summary["IoU"][order])
    assert renamed["mIoU"] == pytest.approx(summary["mIoU"], nan_ok=True)
    scaled = summarize(confusion * 1_000_003)
    np.testing.assert_allclose(scaled["IoU"], summary["IoU"], rtol=1e-12)


@quick
@given(arrays(np.int64, 4, elements=st.integers(0, 9)))
def test_perfect_prediction_is_100(support):
    summary = summarize(np.diag(support))
    expected = 100 if support.any() else np.nan
    for name in ("mIoU", "aAcc", "mAcc", "fwIoU"):
        assert summary[name] == pytest.approx(expected, nan_ok=True)


def test_counts_of_billions_do_not_overflow():
    summary = summarize(np.full((4, 2, 2), 2**31 - 1, np.int32))
    assert summary["support"].tolist() == [8 * (2**31 - 1)] * 2
    assert summary["mIoU"] == pytest.approx(100 / 3)


def test_by_condition_groups_images():
    rng = np.random.default_rng(0)
    confusion = rng.integers(0, 20, (5, 3, 3))
    summaries = by_condition(confusion, ["night", "day", "night", "", "day"])
    assert list(summaries) == ["day", "night"]
    assert summaries["night"]["mIoU"] == summarize(confusion[0] + confusion[2])["mIoU"]
    assert summaries["day"]["mIoU"] == summarize(confusion[1] + confusion[4])["mIoU"]
    with pytest.raises(ProveError, match="5 confusion matrices but 1 conditions"):
        by_condition(confusion, ["night"])


@pytest.mark.parametrize(
    ("confusion", "message"),
    [
        (np.zeros((2, 3), np.int64), r"\[\.\.\., C, C\]"),
        (np.zeros((2, 2)), "integer counts"),
        (np.array([[1, -1], [0, 0]]), "negative"),
    ],
)
def test_what_is_no_confusion_matrix_is_refused(confusion, message):
    with pytest.raises(ProveError, match=message):
        summarize(confusion)
