"""The image bootstrap against metrics of images that are drawn one by one, and against the law of the draws."""

from typing import Any

import numpy as np
import pytest

from prove.errors import ProveError
from prove.metrics import METRICS, BoundaryCounts, ImageCounts, stack_counts, summarize_arrays
from prove.metrics.counts import BOUNDARY_FIELDS
from prove.metrics.resample import CLASS_METRICS, images_digest, replicates, scope_names, weights

CLASSES = ("road", "car", "sign", "rider", "void")


def counted(seed: int = 0, images: int = 12) -> dict[str, np.ndarray]:
    """Counts as of an evaluation: a class that few images hold, one that none holds, an image without a label."""
    rng = np.random.default_rng(seed)
    count, made = len(CLASSES), []
    for index in range(images):
        confusion = rng.integers(0, 900, (count, count)) + np.diag(rng.integers(0, 9000, count))
        confusion[4] = 0
        if index % 6:
            confusion[3] = 0
        if index == 5:
            confusion[:] = 0
        labelled = rng.integers(0, 80, count) * (confusion.sum(1) > 0)
        predicted = rng.integers(0, 80, count)
        boundary = {
            "band_labelled": labelled,
            "band_predicted": predicted,
            "band_intersection": np.minimum(labelled, predicted) // 2,
            "contour_labelled": labelled // 2,
            "contour_labelled_matched": labelled // 3,
            "contour_predicted": predicted // 2,
            "contour_predicted_matched": predicted // 4,
        }
        pixels = rng.integers(0, 50, 15).astype(float)
        calibration = np.stack([pixels, pixels * rng.random(15), np.floor(pixels * rng.random(15))])
        made.append(ImageCounts(confusion, BoundaryCounts(**boundary), calibration))
    ids = [f"town/{(7 * index) % images:03}" for index in range(images)]
    conditions = [("fog", "day", "night")[index % 3] for index in range(images)]
    return {**stack_counts(made, ids, conditions), "classes": np.array(CLASSES)}


def drawn_one_by_one(arrays: dict[str, np.ndarray], row: np.ndarray) -> Any:
    """The metrics of the images that a row of weights stands for, each as often as it was drawn."""
    which = np.repeat(np.arange(len(row)), row.astype(int))
    taken = {
        name: value[which] if name not in ("metric_version", "classes") else value for name, value in arrays.items()
    }
    taken["ids"] = np.array([f"{number}" for number in range(len(which))])
    return summarize_arrays(taken)


