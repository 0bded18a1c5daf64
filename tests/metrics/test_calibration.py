"""The calibration histogram and ECE against torchmetrics, the paper's loop and their laws."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from prove.errors import ProveError
from prove.metrics import calibration_histogram, ece


def batch(seed, classes=5, shape=(30, 40), ignored=0.1):
    generator = torch.Generator().manual_seed(seed)
    prob = (3 * torch.randn((classes, *shape), generator=generator)).softmax(0)
    label = torch.randint(0, classes, shape, generator=generator)
    label = torch.where(torch.rand(shape, generator=generator) < 0.5, prob.argmax(0), label)
    return prob, torch.where(torch.rand(shape, generator=generator) < ignored, 255, label)


def ece_from_the_paper(prob, label, bins):
    """Guo et al. 2017, equation 3, one pixel after the other."""
    members = [[] for _ in range(bins)]
    for p, y in zip(prob.flatten(1).T.double().tolist(), label.flatten().tolist(), strict=True):
        if y != 255:
            confidence = max(p)
            b = next(b for b in range(bins) if confidence <= (b + 1) / bins)
            members[b].append((confidence, p.index(confidence) == y))
    pixels = sum(map(len, members))
    gaps = [abs(sum(c for c, _ in m) / len(m) - sum(ok for _, ok in m) / len(m)) * len(m) for m in members if m]
    return sum(gaps) / pixels


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_torchmetrics_and_the_paper(bins, seed):
    prob, label = batch(seed)
    value = ece(calibration_histogram(prob, label, bins))
    peer = multiclass_calibration_error(prob[None], label[None], 5, n_bins=bins, norm="l1", ignore_index=255)
    assert value == pytest.approx(100 * float(peer), rel=1e-4)
    assert value == pytest.approx(100 * ece_from_the_paper(prob, label, bins), rel=1e-9)


def test_histogram_sums_over_images():
    images = [batch(seed) for seed in range(3)]
    together = calibration_histogram(torch.cat([p for p, _ in images], 1), torch.cat([y for _, y in images], 0))
    stacked = np.stack([calibration_histogram(p, y) for p, y in images])
    np.testing.assert_allclose(stacked.sum(0), together, rtol=1e-12)
    assert ece(stacked) == pytest.approx(ece(together), rel=1e-12)
    valid = sum(int((y != 255).sum()) for _, y in images)
    assert together[0].sum() == valid
    assert together[2].sum() == sum(int((p.argmax(0) == y).sum()) for p, y in images)


@pytest.mark.parametrize("bins", [5, 10, 15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_edge_belongs_to_the_bin_below(bins, dtype):
    edges = torch.arange(0, bins + 1, dtype=dtype) / bins
    prob = torch.stack([edges, torch.zeros_like(edges)])[:, None]
    histogram = calibration_histogram(prob, torch.zeros((1, bins + 1), dtype=torch.int64), bins)
    assert histogram[0].tolist() == [2.0] + [1.0] * (bins - 1)  # 0 and 1/bins share the first


def test_calibrated_and_overconfident_by_hand():
    label = torch.tensor([[0, 0, 0, 1]])
    calibrated = torch.tensor([0.75, 0.25])[:, None, None].expand(2, 1, 4)
    assert ece(calibration_histogram(calibrated, label)) == pytest.approx(0, abs=1e-6)
    certain = torch.tensor([1.0, 0.0])[:, None, None].expand(2, 1, 4)
    assert ece(calibration_histogram(certain, label)) == pytest.approx(25)


def test_ignored_pixels_have_no_influence():
    prob, label = batch(2)
    spoiled = torch.where(label == 255, torch.nan, prob)
    np.testing.assert_array_equal(calibration_histogram(spoiled, label), calibration_histogram(prob, label))


def test_nothing_labelled_is_nan():
    prob, label = batch(3)
    histogram = calibration_histogram(prob, torch.full_like(label, 255))
    assert not histogram.any()
    assert np.isnan(ece(histogram))


def test_half_precision_confidences_are_summed_exactly():
    prob = torch.full((2, 200, 400), 0.5, dtype=torch.float16)
    histogram = calibration_histogram(prob, torch.zeros((200, 400), dtype=torch.uint8))
    assert histogram[0].sum() == 80_000
    assert histogram[1].sum() == 40_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, y: (p.log(), y), "is no probability"),
        (lambda p, y: (p * 3, y), "is no probability"),
        (lambda p, y: (torch.full_like(p, torch.nan), y), "is no probability"),
        (lambda p, y: (p, torch.full_like(y, 5)), "label map holds 5 at row 0, column 0"),
        (lambda p, y: (p[:, 1:], y), "of shape"),
        (lambda p, y: (p.long(), y), "floats of shape"),
        (lambda p, y: (p, y.float()), "integer class indices"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(ProveError, match=message):
        calibration_histogram(*change(*batch(4)))
