"""What the wiring proof saw, gathered per loss: each term's weight, value, shares and cosine in each head."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prove.report.study import Study, Trained
from prove.report.views.numbers import DASH
from prove.spec.event import FailureKind

RUNS_PER_GROUP = 3
"""Runs of a loss on one model and dataset whose evidence is read when there are more runs than `RUNS_READ`."""

RUNS_READ = 600


@dataclass(frozen=True)
class Range:
    """The numbers that several runs gave for one thing.

    Attributes:
        text: one number, ``low to high``, or a dash.
        middle: to sort by; None where there is no number.
    """

    text: str
    middle: float | None


@dataclass(frozen=True)
class Row:
    """One term in one head of one model, over the runs that proved it; numbers as text, a range where they differ.

    Attributes:
        weight: of the term at the iteration at which it was looked at.
        value: unweighted.
        loss_share, gradient_share: in percent, of the total loss and of the head's gradient.
        cosine: of its gradient with the primary term's.
        doubling: by what its part of the loss grows when its weight is doubled.
        ignored: largest gradient on an ignored pixel.
    """

    model: str
    head: str
    term: str
    weight: Range
    value: Range
    loss_share: Range
    gradient_share: Range
    cosine: Range
    doubling: Range
    ignored: Range


@dataclass
class Proof:
    """A loss.

    Attributes:
        proved, refuted, unknown: keys of runs whose proof held, did not, or left no evidence.
        problems: what did not hold, each sentence once.
        batch: a sentence on the batch that was looked at.
    """

    loss: str
    rows: tuple[Row, ...] = ()
    proved: list[str] = field(default_factory=list)
    refuted: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    batch: str = ""


def proofs(study: Study) -> tuple[tuple[Proof, ...], int]:
    """The proofs of each loss, in the order in which the losses were registered, and how many more runs there are."""
    started = [run for run in study.runs if run.iteration or run.failure is not None]
    chosen = _chosen(started)
    found: dict[str, Proof] = {}
    seen: dict[str, list[tuple[Trained, Mapping[str, Any]]]] = {}
    for run in chosen:
        proof = found.setdefault(run.loss, Proof(run.loss))
        evidence = study.evidence(run)
        if not isinstance(evidence, Mapping):
            proof.unknown.append(run.key)
            continue
        problems = [str(problem) for problem in evidence.get("problems") or ()]
        (proof.proved if evidence.get("ok") and not problems else proof.refuted).append(run.key)
        proof.problems += [problem for problem in problems if problem not in proof.problems]
        seen.setdefault(run.loss, []).append((run, evidence))
    for loss, evidences in seen.items():
        found[loss].rows = tuple(_rows(evidences))
        found[loss].batch = _batch(evidences[0][1])
    return tuple(found.values()), len(started) - len(chosen)


def _chosen(started: Sequence[Trained]) -> Sequence[Trained]:
    """The runs to read: all, or some of each loss, model and dataset and those whose proof failed."""
    if len(started) <= RUNS_READ:
        return started
    taken: dict[tuple[str, str, str], int] = {}
    chosen = []
    for run in started:
        group = run.loss, run.model, run.dataset
        taken[group] = taken.get(group, 0) + 1
        if taken[group] <= RUNS_PER_GROUP or run.failure is FailureKind.WIRING:
            chosen.append(run)
    return chosen[:RUNS_READ]


def _rows(evidences: Iterable[tuple[Trained, Mapping[str, Any]]]) -> Iterable[Row]:
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for run, evidence in evidences:
        for head in evidence.get("heads") or ():
            for term in head.get("terms") or ():
                name = str(term.get("text") or term.get("term"))
                groups.setdefault((run.model, str(head.get("head")), name), []).append(term)
    for (model, head, name), terms in groups.items():
        yield Row(
            model,
            head,
            name,
            weight=_range(terms, "weight"),
            value=_range(terms, "value"),
            loss_share=_range(terms, "loss_share", percent=True),
            gradient_share=_range(terms, "gradient_share", percent=True),
            cosine=_range(terms, "cosine_to_primary", signed=True),
            doubling=_range(terms, "doubling"),
            ignored=_range(terms, "ignored_gradient"),
        )


def _range(terms: Iterable[Mapping[str, Any]], name: str, *, percent: bool = False, signed: bool = False) -> Range:
    found = [term.get(name) for term in terms]
    numbers = [float(x) for x in found if isinstance(x, int | float) and math.isfinite(x)]
    if not numbers:
        return Range(DASH, None)

    def shown(x: float) -> str:
        if percent:
            return f"{100 * x:.1f}"
        return (f"{x:+.2f}" if signed else f"{x:.3g}").replace("-", "−")

    low, high = shown(min(numbers)), shown(max(numbers))
    return Range(low if low == high else f"{low} to {high}", (min(numbers) + max(numbers)) / 2)


def _batch(evidence: Mapping[str, Any]) -> str:
    batch = evidence.get("batch") or {}
    try:
        images, pixels, ignored = int(batch["images"]), int(batch["pixels"]), int(batch["ignored_pixels"])
    except (KeyError, TypeError, ValueError):
        return ""
    how = "of which a planted block of" if batch.get("planted") else "of which"
    return f"Seen on a real batch of {images} images, {pixels:,} pixels, {how} {ignored:,} are ignored."
