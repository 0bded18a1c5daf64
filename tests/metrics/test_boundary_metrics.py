"""Boundary counts against slow versions written from the papers' definitions, and their laws."""

import math

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from prove.errors import ProveError
from prove.metrics import BoundaryCounts, boundary_counts, boundary_summary
from prove.metrics.boundary import band_width_px, tolerance_px
from prove.metrics.counts import BOUNDARY_FIELDS


def blobs(seed, height=24, width=31, classes=4, ignored=0.0):
    """A label map of smooth regions and a prediction that is wrong near some of their borders."""
    rng = np.random.default_rng(seed)
    scores = np.stack([ndi.gaussian_filter(rng.standard_normal((height, width)), 3) for _ in range(classes)])
    noise = np.stack([ndi.gaussian_filter(rng.standard_normal((height, width)), 2) for _ in range(classes)])
    label, pred = scores.argmax(0), (scores + 0.5 * noise).argmax(0)
    if ignored:
        void = ndi.gaussian_filter(rng.standard_normal((height, width)), 2)
        label = np.where(void < np.quantile(void, ignored), 255, label)
    return pred, label


def band_from_the_paper(classes, valid, c, distance):
    """Pixels of the mask that erosion by a square takes away, ignored pixels counted as part of every mask."""
    mask = (classes == c) & valid
    square = np.ones((2 * distance + 1, 2 * distance + 1), bool)
    padded = np.pad(mask | ~valid, distance, constant_values=False)
    eroded = ndi.binary_erosion(padded, square)[distance:-distance, distance:-distance]
    return mask & ~eroded


def contour_by_loop(classes, valid, c):
    points = []
    height, width = classes.shape
    for y, x in np.argwhere((classes == c) & valid):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [(j, i) for j, i in around if 0 <= j < height and 0 <= i < width and valid[j, i]]
        if any(classes[j, i] != c for j, i in inside):
            points.append((y, x))
    return np.array(points).reshape(-1, 2)


def slow_counts(pred, label, classes, dilation_ratio, tolerance_ratio):
    valid = label != 255
    diagonal = math.hypot(*label.shape)
    distance = max(1, round(dilation_ratio * diagonal))
    tolerance = math.ceil(tolerance_ratio * diagonal)
    hidden = np.argwhere(~valid)
    counts = {name: np.zeros(classes, np.int64) for name in BOUNDARY_FIELDS}
    for c in range(classes):
        bands = [band_from_the_paper(array, valid, c, distance) for array in (pred, label)]
        counts["band_predicted"][c], counts["band_labelled"][c] = bands[0].sum(), bands[1].sum()
        counts["band_intersection"][c] = (bands[0] & bands[1]).sum()
        contours = [contour_by_loop(array, valid, c) for array in (pred, label)]
        for name, mine, other in (("predicted", *contours), ("labelled", *contours[::-1])):
            judged = mine
            if len(mine) and len(hidden):
                judged = mine[cdist(mine, hidden, "sqeuclidean").min(1) > tolerance**2]
            counts[f"contour_{name}"][c] = len(judged)
            if len(judged) and len(other):
                near = cdist(judged, other, "sqeuclidean").min(1) <= tolerance**2
                counts[f"contour_{name}_matched"][c] = near.sum()
    return counts


def assert_counts(counts, expected):
    for name in BOUNDARY_FIELDS:
        got = getattr(counts, name)
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, expected[name], err_msg=name)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 24),
    width=st.integers(1, 31),
    classes=st.integers(1, 5),
    ignored=st.sampled_from([0.0, 0.15, 0.5, 1.0]),
    ratios=st.sampled_from([(0.02, 0.0075), (0.1, 0.05), (0.3, 0.2)]),
)
def test_equals_the_definitions(seed, height, width, classes, ignored, ratios):
    pred, label = blobs(seed, height, width, classes, ignored)
    assert_counts(boundary_counts(pred, label, classes, 255, *ratios), slow_counts(pred, label, classes, *ratios))


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_definitions_on_noise(seed):
    rng = np.random.default_rng(seed)
    pred, label = rng.integers(0, 3, (2, 20, 20))
    label[rng.random(label.shape) < 0.1] = 255
    assert_counts(boundary_counts(pred, label, 3, 255, 0.08, 0.1), slow_counts(pred, label, 3, 0.08, 0.1))


def test_many_classes_take_the_wider_type():
    pred, label = blobs(3)
    few = boundary_counts(pred, label, 4)
    many = boundary_counts(pred + 600, np.where(label == 255, 255, label + 600), 1000)
    for name in BOUNDARY_FIELDS:
        np.testing.assert_array_equal(getattr(many, name)[600:604], getattr(few, name))
        assert getattr(many, name).sum() == getattr(few, name).sum()


@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_perfect_prediction_is_100_whatever_stands_on_ignored_pixels(ignored):
    _, label = blobs(5, ignored=ignored)
    summary = boundary_summary(boundary_counts(np.where(label == 255, 0, label), label, 4))
    assert summary["bIoU"] == 100
    assert summary["bF1"] == 100


def test_prediction_on_ignored_pixels_has_no_influence():
    pred, label = blobs(6, ignored=0.3)
    other = np.where(label == 255, (pred + 1) % 4, pred)
    before, after = boundary_counts(pred, label, 4), boundary_counts(other, label, 4)
    for name in BOUNDARY_FIELDS:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_border_of_an_ignored_region_is_no_class_boundary():
    """A car whose surroundings are unlabelled has no boundary, though the mask's erosion would say so."""
    label = np.full((60, 60), 255)
    label[20:40, 20:40] = 1
    counts = boundary_counts(np.ones((60, 60), int), label, 2)
    for name in BOUNDARY_FIELDS:
        assert not getattr(counts, name).any(), name
    summary = boundary_summary(counts)
    assert np.isnan(summary["bIoU"])
    assert np.isnan(summary["bF1"])


