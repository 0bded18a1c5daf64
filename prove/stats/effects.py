"""What a comparison hands out: arms, effects and verdicts. Metrics and effects are in percentage points."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


class Verdict(StrEnum):
    """What an effect's interval says about the smallest effect of interest (see ``docs/reports.md``)."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"
    NO_VERDICT = "no verdict"
    """one seed: the interval is about these checkpoints, not about the loss"""


@dataclass(frozen=True, eq=False)
class BlockData:
    """The results of one (dataset, model, strategy, settings) block, in which every run is comparable with every other.

    Attributes:
        losses: names of the arms, L of them.
        baseline: the arm that the others are compared with; one of ``losses``.
        seeds: S of them.
        values: ``[L, S]`` the metric in percent; NaN where there is no run, or the metric is undefined.
        replicates: ``[L, S, B]`` the same metric on B resamples of the images, the same resamples for every run; NaN
            where ``values`` is. None where per-image counts are not at hand.
        higher_is_better: False for ECE.
        images: how many were resampled; None for "many". With few, their variance is itself uncertain; fewer than two
            say nothing.
        dataset: blocks of one dataset are judged on the same images, or may be; empty where that is unknown.
        images_digest: which images were resampled: equal for equal images and resamples in the same order; None
            where that is unknown.
    """

    losses: tuple[str, ...]
    baseline: str
    seeds: tuple[int, ...]
    values: Floats
    replicates: Floats | None = None
    higher_is_better: bool = True
    images: int | None = None
    dataset: str = ""
    images_digest: str | None = None


@dataclass(frozen=True)
class Arm:
    """One loss in one block.

    Attributes:
        seeds: how many runs.
        mean: over the seeds; NaN without a run.
        seed_sd: standard deviation over the seeds (n-1); None with fewer than two.
        low, high: interval of the mean: t over seeds and images; from images alone with one seed; None where neither
            is possible.
        may_be_best: it can't be told apart from the arm with the best adjusted mean (Hsu's comparison with the best);
            None where one can't tell.
        adjusted_mean: what the mean over all seeds of the block would be, by the additive model: a loss is not better
            because its bad seeds are missing. Equals `mean` where the loss has all seeds. By it losses are ranked; it
            is NaN where that can't be done: without a run, with one while others have more, or where no seeds connect
            the loss with most others.
    """

    loss: str
    seeds: int
    mean: float
    seed_sd: float | None
    low: float | None
    high: float | None
    may_be_best: bool | None
    adjusted_mean: float = float("nan")


@dataclass(frozen=True)
class Effect:
    """A loss against the baseline of its block, paired by seed.

    Attributes:
        delta: mean difference over the paired seeds, in percentage points; where runs of the block are missing, the
            least-squares estimate, to which the other losses contribute. NaN without a pair.
        low, high: simultaneous interval (basis ``images``: of this comparison alone); None where none is possible.
        p: of this comparison alone, two-sided; None where none is possible.
        p_adjusted: for all comparisons with the baseline in this block (Dunnett).
        se: standard error of delta; `seed_se` and `image_se` are its parts. An `image_se` of 0 means that the images'
            part can't be told from 0; None, that nothing is known about it.
        df: Satterthwaite's degrees of freedom of ``se``.
        seeds: paired seeds.
        p_sign_flip: exact sign-flip p over the paired seeds; None with fewer than 6.
        crossed: percentile interval of the crossed seed x image bootstrap, a cross-check; None with fewer than 8 seeds.
        basis: ``seeds and images``, ``seeds`` (no per-image counts), ``images`` (one seed, or seeds whose results
            are copies of each other: these checkpoints only) or ``nothing`` (the same, and no counts). Counts of
            fewer than two images, or whose resamples are all alike, are no counts.
        image_draws: ``[B]`` what the resamples of the images make of delta, centred and scaled so that their variance
            is the images'; NaN where a resample leaves the metric undefined. None where `image_se` is.
    """

    loss: str
    delta: float
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None
    se: float | None
    seed_se: float | None
    image_se: float | None
    df: float | None
    seeds: int
    p_sign_flip: float | None
    crossed: tuple[float, float] | None
    basis: str
    verdict: Verdict
    image_draws: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class BlockResult:
    """One block, compared.

    Attributes:
        arms: every loss, in the order of the data, the baseline among them.
        effects: every loss but the baseline, in that order.
        residual_sd: of the loss x seed analysis of variance, one run's seed noise after pairing; None without one.
        residual_df: its degrees of freedom.
        seed_correlation: estimated correlation of two losses' results at the same seed; None without two seeds.
        critical: by what ``se`` is multiplied at ``residual_df`` for the simultaneous interval.
        confidence: of all intervals, such as 0.95.
        smallest_effect: of interest, in percentage points.
        correlation: of two effects with each other that `critical` and the adjusted p assume; None without them.
        noisier: losses whose results scatter more over the seeds than the others' (F test at 5%). Their differences
            are judged by their own scatter, with its few degrees of freedom, where that is larger.
        dataset, images_digest: of the data.
    """

    baseline: str
    arms: tuple[Arm, ...]
    effects: tuple[Effect, ...]
    residual_sd: float | None
    residual_df: int
    seed_correlation: float | None
    critical: float | None
    confidence: float
    smallest_effect: float
    higher_is_better: bool
    correlation: float | None = None
    noisier: tuple[str, ...] = ()
    dataset: str = ""
    images_digest: str | None = None


@dataclass(frozen=True)
class PooledEffect:
    """A loss against the baseline over several blocks: random effects, Hartung-Knapp.

    Attributes:
        low, high, p: of this loss alone; ``p_adjusted`` by Holm over the losses. None with fewer than two blocks.
        tau: SD of the true effect between blocks, in percentage points.
        blocks: that have an effect of this loss with a standard error.
        verdicts: how many blocks had which.
        mean_rank, rank_low, rank_high: over the blocks, by adjusted means, 1 is best, ties share; interval of the
            mean rank.
        shares_images: some blocks are of one dataset, and what its images do to all of them is unknown (no counts per
            image): then the interval holds for these images only.
    """

    loss: str
    delta: float
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None
    tau: float | None
    blocks: int
    verdicts: dict[Verdict, int]
    mean_rank: float
    rank_low: float | None
    rank_high: float | None
    verdict: Verdict
    shares_images: bool = False


@dataclass(frozen=True)
class Precision:
    """What a block's design can see.

    Attributes:
        detectable: smallest effect seen (its simultaneous interval leaves 0 out) with the asked power at the present
            number of seeds, in percentage points; None without an estimate of the seeds' noise. Where comparisons
            differ (missing runs, images), that of the middle one, of two the less precise. A loss that is `noisier`
            than the rest is left out: for it, only larger effects are seen. If the baseline is noisier, so is every
            comparison, and none is left out.
        power: the power asked for, such as 0.8.
        seeds: paired seeds of that comparison.
        seeds_needed: open comparison -> seeds per loss at which its present delta would be settled (its interval
            excludes 0, or lies inside the smallest effect) with that power; None where more than `limit` would be
            needed.
        image_sd: largest image standard error among the effects: more seeds don't lower it.
        detectable_alone: as `detectable`, if one loss alone were compared with the baseline: no correction.
    """

    detectable: float | None
    power: float
    seeds: int
    seeds_needed: dict[str, int | None]
    limit: int
    image_sd: float | None
    detectable_alone: float | None = None
