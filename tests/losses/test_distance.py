"""Kervadec's boundary loss and its distance maps against brute force and the authors' code."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from loss_batches import IGNORE, batch, term, value_and_gradient
from scipy.ndimage import distance_transform_edt
from torch.nn import functional as F

from prove.errors import ProveError
from prove.losses import Pixels
from prove.losses.distance_maps import border_distances, distance_maps


def nearest(mask):
    """The distance of every pixel to the nearest one of the mask, by trying all."""
    points = np.argwhere(mask)
    everywhere = np.argwhere(np.ones_like(mask))
    squares = ((everywhere[:, None] - points[None]) ** 2).sum(axis=2)
    return np.sqrt(squares.min(axis=1)).reshape(mask.shape)


@pytest.mark.parametrize("ignored", [0.0, 0.1, 0.8, 1.0])
@pytest.mark.parametrize("shape", [(17, 13), (1, 9), (6, 1), (1, 1)])
def test_maps_are_exact(shape, ignored):
    for seed in range(4):
        _, labels = batch(1, 4, *shape, ignored=ignored, seed=seed)
        image = labels[0].numpy()
        maps = distance_maps(image, 5, IGNORE, np.float64)
        assert maps.shape == (5, *shape)
        for c in range(5):
            own = image == c
            expected = np.zeros(shape)
            if own.any() and not own.all():
                expected = np.where(own, 1 - nearest(~own), nearest(own))
            np.testing.assert_allclose(maps[c], expected, atol=1e-13)
        rounded = distance_maps(image, 5, IGNORE)
        assert rounded.dtype == np.float32
        np.testing.assert_array_equal(rounded, maps.astype(np.float32))


def test_maps_are_those_of_the_authors():
    """`one_hot2dist` of github.com/LIVIAETS/boundary-loss, which skips absent classes only."""
    for seed in range(4):
        _, labels = batch(1, 4, 20, 15, ignored=0.0, seed=seed)
        image = labels[0].numpy()
        maps = distance_maps(image, 4, IGNORE, np.float64)
        for c in range(4):
            inside = image == c
            if inside.any():
                outside = ~inside
                expected = distance_transform_edt(outside) * outside - (distance_transform_edt(inside) - 1) * inside
                np.testing.assert_array_equal(maps[c], expected)


def test_a_class_that_fills_the_image_or_is_absent_has_no_border():
    maps = distance_maps(np.full((40, 40), 2), 4, IGNORE)
    assert (maps == 0).all()
    assert (border_distances(np.ones((5, 5), bool)) == 0).all()
    assert (border_distances(np.zeros((5, 5), bool)) == 0).all()


def test_any_integer_type_of_labels():
    _, labels = batch(1, 4, 9, 9)
    expected = distance_maps(labels[0].numpy(), 4, IGNORE)
    for dtype in (np.uint8, np.int32):
        np.testing.assert_array_equal(distance_maps(labels[0].numpy().astype(dtype), 4, IGNORE), expected)
    moved = np.where(labels[0].numpy() == IGNORE, -1, labels[0].numpy())
    np.testing.assert_array_equal(distance_maps(moved, 4, -1), expected)


@pytest.mark.parametrize("classes", ["all", "present", [1, 3]])
@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force(classes, seed):
    logits, labels = batch(2, 4, 9, 8, ignored=0.1, seed=seed)
    p, total = logits.softmax(1).numpy(), 0.0
    for image, y in zip(p, labels.numpy(), strict=True):
        for c in range(4) if isinstance(classes, str) else classes:
            own = y == c
            if own.any():
                total += (image[c] * np.where(own, 1 - nearest(~own), nearest(own)))[y != IGNORE].sum()
    expected = total / (labels != IGNORE).sum().item()
    assert term(f"distance(classes={classes})")(logits, labels).item() == pytest.approx(expected, abs=1e-12)


def test_smallest_at_a_perfect_prediction_and_negative_there():
    _, labels = batch(2, 4, 12, 12, ignored=0.0)
    labels[0, 2:9, 2:9] = 0  # deep enough to have an inside
    perfect = 1e4 * F.one_hot(labels, 4).movedim(3, 1).double()
    best = term("distance")(perfect, labels)
    assert best < 0
    for seed in range(5):
        guess = torch.randint(0, 4, labels.shape, generator=torch.Generator().manual_seed(seed))
        assert term("distance")(1e4 * F.one_hot(guess, 4).movedim(3, 1).double(), labels) > best


def test_is_linear_in_the_probabilities():
    logits, labels = batch()
    first, second = logits.softmax(1), logits.flip(1).softmax(1)
    mixed = (0.3 * first + 0.7 * second).log()
    expected = 0.3 * term("distance")(logits, labels) + 0.7 * term("distance")(logits.flip(1), labels)
    assert term("distance")(mixed, labels).item() == pytest.approx(expected.item(), abs=1e-12)


def test_an_image_of_one_class_has_no_gradient():
    logits, labels = batch(ignored=0.0)
    value, gradient = value_and_gradient(term("distance"), logits, torch.full_like(labels, 2))
    assert value == 0
    assert (gradient == 0).all()


def with_maps(logits, labels, maps):
    pixels = Pixels.of(logits, labels, IGNORE)
    object.__setattr__(pixels, "distance_maps", maps)  # as they come from a data worker
    return pixels


def test_maps_that_come_with_the_batch_are_used():
    logits, labels = batch(dtype=torch.float32)
    maps = torch.from_numpy(np.stack([distance_maps(image, 4, IGNORE) for image in labels.numpy()]))
    assert torch.equal(term("distance").value(with_maps(logits, labels, maps)), term("distance")(logits, labels))
    doubled = term("distance").value(with_maps(logits, labels, 2 * maps))
    assert doubled.item() == pytest.approx(2 * term("distance")(logits, labels).item())
    with pytest.raises(ProveError, match="distance maps are"):
        term("distance").value(with_maps(logits, labels, maps[:, :3]))


def test_data_workers_need_no_torch():
    code = "import sys, prove.losses.distance_maps; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
