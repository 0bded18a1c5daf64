"""What is refused before a loss is computed, and how it is said."""

import pytest
import torch
from loss_batches import IGNORE, batch, term

from prove.errors import ProveError

pytestmark = pytest.mark.usefixtures("backend")


def refused(logits, labels, weight=None):
    with pytest.raises(ProveError) as error:
        term("ce")(logits, labels, weight)
    return str(error.value)


@pytest.mark.parametrize("value", [4, 19, -1, 254])
def test_label_that_is_no_class_is_located(value):
    logits, labels = batch(c=4)
    labels[1, 2, 3] = value
    message = refused(logits, labels)
    assert f"Label {value} at image 1, row 2, column 3" in message
    assert "[0, 4)" in message
    assert "1 pixels like it" in message


def test_ignore_index_is_a_label_like_others_when_it_is_another_one():
    logits, labels = batch()
    assert (labels == IGNORE).any()
    with pytest.raises(ProveError, match=r"Label 255 .* not the ignore index -100"):
        term("ce", ignore_index=-100)(logits, labels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_any_integer_type_of_labels(dtype):
    logits, labels = batch()
    assert torch.equal(term("ce")(logits, labels.to(dtype)), term("ce")(logits, labels))


def test_forms_that_do_not_fit():
    logits, labels = batch()
    assert "labels.squeeze(1)" in refused(logits, labels[:, None])
    assert "Resize the logits" in refused(logits[:, :, ::2], labels)
    assert "expected integers" in refused(logits, labels.float())
    assert "expected integers" in refused(logits, labels == 1)
    assert "[N, C, H, W]" in refused(logits[0], labels)
    assert "C >= 2" in refused(logits[:, :1], labels)
    assert "floating point" in refused(logits.long(), labels)
    assert "[0, 4, 7, 6]" in refused(logits[:0], labels[:0])
    assert "weight per pixel" in refused(logits, labels, torch.ones(2, 7))
    assert "different devices" in refused(logits, labels.to("meta"))


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weight_that_is_none(value):
    logits, labels = batch(ignored=0)
    weight = torch.ones(labels.shape)
    weight[1, 2, 3] = value
    assert f"weight {value} of the pixel at image 1, row 2, column 3" in refused(logits, labels, weight)
    labels[1, 2, 3] = IGNORE
    assert term("ce")(logits, labels, weight).isfinite()


def test_lists_have_one_entry_per_class():
    logits, labels = batch(c=4)
    with pytest.raises(ProveError, match="class_weight has 3 entries, but the logits have 4 classes"):
        term("ce(class_weight=[1, 2, 3])")(logits, labels)
    with pytest.raises(ProveError, match="alpha has 2 entries"):
        term("focal(alpha=[1, 2])")(logits, labels)
    for text in ("lovasz(classes=[0, 4])", "dice(classes=[0, 4])"):
        with pytest.raises(ProveError, match="lists class 4"):
            term(text)(logits, labels)
