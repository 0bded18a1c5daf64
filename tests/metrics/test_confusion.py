"""The confusion matrix against a pixel loop, scikit-learn, torchmetrics and its laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as sklearn_confusion
from torchmetrics.functional.classification import multiclass_confusion_matrix

from prove.errors import ProveError
from prove.metrics import confusion_matrix

INTEGER_TYPES = [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64]


def maps(seed, height=13, width=17, classes=5, ignore_index=255):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, (height, width))
    label[rng.random((height, width)) < 0.2] = ignore_index
    return torch.from_numpy(rng.integers(0, classes, (height, width))), torch.from_numpy(label)


def by_pixel_loop(pred, label, classes, ignore_index):
    counts = np.zeros((classes, classes), np.int64)
    for row in range(label.shape[0]):
        for column in range(label.shape[1]):
            if label[row, column] != ignore_index:
                counts[label[row, column], pred[row, column]] += 1
    return counts


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    classes=st.integers(1, 8),
    ignore_index=st.sampled_from([255, -100, -1, 0, 8]),
)
def test_equals_pixel_loop_for_any_size_and_ignore_index(seed, height, width, classes, ignore_index):
    pred, label = maps(seed, height, width, classes, ignore_index)
    counts = confusion_matrix(pred, label, classes, ignore_index)
    assert counts.dtype == torch.int64
    np.testing.assert_array_equal(counts, by_pixel_loop(pred.numpy(), label.numpy(), classes, ignore_index))


def test_equals_sklearn_and_torchmetrics():
    pred, label = maps(0, 60, 80, 19)
    counts = confusion_matrix(pred, label, 19)
    valid = label != 255
    np.testing.assert_array_equal(counts, sklearn_confusion(label[valid], pred[valid], labels=range(19)))
    torch.testing.assert_close(counts, multiclass_confusion_matrix(pred, label, 19, ignore_index=255))
    assert counts.sum() == valid.sum()


@pytest.mark.parametrize("label_type", INTEGER_TYPES)
@pytest.mark.parametrize("pred_type", INTEGER_TYPES)
def test_integer_type_does_not_matter(label_type, pred_type):
    pred, label = maps(1, ignore_index=100)
    expected = confusion_matrix(pred, label, 5, 100)
    torch.testing.assert_close(confusion_matrix(pred.to(pred_type), label.to(label_type), 5, 100), expected)


def test_unsigned_label_does_not_wrap_into_a_negative_ignore_index():
    """156 is what -100 becomes in uint8."""
    label = torch.tensor([[0, 156]], dtype=torch.uint8)
    with pytest.raises(ProveError, match="156 at row 0, column 1"):
        confusion_matrix(torch.zeros_like(label), label, 2, ignore_index=-100)


def test_prediction_on_ignored_pixels_has_no_influence():
    pred, label = maps(2)
    other = torch.where(label == 255, torch.tensor(-7), pred)
    assert not torch.equal(pred, other)
    torch.testing.assert_close(confusion_matrix(other, label, 5), confusion_matrix(pred, label, 5))


def test_exact_above_the_integers_of_float32():
    pixels = 2**24 + 3
    label = torch.zeros((1, pixels), dtype=torch.uint8)
    assert confusion_matrix(label, label, 2).tolist() == [[pixels, 0], [0, 0]]


def test_more_classes_than_a_byte_holds():
    label = torch.arange(1000).reshape(20, 50)
    torch.testing.assert_close(confusion_matrix(label, label, 1000, -1), torch.eye(1000, dtype=torch.int64))


@pytest.mark.parametrize("value", [-1, 5, 6, 7, 254, 256, 2**32 + 1, -(2**40)])
def test_label_out_of_range_is_named_with_its_position(value):
    pred, label = maps(3)
    label[4, 6] = value
    with pytest.raises(ProveError, match=rf"label map holds {value} at row 4, column 6") as error:
        confusion_matrix(pred, label, 5)
    assert "0..4" in error.value.hint
    assert "255" in error.value.hint


@pytest.mark.parametrize("value", [-1, 5, 255])
def test_prediction_out_of_range_is_named_with_its_position(value):
    pred, label = maps(3)
    label[4, 6], pred[4, 6] = 0, value
    with pytest.raises(ProveError, match=rf"prediction map holds {value} at row 4, column 6"):
        confusion_matrix(pred, label, 5)


@pytest.mark.parametrize(
    ("pred", "label", "message"),
    [
        (torch.zeros(2, 3).long(), torch.zeros(3, 2).long(), "2x3 pixels, the label map 3x2"),
        (torch.zeros(1, 2, 3).long(), torch.zeros(2, 3).long(), r"\[H, W\]"),
        (torch.zeros(2, 3), torch.zeros(2, 3).long(), "integer class indices"),
        (torch.zeros(2, 3).long(), torch.zeros(2, 3).bool(), "integer class indices"),
    ],
)
def test_wrong_maps_are_refused(pred, label, message):
    with pytest.raises(ProveError, match=message):
        confusion_matrix(pred, label, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_equals_cpu():
    pred, label = maps(4)
    torch.testing.assert_close(confusion_matrix(pred.cuda(), label.cuda(), 5).cpu(), confusion_matrix(pred, label, 5))
