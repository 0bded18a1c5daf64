"""Jaccard, Tversky and focal Tversky losses against scikit-learn, Dice, and their fractions in NumPy."""

import numpy as np
import pytest
import torch
from loss_batches import IGNORE, batch, term, value_and_gradient
from sklearn.metrics import fbeta_score, jaccard_score
from torch.nn import functional as F

from prove.losses.tversky import STRAIGHT_BELOW, power_of

pytestmark = pytest.mark.usefixtures("backend")


def hard_prediction(seed):
    """Labels, a guess that is right on most pixels, and logits that say so with probability 1."""
    _, labels = batch(2, 4, 12, 12, ignored=0.1, seed=seed)
    guess = torch.randint(0, 4, labels.shape, generator=torch.Generator().manual_seed(seed))
    guess = torch.where(torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.6, labels, guess)
    guess = guess.clamp(max=3)
    return labels, guess, 1e4 * F.one_hot(guess, 4).movedim(3, 1).double()


@pytest.mark.parametrize("seed", range(3))
def test_jaccard_is_one_minus_iou_of_hard_predictions(seed):
    labels, guess, logits = hard_prediction(seed)
    valid = labels != IGNORE
    present = labels[valid].unique().tolist()
    expected = 1 - jaccard_score(labels[valid], guess[valid], labels=present, average="macro")
    assert term("jaccard(smooth=0)")(logits, labels).item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("b", [0.5, 1.0, 2.0])
def test_tversky_is_one_minus_f_beta_of_hard_predictions(b, seed):
    """alpha = 1 / (1 + b^2) and beta = b^2 / (1 + b^2) make it van Rijsbergen's F_b."""
    labels, guess, logits = hard_prediction(seed)
    valid = labels != IGNORE
    present = labels[valid].unique().tolist()
    expected = 1 - fbeta_score(labels[valid], guess[valid], beta=b, labels=present, average="macro")
    alpha, beta = 1 / (1 + b * b), b * b / (1 + b * b)
    value = term(f"tversky(alpha={alpha!r}, beta={beta!r}, smooth=0)")(logits, labels)
    assert value.item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("classes", ["all", "present", [1, 3]])
@pytest.mark.parametrize("smooth", [0.0, 1.0, 50.0])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.3, 0.7), (0.0, 2.5)])
@pytest.mark.parametrize("gamma", [1.0, 4 / 3, 0.5, 3.0])
def test_equals_the_fraction(gamma, alpha, beta, smooth, classes):
    logits, labels = batch(2, 5, 5, 4, seed=11)
    p = logits.softmax(1).movedim(1, -1)[labels != IGNORE].numpy()
    y = labels[labels != IGNORE].numpy()
    assert len(np.unique(y)) < 5  # an absent class, so that all and present differ
    losses = []
    for c in {"all": range(5), "present": np.unique(y)}.get(str(classes), classes):
        g = (y == c).astype(np.float64)
        both, predicted, truth = (p[:, c] * g).sum(), p[:, c].sum(), g.sum()
        whole = both + alpha * (predicted - both) + beta * (truth - both) + smooth
        index = (both + smooth) / whole if whole > 0 else 1.0
        losses.append((1 - index) ** (1 / gamma) if index < 1 else 0.0)
    weights = f"alpha={alpha}, beta={beta}, smooth={smooth}, classes={classes}"
    texts = [f"focal_tversky({weights}, gamma={gamma!r})"]
    if gamma == 1:
        texts.append(f"tversky({weights})")
        if alpha == beta == 1:
            texts.append(f"jaccard(smooth={smooth}, classes={classes})")
    for text in texts:
        # the right side cancels where an absent class leaves 1 - 1
        assert term(text)(logits, labels).item() == pytest.approx(np.mean(losses), abs=1e-12)


@pytest.mark.parametrize("smooth", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("classes", ["all", "present", [0, 2]])
def test_dice_is_tversky_with_halves(smooth, classes):
    logits, labels = batch()
    weight = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0))
    dice = term(f"dice(smooth={smooth}, classes={classes})")
    tversky = term(f"tversky(alpha=0.5, beta=0.5, smooth={smooth / 2}, classes={classes})")
    for weighted in ((), (weight,)):
        value, gradient = value_and_gradient(tversky, logits, labels, *weighted)
        expected, expected_gradient = value_and_gradient(dice, logits, labels, *weighted)
        assert value.item() == pytest.approx(expected.item(), abs=1e-14)
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-15)


