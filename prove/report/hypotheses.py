"""Hypotheses put to the test: each treatment against its control, by the block analysis that every table uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import special

from prove.errors import unknown
from prove.report.hypothesis_finding import BlockTest, Finding, Kept, Outcome, judged
from prove.report.hypothesis_measures import Numbers, higher_is_better, numbers, smallest_effect
from prove.report.hypothesis_pairs import Pair, check_names, known, pairs, passed_over, suggestions
from prove.report.hypothesis_remarks import (
    COPIES,
    CURE_MIXED,
    CURE_STILL,
    MIXED,
    ONE_SEED,
    ONE_SEED_ALONE,
    STILL,
    absent,
    cure,
    few,
    mixed,
    not_counted,
    not_tested,
    standing_still,
    wanted,
    without_number,
    without_runs,
)
from prove.report.study import Block, Study
from prove.report.views.footnotes import SAME_IMAGES
from prove.spec.hypothesis import Hypothesis, Quantity
from prove.stats.block import compare
from prove.stats.effects import BlockData, BlockResult
from prove.stats.multiplicity import holm
from prove.stats.pool import pool


def findings(study: Study, hypotheses: Sequence[Hypothesis]) -> tuple[Finding, ...]:
    """What a study says of hypotheses, in their order; for each every treatment, in the order of the runs.

    A hypothesis of which the study has no treatment gets one finding that says which objective to add.

    Raises:
        ProveError: a hypothesis names a loss, class or condition that is not known here.
    """
    losses = tuple(dict.fromkeys(run.loss for run in study.runs))
    for each in hypotheses:
        if not each.built_in:
            check_names(each, losses)
            _check_measure(study, each)
    tester = _Tester(study)
    open_ones = [finding for each in hypotheses for finding in tester.test(each, losses)]
    adjusted = holm([np.nan if each.p is None else each.p for each in open_ones])
    return tuple(
        judged(replace(each, p_adjusted=None if np.isnan(p) else float(p)), tester.kept(each), study.options.confidence)
        for each, p in zip(open_ones, adjusted, strict=True)
    )


def _check_measure(study: Study, hypothesis: Hypothesis) -> None:
    quantity = hypothesis.measure
    if quantity.scope == "overall":
        return
    names = dict.fromkeys(name for block in study.blocks for name in study.names(quantity.scope, block))
    if names and quantity.of not in names:
        raise unknown(quantity.scope, quantity.of, names, where=f"in the hypothesis {hypothesis.name!r}")


@dataclass
class _Tester:
    """Tests against one study; keeps what several hypotheses need."""

    study: Study
    _numbers: dict[tuple[int, Quantity], Numbers] = field(default_factory=dict)
    _results: dict[tuple[int, Quantity, str, float], BlockResult] = field(default_factory=dict)
    _kept: dict[tuple[str, str, str], tuple[Kept, ...]] = field(default_factory=dict)

    def test(self, hypothesis: Hypothesis, losses: Sequence[str]) -> Iterable[Finding]:
        """One finding for each treatment and control, before any adjustment."""
        grouped: dict[tuple[str, str], list[tuple[int, Pair]]] = {}
        over: dict[str, None] = {}
        for index, block in enumerate(self.study.blocks):
            found = pairs(hypothesis, block.losses, block.baseline or self.study.options.baseline)
            over |= dict.fromkeys(passed_over(hypothesis, block.losses, found))
            for pair in found:
                grouped.setdefault((pair.treatment.label, pair.control.label), []).append((index, pair))
        untested = not_tested(hypothesis, [each for each in over if each not in {t for t, _ in grouped}])
        if not grouped:
            yield self._nothing(hypothesis, losses, untested)
        for (treatment, control), where in grouped.items():
            yield self._finding(hypothesis, treatment, control, where, untested)

    def _nothing(self, hypothesis: Hypothesis, losses: Sequence[str], notes: tuple[str, ...]) -> Finding:
        control = hypothesis.control
        add = suggestions(hypothesis, losses, self.study.options.baseline)
        return Finding(
            hypothesis=hypothesis,
            treatment="",
            control=str(control) if control else self.study.options.baseline,
            outcome=Outcome.OPEN,
            effect=None, low=None, high=None, p=None, p_adjusted=None,
            smallest_effect=smallest_effect(hypothesis, self.study.options.smallest_effect),
            tau=None, seeds=0, blocks=0,
            why=f"No run has {wanted(hypothesis)}.",
            settle=f"Add {' and '.join(add)}, with the same seeds." if add else "",
            notes=notes,
        )  # fmt: skip

    def _finding(
        self,
        hypothesis: Hypothesis,
        treatment: str,
        control: str,
        where: Sequence[tuple[int, Pair]],
        notes: tuple[str, ...],
    ) -> Finding:
        smallest = smallest_effect(hypothesis, self.study.options.smallest_effect)
        measure = hypothesis.measure
        tests = [self._in_block(index, pair, measure, smallest) for index, pair in where]
        kept = [
            Kept(self._compared(index, pair, measure, smallest), treatment)
            for (index, pair), test in zip(where, tests, strict=True)
            if test.has_noise
        ]
        self._kept[hypothesis.name, treatment, control] = tuple(kept)
        counted = _counted(tests)
        tests = [replace(test, counts=test in counted) for test in tests]
        overall = _over_blocks(counted, kept)
        tested = overall.p is not None
        withheld, remedy = _withheld(tests)
        why = withheld if tested else " ".join(few(test.why for test in tests))
        numbers_of = [
            self._measured(index, measure) for index, pair in where if not _lacking(self.study.blocks[index], pair)
        ]
        return Finding(
            hypothesis=hypothesis,
            treatment=treatment,
            control=control,
            outcome=Outcome.OPEN,
            effect=overall.effect,
            low=overall.low,
            high=overall.high,
            p=overall.p,
            p_adjusted=None,
            smallest_effect=smallest,
            tau=overall.tau,
            seeds=sum(test.seeds for test in counted),
            blocks=len(counted),
            by_block=tuple(tests),
            why=why,
            settle=remedy if tested else " ".join(few(test.cure for test in tests)),
            notes=(
                *few(not_counted(tests, overall.effect) if tested else ()),
                *([SAME_IMAGES] if overall.shares_images else []),
                *few(caution for test in tests for caution in test.cautions),
                *few(said for index, pair in where for said in absent(self.study.blocks[index], pair)),
                *few(pair.note for _, pair in where),
                *few(said for each in numbers_of for said in (each.note, each.problem) if said not in why),
                *notes,
            ),
            withheld=withheld,
        )

    def _measured(self, index: int, quantity: Quantity) -> Numbers:
        if (index, quantity) not in self._numbers:
            self._numbers[index, quantity] = numbers(self.study, self.study.blocks[index], quantity)
        return self._numbers[index, quantity]

    def _compared(self, index: int, pair: Pair, quantity: Quantity, smallest: float) -> BlockResult:
        key = (index, quantity, pair.control.loss, smallest)
        if key not in self._results:
            block, measured = self.study.blocks[index], self._measured(index, quantity)
            labels = {loss: found.label if (found := known(loss)) else loss for loss in block.losses}
            data = BlockData(
                losses=tuple(labels.values()),
                baseline=labels[pair.control.loss],
                seeds=block.seeds,
                values=measured.values,
                replicates=measured.replicates,
                higher_is_better=higher_is_better(quantity),
                images=measured.images,
                dataset=block.key.dataset,
                images_digest=measured.images_digest,
            )
            self._results[key] = compare(data, smallest_effect=smallest, confidence=self.study.options.confidence)
        return self._results[key]

    def _in_block(self, index: int, pair: Pair, quantity: Quantity, smallest: float) -> BlockTest:
        block = self.study.blocks[index]
        arms = (pair.treatment.loss, pair.control.loss)
        runs = tuple(run.key for (loss, _), run in block.runs.items() if loss in arms)
        nothing = BlockTest(str(block.key), None, None, None, None, None, None, 0, None, None, "", runs)
        if why := _lacking(block, pair):
            return replace(nothing, why=why, cure=cure(block, pair))
        measured = self._measured(index, quantity)
        result = self._compared(index, pair, quantity, smallest)
        effect = next(each for each in result.effects if each.loss == pair.treatment.label)
        means = {arm.loss: None if np.isnan(arm.mean) else arm.mean for arm in result.arms}
        there = np.isfinite(measured.values)
        used = [run.key for place, run in block.runs.items() if there[_at(block, place)]]
        still = tuple(run.key for place, run in block.runs.items() if place in measured.still and place[0] in arms)
        test = replace(
            nothing,
            seeds=effect.seeds,
            control_mean=means[pair.control.label],
            treatment_mean=means[pair.treatment.label],
            mixed=sum(key in block.mixed for key in used),
            still=still,
            cautions=(
                *mixed(block, used),
                *standing_still(block, still),
                *without_number(block, pair, measured, quantity),
            ),
        )
        if not effect.seeds:
            why = measured.problem or f"No seed has a number for both {pair.treatment.label} and {pair.control.label}."
            return replace(test, why=why, cure=cure(block, pair, test, measured))
        test = replace(test, effect=effect.delta, low=effect.low, high=effect.high, se=effect.se)
        if effect.df is not None and effect.se is not None:
            half = -float(special.stdtrit(effect.df, (1 - result.confidence) / 2)) * effect.se
            took_part = there[there.any(axis=1)][:, there.any(axis=0)]
            test = replace(test, low=effect.delta - half, high=effect.delta + half, estimated=not bool(took_part.all()))
        if effect.seeds < 2:
            return replace(
                test, why=ONE_SEED if test.has_noise else ONE_SEED_ALONE, cure=cure(block, pair, test, measured)
            )
        if effect.p is None or effect.df is None:
            return replace(test, low=None, high=None, why=COPIES, cure=cure(block, pair, test, measured))
        return replace(test, p=effect.p, df=effect.df)

    def kept(self, finding: Finding) -> tuple[Kept, ...]:
        """The blocks that a finding rests on."""
        return self._kept.get((finding.hypothesis.name, finding.treatment, finding.control), ())


def _at(block: Block, place: tuple[str, int]) -> tuple[int, int]:
    """Where a loss and seed stand among a block's numbers."""
    return block.losses.index(place[0]), block.seeds.index(place[1])


