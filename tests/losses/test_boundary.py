"""Boundary loss against OpenCV's Sobel operator and NumPy."""

import cv2
import numpy as np
import pytest
import torch
from loss_batches import IGNORE, batch, term, value_and_gradient
from torch.nn import functional as F

from prove.losses.boundary import sobel_squared

pytestmark = pytest.mark.usefixtures("backend")


def opencv_squared(channel):
    across = cv2.Sobel(channel, cv2.CV_64F, 1, 0, ksize=3, borderType=cv2.BORDER_REPLICATE)
    down = cv2.Sobel(channel, cv2.CV_64F, 0, 1, ksize=3, borderType=cv2.BORDER_REPLICATE)
    return across**2 + down**2


def in_numpy(logits, labels, pos_weight):
    probs = logits.softmax(1).numpy()
    loss, edge = [], []
    for p, y in zip(probs, labels.numpy(), strict=True):
        ignored = (y == IGNORE).astype(np.uint8)
        whole = cv2.dilate(ignored, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT, borderValue=0) == 0
        for c in range(len(p)):
            t = np.sqrt(opencv_squared((y == c).astype(np.float64)) / 20)[whole]
            b = np.sqrt((opencv_squared(p[c]) + 1e-4) / (20 + 1e-4))[whole]
            loss.append(-t * np.log(b) - (1 - t) * np.log(1 - b))
            edge.append(t > 0)
    loss, edge = np.concatenate(loss), np.concatenate(edge)
    if pos_weight == "balanced":
        return (loss[edge].mean() + loss[~edge].mean()) / 2
    weight = np.where(edge, pos_weight, 1.0)
    return (loss * weight).sum() / weight.sum()


@pytest.mark.parametrize("pos_weight", ["balanced", 1.0, 7.5])
@pytest.mark.parametrize("seed", range(4))
def test_equals_opencv_and_numpy(pos_weight, seed):
    logits, labels = batch(2, 4, 13, 11, ignored=0.04, seed=seed)
    expected = in_numpy(logits, labels, pos_weight)
    assert term(f"boundary(pos_weight={pos_weight})")(logits, labels).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (7, 4)])
def test_sobel_is_that_of_opencv(shape):
    maps = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = np.stack([[opencv_squared(channel) for channel in image] for image in maps.numpy()])
    np.testing.assert_allclose(sobel_squared(maps).numpy(), expected, atol=1e-12)


def test_twenty_is_the_largest_square_of_all_binary_patches():
    patches = torch.tensor([[(number >> bit) & 1 for bit in range(9)] for number in range(512)])
    squares = sobel_squared(patches.view(512, 1, 3, 3).double())[:, 0, 1, 1]
    assert squares.max() == 20


def test_the_largest_edge_predicted_where_there_is_none_is_finite():
    mask = torch.tensor([[0, 0, 1], [0, 0, 1], [0, 1, 1]])  # magnitude sqrt(20) in the middle
    assert sobel_squared(mask.view(1, 1, 3, 3).double())[0, 0, 1, 1] == 20
    logits = 1e4 * torch.stack((1 - mask, mask))[None].double()
    value, gradient = value_and_gradient(term("boundary"), logits, torch.zeros(1, 3, 3, dtype=torch.long))
    assert value.isfinite()
    assert gradient.isfinite().all()


def test_smallest_at_the_labels_own_edges():
    """In the edges b the optimum is b = t, whatever the weight: every step away from one-hot logits costs."""
    labels = torch.zeros(1, 12, 12, dtype=torch.long)
    labels[:, 3:9, 4:10] = 1
    truth = F.one_hot(labels, 2).movedim(3, 1).double()
    for text in ("boundary", "boundary(pos_weight=1)", "boundary(pos_weight=20)"):
        best = term(text)(60 * truth, labels)
        for logits in (1 * truth, 3 * truth, 60 * truth.roll(1, 3), 60 * truth.roll((1, 2), (2, 3)), 0 * truth):
            assert term(text)(logits, labels) > best + 1e-3


def test_neighbourhoods_that_touch_ignored_pixels_do_not_count():
    logits, labels = batch(1, 3, 9, 9, ignored=0)
    labels[0, 4, 4] = IGNORE
    value, _ = value_and_gradient(term("boundary"), logits, labels)
    other = logits.clone()
    other[:, :, 4, 4] += 5
    relabelled = labels.clone()
    assert torch.equal(term("boundary")(other, relabelled), value)
    # a neighbour still counts through the neighbourhoods that do not touch the ignored pixel
    neighbour = logits.clone()
    neighbour[:, 0, 3, 3] += 5
    assert not torch.equal(term("boundary")(neighbour, labels), value)
    # between two ignored pixels three apart no neighbourhood is whole: the middle has no influence at all
    labels[0, 3:6, 3:6] = IGNORE
    labels[0, 4, 4] = 0
    _, gradient = value_and_gradient(term("boundary"), logits, labels)
    assert (gradient[:, :, 4, 4] == 0).all()


def test_balanced_gives_edges_half_of_the_mean():
    logits, labels = batch(1, 2, 16, 16, ignored=0)
    edge_share = (sobel_squared(F.one_hot(labels, 2).movedim(3, 1).double()) > 0).double().mean().item()
    weight = (1 - edge_share) / edge_share
    expected = term(f"boundary(pos_weight={weight!r})")(logits, labels)
    assert term("boundary")(logits, labels).item() == pytest.approx(expected.item(), rel=1e-12)


def test_without_edges_it_is_the_mean_of_the_rest():
    logits, labels = batch(1, 3, 6, 6, ignored=0)
    flat = torch.zeros_like(labels)
    assert torch.equal(term("boundary")(logits, flat), term("boundary(pos_weight=1)")(logits, flat))
