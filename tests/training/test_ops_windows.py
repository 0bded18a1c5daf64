"""Window operators through mmcv, against loops over their definition and finite differences."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from prove.training import ops as supplied
from prove.training.stack import load_stack

load_stack()

from mmcv import ops  # noqa: E402

pytestmark = pytest.mark.skipif(
    not isinstance(sys.modules[supplied.EXTENSION], supplied._Extension), reason="mmcv has its own compiled operators"
)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


def rand(*shape: int, grad: bool = False) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=grad)


@pytest.mark.parametrize("mask_size", [(3, 3), (4, 2), (5, 9)])
@pytest.mark.parametrize("kind", ["collect", "distribute"])
def test_psa_mask_places_each_mask_around_its_pixel(kind: str, mask_size: tuple[int, int]) -> None:
    height, width = 3, 4
    mask_h, mask_w = mask_size
    masks = rand(2, mask_h * mask_w, height, width, grad=True)
    output = ops.PSAMask(kind, mask_size)(masks)
    assert output.shape == (2, 12, 3, 4)
    pixels = list(itertools.product(range(height), range(width)))
    for (y, x), (other_y, other_x) in itertools.product(pixels, pixels):
        row, column = other_y - y + (mask_h - 1) // 2, other_x - x + (mask_w - 1) // 2
        reached = 0 <= row < mask_h and 0 <= column < mask_w
        expected = masks[:, row * mask_w + column, y, x] if reached else torch.zeros(2, dtype=torch.float64)
        first, second = ((other_y, other_x), (y, x)) if kind == "collect" else ((y, x), (other_y, other_x))
        assert torch.equal(output[:, first[0] * width + first[1], second[0], second[1]], expected)
    assert gradcheck(ops.PSAMask(kind, mask_size), masks)


def test_carafe_weighs_the_window_around_the_source_pixel() -> None:
    features, masks = rand(1, 4, 3, 3), rand(1, 2 * 9, 6, 6)
    output = ops.carafe(features, masks, 3, 2, 2)
    assert torch.equal(output, ops.carafe_naive(features, masks, 3, 2, 2))
    padded = F.pad(features[0], (1, 1, 1, 1))
    for channel, y, x in itertools.product(range(4), range(6), range(6)):
        window = padded[channel, y // 2 : y // 2 + 3, x // 2 : x // 2 + 3]
        group = channel // 2
        weights = masks[0, 9 * group : 9 * group + 9, y, x].reshape(3, 3)
        torch.testing.assert_close(output[0, channel, y, x], (window * weights).sum())


def test_carafe_gradients() -> None:
    features, masks = rand(1, 4, 3, 3, grad=True), rand(1, 2 * 9, 6, 6, grad=True)
    assert gradcheck(lambda *a: ops.carafe(*a, 3, 2, 2), (features, masks))


@pytest.mark.filterwarnings("ignore:This overload of addmm is deprecated")
@pytest.mark.parametrize(("kernel", "padding"), [((1, 1), (0, 0)), ((3, 3), (1, 1)), ((3, 5), (1, 2))])
def test_masked_convolution_is_a_convolution_where_the_mask_is(kernel, padding) -> None:
    x, weight, bias = rand(1, 3, 6, 7), rand(4, 3, *kernel), rand(4)
    mask = (torch.rand(1, 6, 7) < 0.4).double()
    output = ops.masked_conv2d(x, mask, weight, bias, padding)
    torch.testing.assert_close(output, F.conv2d(x, weight, bias, padding=padding) * mask)
    assert not ops.masked_conv2d(x, mask * 0, weight, bias, padding).any()


def test_autocast_does_not_lower_the_precision() -> None:
    features, masks = (torch.randn(shape, requires_grad=True) for shape in ((1, 4, 3, 3), (1, 18, 6, 6)))
    expected = ops.carafe(features, masks, 3, 2, 2)
    expected_grads = torch.autograd.grad(expected.square().sum(), (features, masks))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = ops.carafe(features, masks, 3, 2, 2)
        grads = torch.autograd.grad(output.square().sum(), (features, masks))
    assert torch.equal(output, expected)
    assert all(map(torch.equal, grads, expected_grads))
