"""Dice loss against scikit-learn's F1 score, and against its fraction in NumPy."""

import numpy as np
import pytest
import torch
from loss_batches import IGNORE, batch, term
from sklearn.metrics import f1_score
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures("backend")


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_is_one_minus_f1_of_hard_predictions(squared, seed):
    _, labels = batch(2, 4, 12, 12, ignored=0.1, seed=seed)
    guess = torch.randint(0, 4, labels.shape, generator=torch.Generator().manual_seed(seed))
    guess = torch.where(torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.6, labels, guess)
    guess = guess.clamp(max=3)
    logits = 1e4 * F.one_hot(guess, 4).movedim(3, 1).double()
    valid = labels != IGNORE
    present = labels[valid].unique().tolist()
    expected = 1 - f1_score(labels[valid], guess[valid], labels=present, average="macro")
    value = term(f"dice(smooth=0, squared={str(squared).lower()})")(logits, labels)
    assert value.item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("smooth", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("classes", ["all", "present", [1, 3]])
def test_equals_the_fraction(smooth, squared, classes):
    logits, labels = batch(2, 5, 5, 4, seed=11)
    p = logits.softmax(1).movedim(1, -1)[labels != IGNORE].numpy()
    y = labels[labels != IGNORE].numpy()
    assert len(np.unique(y)) < 5  # an absent class, so that all and present differ
    losses = []
    for c in {"all": range(5), "present": np.unique(y)}.get(str(classes), classes):
        g = (y == c).astype(np.float64)
        size = (p[:, c] ** 2).sum() if squared else p[:, c].sum()
        losses.append(1 - (2 * (p[:, c] * g).sum() + smooth) / (size + g.sum() + smooth))
    module = term(f"dice(smooth={smooth}, squared={str(squared).lower()}, classes={classes})")
    assert module(logits, labels).item() == pytest.approx(np.mean(losses), abs=1e-13)


def test_perfect_prediction_is_zero_and_absent_classes_are_left_out():
    _, labels = batch(2, 3, 9, 9)
    perfect = 1e4 * F.one_hot(labels.clamp(max=2), 6).movedim(3, 1).double()
    for text in ("dice", "dice(squared=true)", "dice(classes=all)", "dice(classes=all, smooth=0)"):
        assert term(text)(perfect, labels) == 0


def test_large_sums_in_half_precision():
    """At 512 x 512 sums in float16 overflow to inf; the loss is then NaN or stuck at 1."""
    logits, labels = batch(1, 3, 512, 512, dtype=torch.float16)
    expected = term("dice")(logits.double(), labels)
    assert term("dice")(logits, labels).item() == pytest.approx(expected.item(), rel=1e-5)
