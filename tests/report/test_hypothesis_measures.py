"""Measures that are made of what is recorded, against their definitions and laws."""

import math

import numpy as np
import pytest

from prove.report.hypothesis_measures import oscillation, rare_classes


def by_matrices(t: np.ndarray, y: np.ndarray) -> float:
    """The definition, written with projections."""
    late = t >= t[-1] / 2
    t, y = t[late], y[late]
    design = np.column_stack([np.ones_like(t), t])
    residual = np.eye(len(t)) - design @ np.linalg.pinv(design)
    differences = np.diff(np.eye(len(t)), axis=0) @ residual
    return float(np.sqrt(2 * np.sum((differences @ y) ** 2) / np.trace(differences @ differences.T)))


@pytest.mark.parametrize("n", [8, 11, 40])
def test_oscillation_is_its_definition(n: int) -> None:
    rng = np.random.default_rng(n)
    t = np.cumsum(rng.integers(1, 5, n)).astype(float)
    y = rng.normal(50, 3, n)
    assert oscillation(t, y) == pytest.approx(by_matrices(t, y), rel=1e-9)


@pytest.mark.parametrize("t", [np.arange(1.0, 7.0), np.arange(1.0, 41.0), np.array([2.0, 4, 6, 8, 10, 12, 14, 15])])
def test_oscillation_of_pure_noise_is_its_jump(t: np.ndarray) -> None:
    """On average (of squares) sqrt(2) times the SD of the noise, however many validations, whatever the trend."""
    rng = np.random.default_rng(0)
    draws = [oscillation(t, 40 + 0.5 * t + 0.7 * rng.normal(size=len(t))) ** 2 for _ in range(4000)]
    error = np.std(draws) / math.sqrt(len(draws))
    assert abs(np.mean(draws) - 2 * 0.7**2) < 4 * error


def test_oscillation_looks_at_the_second_half_and_not_at_the_trend() -> None:
    t = np.arange(1.0, 13.0)
    zigzag = np.where(np.arange(12) % 2, 1.0, -1.0)
    calm = oscillation(t, 50 + 0.1 * zigzag)
    assert oscillation(t, 50 + 0.1 * zigzag + 3 * t) == pytest.approx(calm)
    early = 50 + 0.1 * zigzag
    early[:5] += np.array([9.0, -9, 9, -9, 9])
    assert oscillation(t, early) == pytest.approx(calm)
    assert oscillation(t, 50 + 0.2 * zigzag) == pytest.approx(2 * calm)
    assert oscillation(t, 50 - 0.01 * (t - 12) ** 2) < 0.2 * calm  # a slow bend is no oscillation


def test_oscillation_needs_four_validations_in_the_second_half() -> None:
    y = np.array([1.0, 3, 2, 4, 3, 6])
    assert math.isnan(oscillation(np.arange(1.0, 6.0), y[:5]))  # 3, 4, 5
    assert oscillation(np.arange(1.0, 7.0), y) > 0  # 3, 4, 5, 6
    assert math.isnan(oscillation(np.zeros(0), np.zeros(0)))
    assert oscillation(np.arange(1.0, 7.0), np.full(6, 3.0)) == 0


def test_rare_is_the_third_of_the_classes_with_the_fewest_pixels() -> None:
    support = {"road": 900, "car": 80, "pole": 9, "rider": 2, "sign": 9, "train": 0, "sky": 300}
    assert rare_classes(support) == ("rider", "pole")  # of six with pixels; ties by name
    assert rare_classes({"road": 5, "car": 3}) == ("car",)
    assert rare_classes({}) == ()
    assert rare_classes({"road": 0}) == ()
