"""The numbers that hypotheses are about: recorded metrics, and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prove.report.study import Block, Floats, Measure, Study, Trained
from prove.spec.hypothesis import Hypothesis, Quantity

LATE_VALIDATIONS = 4
"""Validations that oscillation needs in the second half of training."""

STILL_POINTS = 0.001
"""A run whose mIoU jumps less than this, in points, stands still: it has collapsed, and its logarithm says nothing."""

OSCILLATION_PERCENT = 25.0
"""Smallest effect of interest on oscillation: a quarter more (x1.25), or as much less (/1.25)."""

RARE_SHARE = 3
"""Rare are the third of the classes with the fewest labelled pixels."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """A measure of a block's runs.

    Attributes:
        values: ``[L, S]`` in the order of ``block.losses`` and ``block.seeds``; NaN where there is none. In percentage
            points; of oscillation 100 times its natural logarithm, so that a difference is a ratio.
        replicates: ``[L, S, B]`` on resamples of the images, as in `prove.stats.effects.BlockData`.
        images, images_digest: how many were resampled, and which.
        note: what a reader must know to read it.
        problem, cure: why runs have no number, and what would give them one; empty where all have.
        still: (loss, seed) of the runs that have none because their metric does not move.
    """

    values: Floats
    replicates: Floats | None = None
    note: str = ""
    problem: str = ""
    cure: str = ""
    images: int | None = None
    images_digest: str | None = None
    still: frozenset[tuple[str, int]] = frozenset()


def is_ratio(quantity: Quantity) -> bool:
    """Whether effects on it are ratios: `Numbers.values` are logarithms."""
    return quantity.name == "oscillation"


def higher_is_better(quantity: Quantity) -> bool:
    """False for ECE and oscillation."""
    return quantity.name not in ("ECE", "oscillation")


def smallest_effect(hypothesis: Hypothesis, report: float) -> float:
    """The smallest effect of interest in the unit of `Numbers.values`.

    Args:
        report: that of the report, in percentage points.
    """
    if is_ratio(hypothesis.measure):
        return 100.0 * math.log1p((hypothesis.smallest_effect or OSCILLATION_PERCENT) / 100.0)
    return hypothesis.smallest_effect or report


def numbers(study: Study, block: Block, quantity: Quantity) -> Numbers:
    """The measure of every run of a block."""
    if quantity.name == "rare_IoU":
        return _rare(study, block)
    if quantity.name == "oscillation":
        return _oscillations(study, block)
    measure = Measure(quantity.name, quantity.scope, quantity.of)
    return Numbers(
        values=study.values(block, measure),
        replicates=study.replicates(block, measure),
        images=study.images(block, measure),
        images_digest=study.images_digest(block, measure),
    )


def rare_classes(support: Mapping[str, int]) -> tuple[str, ...]:
    """The third of the classes (rounded down, one at least) with the fewest labelled pixels, rarest first.

    Args:
        support: class to labelled pixels of the validation images; classes without any don't count.
    """
    there = sorted((pixels, name) for name, pixels in support.items() if pixels > 0)
    return tuple(name for _, name in there[: max(1, len(there) // RARE_SHARE)])


def _rare(study: Study, block: Block) -> Numbers:
    support = study.support(block)
    rare = rare_classes(support)
    if not rare:
        nothing = np.full((len(block.losses), len(block.seeds)), np.nan)
        return Numbers(nothing, problem="No results by class are recorded.", cure="Evaluate the runs again.")
    measures = [Measure("IoU", "class", name) for name in rare]
    values = np.mean([study.values(block, measure) for measure in measures], axis=0)
    most = max(support[name] for name in rare) / sum(support.values())
    shown = ", ".join(rare[:6]) + (f" and {len(rare) - 6} more" if len(rare) > 6 else "")
    note = (
        f"Rare classes of {block.key.dataset}: {shown} (the third with the fewest labelled pixels in validation, "
        f"at most {100 * most:.2g}% of them each)."
    )
    drawn = _mean_of_replicates([study.replicates(block, each) for each in measures])
    return Numbers(
        values=values,
        replicates=drawn,
        note=note,
        images=study.images(block, measures[0]),
        images_digest=study.images_digest(block, measures[0]),
    )


def _mean_of_replicates(parts: Sequence[Floats | None]) -> Floats | None:
    """Mean over the classes that a resample of the images holds; NaN where it holds none."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    stacked = np.stack(known).astype(np.float64)
    held = np.isfinite(stacked)
    counts = held.sum(axis=0)
    mean = np.where(held, stacked, 0.0).sum(axis=0) / np.maximum(counts, 1)
    return np.where(counts > 0, mean, np.nan)


def _oscillations(study: Study, block: Block) -> Numbers:
    values = np.full((len(block.losses), len(block.seeds)), np.nan)
    seen: list[int] = []
    still: set[tuple[str, int]] = set()
    for (loss, seed), run in block.runs.items():
        iterations, metric = _validations(study, run)
        late = iterations >= iterations[-1] / 2 if len(iterations) else np.zeros(0, bool)
        seen.append(int(late.sum()))
        jump = oscillation(iterations, metric)
        if jump < STILL_POINTS:
            still.add((loss, seed))
        elif not math.isnan(jump):
            values[block.losses.index(loss), block.seeds.index(seed)] = 100.0 * math.log(jump)
    note = (
        "Oscillation: how far validation mIoU jumps from one validation to the next in the second half of training, "
        "a linear trend taken away (root mean square); its effects are ratios."
    )
    if not seen or min(seen) >= LATE_VALIDATIONS:
        return Numbers(values, note=note, still=frozenset(still))
    budget = max(run.max_iters for run in block.runs.values())
    cure = f"Validate more often: eval_interval {max(1, budget // 6)} at {budget} iterations."
    problem = (
        f"Oscillation needs {LATE_VALIDATIONS} validations in the second half of training; "
        f"{sum(count < LATE_VALIDATIONS for count in seen)} of {len(seen)} runs have fewer."
    )
    return Numbers(values, note=note, problem=problem, cure=cure, still=frozenset(still))


def _validations(study: Study, run: Trained) -> tuple[Floats, Floats]:
    points = [(iteration, payload["metrics"].get("mIoU")) for iteration, payload in study.curve(run, "val")]
    known = [(iteration, value) for iteration, value in points if value is not None and math.isfinite(value)]
    return np.array([each[0] for each in known], float), np.array([each[1] for each in known], float)


def oscillation(iterations: Floats, values: Floats) -> float:
    """How far a metric jumps from one validation to the next in the second half of training, in its own unit.

    The root mean square of the successive differences of what a straight line leaves; the sum of squares is divided by
    what it would be on average for differences of unit mean square, so that neither the number of validations nor the
    fitted line shifts it. Successive differences see the jumps and not a slow bend (von Neumann 1941).

    Args:
        iterations: ``[N]`` ascending; the second half is everything from half of the last one on.
        values: ``[N]``.

    Returns:
        NaN with fewer than four validations in that half.
    """
    if not len(iterations):
        return math.nan
    late = iterations >= iterations[-1] / 2
    t, y = iterations[late], values[late]
    if len(t) < LATE_VALIDATIONS:
        return math.nan
    centred = t - t.mean()
    spread = float(centred @ centred)
    residual = y - y.mean() - centred * (float(centred @ y) / spread)
    jumps, steps = np.diff(residual), np.diff(t)
    # of independent noise of variance 1/2: n - 1 differences of mean square 1, less what the fitted slope takes
    expected = len(jumps) - float(steps @ steps) / (2.0 * spread)
    return math.sqrt(float(jumps @ jumps) / expected)
