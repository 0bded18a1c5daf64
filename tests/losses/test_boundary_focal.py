"""Focal loss with weight on edges, against OpenCV, NumPy and the plain focal loss."""

import cv2
import numpy as np
import pytest
import torch
from loss_batches import IGNORE, batch, term, value_and_gradient

from prove.losses.boundary_focal import edge_map
from prove.losses.pixels import Pixels

pytestmark = pytest.mark.usefixtures("backend")


def edges_in_opencv(labels, num_classes, width):
    """[H, W] of one image."""
    edges = np.zeros(labels.shape)
    for c in range(num_classes):
        own = (labels == c).astype(np.float64)
        across = cv2.Sobel(own, cv2.CV_64F, 1, 0, ksize=3, borderType=cv2.BORDER_REPLICATE)
        down = cv2.Sobel(own, cv2.CV_64F, 0, 1, ksize=3, borderType=cv2.BORDER_REPLICATE)
        edges = np.maximum(edges, np.hypot(across, down) / np.sqrt(20))
    ignored = (labels == IGNORE).astype(np.uint8)
    touched = cv2.dilate(ignored, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    edges[touched > 0] = 0
    window = np.ones((2 * width + 1, 2 * width + 1))
    return cv2.dilate(edges, window, borderType=cv2.BORDER_CONSTANT, borderValue=0)


def edges_of(labels, num_classes, width):
    pixels = Pixels.of(torch.zeros(len(labels), num_classes, *labels.shape[1:]), labels, IGNORE)
    return edge_map(pixels.one_hot, pixels.valid, width, torch.float64)


@pytest.mark.parametrize("width", [0, 1, 3])
@pytest.mark.parametrize("shape", [(13, 11), (1, 7), (2, 2), (5, 1)])
def test_edges_are_those_of_opencv(shape, width):
    for seed in range(3):
        _, labels = batch(2, 4, *shape, ignored=0.04, seed=seed)
        expected = np.stack([edges_in_opencv(image, 4, width) for image in labels.numpy()])
        np.testing.assert_allclose(edges_of(labels, 4, width).numpy(), expected, atol=1e-15)


@pytest.mark.parametrize("text", ["", "edge_weight=20, width=0", "gamma=0.5, alpha=[1, 2, 0.1, 3], width=3"])
def test_equals_numpy(text):
    logits, labels = batch(2, 4, 13, 11, ignored=0.04)
    module = term(f"boundary_focal({text})" if text else "boundary_focal")
    valid = labels.numpy() != IGNORE
    edges = np.stack([edges_in_opencv(image, 4, module.width) for image in labels.numpy()])[valid]
    y = labels.numpy()[valid]
    p = logits.softmax(1).movedim(1, -1).numpy()[valid][np.arange(len(y)), y]
    alpha = np.asarray(module.alpha)[y] if isinstance(module.alpha, tuple) else module.alpha
    expected = ((1 + module.edge_weight * edges) * alpha * (1 - p) ** module.gamma * -np.log(p)).mean()
    assert module(logits, labels).item() == pytest.approx(expected, abs=1e-12)


def test_without_edges_it_is_the_focal_loss():
    logits, labels = batch()
    weight = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0))
    for other in (labels, torch.where(labels == IGNORE, IGNORE, 2)):
        text = "boundary_focal(edge_weight=0)" if other is labels else "boundary_focal"
        for weighted in ((), (weight,)):
            value, gradient = value_and_gradient(term(text), logits, other, *weighted)
            expected, expected_gradient = value_and_gradient(term("focal"), logits, other, *weighted)
            assert torch.equal(value, expected)
            torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-16)


def test_a_straight_edge_and_how_far_it_reaches():
    labels = torch.zeros(1, 5, 12, dtype=torch.long)
    labels[..., 6:] = 1
    for width in (0, 1, 2):
        edges = edges_of(labels, 3, width)
        near = torch.zeros(12, dtype=torch.bool)
        near[5 - width : 7 + width] = True
        assert torch.equal(edges[0] > 0, near.expand(5, 12))
        assert edges.max().item() == pytest.approx(4 / 20**0.5)


def test_the_border_of_an_ignored_region_is_no_edge():
    labels = torch.full((1, 9, 9), 1)
    labels[:, 3:6, 3:6] = IGNORE
    assert (edges_of(labels, 3, 2) == 0).all()
