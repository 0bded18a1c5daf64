"""Operators that sample between pixels, through mmcv, against loops over their definition and finite differences."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from prove.errors import ProveError
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


def bilinear(plane: np.ndarray, y: float, x: float, *, reach: float) -> float:
    """The value between pixels: the border is repeated up to ``reach`` pixels outside, 0 is beyond (RoIAlign: 1)."""
    height, width = plane.shape
    if reach:
        if y < -reach or x < -reach or y > height - 1 + reach or x > width - 1 + reach:
            return 0.0
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    total = 0.0
    for row, column in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
        if 0 <= row < height and 0 <= column < width:
            total += plane[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


ROIS = [
    [0, 1.0, 2.0, 9.0, 7.5],
    [1, -4.0, -3.0, 3.2, 5.1],
    [1, 8.3, 4.4, 30.0, 22.0],
    [0, 3.0, 3.0, 3.6, 3.4],
    [0, 40.0, 40.0, 44.0, 50.0],
    [1, 5.0, 5.0, 5.0, 5.0],
]


def roi_samples(plane: np.ndarray, roi: list[float], bins: tuple[int, int], scale: float, ratio: int, aligned: bool):
    """Samples of each bin, in order."""
    x1, y1, x2, y2 = (value * scale - 0.5 * aligned for value in roi[1:])
    height, width = y2 - y1, x2 - x1
    if not aligned:
        height, width = max(height, 1), max(width, 1)
    grid_h = ratio or math.ceil(height / bins[0])
    grid_w = ratio or math.ceil(width / bins[1])
    for row, column in itertools.product(range(bins[0]), range(bins[1])):
        yield [
            bilinear(
                plane,
                y1 + height / bins[0] * (row + (i + 0.5) / grid_h),
                x1 + width / bins[1] * (column + (j + 0.5) / grid_w),
                reach=1,
            )
            for i, j in itertools.product(range(grid_h), range(grid_w))
        ]


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("scale", "ratio"), [(1.0, 2), (0.5, 0), (0.37, 3)])
def test_roi_align_samples_between_pixels(mode: str, aligned: bool, scale: float, ratio: int) -> None:
    feature = rand(2, 3, 7, 9)
    rois = torch.tensor(ROIS, dtype=torch.float64)
    output = ops.roi_align(feature, rois, (2, 3), scale, ratio, mode, aligned)
    reduce = {"avg": np.mean, "max": np.max}[mode]
    for index, channel in itertools.product(range(len(ROIS)), range(3)):
        plane = feature[int(ROIS[index][0]), channel].numpy()
        bins = roi_samples(plane, ROIS[index], (2, 3), scale, ratio, aligned)
        expected = [reduce(values) if values else 0.0 for values in bins]
        np.testing.assert_allclose(output[index, channel].flatten(), expected, atol=1e-12)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_gradient(mode: str, ratio: int) -> None:
    rois = torch.tensor(ROIS, dtype=torch.float64)
    feature = rand(2, 2, 7, 9, grad=True)
    assert gradcheck(lambda x: ops.roi_align(x, rois, (2, 2), 0.7, ratio, mode, True), feature)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_without_regions_and_in_half_precision(mode: str) -> None:
    feature = torch.randn(1, 2, 6, 6, requires_grad=True)
    output = ops.roi_align(feature, torch.zeros(0, 5), (2, 2), 1.0, 2, mode, True)
    assert output.shape == (0, 2, 2, 2)
    output.sum().backward()
    assert torch.equal(feature.grad, torch.zeros_like(feature))
    roi = torch.tensor([[0, 1.0, 1.0, 4.0, 5.0]])
    half = ops.roi_align(feature.detach().half(), roi.half(), (2, 2), 1.0, 2, mode, True)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), ops.roi_align(feature, roi, (2, 2), 1.0, 2, mode, True), atol=5e-3, rtol=0)


def test_roi_align_max_says_where() -> None:
    feature = torch.zeros(1, 1, 6, 6)
    feature[0, 0, 3, 2] = 1
    output, where_y, where_x = (torch.zeros(1, 1, 1, 1) for _ in range(3))
    arguments = {"aligned_height": 1, "aligned_width": 1, "spatial_scale": 1.0, "sampling_ratio": 5, "pool_mode": 0}
    roi = torch.tensor([[0, 0.0, 0.0, 5.0, 5.0]])
    supplied.rois.roi_align_forward(feature, roi, output, where_y, where_x, aligned=True, **arguments)
    assert (output.item(), where_y.item(), where_x.item()) == (1, 3, 2)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.3])
def test_roi_pool_takes_the_maximum_of_each_bin(scale: float) -> None:
    feature = rand(2, 3, 7, 9).float()
    output = ops.roi_pool(feature, torch.tensor(ROIS), (3, 2), scale)
    for index, (image, *box) in enumerate(ROIS):
        x1, y1 = (value * scale for value in box[:2])
        x2, y2 = ((value + 1) * scale for value in box[2:])
        for row, column in itertools.product(range(3), range(2)):
            top, bottom = y1 + row * (y2 - y1) / 3, y1 + (row + 1) * (y2 - y1) / 3
            left, right = x1 + column * (x2 - x1) / 2, x1 + (column + 1) * (x2 - x1) / 2
            region = feature[
                int(image),
                :,
                max(math.floor(top + 1e-6), 0) : max(math.ceil(bottom - 1e-6), 0),
                max(math.floor(left + 1e-6), 0) : max(math.ceil(right - 1e-6), 0),
            ].flatten(1)
            expected = region.max(1).values if region.numel() else torch.zeros(3)
            assert torch.equal(output[index, :, row, column], expected)


def test_roi_pool_gradient() -> None:
    rois = torch.tensor([*ROIS, [0, 6.0, 6.0, 2.0, 2.0]], dtype=torch.float64)
    feature = rand(2, 2, 7, 9, grad=True)
    assert gradcheck(lambda x: ops.roi_pool(x, rois, (2, 2), 0.5), feature)
    assert ops.roi_pool(feature, rois[:0], (2, 2), 0.5).shape == (0, 2, 2, 2)


def test_roi_pool_of_a_region_turned_inside_out_is_zero_without_gradient() -> None:
    feature = torch.ones(1, 1, 4, 4, requires_grad=True)
    output = ops.roi_pool(feature, torch.tensor([[0, 3.0, 3.0, 1.0, 1.0], [0, 2.5, 0.0, 1.5, 3.0]]), 2, 1.0)
    output.sum().backward()
    assert not output.any()
    assert not feature.grad.any()


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [(1, 1, 1, 1), ((2, 1), (0, 2), (1, 2), 2)])
def test_deform_conv_without_offsets_is_a_convolution(stride, padding, dilation, groups) -> None:
    x, weight, bias = rand(2, 4, 9, 8), rand(6, 4 // groups, 3, 2), rand(6)
    expected = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    offset = torch.zeros(2, 2 * 6, *expected.shape[2:], dtype=torch.float64)
    output = ops.deform_conv2d(x, offset, weight, stride, padding, dilation, groups, 1)
    torch.testing.assert_close(output, expected)
    mask = torch.full_like(offset[:, :6], 0.5)
    output = ops.modulated_deform_conv2d(x, offset, mask, weight, bias, stride, padding, dilation, groups, 1)
    torch.testing.assert_close(output, expected / 2 + bias[:, None, None])


@pytest.mark.parametrize("deform_groups", [1, 2])
def test_deform_conv_samples_at_the_offsets(deform_groups: int) -> None:
    x, weight = rand(1, 4, 5, 6), rand(3, 4, 2, 2)
    offset, mask = rand(1, deform_groups * 8, 4, 5) * 1.5, torch.rand(1, deform_groups * 4, 4, 5, dtype=torch.float64)
    plain = ops.deform_conv2d(x, offset, weight, 1, 0, 1, 1, deform_groups)
    modulated = ops.modulated_deform_conv2d(x, offset, mask, weight, None, 1, 0, 1, 1, deform_groups)
    for row, column in itertools.product(range(4), range(5)):
        expected = np.zeros((2, 3))
        for channel, i, j in itertools.product(range(4), range(2), range(2)):
            tap = channel // (4 // deform_groups) * 4 + 2 * i + j
            y = row + i + offset[0, 2 * tap, row, column].item()
            x_ = column + j + offset[0, 2 * tap + 1, row, column].item()
            value = bilinear(x[0, channel].numpy(), y, x_, reach=0)
            factor = np.array([[1.0], [mask[0, tap, row, column].item()]])
            expected += factor * value * weight[:, channel, i, j].numpy()
        np.testing.assert_allclose(plain[0, :, row, column], expected[0], atol=1e-12)
        np.testing.assert_allclose(modulated[0, :, row, column], expected[1], atol=1e-12)


def test_deform_conv_gradients() -> None:
    x, weight, bias = rand(2, 2, 5, 4, grad=True), rand(2, 1, 2, 2, grad=True), rand(2, grad=True)
    # Away from whole pixels, where bilinear sampling has no derivative.
    offset = (torch.rand(2, 16, 4, 3, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    mask = torch.rand(2, 8, 4, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda *a: ops.deform_conv2d(*a, 1, 0, 1, 2, 2), (x, offset, weight))
    assert gradcheck(lambda *a: ops.modulated_deform_conv2d(*a, 1, 0, 1, 2, 2), (x, offset, mask, weight, bias))


@pytest.mark.parametrize("modulated", [False, True])
def test_deform_conv_samples_on_whole_pixels_have_the_gradient_towards_the_next_pixel(modulated: bool) -> None:
    x = rand(1, 2, 4, 5)
    offset = torch.zeros(1, 4, 6, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    mask = torch.ones(1, 2, 6, 7, dtype=torch.float64)
    arguments = (x, offset, mask, weight, None) if modulated else (x, offset, weight)
    operator = ops.modulated_deform_conv2d if modulated else ops.deform_conv2d
    operator(*arguments, 1, 1, 1, 1, 2).sum().backward()
    for group in range(2):
        plane = F.pad(x[0, group], (0, 1, 0, 1))
        expected = torch.stack([plane.diff(dim=0)[:, :-1], plane.diff(dim=1)[:-1]])
        # One pixel out on any side, a sample is 0 and stays 0.
        torch.testing.assert_close(offset.grad[0, 2 * group : 2 * group + 2], F.pad(expected, (1, 1, 1, 1)))


def test_deform_conv_gradient_of_the_weights_alone() -> None:
    x, offset = rand(1, 2, 5, 4), rand(1, 8, 4, 3)
    assert gradcheck(lambda w: ops.deform_conv2d(x, offset, w), rand(2, 2, 2, 2, grad=True))


LEVELS = [(6, 4), (3, 2)]


def attention_inputs(grad: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    shapes = torch.tensor(LEVELS)
    starts = torch.tensor([0, 24])
    value = rand(2, 30, 2, 3, grad=grad)
    # Some points lie outside the image.
    locations = (torch.rand(2, 5, 2, 2, 4, 2, dtype=torch.float64) * 1.4 - 0.2).requires_grad_(grad)
    weights = torch.rand(2, 5, 2, 2, 4, dtype=torch.float64).requires_grad_(grad)
    return value, shapes, starts, locations, weights


def attend(*arguments: Tensor) -> Tensor:
    return ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply(*arguments, 64)


def test_deformable_attention_sums_weighted_samples() -> None:
    value, shapes, starts, locations, weights = attention_inputs()
    output = attend(value, shapes, starts, locations, weights)
    assert output.shape == (2, 5, 6)
    for image, query, head, channel in itertools.product(range(2), range(5), range(2), range(3)):
        expected = 0.0
        for level, (height, width) in enumerate(LEVELS):
            start = int(starts[level])
            plane = value[image, start : start + height * width, head, channel].reshape(height, width).numpy()
            for point in range(4):
                x, y = locations[image, query, head, level, point].tolist()
                sample = bilinear(plane, y * height - 0.5, x * width - 0.5, reach=0)
                expected += weights[image, query, head, level, point].item() * sample
        assert output[image, query, 3 * head + channel].item() == pytest.approx(expected, abs=1e-12)


def test_deformable_attention_gradients() -> None:
    value, shapes, starts, locations, weights = attention_inputs(grad=True)
    assert gradcheck(lambda v, p, w: attend(v, shapes, starts, p, w), (value, locations, weights))


def test_deformable_attention_in_half_precision_sums_in_float32() -> None:
    value, shapes, starts, locations, weights = attention_inputs()
    value, locations, weights = value.half(), locations.half(), weights.half()
    expected = attend(value.double(), shapes, starts, locations.double(), weights.double())
    output = attend(value, shapes, starts, locations, weights)
    assert output.dtype == torch.float16
    torch.testing.assert_close(output.double(), expected, rtol=1e-3, atol=1e-5)


def test_deformable_attention_refuses_levels_out_of_order() -> None:
    value, shapes, starts, locations, weights = attention_inputs()
    with pytest.raises(ProveError, match="level of 3x2 starts at 20"):
        attend(value, shapes, starts - torch.tensor([0, 4]), locations, weights)
