"""Runs to blocks: what may be compared stands together, everything else is left out with its reason."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prove.report.comparability import ASKED, UNKNOWN, signature, warnings, why_not_comparable
from prove.report.study import Block, BlockKey, LeftOut, Trained
from prove.spec.event import State

Asked = tuple[Any, ...]
"""What the jobs of a block have in common, by `ASKED`."""


LABEL_CHARACTERS = 60
"""A longer value, such as the definition of a dataset, is called by its hash."""


def form_blocks(
    runs: Sequence[Trained],
    baselines: Callable[[Sequence[str]], str | None],
    numbers: Mapping[int, float | None],
    *,
    allow_mixed: bool = False,
) -> tuple[Block, ...]:
    """The blocks of a study, in the order in which their first runs were registered.

    A block is one dataset, model and strategy with one set of training settings. Settings that the baseline was trained
    with make a block; runs whose settings it was never trained with are left out of the nearest one. In a block the
    finished runs that agree in what they ran on (data, code, libraries, ...) with most of the others are compared.

    Args:
        baselines: the baseline among some losses; None where it is not among them.
        numbers: run id → the headline metric of finished runs; None where it is undefined.
        allow_mixed: runs that are not comparable take part where no comparable one stands in their place.
    """
    groups: dict[tuple[str, str, str], dict[Asked, list[Trained]]] = {}
    for run in runs:
        asked = tuple(run.facts.get(name, UNKNOWN) for name in ASKED)
        groups.setdefault((run.dataset, run.model, run.strategy), {}).setdefault(asked, []).append(run)
    blocks = []
    for place, by_asked in groups.items():
        own, strays = _assign(by_asked, baselines)
        labels = _labels(list(own))
        for asked, members in own.items():
            key = BlockKey(*place, settings=labels[asked])
            blocks.append(_block(key, members, strays.get(asked, []), baselines, numbers, allow_mixed))
    return tuple(blocks)


def _assign(
    by_asked: Mapping[Asked, list[Trained]], baselines: Callable[[Sequence[str]], str | None]
) -> tuple[dict[Asked, list[Trained]], dict[Asked, list[Trained]]]:
    """The settings that make a block of their own, and for each the runs that have others without a baseline."""
    own = {asked: runs for asked, runs in by_asked.items() if baselines([run.loss for run in runs]) is not None}
    if not own:
        return dict(by_asked), {}
    strays = defaultdict(list)
    for asked, runs in by_asked.items():
        if asked not in own:
            nearest = min(own, key=lambda other: (_distance(asked, other), -len(own[other])))
            strays[nearest].extend(runs)
    return own, strays


def _distance(a: Asked, b: Asked) -> int:
    return sum(one != other for one, other in zip(a, b, strict=True))


def _labels(asked: Sequence[Asked]) -> dict[Asked, str]:
    """What tells settings apart, and a filter of what was trained on in any case; empty where there is neither."""
    varying = {i for i in range(len(ASKED)) if len({each[i] for each in asked}) > 1}
    names = [name.removesuffix("_asked") for name in ASKED]

    def shown(each: Asked) -> list[int]:
        return [i for i in range(len(ASKED)) if i in varying or (names[i] == "domain_filter" and each[i] not in _PLAIN)]

    return {each: ", ".join(f"{names[i]} {_label(each[i])}" for i in shown(each)) for each in asked}


_PLAIN = ("all", UNKNOWN)


def _label(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LABEL_CHARACTERS else hashlib.sha256(text.encode()).hexdigest()[:6]


def _block(
    key: BlockKey,
    members: Sequence[Trained],
    strays: Sequence[Trained],
    baselines: Callable[[Sequence[str]], str | None],
    numbers: Mapping[int, float | None],
    allow_mixed: bool,
) -> Block:
    left_out = [out for run in (*members, *strays) if (out := _unusable(run, numbers)) is not None]
    gone = {out.run.run_id for out in left_out}
    finished = [run for run in (*members, *strays) if run.run_id not in gone]
    baseline = baselines([run.loss for run in members])
    chosen, others = _largest_comparable(finished, baseline)
    compared: dict[tuple[str, int], Trained] = {}
    mixed: dict[str, str] = {}
    reference = chosen[0] if chosen else members[0]
    for run in (*chosen, *others):
        reason = why_not_comparable(run.facts, reference.facts)
        taken = compared.get((run.loss, run.seed))
        if taken is not None:
            reason = (
                reason or f"a second run of this loss and seed; {taken.key}, in the settings of the block, is compared"
            )
            left_out.append(LeftOut(run, "not comparable", reason))
        elif reason and not allow_mixed:
            left_out.append(LeftOut(run, "not comparable", reason))
        else:
            compared[run.loss, run.seed] = run
            if reason:
                mixed[run.key] = reason
    losses = dict.fromkeys(run.loss for run in sorted((*members, *strays), key=lambda run: run.run_id))
    first = [] if baseline is None else [baseline]
    usable = baseline is not None and any(loss == baseline for loss, _ in compared)
    return Block(
        key=key,
        losses=(*first, *(loss for loss in losses if loss != baseline)),
        seeds=tuple(sorted({run.seed for run in (*members, *strays)})),
        runs=compared,
        baseline=baseline if usable else None,
        mixed=mixed,
        left_out=tuple(sorted(left_out, key=lambda out: out.run.run_id)),
        warnings=warnings(list(compared.values())),
        why="" if usable else _why_no_baseline(baseline, members, left_out),
    )


def _unusable(run: Trained, numbers: Mapping[int, float | None]) -> LeftOut | None:
    if run.state is State.FAILED:
        kind = str(run.failure) if run.failure else "failed"
        return LeftOut(run, "failed", f"{kind}: {run.message}" if run.message else kind)
    if run.state is not State.FINISHED:
        return LeftOut(run, "unfinished", run.state.value)
    number = numbers.get(run.run_id)
    if number is None or number != number:
        return LeftOut(run, "no number", "finished, but the metric is undefined")
    return None


def _largest_comparable(
    finished: Iterable[Trained], baseline: str | None
) -> tuple[tuple[Trained, ...], tuple[Trained, ...]]:
    """The set of comparable runs that allows most comparisons with the baseline, and the rest."""
    sets: dict[tuple[Any, ...], list[Trained]] = {}
    for run in finished:
        sets.setdefault(signature(run.facts), []).append(run)
    if not sets:
        return (), ()

    def worth(runs: list[Trained]) -> tuple[int, int, int, int]:
        paired = {run.seed for run in runs if run.loss == baseline}
        pairs = sum(run.loss != baseline and run.seed in paired for run in runs)
        return pairs, len(paired), len(runs), max(run.run_id for run in runs)

    chosen = max(sets.values(), key=worth)
    return tuple(chosen), tuple(run for runs in sets.values() if runs is not chosen for run in runs)


def _why_no_baseline(baseline: str | None, members: Sequence[Trained], left_out: Sequence[LeftOut]) -> str:
    if baseline is None:
        return "no run of the baseline is here"
    kinds = Counter(out.kind for out in left_out if out.run.loss == baseline)
    said = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"no run of the baseline {baseline} can be compared ({said or 'none is here'})"
