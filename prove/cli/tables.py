"""Tables of one run, as `prove run`, `prove show` and `prove losses check` print them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prove.spec.event import State
from prove.spec.job import METRICS

if TYPE_CHECKING:
    from rich.table import Table

    from prove.rundir import RunDir
    from prove.store import ResultRow

STYLES = {
    State.PLANNED: "dim",
    State.QUEUED: "blue",
    State.RUNNING: "cyan",
    State.FINISHED: "green",
    State.FAILED: "red",
    State.CANCELLED: "yellow",
    State.INTERRUPTED: "yellow",
}
"""How a state looks in colour."""

CLASS_METRICS = ("IoU", "Acc", "bIoU", "bF1", "support")


def plain_table(*columns: str, left: int = 1) -> Table:
    """A table without lines; the first ``left`` columns are text, the others numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < left else "right", overflow="fold")
    return table


def overall_table(results: Sequence[ResultRow]) -> Table | None:
    """The metrics of the last and of the best checkpoint, in percent; None before there are any."""
    values = {(row.checkpoint, row.metric): row.value for row in results if row.scope == "overall"}
    if not values:
        return None
    table = plain_table("checkpoint", *METRICS)
    for checkpoint in ("last", "best"):
        table.add_row(checkpoint, *(percent(values.get((checkpoint, metric))) for metric in METRICS))
    return table


def condition_table(results: Sequence[ResultRow]) -> Table | None:
    """The last checkpoint by condition, in percent."""
    return _by_name(results, "condition", METRICS, ())


def class_table(results: Sequence[ResultRow], order: Sequence[str]) -> Table | None:
    """The last checkpoint by class: percent, and labelled pixels; a dash where a class has no ground truth.

    Args:
        order: the classes in the dataset's order.
    """
    return _by_name(results, "class", CLASS_METRICS, order)


def class_order(folder: RunDir) -> tuple[str, ...]:
    """The classes in the dataset's order, from the counts that a run kept; empty when it kept none."""
    if not folder.confusion.exists():
        return ()
    import numpy as np

    with np.load(folder.confusion) as arrays:
        return tuple(str(name) for name in arrays["classes"]) if "classes" in arrays.files else ()


def evidence_table(evidence: Mapping[str, Any] | None) -> Table | None:
    """What the wiring proof saw, a row per head and term; None before it."""
    if evidence is None:
        return None
    shares = ("of loss", "of gradient", "cosine")
    table = plain_table("head", "term", "weight", "value", "reference", *shares, "doubling", "on ignored", left=2)
    for head in evidence["heads"]:
        for term in head["terms"]:
            cosine = term["cosine_to_primary"]
            table.add_row(
                head["head"],
                term["text"],
                number(term["weight"]),
                number(term["value"]),
                number(term["reference_value"]),
                share(term["loss_share"]),
                share(term["gradient_share"]),
                "-" if cosine is None else f"{cosine:+.2f}",
                f"x{term['doubling']:.4g}",
                number(term["ignored_gradient"]),
            )
            for part in term.get("parts", ()):
                layers = len(part["layers"])
                table.add_row(
                    "",
                    f"  {part['part']}, {layers} layer{'s' if layers > 1 else ''}",
                    "",
                    number(part["contribution"]),
                    "",
                    share(term["loss_share"] * part["loss_share"]),
                    share(term["gradient_share"] * part["gradient_share"]),
                )
    return table


def verdict(evidence: Mapping[str, Any]) -> str:
    """Whether the proof holds, in a line; its problems otherwise."""
    batch = evidence["batch"]
    where = f"{batch['images']} images, {batch['pixels']:,} pixels, {batch['ignored_pixels']:,} ignored"
    if evidence["ok"]:
        total, formula = number(evidence["total"]), number(evidence.get("formula"))
        proved = f"proved: the loss that is minimised is {total}, the formula gives {formula} ({where})"
        return "\n".join([proved, *_mixed(evidence), *_not_compared(evidence)])
    return "\n".join([f"NOT proved ({where}):", *(f"  {problem}" for problem in evidence["problems"])])


def _mixed(evidence: Mapping[str, Any]) -> list[str]:
    """A line on the batch that was mixed as the strategy mixes batches."""
    mix = evidence.get("mix")
    if mix is None:
        return []
    labels = {"CutMix": "the pasted labels", "MixUp": "both labels with their shares"}[mix["mix"]]
    shown = f"  mixed by {mix['mix']}, {mix['share']:.2f} own, it is {number(mix['total'])};"
    return [f"{shown} the formula on {labels} gives {number(mix['formula'])}"]


def _not_compared(evidence: Mapping[str, Any]) -> list[str]:
    """A line on the terms whose value no second implementation stands behind."""
    terms = [term for head in evidence["heads"] for term in head["terms"]]
    alone = dict.fromkeys(term["term"] for term in terms if not term.get("second_implementation", True))
    if not alone:
        return []
    return [f"  {', '.join(alone)}: no second implementation; the value was compared with the term itself in float64"]


def _by_name(results: Sequence[ResultRow], scope: str, metrics: Sequence[str], order: Sequence[str]) -> Table | None:
    rows: dict[str, dict[str, float | None]] = {}
    for row in results:
        if row.scope == scope and row.checkpoint == "last":
            rows.setdefault(row.name, {})[row.metric] = row.value
    if not rows:
        return None
    table = plain_table(scope, *("pixels" if metric == "support" else metric for metric in metrics))
    for name in _ordered(rows, order):
        table.add_row(name, *(_cell(metric, rows[name].get(metric)) for metric in metrics))
    return table


def _ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    place = {name: index for index, name in enumerate(order)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


def _cell(metric: str, value: float | None) -> str:
    return f"{value:,.0f}" if metric == "support" and value is not None else percent(value)


def percent(value: float | None) -> str:
    """Two decimals, or a dash for what is undefined."""
    return "-" if value is None else f"{value:.2f}"


def number(value: float | None) -> str:
    """Four digits, or a dash."""
    return "-" if value is None else f"{value:.4g}"


def share(value: float | None) -> str:
    """A share in [0, 1] as a percentage, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}%"
