"""Footnotes: what is missing, what was left out and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from string import ascii_lowercase

from prove.report.study import Block, Floats, Measure
from prove.report.views.numbers import confidence_text, listed, plural

MAY_BE_BEST = "†"
"""Mark of what can't be told apart from the best."""

SAME_IMAGES = (
    "Some of its blocks share validation images, and what these do to all of them is not known: the interval holds for "
    "these images only."
)
"""Of an effect over blocks that `prove.stats.effects.PooledEffect.shares_images`."""


class Footnotes:
    """Gives out marks in order, the same sentence the same mark."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}
        self._whole: dict[str, None] = {}
        self._may_be_best = ""

    def mark(self, sentence: str) -> str:
        """The mark of a sentence: ``a``, ..., ``z``, ``aa``, ..."""
        return self._marks.setdefault(sentence, _letters(len(self._marks)))

    def may_be_best(self, confidence: float) -> str:
        """The mark of what can't be told apart from the best."""
        self._may_be_best = (
            "Can't be told apart from the best mean, the underlined one (Hsu's comparison with the best, "
            f"{confidence_text(confidence)} simultaneous)."
        )
        return MAY_BE_BEST

    def whole(self, sentence: str) -> None:
        """A note on the whole table."""
        if sentence:
            self._whole.setdefault(sentence)

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """(mark, sentence) in order."""
        best = [(MAY_BE_BEST, self._may_be_best)] if self._may_be_best else []
        marked = [(mark, sentence) for sentence, mark in self._marks.items()]
        return (*best, *marked, *(("", sentence) for sentence in self._whole))


def _letters(index: int) -> str:
    head, last = divmod(index, 26)
    return (_letters(head - 1) if head else "") + ascii_lowercase[last]


def incomplete(block: Block, loss: str, values: Floats, measure: Measure) -> list[str]:
    """What a reader must know of a loss in a block, a sentence each.

    Why a seed is not among its results, and which runs take part though they are not comparable.

    Args:
        values: ``[S]`` of this loss, by ``block.seeds``.
    """
    return [*runs_missing(block, loss), *runs_mixed(block, loss), *undefined(block, loss, values, measure)]


def undefined(block: Block, loss: str, values: Floats, measure: Measure) -> list[str]:
    """At which seeds a run takes part and has no number for a measure; at most one sentence."""
    seeds = [
        seed
        for seed, value in zip(block.seeds, values.tolist(), strict=True)
        if isnan(value) and (loss, seed) in block.runs
    ]
    what = f"{measure.metric} of {measure.name}" if measure.name else measure.metric
    return [f"{_seeds(seeds)}: {what} is undefined."] if seeds else []


def runs_missing(block: Block, loss: str) -> list[str]:
    """Why seeds of a loss are not among its results, whatever the measure."""
    if not block.left_out and len(block.runs) == len(block.losses) * len(block.seeds):
        return []
    known = {out.run.seed for out in block.left_out if out.run.loss == loss}
    absent = [seed for seed in block.seeds if seed not in known and (loss, seed) not in block.runs]
    return [*_failed(block, loss), *_left_out(block, loss), *([f"{_seeds(absent)} not run."] if absent else [])]


def failures(block: Block, loss: str) -> tuple[int, int]:
    """How many runs of a loss failed, and at how many seeds a run of it ended at all, well or not."""
    own = [out for out in block.left_out if out.run.loss == loss and out.kind != "unfinished"]
    failed = sum(out.kind == "failed" for out in own)
    ended = {seed for name, seed in block.runs if name == loss} | {out.run.seed for out in own}
    return failed, len(ended)


def _failed(block: Block, loss: str) -> list[str]:
    failed, ended = failures(block, loss)
    if not failed:
        return []
    return [f"{plural(failed, 'run')} failed, of {plural(ended, 'seed')} that ended: the numbers are of those left."]


def _left_out(block: Block, loss: str) -> list[str]:
    reasons: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for out in block.left_out:
        if out.run.loss == loss:
            reasons.setdefault((out.kind, out.reason), []).append((out.run.seed, out.run.key))
    return [
        f"{_seeds([seed for seed, _ in runs])} left out, {kind}: {reason} ({_keys([key for _, key in runs])})."
        for (kind, reason), runs in reasons.items()
    ]


def mixed_runs(blocks: Iterable[Block], losses: Iterable[str] | None = None) -> int:
    """How many runs take part though they are not comparable.

    Args:
        losses: of these alone.
    """
    if losses is None:
        return sum(len(block.mixed) for block in blocks)
    chosen = set(losses)
    mixed = (block for block in blocks if block.mixed)
    return sum(loss in chosen and run.key in block.mixed for block in mixed for (loss, _), run in block.runs.items())


def not_comparable(count: int) -> str:
    """``3 runs are not comparable (--allow-mixed).``; empty for none."""
    return f"{plural(count, 'run')} {'is' if count == 1 else 'are'} not comparable (--allow-mixed)." if count else ""


def runs_mixed(block: Block, loss: str) -> list[str]:
    """Which runs of a loss take part though they are not comparable, and why."""
    if not block.mixed:
        return []
    reasons: dict[str, list[tuple[int, str]]] = {}
    for (name, seed), run in block.runs.items():
        if name == loss and run.key in block.mixed:
            reasons.setdefault(block.mixed[run.key], []).append((seed, run.key))
    return [
        f"{_seeds([seed for seed, _ in runs])} not comparable, shown all the same: {reason} "
        f"({_keys([key for _, key in runs])})."
        for reason, runs in reasons.items()
    ]


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'Seed' if len(set(seeds)) == 1 else 'Seeds'} {listed(map(str, sorted(set(seeds))), 12)}"


def _keys(keys: Sequence[str]) -> str:
    return f"{'run' if len(keys) == 1 else 'runs'} {listed(keys)}"
