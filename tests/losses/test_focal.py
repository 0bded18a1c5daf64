"""Focal loss against its formula in high precision, and against cross-entropy."""

import math
from decimal import Decimal, getcontext

import pytest
import torch
from loss_batches import IGNORE, batch, term, value_and_gradient
from torch.nn import functional as F


def test_without_focus_it_is_cross_entropy():
    logits, labels = batch()
    value, gradient = value_and_gradient(term("focal(gamma=0, alpha=1)"), logits, labels)
    expected, expected_gradient = value_and_gradient(
        lambda z, y: F.cross_entropy(z, y, ignore_index=IGNORE), logits, labels
    )
    assert value.item() == pytest.approx(expected.item(), abs=1e-13)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-13)


def test_alpha_per_class():
    logits, labels = batch(c=3)
    one_class = [term("focal(alpha=1)")(logits, torch.where(labels == c, labels, IGNORE)) for c in range(3)]
    counts = [(labels == c).sum().item() for c in range(3)]
    expected = sum(a * n * value for a, n, value in zip([0.2, 1.0, 3.0], counts, one_class, strict=True)) / sum(counts)
    assert term("focal(alpha=[0.2, 1, 3])")(logits, labels).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("gamma", [0.25, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("margin", [-30.0, -3.0, 0.0, 3.0, 12.0, 20.0, 60.0])
def test_float32_holds_at_confident_logits(gamma, margin):
    """Two classes: p = 1 / (1 + exp(-m)); the derivative is written by hand, with 60 digits."""
    getcontext().prec = 60
    m, g = Decimal(margin), Decimal(gamma)
    p, q = 1 / (1 + (-m).exp()), 1 / (1 + m.exp())
    loss = -(q**g) * p.ln()
    slope = g * q**g * p * p.ln() - q ** (g + 1)
    logits = torch.tensor([margin, 0.0]).view(1, 2, 1, 1)
    value, gradient = value_and_gradient(
        term(f"focal(gamma={gamma}, alpha=1)"), logits, torch.zeros(1, 1, 1, dtype=torch.long)
    )
    tiny = 1e-37  # below it float32 has no normal numbers
    assert value.item() == pytest.approx(float(loss), rel=2e-5, abs=tiny)
    assert gradient[0, 0].item() == pytest.approx(float(slope), rel=2e-5, abs=tiny)
    assert gradient[0, 1].item() == pytest.approx(-float(slope), rel=2e-5, abs=tiny)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1, 2])
def test_saturated_logits_have_the_limit_as_gradient(gamma):
    logits = torch.tensor([1e4, -1e4, 0.0]).view(1, 3, 1, 1)
    value, gradient = value_and_gradient(term(f"focal(gamma={gamma})"), logits, torch.zeros(1, 1, 1).long())
    assert value == 0
    assert (gradient == 0).all()
    value, gradient = value_and_gradient(term(f"focal(gamma={gamma}, alpha=1)"), logits, torch.ones(1, 1, 1).long())
    assert value == 2e4
    assert gradient.flatten().tolist() == [1.0, -1.0, 0.0]


def test_more_focus_takes_weight_off_easy_pixels():
    easy = torch.tensor([math.log(9.0), 0.0]).view(1, 2, 1, 1)  # p = 0.9
    label = torch.zeros(1, 1, 1).long()
    ratio = term("focal(gamma=2, alpha=1)")(easy, label) / term("ce")(easy, label)
    assert ratio.item() == pytest.approx(0.1**2, rel=1e-5)
