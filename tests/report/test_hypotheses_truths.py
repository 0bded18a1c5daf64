"""Simulated studies whose truth is known: how often each outcome comes, against the law."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from scipy import stats

from prove.report.hypotheses import findings
from prove.report.hypothesis_finding import Outcome
from prove.report.study import Options
from prove.spec.hypothesis import BUILT_IN, Hypothesis, Matcher, Quantity
from tests.report.hypothesis_studies import FOCAL, TWO, hypothesis, only, study

BY_NAME = {each.name: each for each in BUILT_IN}


def rates(effect: float, *, seeds: int, count: int, asked: Sequence[Hypothesis], **law: Any) -> dict[Outcome, float]:
    """Shares of the outcomes of the first hypothesis."""
    seen = [
        findings(study({"ce": 0.0, FOCAL: effect}, seeds=seeds, rng=index, **law), asked)[0].outcome
        for index in range(count)
    ]
    return {outcome: seen.count(outcome) / count for outcome in Outcome}


COUNT = 1000


def beyond(share: float) -> float:
    """What a share of `COUNT` simulations stays below but once in 1,000 times."""
    return float(stats.binom.ppf(0.999, COUNT, share)) / COUNT


def test_no_effect_is_supported_in_at_most_two_and_a_half_percent() -> None:
    options = Options(smallest_effect=0.01)  # never reached: the rule rests on the interval alone
    seen = rates(0.0, seeds=4, count=COUNT, asked=[hypothesis()], options=options)
    assert seen[Outcome.SUPPORTED] <= beyond(0.025)
    assert seen[Outcome.SUPPORTED] >= 0.01  # and the interval is no wider than it has to be


def test_a_true_effect_is_supported_as_often_as_the_noncentral_t_says() -> None:
    """Paired t, 5 seeds: the SD of a difference is sqrt(2) * 0.3."""
    effect, seeds, sd = 0.7, 5, math.sqrt(2) * 0.3
    options = Options(smallest_effect=0.01)
    seen = rates(effect, seeds=seeds, count=COUNT, asked=[hypothesis()], options=options)
    expected = stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, effect / (sd / math.sqrt(seeds)))
    assert 0.5 < expected < 0.95
    assert abs(seen[Outcome.SUPPORTED] - expected) < 4 * math.sqrt(expected * (1 - expected) / COUNT)


def test_an_effect_of_the_smallest_size_is_called_not_supported_in_at_most_two_and_a_half_percent() -> None:
    seen = rates(0.3, seeds=6, count=COUNT, asked=[hypothesis()], run_sd=0.2)
    assert seen[Outcome.NOT_SUPPORTED] <= beyond(0.025)
    assert seen[Outcome.NOT_SUPPORTED] >= 0.01


def test_with_enough_seeds_no_effect_is_not_supported() -> None:
    seen = rates(0.0, seeds=10, count=50, asked=[hypothesis()], run_sd=0.1)
    assert seen[Outcome.NOT_SUPPORTED] == 1


def test_of_many_hypotheses_without_effect_any_is_supported_in_at_most_five_percent() -> None:
    asked = [
        Hypothesis(metric, metric, Matcher("term", "focal"), None, Quantity(metric), "raises", 0.01)
        for metric in ("mIoU", "aAcc", "mAcc", "fwIoU", "bIoU", "bF1")
    ]
    count = 300
    any_ = sum(
        any(each.outcome is Outcome.SUPPORTED for each in findings(study(TWO, seeds=4, rng=index), asked))
        for index in range(count)
    )
    assert any_ <= stats.binom.ppf(0.999, count, 0.05)


@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_the_interval_of_a_ratio_of_oscillations_covers_it(ratio: float) -> None:
    """Noise of a validation is normal: the RMS of its jumps on a logarithmic scale is nearly so."""
    lovasz, count, inside = "ce + 0.3*lovasz", 500, 0
    for index in range(count):
        more = {"jumps": {"ce": 0.5, lovasz: 0.5 * ratio}, "validations": 16, "draw": index}
        finding = only(findings(study({"ce": 0.0, lovasz: 0.0}, seeds=5, more=more), [BY_NAME["lovasz_oscillates"]]))
        assert finding.low is not None
        assert finding.high is not None
        inside += finding.low <= 100 * math.log(ratio) <= finding.high
    assert stats.binom.ppf(0.001, count, 0.95) <= inside <= stats.binom.ppf(0.999, count, 0.95)
