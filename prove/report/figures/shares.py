"""How much of the loss and of its gradient each auxiliary term is, and whether it pulls with the primary term."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prove.report.figures import FIGURES
from prove.report.figures.legend import grid, legend, legend_height
from prove.report.figures.picture import Made, Picture, Undrawn
from prove.report.figures.style import INK, WIDE, Look, clean, fit, looks
from prove.report.study import Block, Measure, Study, Trained
from prove.report.views.footnotes import mixed_runs, not_comparable

TITLE = FIGURES["shares"]

HEAD = "decode_head"
"""The head whose terms are shown; auxiliary heads have the same ones."""

MOST_BLOCKS = 3
MOST_RUNS = 60
"""Runs whose curves are read, where there are several blocks: a long run has thousands of points."""

QUANTITIES = {"loss_share": "Share of the loss (%)", "gradient_share": "Share of the gradient (%)",
              "cosine": "Cosine with the primary"}  # fmt: skip

Points = dict[int, float]
"""Iteration -> value."""


@dataclass(frozen=True)
class Line:
    """One auxiliary term over the training: the mean over its seeds.

    Attributes:
        proof: whether its only point comes from the wiring proof.
    """

    block: Block
    loss: str
    term: str
    quantity: str
    points: Points
    seeds: int
    proof: bool


def make(study: Study, measure: Measure) -> Made:
    """The shares of the auxiliary terms, a row of plots per block, or why there are none."""
    blocks = [block for block in study.blocks if block.runs]
    if not blocks:
        return [Undrawn("shares", TITLE, "No run is finished.")]
    by_block: dict[int, list[Line]] = {}
    read = 0
    for at, block in enumerate(blocks):
        composite = sum(is_composite(loss) for loss, _ in block.runs)
        if len(by_block) < MOST_BLOCKS and composite and (not read or read + composite <= MOST_RUNS):
            read += composite
            if found := _lines(study, block):
                by_block[at] = found
    if not by_block:
        return [Undrawn("shares", TITLE, "No objective has a second term whose share was recorded.")]
    everything = [line for found in by_block.values() for line in found]
    caption = _caption(everything, len(blocks) - len(by_block))
    draw = partial(_figure, study, list(by_block.values()))
    return [Picture("shares", TITLE, caption, _alt(everything), draw, _data(everything))]


def _figure(study: Study, blocks: Sequence[Sequence[Line]]) -> Figure:
    everything = [line for found in blocks for line in found]
    quantities = [name for name in QUANTITIES if any(line.quantity == name for line in everything)]
    losses = [loss for loss in looks(study) if any(line.loss == loss for line in everything)]
    styles = looks(study)
    height = 1.75 * len(blocks) + 0.15 + legend_height(losses, WIDE)
    figure, axes = grid(WIDE, height, len(blocks), len(quantities))
    for row, found in zip(axes, blocks, strict=True):
        _row(row, found, quantities, styles)
        if len(blocks) > 1:
            row[0].set_title(fit(str(found[0].block.key), 2.6))
    for plot in axes[-1]:
        plot.set_xlabel("Iteration")
    legend(figure, losses, styles, markers=True, lines=True)
    return figure


def _row(row: Sequence[Axes], found: Sequence[Line], quantities: Sequence[str], styles: Mapping[str, Look]) -> None:
    last = max((at for line in found for at in line.points), default=0) or 1
    for axes, quantity in zip(row, quantities, strict=True):
        for line in found:
            if line.quantity == quantity:
                _draw(axes, line, styles[line.loss], percent=quantity != "cosine")
        if quantity == "cosine":
            axes.axhline(0, color=INK, linewidth=0.6, zorder=1)
        axes.set_ylabel(QUANTITIES[quantity])
        axes.set_xlim(-0.03 * last, 1.03 * last)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.margins(y=0.12)
        axes.grid(axis="y")
        if quantity != "cosine":
            axes.set_ylim(0, max(axes.dataLim.y1 * 1.12, 1.0))


def _draw(axes: Axes, line: Line, look: Look, *, percent: bool) -> None:
    at = sorted(line.points)
    y = [line.points[each] * (100 if percent else 1) for each in at]
    few = len(at) <= 10
    axes.plot(
        at, y, color=look.color, linestyle=look.line, marker=look.marker, markersize=3.8,
        markevery=None if few else [0, len(at) - 1], markerfacecolor="none" if line.proof else look.color,
        clip_on=False,
    )  # fmt: skip


def _lines(study: Study, block: Block) -> list[Line]:
    made = []
    for loss in filter(is_composite, block.losses):
        runs = [run for (each, _), run in sorted(block.runs.items(), key=lambda x: x[0][1]) if each == loss]
        proofs = [_of_proof(study.evidence(run)) for run in runs]
        curves = {
            "loss_share": [_loss_shares(study, run) for run in runs],
            "gradient_share": [_of_gradients(study, run, "gradient_share") for run in runs],
            "cosine": [_of_gradients(study, run, "cosine") for run in runs],
        }
        for quantity, recorded in curves.items():
            from_proof = not any(recorded)
            each_run = [proof.get(quantity, {}) for proof in proofs] if from_proof else recorded
            for term in dict.fromkeys(term for terms in each_run for term in terms):
                own = [terms[term] for terms in each_run if term in terms]
                made.append(Line(block, loss, term, quantity, _mean(own), len(own), from_proof))
    return made


def is_composite(loss: str) -> bool:
    """Whether an objective, in its short text, has a second term."""
    return " + " in loss


def _mean(curves: Sequence[Points]) -> Points:
    """The mean at each iteration that most of the seeds have; runs report at different ones where time decides."""
    everywhere = sorted({at for points in curves for at in points})
    counts = {at: sum(at in points for points in curves) for at in everywhere}
    common = [at for at in everywhere if counts[at] == len(curves)]
    if len(common) >= min(3, max(len(points) for points in curves)):
        return {at: float(np.mean([points[at] for points in curves])) for at in common}
    first, last = max(min(points) for points in curves), min(max(points) for points in curves)
    inside = [at for at in everywhere if first <= at <= last] or common
    lines = [np.interp(inside, sorted(points), [points[at] for at in sorted(points)]) for points in curves]
    return dict(zip(inside, np.mean(lines, axis=0).tolist(), strict=True))


def _of_proof(evidence: Mapping[str, Any] | None) -> dict[str, dict[str, Points]]:
    """Quantity -> auxiliary term -> its value before the first iteration."""
    heads = (evidence or {}).get("heads") or []
    terms = next((head["terms"] for head in heads if head.get("head") == HEAD), heads[0]["terms"] if heads else [])
    made: dict[str, dict[str, Points]] = {}
    for term in terms[1:]:
        for quantity, name in (
            ("loss_share", "loss_share"), ("gradient_share", "gradient_share"), ("cosine", "cosine_to_primary"),
        ):  # fmt: skip
            if _is_number(term.get(name)):
                made.setdefault(quantity, {})[str(term["term"])] = {0: float(term[name])}
    return made


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _loss_shares(study: Study, run: Trained) -> dict[str, Points]:
    """Auxiliary term -> its part of what was minimised in the head. Recorded values hold their weights already."""
    made: dict[str, Points] = {}
    for at, payload in study.curve(run, "train"):
        weights = list(payload.get("weights") or {})
        parts: dict[str, float] = {}
        for name, value in (payload.get("terms") or {}).items():
            label = _label(name, weights)
            if label is not None and _is_number(value):
                parts[label] = parts.get(label, 0.0) + abs(value)
        total = sum(parts.values())
        for label in weights[1:]:
            if total and label in parts:
                made.setdefault(label, {})[at] = parts[label] / total
    return made


def _label(name: str, weights: Sequence[str]) -> str | None:
    """The term that a recorded loss belongs to; None for one of another head.

    ``decode.loss_focal`` is focal's, and ``decode.d3.loss_semantic_focal`` too; ``decode.d3.loss_mask`` is a part of a
    mask-classification model's own criterion, its primary term.
    """
    prefix, _, last = name.rpartition(".")
    if not prefix.startswith("decode") or not weights:
        return None
    for start in ("loss_semantic_", "loss_"):
        if last.startswith(start) and last.removeprefix(start) in weights:
            return last.removeprefix(start)
    return weights[0]


def _of_gradients(study: Study, run: Trained, quantity: str) -> dict[str, Points]:
    """Auxiliary term -> a quantity that was measured at validations."""
    made: dict[str, Points] = {}
    for at, payload in study.curve(run, "grads"):
        heads = payload.get("heads") or {}
        terms: Mapping[str, Any] = heads.get(HEAD) or next(iter(heads.values()), {})
        for term in list(terms)[1:]:
            if _is_number(terms[term].get(quantity)):
                made.setdefault(term, {})[at] = float(terms[term][quantity])
    return made


def _caption(lines: Sequence[Line], undrawn: int) -> str:
    parts = [
        "Every auxiliary term in the decode head, mean over the seeds: its weighted share of the loss, its share of "
        "the gradient's norm on the logits, and the cosine between its gradient and the primary term's (below 0 it "
        "pulls the other way)."
    ]
    if any(line.proof for line in lines):
        names = {QUANTITIES[line.quantity].split(" (")[0].lower(): None for line in lines if line.proof}
        parts.append(f"Hollow symbols were measured once, by the wiring proof before training ({', '.join(names)}).")
    terms = {(line.loss, line.term) for line in lines}
    if len(terms) > len({loss for loss, _ in terms}):
        parts.append("An objective with several auxiliary terms has a line for each.")
    if undrawn > 0:
        parts.append(f"{undrawn} other blocks are not drawn.")
    blocks = {line.block.key: line.block for line in lines}
    return " ".join(filter(None, [*parts, not_comparable(mixed_runs(blocks.values()))]))


def _alt(lines: Sequence[Line]) -> str:
    said = []
    for line in lines:
        if line.quantity != "cosine" and line.points:
            first, last = line.points[min(line.points)], line.points[max(line.points)]
            what = line.quantity.replace("_", " ")
            moved = f"{100 * first:.0f}%" if len(line.points) == 1 else f"{100 * first:.0f}% to {100 * last:.0f}%"
            said.append(f"{clean(line.loss)}, {what} of {clean(line.term)}: {moved}")
    return "Lines of each auxiliary term's shares by iteration. " + "; ".join(said[:12]) + "."


def _data(lines: Sequence[Line]) -> tuple[dict[str, object], ...]:
    return tuple(
        {
            "dataset": line.block.key.dataset, "model": line.block.key.model, "strategy": line.block.key.strategy,
            "settings": line.block.key.settings, "loss": line.loss, "term": line.term, "quantity": line.quantity,
            "source": "wiring proof" if line.proof else "training", "seeds": line.seeds, "iteration": at,
            "value": value,
            "mixed": mixed_runs([line.block], [line.loss]),
        }
        for line in lines
        for at, value in sorted(line.points.items())
    )  # fmt: skip