def _lacking(block: Block, pair: Pair) -> str:
    """Why a block has nothing to compare; empty where both arms have runs."""
    if not pair.control.loss:
        return f"No run of {pair.control.label} is in {block.key}."
    lacking = without_runs(block, pair)
    return f"No run of {lacking[0]} can be compared in {block.key}." if lacking else ""


def _counted(tests: Sequence[BlockTest]) -> list[BlockTest]:
    """The blocks that an effect rests on: all that can be pooled; the one that has a p; or all that have an effect."""
    pooled = [each for each in tests if each.has_noise]
    if len(pooled) > 1:
        return pooled
    return [each for each in tests if each.p is not None] or [each for each in tests if each.effect is not None]


@dataclass(frozen=True)
class _Overall:
    """Over the blocks that count; `tau` and `shares_images` as in `prove.stats.effects.PooledEffect`."""

    effect: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    tau: float | None = None
    shares_images: bool = False


def _over_blocks(counted: Sequence[BlockTest], kept: Sequence[Kept]) -> _Overall:
    """Of the only block that counts, or random effects over several; their bare mean where none has noise."""
    if len(kept) > 1:
        pooled = next(each for each in pool([each.result for each in kept]) if each.loss == kept[0].loss)
        return _Overall(pooled.delta, pooled.low, pooled.high, pooled.p, pooled.tau, pooled.shares_images)
    if len(counted) == 1:
        only = counted[0]
        return _Overall(only.effect, only.low, only.high, only.p)
    effects = [each.effect for each in counted if each.effect is not None]
    return _Overall(float(np.mean(effects)) if effects else None)


def _withheld(tests: Sequence[BlockTest]) -> tuple[str, str]:
    """Why the runs allow no outcome and what would cure it; empty where they do.

    A block that lost runs because they stand still may not count for that very reason; so all blocks are looked at.
    """
    odd = any(each.mixed for each in tests if each.counts), any(each.still for each in tests)
    said = [why for why, found in zip((MIXED, STILL), odd, strict=True) if found]
    cures = [each for each, found in zip((CURE_MIXED, CURE_STILL), odd, strict=True) if found]
    return " ".join(said), " ".join(cures)