def test_classes_see_each_other_across_a_narrow_ignored_strip():
    label = np.zeros((60, 80), int)
    label[:, 41:] = 1
    label[:, 39:41] = 255
    pred = np.zeros((60, 80), int)
    pred[:, 40:] = 1
    counts = boundary_counts(pred, label, 2, 255, dilation_ratio=0.05)  # 5 px
    inside = 60 - 10
    # By the strip: columns 36..38 see class 1 at 41, columns 41..43 class 0 at 38. By the frame: five on each side.
    assert counts.band_labelled.tolist() == [60 * 39 - inside * (39 - 5 - 3), 60 * 39 - inside * (39 - 5 - 3)]
    np.testing.assert_array_equal(counts.band_intersection, counts.band_labelled)
    # The true contour is hidden, so nothing is judged: neither for nor against the prediction.
    assert not counts.contour_predicted.any()
    assert not counts.contour_labelled.any()


def test_shifted_edge_by_hand():
    """A straight edge moved by s px: matched within the tolerance, and the class bands overlap less."""
    label = np.zeros((60, 80), int)  # diagonal 100: band 2 px, tolerance 1 px
    label[:, 40:] = 1
    for shift, matched in ((0, 60), (1, 60), (2, 0)):
        pred = np.zeros_like(label)
        pred[:, 40 + shift :] = 1
        counts = boundary_counts(pred, label, 2)
        assert counts.contour_predicted.tolist() == [60, 60]
        assert counts.contour_predicted_matched.tolist() == [matched, matched]
        assert counts.contour_labelled_matched.tolist() == [matched, matched]
        # 56 rows away from the frame, where the band at the edge is 2 px wide
        missing = counts.band_labelled - counts.band_intersection
        assert missing.tolist() == [56 * shift, 56 * shift + 4 * shift]


def test_widths_follow_the_published_code():
    assert band_width_px((1024, 2048)) == 46
    assert band_width_px((360, 480)) == 12
    assert band_width_px((8, 8)) == 1
    assert tolerance_px((1024, 2048)) == 18
    assert tolerance_px((360, 480)) == 5
    assert tolerance_px((8, 8)) == 1


def counts_of(**given):
    zero = np.zeros(len(next(iter(given.values()))), np.int64)
    return BoundaryCounts(**{name: np.array(given.get(name, zero)) for name in BOUNDARY_FIELDS})


def test_summary_by_hand():
    summary = boundary_summary(
        counts_of(
            band_intersection=[30, 0, 0, 0],
            band_predicted=[40, 10, 0, 7],
            band_labelled=[50, 20, 8, 0],
            contour_predicted=[10, 5, 0, 4],
            contour_predicted_matched=[5, 0, 0, 0],
            contour_labelled=[20, 9, 6, 0],
            contour_labelled_matched=[16, 0, 0, 0],
        )
    )
    np.testing.assert_allclose(summary["bIoU_class"], [50, 0, 0, np.nan])
    np.testing.assert_allclose(summary["bF1_class"], [100 * 2 * 0.5 * 0.8 / 1.3, 0, 0, np.nan])
    assert summary["bIoU"] == pytest.approx(50 / 3)
    assert summary["bF1"] == pytest.approx(100 * 0.8 / 1.3 / 3)


def test_images_are_summed_before_they_are_reduced():
    images = [boundary_counts(*blobs(seed), 4) for seed in range(4)]
    stacked = BoundaryCounts(**{name: np.stack([getattr(i, name) for i in images]) for name in BOUNDARY_FIELDS})
    added = BoundaryCounts(**{name: sum(getattr(i, name) for i in images[::-1]) for name in BOUNDARY_FIELDS})
    assert boundary_summary(stacked)["bF1"] == boundary_summary(added)["bF1"]
    assert boundary_summary(stacked)["bIoU"] == boundary_summary(added)["bIoU"]


def test_one_class_image_has_a_band_at_the_frame_and_no_contour():
    label = np.zeros((30, 40), int)
    summary = boundary_summary(boundary_counts(label, label, 2))
    assert summary["bIoU"] == 100
    assert np.isnan(summary["bF1"])


@pytest.mark.parametrize(
    ("pred", "label", "options", "message"),
    [
        (np.zeros((2, 3), int), np.array([[0, 0, 0], [0, 9, 0]]), {}, "label map holds 9 at row 1, column 1"),
        (np.array([[0, 0, 2], [0, 0, 0]]), np.zeros((2, 3), int), {}, "prediction map holds 2 at row 0, column 2"),
        (np.zeros((2, 3), int), np.zeros((3, 2), int), {}, "2x3 pixels, the label map 3x2"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), {}, "integer class indices"),
        (np.zeros((2, 3), int), np.zeros((2, 3), int), {"dilation_ratio": 0.0}, "dilation_ratio"),
        (np.zeros((2, 3), int), np.zeros((2, 3), int), {"tolerance_ratio": 2.0}, "tolerance_ratio"),
    ],
)
def test_bad_input_is_refused(pred, label, options, message):
    with pytest.raises(ProveError, match=message):
        boundary_counts(pred, label, 2, **options)