def test_jaccard_and_dice_of_a_class_rank_alike():
    """J = 2 D / (1 + D) as losses, for any soft prediction."""
    for seed in range(4):
        logits, labels = batch(seed=seed)
        for c in labels[labels != IGNORE].unique().tolist():
            d = term(f"dice(smooth=0, classes=[{c}])")(logits, labels).item()
            j = term(f"jaccard(smooth=0, classes=[{c}])")(logits, labels).item()
            assert j == pytest.approx(2 * d / (1 + d), abs=1e-13)


@pytest.mark.parametrize(
    "text", ["jaccard", "tversky", "focal_tversky", "focal_tversky(gamma=3)", "tversky(classes=all)"]
)
def test_perfect_prediction_is_zero_with_a_finite_gradient(text):
    _, labels = batch(2, 3, 9, 9)
    sure = F.one_hot(labels.clamp(max=2), 6).movedim(3, 1)
    for dtype, scale in ((torch.float64, 1e4), (torch.float32, 1e4), (torch.float64, 40.0), (torch.float32, 20.0)):
        value, gradient = value_and_gradient(term(text), scale * sure.to(dtype), labels)
        assert gradient.isfinite().all()
        assert value == 0 if scale == 1e4 else value < 1e-4


def test_more_weight_on_what_is_missed_favours_recall():
    """A timid prediction of a small class costs more with a larger beta, a bold one with a larger alpha."""
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[:, 3:5, 3:5] = 1
    timid = torch.stack((3.0 * torch.ones(8, 8), torch.zeros(8, 8)))[None].double()
    for text, bold_is_worse in (
        ("(alpha=0.1, beta=0.9, classes=[1])", False),
        ("(alpha=0.9, beta=0.1, classes=[1])", True),
    ):
        module = term(f"tversky{text}")
        near = timid.clone()
        near[:, 1, 2:6, 2:6] = 6.0  # right on the class, and too wide
        assert (module(near, labels) > 0.5) == bold_is_worse


@pytest.mark.parametrize("power", [0.25, 0.75, 1.0, 2.0])
def test_power_is_continuous_and_flat_enough_at_zero(power):
    values = torch.tensor([0.0, 1e-9, STRAIGHT_BELOW * (1 - 1e-9), STRAIGHT_BELOW * (1 + 1e-9), 0.3, 1.0])
    values = values.double().requires_grad_()
    result = power_of(values, power)
    (slope,) = torch.autograd.grad(result.sum(), values)
    assert result[0] == 0
    assert result[2].item() == pytest.approx(result[3].item(), rel=1e-8)
    assert torch.allclose(result[3:], values[3:] ** power, rtol=1e-12)
    assert slope.isfinite().all()
    assert slope.max().item() <= max(STRAIGHT_BELOW ** (power - 1), power)
    assert (slope >= 0).all()


def test_float32_holds_at_confident_logits():
    """1 - p_y is summed from the other classes: near 1, p_y in float32 keeps no digit of it."""
    logits, labels = batch(2, 4, 16, 16, scale=1.0)
    sure = logits + 14 * F.one_hot(labels.clamp(max=3), 4).movedim(3, 1)
    for text in ("jaccard", "tversky", "focal_tversky"):
        expected, expected_gradient = value_and_gradient(term(text), sure, labels)
        value, gradient = value_and_gradient(term(text), sure.float(), labels)
        assert value.item() == pytest.approx(expected.item(), rel=2e-5)
        difference = (gradient - expected_gradient).abs().max() / expected_gradient.abs().max()
        assert difference < 2e-5


def test_large_sums_in_half_precision():
    logits, labels = batch(1, 3, 512, 512, dtype=torch.float16)
    for text in ("jaccard", "tversky", "focal_tversky"):
        expected = term(text)(logits.double(), labels)
        assert term(text)(logits, labels).item() == pytest.approx(expected.item(), rel=1e-5)
