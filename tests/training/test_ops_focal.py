"""Focal losses through mmcv, against torchvision, cross entropy and finite differences."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
import torchvision
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


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_sigmoid_focal_loss_is_that_of_torchvision(gamma: float, weighted: bool) -> None:
    logits = (rand(20, 4) * 4).requires_grad_()
    target = torch.randint(0, 4, (20,))
    weight = torch.rand(4, dtype=torch.float64) if weighted else None
    expected = torchvision.ops.sigmoid_focal_loss(logits, F.one_hot(target, 4).double(), alpha=0.3, gamma=gamma)
    if weight is not None:
        expected = expected * weight[target][:, None]
    loss = ops.sigmoid_focal_loss(logits, target, gamma, 0.3, weight, "none")
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ops.sigmoid_focal_loss(logits, target, gamma, 0.3, weight, "mean"), expected.sum() / 20)
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    (expected_grad,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(grad, expected_grad)
    assert gradcheck(lambda x: ops.sigmoid_focal_loss(x, target, gamma, 0.3, weight, "sum"), logits)


def test_sigmoid_focal_loss_of_background_and_ignored_rows_is_against_all_classes() -> None:
    logits = rand(3, 4)
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([4, -1, 255]), 2.0, 0.25, None, "none")
    expected = torchvision.ops.sigmoid_focal_loss(logits, torch.zeros(3, 4, dtype=torch.float64), 0.25, 2.0)
    torch.testing.assert_close(loss, expected)


def test_sigmoid_focal_loss_of_extreme_logits_is_exact() -> None:
    logits = torch.tensor([[-300.0, 300.0]], requires_grad=True)
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([0]), 2.0, 0.25, None, "none")
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), torch.tensor([[75.0, 225.0]]))
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.25, 0.75]]))


def softmax_focal(logits: Tensor, target: Tensor, gamma: float, alpha: float, weight: Tensor | None) -> Tensor:
    """From cross entropy: -log p = CE."""
    ce = F.cross_entropy(logits, target, reduction="none", ignore_index=-1)
    factor = alpha if weight is None else alpha * weight[target.clamp(min=0)]
    return factor * (1 - torch.exp(-ce)) ** gamma * ce


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_softmax_focal_loss_follows_from_cross_entropy(gamma: float, weighted: bool) -> None:
    logits = rand(20, 4, grad=True)
    target = torch.randint(0, 4, (20,))
    weight = torch.rand(4, dtype=torch.float64) if weighted else None
    expected = softmax_focal(logits, target, gamma, 0.3, weight)
    torch.testing.assert_close(ops.softmax_focal_loss(logits, target, gamma, 0.3, weight, "none"), expected)
    loss = ops.softmax_focal_loss(logits, target, gamma, 0.3, weight, "mean")
    torch.testing.assert_close(loss, expected.mean())
    (grad,) = torch.autograd.grad(loss, logits)
    (expected_grad,) = torch.autograd.grad(expected.mean(), logits)
    torch.testing.assert_close(grad, expected_grad)


def test_softmax_focal_loss_skips_negative_targets() -> None:
    logits = rand(4, 3, grad=True)
    target = torch.tensor([0, -1, 2, -1])
    loss = ops.softmax_focal_loss(logits, target, 2.0, 0.25, None, "sum")
    loss.backward()
    torch.testing.assert_close(loss, softmax_focal(logits[::2], target[::2], 2.0, 0.25, None).sum())
    assert not logits.grad[1::2].any()
    assert logits.grad[::2].all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_softmax_focal_loss_of_a_certain_row_has_no_nan(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    loss = ops.softmax_focal_loss(logits, torch.tensor([0, 0]), gamma, 1.0, None, "sum")
    loss.backward()
    assert loss.isfinite()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0], [-1.0, 1.0]]))
