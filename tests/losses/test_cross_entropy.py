"""Cross-entropy against PyTorch's, and its mining against MMSegmentation's sampler."""

from types import SimpleNamespace

import pytest
import torch
from loss_batches import IGNORE, batch, term, value_and_gradient
from torch.nn import functional as F

from prove.training.stack import load_stack

pytestmark = pytest.mark.usefixtures("backend")


@pytest.mark.parametrize("weight", [None, (0.5, 2.0, 0.0, 1.5)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_equals_pytorch(weight, smoothing, seed):
    logits, labels = batch(c=4, seed=seed)
    text = "none" if weight is None else str(list(weight))
    module = term(f"ce(class_weight={text}, label_smoothing={smoothing})")
    value, gradient = value_and_gradient(module, logits, labels)

    def pytorch(z, y):
        tensor = None if weight is None else torch.tensor(weight, dtype=torch.float64)
        return F.cross_entropy(z, y, tensor, ignore_index=IGNORE, label_smoothing=smoothing)

    expected, expected_gradient = value_and_gradient(pytorch, logits, labels)
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-12)


def test_only_pixels_of_a_class_with_weight_zero():
    logits, labels = batch(c=4)
    labels = torch.where(labels == IGNORE, IGNORE, 2)
    value, gradient = value_and_gradient(term("ce(class_weight=[1, 1, 0, 1], label_smoothing=0.1)"), logits, labels)
    assert value == 0
    assert (gradient == 0).all()


@pytest.fixture(scope="module")
def sampler():
    load_stack()
    from mmseg.structures.sampler.ohem_pixel_sampler import OHEMPixelSampler

    return OHEMPixelSampler


@pytest.mark.parametrize("min_kept", [2, 10, 40, 10_000])
@pytest.mark.parametrize("thresh", [0.05, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("ignored", [0.0, 0.3, 0.97, 1.0])
def test_keeps_the_pixels_that_mmsegmentation_keeps(sampler, min_kept, thresh, ignored):
    logits, labels = batch(n=3, c=5, h=9, w=8, ignored=ignored, seed=7, dtype=torch.float32, scale=1.0)
    context = SimpleNamespace(ignore_index=IGNORE)
    kept = sampler(context, thresh=thresh, min_kept=min_kept).sample(logits, labels[:, None]).bool()
    value, gradient = value_and_gradient(term(f"ohem(thresh={thresh}, min_kept={min_kept})"), logits, labels)
    assert torch.equal(gradient.abs().sum(dim=1) > 0, kept)
    if kept.any():
        losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
        assert value.item() == pytest.approx(losses[kept].mean().item(), rel=1e-6)
    else:
        assert value == 0


def test_mining_divides_by_the_weights_of_the_kept():
    logits, labels = batch(c=4, ignored=0)
    weights = torch.tensor([0.5, 2.0, 0.0, 1.5], dtype=torch.float64)
    prob = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    hard = prob < 0.2
    expected = F.cross_entropy(logits, torch.where(hard, labels, IGNORE), weights, ignore_index=IGNORE)
    module = term("ce(ohem, thresh=0.2, min_kept=1, class_weight=[0.5, 2, 0, 1.5])")
    assert module(logits, labels).item() == pytest.approx(expected.item(), abs=1e-12)
