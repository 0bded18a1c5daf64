"""What a finding says in words: runs that are missing or odd, blocks that don't count, and what to do about it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from prove.report.hypothesis_finding import BlockTest
from prove.report.hypothesis_measures import STILL_POINTS, Numbers
from prove.report.hypothesis_pairs import Pair
from prove.report.study import Block
from prove.report.views.numbers import listed, plural
from prove.spec.hypothesis import Hypothesis, Quantity

MOST_SENTENCES = 4
"""Of one kind that a finding says; hundreds of blocks would say as many."""

MIXED = "It rests on runs that are not comparable."
STILL = "Some of its runs stand still in the second half of training, and no ratio to them means anything."
ONE_SEED = "One paired seed can't tell a loss from luck."
ONE_SEED_ALONE = "One paired seed can't tell a loss from luck, and there is no standard error over images."
CURE_MIXED = (
    "Train the runs that are not comparable again under the conditions of the others, or report without --allow-mixed."
)
CURE_STILL = "Find out why these runs do not learn, and train them again."
COPIES = "Seeds make no difference to these numbers: there is no noise to measure an effect by."


def few(sentences: Iterable[str]) -> tuple[str, ...]:
    """The first of several sentences, without empty ones, and how many more there are."""
    known = tuple(dict.fromkeys(each for each in sentences if each))
    if len(known) <= MOST_SENTENCES + 1:
        return known
    return (*known[:MOST_SENTENCES], f"And {len(known) - MOST_SENTENCES} more like it.")


def not_tested(hypothesis: Hypothesis, labels: Sequence[str]) -> tuple[str, ...]:
    """Of objectives that have the treatment's term and no control."""
    if not labels:
        return ()
    return (f"Not tested, for lack of a control that differs in {hypothesis.treatment} alone: {listed(labels)}.",)


def wanted(hypothesis: Hypothesis) -> str:
    """What a study without a treatment lacks."""
    treatment, control = hypothesis.treatment, hypothesis.control
    if treatment.kind == "objective":
        return f"the objective {treatment.text}"
    weight = {"constant": " at a constant weight", "scheduled": " at a weight that changes"}.get(treatment.kind, "")
    if control is not None and control.kind != "objective":
        return f"an objective with {treatment.text}{weight}"
    base = control.text if control else "the baseline"
    return f"an objective that adds {treatment.text}{weight} to {base} and changes nothing else"


def not_counted(tests: Sequence[BlockTest], effect: float | None) -> list[str]:
    """Blocks that an interval does not rest on, and why; those that point the other way first.

    Args:
        effect: over the blocks that count.
    """
    against, others = [], []
    for test in tests:
        if test.counts:
            continue
        if effect is not None and test.effect is not None and test.effect * effect < 0:
            against.append(f"{test.block} is not counted, and it points the other way: {test.why}")
        else:
            others.append(f"{test.block} is not counted: {test.why}")
    return [*against, *others]


def absent(block: Block, pair: Pair) -> list[str]:
    """What became of runs of the two objectives that take no part."""
    said = []
    for each in (pair.treatment, pair.control):
        out = [left for left in block.left_out if left.run.loss == each.loss]
        kinds = Counter(str(left.run.failure) if left.run.failure else left.kind for left in out)
        if out:
            total = len(out) + sum(loss == each.loss for loss, _ in block.runs)
            which = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in kinds.items())
            said.append(f"{each.label}: {len(out)} of {total} runs left out in {block.key} ({which}).")
    return said


def mixed(block: Block, used: Sequence[str]) -> list[str]:
    """Of runs that take part though they are not comparable.

    Args:
        used: keys of all runs that the analysis of the block takes.
    """
    reasons = dict.fromkeys(block.mixed[key] for key in used if key in block.mixed)
    count = sum(key in block.mixed for key in used)
    if not count:
        return []
    which = f"{count} of the {len(used)} runs in {block.key} {'is' if count == 1 else 'are'} not comparable"
    return [f"{which} (--allow-mixed): {listed(reasons)}."]


def standing_still(block: Block, keys: Sequence[str]) -> list[str]:
    """Of runs whose metric does not move."""
    if not keys:
        return []
    return [
        f"{block.key}: validation mIoU stands still in {plural(len(keys), 'run')} (jumps below {STILL_POINTS:g} points "
        f"in the second half of training): {', '.join(keys)}. A run that has collapsed is not calm."
    ]


def without_number(block: Block, pair: Pair, measured: Numbers, quantity: Quantity) -> list[str]:
    """Of runs that are comparable and have no number for the measure, where nothing else says so of all of them."""
    said = []
    for each in (pair.treatment, pair.control):
        places = [place for place in block.runs if place[0] == each.loss]
        lacking = [
            block.runs[loss, seed].key
            for loss, seed in places
            if math.isnan(measured.values[block.losses.index(loss), block.seeds.index(seed)])
            and (loss, seed) not in measured.still
        ]
        if lacking and not (measured.problem and len(lacking) == len(places)):
            said.append(
                f"{each.label}: {len(lacking)} of {plural(len(places), 'run')} in {block.key} have no {quantity} "
                f"({listed(lacking)})."
            )
    return said


def without_runs(block: Block, pair: Pair) -> list[str]:
    """Labels of the arms that have no comparable run in a block."""
    there = {loss for loss, _ in block.runs}
    return [each.label for each in (pair.treatment, pair.control) if each.loss not in there]


def cure(block: Block, pair: Pair, test: BlockTest | None = None, measured: Numbers | None = None) -> str:
    """What would give a block's test a p.

    Args:
        test, measured: None where an arm has no run.
    """
    if not pair.control.loss:
        return f"Add {pair.control.label} with the same seeds."
    if test is None or measured is None:
        return f"Train {' and '.join(without_runs(block, pair))} (`prove status` says what became of it)."
    if measured.cure and not test.seeds:
        return measured.cure
    if test.still and test.seeds < 2:
        return CURE_STILL
    if test.seeds < 2:
        return "Train both with the same seeds: two are needed, three to five are usual."
    return "Train for longer, and validate on more images."
