"""A finding: what a study says of a hypothesis about one treatment, why, and what would settle it.

Supported asks for two things: the interval excludes 0 on the claimed side, and so does, at the same level, the p that
Holm adjusts for all findings. Without a true effect that happens in at most 2.5% of studies at 95% confidence: the
interval is two-sided, and half of its misses are on the claimed side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from prove.report.hypothesis_plan import MOST, blocks_needed, seeds_needed
from prove.spec.hypothesis import Hypothesis
from prove.stats.effects import BlockResult, Effect


class Outcome(StrEnum):
    """What the runs say of a hypothesis."""

    SUPPORTED = "supported"
    NOT_SUPPORTED = "not supported"
    OPEN = "can't tell yet"


@dataclass(frozen=True)
class BlockTest:
    """A treatment against its control in one block; numbers in the unit of `Finding`.

    Attributes:
        effect: mean difference over the paired seeds; None without a pair.
        low, high: t interval of this comparison alone; of a block with one seed that of these checkpoints on other
            images.
        p, df: two-sided p and its degrees of freedom; None with one paired seed.
        se: standard error; of a block with one seed that over images, None without their counts. A block in which it
            is above 0 takes part where several blocks are pooled.
        seeds: paired seeds.
        control_mean, treatment_mean: over their seeds; None without a run.
        why: why there is no p; empty where there is one.
        runs: keys of both arms' runs.
        cure: what would give it a p.
        counts: the finding's effect rests on it.
        estimated: runs of the block are missing, so that the effect is the estimate of the loss + seed model, to
            which the other losses contribute, and not the mean of the paired differences.
        mixed: runs of the block's analysis, of any loss, that are not comparable.
        still: keys of both arms' runs whose metric does not move.
        cautions: what a reader must know of its runs, a sentence each.
    """

    block: str
    effect: float | None
    low: float | None
    high: float | None
    p: float | None
    se: float | None
    df: float | None
    seeds: int
    control_mean: float | None
    treatment_mean: float | None
    why: str
    runs: tuple[str, ...]
    cure: str = ""
    counts: bool = False
    estimated: bool = False
    mixed: int = 0
    still: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()

    @property
    def has_noise(self) -> bool:
        """Whether it can be pooled."""
        return self.se is not None and self.se > 0


@dataclass(frozen=True)
class Finding:
    """What a study says of a hypothesis about one treatment.

    Effects are in percentage points, treatment minus control; of oscillation they are 100 times the natural logarithm
    of the ratio (`prove.report.hypothesis_measures.is_ratio`).

    Attributes:
        treatment, control: texts of the objectives; the treatment is empty where the study has none.
        effect, low, high, p: of this comparison alone, over all blocks; None where none is possible.
        p_adjusted: by Holm over all findings with a p.
        smallest_effect: in the unit of the effect.
        tau: SD of the true effect between blocks; None with fewer than two.
        seeds: paired seeds of the blocks that the effect rests on.
        blocks: that the effect and its interval rest on.
        by_block: every block with the treatment.
        why: why the outcome is what it is, a sentence.
        settle: what would settle it; empty where it is settled.
        notes: what a reader must know: blocks that don't count, runs that are missing, odd or not comparable,
            definition of the measure, objectives that were not tested.
        withheld: why its runs allow no outcome, whatever the numbers are; empty where they do.
    """

    hypothesis: Hypothesis
    treatment: str
    control: str
    outcome: Outcome
    effect: float | None
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None
    smallest_effect: float
    tau: float | None
    seeds: int
    blocks: int
    by_block: tuple[BlockTest, ...] = ()
    why: str = ""
    settle: str = ""
    notes: tuple[str, ...] = ()
    withheld: str = ""

    @property
    def mixed(self) -> int:
        """Runs that are not comparable, in the blocks that it rests on."""
        return sum(each.mixed for each in self.by_block if each.counts)

    @property
    def runs(self) -> tuple[str, ...]:
        """Keys of the treatment's and the control's runs, in all blocks that were looked at."""
        return tuple(dict.fromkeys(key for each in self.by_block for key in each.runs))


@dataclass(frozen=True)
class Kept:
    """A block that a finding rests on.

    Attributes:
        result: with the control as its baseline.
        loss: the treatment.
    """

    result: BlockResult
    loss: str

    @property
    def effect(self) -> Effect:
        """Of the treatment."""
        return next(each for each in self.result.effects if each.loss == self.loss)


def judge(finding: Finding, confidence: float) -> Outcome:
    """The outcome that a finding's interval and adjusted p allow.

    Not supported: the interval leaves no room for an effect of the claimed direction that is as large as the smallest
    effect of interest; so it is where the interval lies inside it, or on the other side of 0. Runs that are not
    comparable, or stand still, allow neither.
    """
    if finding.withheld or finding.low is None or finding.high is None or finding.p is None:
        return Outcome.OPEN
    low, high = _claimed(finding, finding.low, finding.high)
    if high < finding.smallest_effect:
        return Outcome.NOT_SUPPORTED
    if low > 0 and finding.p_adjusted is not None and finding.p_adjusted <= 1 - confidence:
        return Outcome.SUPPORTED
    return Outcome.OPEN


def _claimed(finding: Finding, low: float, high: float) -> tuple[float, float]:
    """An interval turned so that the claim is a positive effect."""
    return (low, high) if finding.hypothesis.direction == "raises" else (-high, -low)


def judged(finding: Finding, kept: Sequence[Kept], confidence: float) -> Finding:
    """A finding with its outcome, the reason for it, and what would settle it; one without a p says so already.

    Args:
        finding: with its adjusted p.
        kept: the blocks that it rests on.
    """
    outcome = judge(finding, confidence)
    if finding.p is None or finding.withheld:
        return finding
    if outcome is not Outcome.OPEN:
        return replace(finding, outcome=outcome, why=_why(finding, outcome), settle="")
    return replace(finding, why=_why_open(finding, confidence), settle=_settle(finding, kept, confidence))


def _why(finding: Finding, outcome: Outcome) -> str:
    direction = finding.hypothesis.direction
    if outcome is Outcome.SUPPORTED:
        return "The interval lies on the claimed side of no effect."
    assert finding.low is not None
    assert finding.high is not None
    low, high = _claimed(finding, finding.low, finding.high)
    if high < 0:
        return "The effect goes the other way."
    if low > -finding.smallest_effect:
        return "The effect is smaller than the smallest of interest."
    return f"An effect that {direction} it by the smallest of interest is excluded."


def _why_open(finding: Finding, confidence: float) -> str:
    assert finding.low is not None
    assert finding.high is not None
    low, _ = _claimed(finding, finding.low, finding.high)
    if low > 0:
        return (
            "Its own interval lies on the claimed side of no effect, but among all hypotheses tested that can be luck: "
            f"the adjusted p is above {1 - confidence:g}."
        )
    return "The interval holds both no effect and one as large as the smallest of interest."


def _settle(finding: Finding, kept: Sequence[Kept], confidence: float) -> str:
    """How many seeds or blocks would settle an open finding if the effect is what it looks like."""
    assert finding.p is not None
    assert finding.p_adjusted is not None
    assert finding.effect is not None
    assert finding.low is not None
    assert finding.high is not None
    towards, _ = _claimed(finding, finding.effect, finding.effect)
    factor = finding.p_adjusted / finding.p if towards > 0 and finding.p > 0 else 1.0
    strict = 1 - (1 - confidence) / factor
    if len(kept) == 1:
        effect = kept[0].effect
        seeds = seeds_needed(kept[0].result, effect, strict)
        if seeds is None:
            return f"More than {MOST} seeds, if the effect is what it looks like; more validation images may help."
        return f"About {seeds} seeds for each instead of {effect.seeds}, if the effect is what it looks like."
    half = (finding.high - finding.low) / 2
    blocks = blocks_needed(finding.effect, half, len(kept), finding.smallest_effect, confidence, strict)
    tests = [test for test in finding.by_block if test.p is not None]
    alone = {judge(replace(finding, low=t.low, high=t.high, p=t.p, p_adjusted=t.p), confidence) for t in tests}
    agree = f" Each of the {len(tests)} blocks shows it on its own." if alone == {Outcome.SUPPORTED} else ""
    if blocks is None:
        return f"More than {MOST} blocks (models, datasets): the effect differs between them, or is close to 0.{agree}"
    return (
        f"About {blocks} blocks (models, datasets) instead of {len(kept)}, if the effect is what it looks like.{agree}"
    )