def test_every_metric_is_that_of_the_images_drawn() -> None:
    arrays = counted()
    drawn = weights(arrays["ids"], 40)
    one_by_one = [drawn_one_by_one(arrays, row) for row in drawn]
    undefined = 0
    for metric in METRICS:
        (found,) = replicates(arrays, drawn, metric)
        np.testing.assert_allclose(found, [each.metrics[metric] for each in one_by_one], rtol=0, atol=1e-9)
        by_condition = replicates(arrays, drawn, metric, "condition")
        assert scope_names(arrays, "condition") == ("day", "fog", "night")
        for name, row in zip(scope_names(arrays, "condition"), by_condition, strict=True):
            expected = [
                each.conditions[name].metrics[metric] if name in each.conditions else np.nan for each in one_by_one
            ]
            np.testing.assert_allclose(row, expected, rtol=0, atol=1e-9)
    for metric in CLASS_METRICS:
        found = replicates(arrays, drawn, metric, "class")
        expected = np.stack([each.per_class[metric] for each in one_by_one], axis=1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        undefined += np.isnan(found[3]).sum()
        assert np.isnan(found[4]).all()
    assert undefined > 0  # resamples without a rider were among them


def test_all_images_once_is_the_metric_itself() -> None:
    arrays = counted(3)
    once, summary = np.ones((1, 12)), summarize_arrays(counted(3))
    for metric in METRICS:
        assert replicates(arrays, once, metric)[0, 0] == pytest.approx(summary.metrics[metric], abs=1e-11)
        by_condition = replicates(arrays, once, metric, "condition")[:, 0]
        expected = [part.metrics[metric] for part in summary.conditions.values()]
        np.testing.assert_allclose(by_condition, expected, atol=1e-11)
    for metric in CLASS_METRICS:
        by_class = replicates(arrays, once, metric, "class")[:, 0]
        np.testing.assert_allclose(by_class, summary.per_class[metric], atol=1e-11)


def test_a_column_follows_its_image() -> None:
    ids = [f"image {number}" for number in (10, 2, 33, 4, 1, 0, 7)] + ["Ünter", "unter", "", "1 1"]
    drawn = weights(ids, 50)
    order = np.random.default_rng(1).permutation(len(ids))
    np.testing.assert_array_equal(weights([ids[index] for index in order], 50), drawn[:, order])
    assert images_digest(ids) == images_digest(ids[::-1])
    assert not np.array_equal(weights([*ids[:-1], "1 2"], 50), drawn)
    np.testing.assert_array_equal(weights(np.array(ids), 20), drawn[:20])


def test_paired_runs_are_resampled_alike_whatever_the_order_of_their_images() -> None:
    arrays = counted()
    order = np.random.default_rng(2).permutation(12)
    shuffled = {
        name: value[order] if name not in ("metric_version", "classes") else value for name, value in arrays.items()
    }
    for metric in ("mIoU", "bF1", "ECE"):
        found = [replicates(each, weights(each["ids"], 30), metric) for each in (arrays, shuffled)]
        np.testing.assert_allclose(*found, rtol=0, atol=1e-9)


def test_digests_tell_sets_of_images_apart() -> None:
    sets = (["ab", "c"], ["a", "bc"], ["abc"], ["a", "b", "c"], ["ab", "c", ""], ["ab", "C"])
    assert len({images_digest(each) for each in sets}) == len(sets)


@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_draws_are_multinomial(count: int) -> None:
    """N draws, each image equally likely: mean 1, variance 1 - 1/N, covariance -1/N."""
    resamples = 20_000
    drawn = weights([str(number) for number in range(count)], resamples)
    assert drawn.shape == (resamples, count)
    assert (drawn.sum(1) == count).all()
    assert (drawn >= 0).all()
    assert (drawn == np.floor(drawn)).all()
    expected = np.eye(count) - 1.0 / count
    # The standard error of a covariance of these is at most about sqrt(3 / resamples): five of them, for 60 x 60.
    bound = 5 * np.sqrt(3 / resamples)
    assert np.abs(drawn.mean(0) - 1).max() < bound
    assert np.abs(np.cov(drawn.T) - expected).max() < bound


def test_the_spread_is_the_standard_error_of_a_mean() -> None:
    """With as many labelled pixels in each image aAcc is a mean over images: its standard error is known."""
    rng = np.random.default_rng(5)
    right = rng.integers(300, 1000, 80)
    confusion = np.zeros((80, 2, 2), np.int64)
    confusion[:, 0, 0], confusion[:, 0, 1] = right, 1000 - right
    arrays = {
        "metric_version": np.array(1),
        "ids": np.array([f"{number}" for number in range(80)]),
        "conditions": np.array([""] * 80),
        "confusion": confusion,
    }
    (found,) = replicates(arrays, weights(arrays["ids"], 4000), "aAcc")
    standard_error = (right / 10).std() / np.sqrt(80)
    assert found.mean() == pytest.approx((right / 10).mean(), abs=4 * standard_error / np.sqrt(4000))
    assert found.std() == pytest.approx(standard_error, rel=0.05)
    assert replicates(arrays, weights(arrays["ids"], 3), "aAcc", "condition").shape == (0, 3)


def test_only_what_a_metric_needs_has_to_be_there() -> None:
    arrays, drawn = counted(), np.ones((2, 12))
    boundary = [f"boundary_{name}" for name in BOUNDARY_FIELDS]
    common = ("metric_version", "ids", "conditions", "classes")
    for metric, names in (("fwIoU", ["confusion"]), ("bIoU", boundary), ("ECE", ["calibration"])):
        few = {name: arrays[name] for name in (*common, *names)}
        np.testing.assert_array_equal(replicates(few, drawn, metric), replicates(arrays, drawn, metric))
        del few[names[0]]
        with pytest.raises(ProveError, match=f"lack {names[0]}"):
            replicates(few, drawn, metric)


def test_what_can_t_be_resampled() -> None:
    arrays = counted()
    with pytest.raises(ProveError, match="Unknown metric 'mIuO'"):
        replicates(arrays, np.ones((1, 12)), "mIuO")
    with pytest.raises(ProveError, match="Unknown metric 'mIoU'"):
        replicates(arrays, np.ones((1, 12)), "mIoU", "class")
    with pytest.raises(ProveError, match="Unknown scope"):
        replicates(arrays, np.ones((1, 12)), "mIoU", "images")
    with pytest.raises(ProveError, match="not of the 12 images"):
        replicates(arrays, np.ones((1, 11)), "mIoU")
    with pytest.raises(ProveError, match="metric version 99"):
        replicates({**arrays, "metric_version": np.array(99)}, np.ones((1, 12)), "mIoU")
    for ids in ([], ["a", "b", "a"]):
        with pytest.raises(ProveError, match="can't be resampled"):
            weights(ids)
