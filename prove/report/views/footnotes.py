"""Footnotes: what is missing, what was left out and why."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from string import ascii_lowercase

from prove.report.study import Block, Floats, Measure
from prove.report.views.numbers import listed

MAY_BE_BEST = "†"
"""Mark of what can't be told apart from the best."""


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
            f"Can't be told apart from the best mean (Hsu's comparison with the best, {confidence:.0%} simultaneous)."
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
    undefined = [
        seed
        for seed, value in zip(block.seeds, values.tolist(), strict=True)
        if isnan(value) and (loss, seed) in block.runs
    ]
    what = f"{measure.metric} of {measure.name}" if measure.name else measure.metric
    return [*runs_missing(block, loss), *([f"{_seeds(undefined)}: {what} is undefined."] if undefined else [])]


def runs_missing(block: Block, loss: str) -> list[str]:
    """The same, whatever the measure."""
    if not block.left_out and not block.mixed and len(block.runs) == len(block.losses) * len(block.seeds):
        return []
    known = {out.run.seed for out in block.left_out if out.run.loss == loss}
    absent = [seed for seed in block.seeds if seed not in known and (loss, seed) not in block.runs]
    return [*_left_out(block, loss), *([f"{_seeds(absent)} not run."] if absent else []), *_mixed(block, loss)]


def _left_out(block: Block, loss: str) -> list[str]:
    reasons: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for out in block.left_out:
        if out.run.loss == loss:
            reasons.setdefault((out.kind, out.reason), []).append((out.run.seed, out.run.key))
    return [
        f"{_seeds([seed for seed, _ in runs])} left out, {kind}: {reason} ({_keys([key for _, key in runs])})."
        for (kind, reason), runs in reasons.items()
    ]


def _mixed(block: Block, loss: str) -> list[str]:
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
