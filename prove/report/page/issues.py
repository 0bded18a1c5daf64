"""What a reader must know before any number: what was left out, failed, is missing, or rests on one seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prove.report.study import Block, Measure, Study
from prove.spec.event import State

KINDS = (
    "no baseline", "not comparable", "mixed", "failed", "no number", "missing", "unfinished", "one seed",
    "warning", "note",
)  # fmt: skip
"""In the order in which a page shows them."""

OF_ONE_KIND = 25
"""Issues of a kind that are told one by one; of the others, how many there are."""


@dataclass(frozen=True)
class Issue:
    """One thing to know.

    Attributes:
        kind: one of `KINDS`.
        says: a sentence.
        where: the blocks that it holds for; empty where it holds for all, or has no place.
        runs: keys of the runs that it is about.
    """

    kind: str
    says: str
    where: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


def issues(study: Study) -> tuple[Issue, ...]:
    """Everything to know, the gravest first; what holds for several blocks is said once."""
    found: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}

    def add(kind: str, says: str, where: str = "", runs: Iterable[str] = ()) -> None:
        blocks, keys = found.setdefault((kind, says), ({}, {}))
        if where:
            blocks[where] = None
        keys.update(dict.fromkeys(runs))

    for block in study.blocks:
        name = str(block.key)
        if block.baseline is None:
            add("no baseline", block.why or "No comparable run of the baseline: no effect is reported.", name)
        for each in block.left_out:
            if each.run.state is not State.FAILED:  # those are told by what went wrong, for all blocks together
                kind = each.kind if each.kind in KINDS else "not comparable"
                add(kind, str(each.run.state) if kind == "unfinished" else each.reason, name, [each.run.key])
        for key, reason in block.mixed.items():
            add("mixed", f"Takes part although it is not comparable: {reason}", name, [key])
        for says in _missing(block):
            add("missing", says, name)
        if len(block.seeds) == 1:
            add("one seed", "One seed: intervals are about these checkpoints, not about the loss. No verdict.", name)
        for warning in block.warnings:
            add("warning", warning, name)
        for says, keys in _undefined(study, block):
            add("no number", says, name, keys)
    told = {out.run.key for block in study.blocks for out in block.left_out}
    told |= {run.key for block in study.blocks for run in block.runs.values()}
    for run in study.runs:
        if run.key not in told and run.state is not State.FAILED:
            add("not comparable" if run.state is State.FINISHED else "unfinished", f"{run.state}, in no block",
                runs=[run.key])  # fmt: skip
    for issue in _failed(study):
        add(issue.kind, issue.says, runs=issue.runs)
    for note in study.notes:
        add("note", note)

    names = {str(block.key) for block in study.blocks}
    listed = [
        Issue(kind, says, () if len(names) == 1 or set(blocks) == names else tuple(blocks), tuple(keys))
        for (kind, says), (blocks, keys) in found.items()
    ]
    return tuple(issue for kind in KINDS for issue in _cut(kind, [each for each in listed if each.kind == kind]))


def _cut(kind: str, found: Sequence[Issue]) -> Iterable[Issue]:
    """The first of a kind, and how many more there are."""
    yield from found[:OF_ONE_KIND]
    rest = found[OF_ONE_KIND:]
    if rest:
        yield Issue(
            kind, f"And {len(rest):,} more of this kind.", runs=tuple(key for each in rest for key in each.runs)
        )


def _missing(block: Block) -> Iterable[str]:
    """The cells of a block for which no run was ever registered, a sentence per loss."""
    there = set(block.runs) | {(each.run.loss, each.run.seed) for each in block.left_out}
    for loss in block.losses:
        seeds = [str(seed) for seed in block.seeds if (loss, seed) not in there]
        if seeds:
            yield f"No run of {loss} at {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}."


def _undefined(study: Study, block: Block) -> Iterable[tuple[str, list[str]]]:
    """Metrics that a run has no number of though it takes part, and the runs."""
    for metric in study.options.metrics:
        values = study.values(block, Measure(metric))
        keys = [
            run.key
            for (loss, seed), run in block.runs.items()
            if not math.isfinite(values[block.losses.index(loss), block.seeds.index(seed)])
        ]
        if keys:
            yield f"{metric} is undefined", keys


def _failed(study: Study) -> Iterable[Issue]:
    """Failures by kind, with the rate of each loss."""
    tried = Counter(run.loss for run in study.runs if run.state in (State.FINISHED, State.FAILED))
    failed: dict[str, list[tuple[str, str]]] = {}
    for run in study.runs:
        if run.state is State.FAILED:
            failed.setdefault(str(run.failure or "error"), []).append((run.loss, run.key))
    for kind, runs in failed.items():
        rates = [f"{count} of {tried[loss]} of {loss}" for loss, count in Counter(loss for loss, _ in runs).items()]
        said = ", ".join(rates[:6]) + (f" and {len(rates) - 6} more losses" if len(rates) > 6 else "")
        yield Issue("failed", f"{kind.replace('_', ' ').capitalize()}: {said}.", runs=tuple(key for _, key in runs))
