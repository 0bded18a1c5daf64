"""Hausdorff loss against brute force and MONAI."""

import numpy as np
import pytest
import torch
from loss_batches import IGNORE, batch, term, value_and_gradient
from torch.nn import functional as F


def border(mask):
    """The distance of every pixel to the nearest one on the other side, by trying all; 0 without a border."""
    if mask.all() or not mask.any():
        return np.zeros(mask.shape)
    inside, outside = np.argwhere(mask), np.argwhere(~mask)
    squares = ((inside[:, None] - outside[None]) ** 2).sum(axis=2)
    distances = np.zeros(mask.shape)
    distances[mask] = np.sqrt(squares.min(axis=1))
    distances[~mask] = np.sqrt(squares.min(axis=0))
    return distances


def by_brute_force(logits, labels, alpha, classes):
    y = labels.numpy()
    valid, total = y != IGNORE, 0.0
    chosen = {"all": range(logits.shape[1]), "present": np.unique(y[valid])}.get(str(classes), classes)
    for image, truth, v in zip(logits.softmax(1).numpy(), y, valid, strict=True):
        for c in chosen:
            far = border((image[c] > 0.5) & v) ** alpha + border(truth == c) ** alpha
            total += ((image[c] - (truth == c)) ** 2 * far)[v].sum()
    return total / (valid.sum() * len(chosen))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("classes", ["all", "present", [0, 2]])
@pytest.mark.parametrize("ignored", [0.0, 0.15])
def test_equals_brute_force(ignored, classes, alpha):
    for seed in range(3):
        logits, labels = batch(2, 5, 9, 8, ignored=ignored, seed=seed, scale=3.0)
        expected = by_brute_force(logits, labels, alpha, classes)
        value = term(f"hausdorff(alpha={alpha}, classes={classes})")(logits, labels)
        assert value.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_equals_monai_where_nothing_is_ignored(alpha):
    from monai.losses import HausdorffDTLoss

    monai = HausdorffDTLoss(alpha=alpha, include_background=True, to_onehot_y=False, softmax=True)
    for seed in range(3):
        logits, labels = batch(3, 4, 11, 9, ignored=0.0, seed=seed, scale=3.0)

        def other(z, y):
            return monai(z, F.one_hot(y, 4).movedim(3, 1).double())

        value, gradient = value_and_gradient(term(f"hausdorff(alpha={alpha})"), logits, labels)
        expected, expected_gradient = value_and_gradient(other, logits, labels)
        # MONAI keeps its distances in float32
        assert value.item() == pytest.approx(expected.item(), rel=1e-6)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-8)


def test_perfect_prediction_is_zero():
    _, labels = batch(2, 3, 9, 9)
    perfect = 1e4 * F.one_hot(labels.clamp(max=2), 5).movedim(3, 1).double()
    for text in ("hausdorff", "hausdorff(alpha=0)", "hausdorff(classes=present)"):
        value, gradient = value_and_gradient(term(text), perfect, labels)
        assert value == 0
        assert (gradient == 0).all()


def test_far_errors_cost_more():
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[:, 2:6, 2:6] = 1
    values = []
    for column in (6, 9, 14):
        guess = labels.clone()
        guess[:, 3, column] = 1
        values.append(term("hausdorff")(1e4 * F.one_hot(guess, 2).movedim(3, 1).double(), labels).item())
    assert values == sorted(values)
    assert values[2] > 10 * values[0]


@pytest.mark.parametrize("alpha", [0, 2])
def test_masks_without_a_border_have_no_distance(alpha):
    """Nothing is predicted with more than 1/2 and the labels hold one class only: no border anywhere."""
    labels = torch.zeros(1, 6, 6, dtype=torch.long)
    value, gradient = value_and_gradient(term(f"hausdorff(alpha={alpha})"), torch.zeros(1, 3, 6, 6).double(), labels)
    assert value == 0
    assert (gradient == 0).all()


def test_the_distance_carries_no_gradient():
    """For fixed masks the loss is a square in p: half of the way to the labels is a quarter of the loss."""
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[:, 2:6, 2:6] = 1
    module = term("hausdorff")

    def at(error):  # the probability of the wrong class, everywhere below 1/2: the masks are the labels
        truth = F.one_hot(labels, 2).movedim(3, 1).double()
        return module((truth + error * (1 - 2 * truth)).log(), labels).item()

    assert at(0.4) == pytest.approx(4 * at(0.2), rel=1e-12)
