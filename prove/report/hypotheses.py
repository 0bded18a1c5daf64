"""Hypotheses put to the test: each treatment against its control, by the block analysis that every table uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import special

from prove.errors import unknown
from prove.report.hypothesis_finding import BlockTest, Finding, Kept, Outcome, judged
from prove.report.hypothesis_measures import Numbers, higher_is_better, numbers, smallest_effect
from prove.report.hypothesis_pairs import Pair, check_names, known, pairs, passed_over, suggestions
from prove.report.study import Block, Study
from prove.report.views.numbers import listed
from prove.spec.hypothesis import Hypothesis, Quantity
from prove.stats.block import compare
from prove.stats.effects import BlockData, BlockResult
from prove.stats.multiplicity import holm
from prove.stats.pool import pool

MOST_SENTENCES = 4
"""Of one kind that a finding says; hundreds of blocks would say as many."""


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
        not_tested = _not_tested(hypothesis, [each for each in over if each not in {t for t, _ in grouped}])
        if not grouped:
            yield self._nothing(hypothesis, losses, not_tested)
        for (treatment, control), where in grouped.items():
            yield self._finding(hypothesis, treatment, control, where, not_tested)

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
            why=f"No run has {_wanted(hypothesis)}.",
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
        tests: list[BlockTest] = []
        kept: list[Kept] = []
        said: dict[str, None] = {}
        cures: dict[str, None] = {}
        for index, pair in where:
            block = self.study.blocks[index]
            test = self._in_block(index, pair, hypothesis.measure, smallest)
            tests.append(test)
            if test.se is not None:
                kept.append(Kept(self._compared(index, pair, hypothesis.measure, smallest), treatment))
            measured = self._measured(index, hypothesis.measure) if pair.control.loss else Numbers(np.empty((0, 0)))
            said |= dict.fromkeys((pair.note, measured.note, *_absent(block, pair)))
            if test.p is not None:
                said |= dict.fromkeys((measured.problem,))
            else:
                cures |= dict.fromkeys((_cure(block, pair, test, measured),))
        self._kept[hypothesis.name, treatment, control] = tuple(kept)
        effect, low, high, p, tau = _over_blocks(tests, kept)
        taking_part = [each for each in tests if each.se is not None] if tau is not None else tests
        return Finding(
            hypothesis=hypothesis,
            treatment=treatment,
            control=control,
            outcome=Outcome.OPEN,
            effect=effect,
            low=low,
            high=high,
            p=p,
            p_adjusted=None,
            smallest_effect=smallest,
            tau=tau,
            seeds=sum(each.seeds for each in taking_part),
            blocks=sum(each.effect is not None for each in taking_part),
            by_block=tuple(tests),
            why=_first(each.why for each in tests) if p is None else "",
            settle=_first(cures) if p is None else "",
            notes=(*_few(each for each in said if each), *notes),
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
            )
            self._results[key] = compare(data, smallest_effect=smallest, confidence=self.study.options.confidence)
        return self._results[key]

    def _in_block(self, index: int, pair: Pair, quantity: Quantity, smallest: float) -> BlockTest:
        block = self.study.blocks[index]
        runs = tuple(
            run.key for (loss, _), run in block.runs.items() if loss in (pair.treatment.loss, pair.control.loss)
        )
        nothing = BlockTest(str(block.key), None, None, None, None, None, None, 0, None, None, "", runs)
        if not pair.control.loss:
            return replace(nothing, why=f"No run of {pair.control.label} is in {block.key}.")
        for each in (pair.treatment, pair.control):
            if not any(loss == each.loss for loss, _ in block.runs):
                return replace(nothing, why=f"No run of {each.label} can be compared in {block.key}.")
        measured = self._measured(index, quantity)
        result = self._compared(index, pair, quantity, smallest)
        effect = next(each for each in result.effects if each.loss == pair.treatment.label)
        means = {arm.loss: None if np.isnan(arm.mean) else arm.mean for arm in result.arms}
        test = replace(
            nothing,
            seeds=effect.seeds,
            control_mean=means[pair.control.label],
            treatment_mean=means[pair.treatment.label],
        )
        if not effect.seeds:
            why = measured.problem or f"No seed has a number for both {pair.treatment.label} and {pair.control.label}."
            return replace(test, why=why)
        test = replace(test, effect=effect.delta, low=effect.low, high=effect.high, se=effect.se)
        if effect.seeds < 2:
            return replace(test, why="One paired seed can't tell a loss from luck.")
        if effect.p is None or effect.se is None or effect.df is None:
            why = "Seeds make no difference to these numbers: there is no noise to measure an effect by."
            return replace(test, low=None, high=None, why=why)
        half = -float(special.stdtrit(effect.df, (1 - result.confidence) / 2)) * effect.se
        return replace(test, low=effect.delta - half, high=effect.delta + half, p=effect.p, df=effect.df)

    def kept(self, finding: Finding) -> tuple[Kept, ...]:
        """The blocks that a finding rests on."""
        return self._kept.get((finding.hypothesis.name, finding.treatment, finding.control), ())


def _over_blocks(
    tests: Sequence[BlockTest], kept: Sequence[Kept]
) -> tuple[float | None, float | None, float | None, float | None, float | None]:
    """Effect, interval, p and tau over all blocks: of the only block, or random effects over several."""
    if len(kept) > 1:
        pooled = next(each for each in pool([each.result for each in kept]) if each.loss == kept[0].loss)
        return pooled.delta, pooled.low, pooled.high, pooled.p, pooled.tau
    tested = [each for each in tests if each.p is not None]
    if tested:
        only = tested[0]
        return only.effect, only.low, only.high, only.p, None
    found = [each for each in tests if each.effect is not None]
    if len(found) == 1:
        return found[0].effect, found[0].low, found[0].high, None, None
    effects = [each.effect for each in found if each.effect is not None]
    return (float(np.mean(effects)) if effects else None), None, None, None, None


def _few(sentences: Iterable[str]) -> tuple[str, ...]:
    """The first of several sentences, and how many more there are."""
    known = tuple(dict.fromkeys(sentences))
    if len(known) <= MOST_SENTENCES + 1:
        return known
    return (*known[:MOST_SENTENCES], f"And {len(known) - MOST_SENTENCES} more like it.")


def _first(sentences: Iterable[str]) -> str:
    return " ".join(_few(each for each in sentences if each))


def _not_tested(hypothesis: Hypothesis, labels: Sequence[str]) -> tuple[str, ...]:
    if not labels:
        return ()
    return (f"Not tested, for lack of a control that differs in {hypothesis.treatment} alone: {listed(labels)}.",)


def _wanted(hypothesis: Hypothesis) -> str:
    treatment, control = hypothesis.treatment, hypothesis.control
    if treatment.kind == "objective":
        return f"the objective {treatment.text}"
    weight = {"constant": " at a constant weight", "scheduled": " at a weight that changes"}.get(treatment.kind, "")
    if control is not None and control.kind != "objective":
        return f"an objective with {treatment.text}{weight}"
    base = control.text if control else "the baseline"
    return f"an objective that adds {treatment.text}{weight} to {base} and changes nothing else"


def _absent(block: Block, pair: Pair) -> tuple[str, ...]:
    """What became of runs of the two objectives that take no part."""
    said = []
    for each in (pair.treatment, pair.control):
        out = [left for left in block.left_out if left.run.loss == each.loss]
        kinds = Counter(str(left.run.failure) if left.run.failure else left.kind for left in out)
        if out:
            total = len(out) + sum(loss == each.loss for loss, _ in block.runs)
            which = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in kinds.items())
            said.append(f"{each.label}: {len(out)} of {total} runs left out in {block.key} ({which}).")
    return tuple(said)


def _cure(block: Block, pair: Pair, test: BlockTest, measured: Numbers) -> str:
    """What would give a block's test a p."""
    if not pair.control.loss:
        return f"Add {pair.control.label} with the same seeds."
    if measured.cure and not test.seeds:
        return measured.cure
    absent = [
        each.label for each in (pair.treatment, pair.control) if not any(loss == each.loss for loss, _ in block.runs)
    ]
    if absent:
        return f"Train {' and '.join(absent)} (`prove status` says what became of it)."
    if test.seeds < 2:
        return "Train both with the same seeds: two are needed, three to five are usual."
    return "Train for longer, and validate on more images."
