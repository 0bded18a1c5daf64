"""Tables of evaluations on other datasets, as `prove evaluate` and `prove show` print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prove.cli.options import console, notes
from prove.cli.tables import CLASS_METRICS, percent, plain_table
from prove.rundir import EvaluationDir
from prove.spec.job import METRICS

if TYPE_CHECKING:
    from rich.table import Table


def show_evaluation(document: Mapping[str, Any], folder: EvaluationDir, *, fresh: bool) -> None:
    """Print one: overall, by condition with the gap, by class, and what its numbers can't be compared with."""
    out, result, about = console(), document["result"], document["evaluated"]["about"]
    checkpoint = document["checkpoint"]
    if not fresh:
        notes().print("Evaluated before; neither images nor checkpoint have changed.")
    head = f"{document['run']} on {about['dataset']}, {checkpoint['which']} checkpoint"
    out.print(f"{head} (iteration {checkpoint['iteration']}), {result['images']} images", style="bold")
    out.print(_metrics([("all", result["metrics"])], ""), "")
    if any(name != "all" for name in result["conditions"]):
        out.print(_metrics(list(result["conditions"].items()), "condition", images=True))
        out.print(gap_line(result["conditions"]))
        out.print()
    out.print(_classes(result["classes"], about), "")
    for line in remarks(document):
        out.print(line)
    out.print(f"Kept in {folder.path}")


def evaluations_table(documents: Sequence[Mapping[str, Any]]) -> Table | None:
    """A row per evaluation; None without any."""
    if not documents:
        return None
    table = plain_table("dataset", "checkpoint", "images", "classes", *METRICS, "clear to adverse", left=2)
    for document in documents:
        result, about = document["result"], document["evaluated"]["about"]
        loss = gap(result["conditions"])
        table.add_row(
            about["dataset"] + (" (trained on some!)" if about["shared"]["images"] else ""),
            document["checkpoint"]["which"],
            str(result["images"]),
            f"{_present(result['classes'])} of {len(result['classes'])}",
            *(percent(result["metrics"][name]) for name in METRICS),
            "-" if loss is None else f"{loss[2]:.2f}",
        )
    return table


def gap(conditions: Mapping[str, Mapping[str, Any]]) -> tuple[str, tuple[str, ...], float] | None:
    """The clear condition, the adverse ones, and the points of mIoU lost from it to their mean.

    Returns:
        None where no condition is known as clear, there is no other, or one has no mIoU.
    """
    from prove.catalog.conditions import split

    parts = split(tuple(conditions))
    if parts is None:
        return None
    values = [conditions[name]["mIoU"] for name in (parts.clear, *parts.adverse)]
    if any(value is None for value in values):
        return None
    return parts.clear, parts.adverse, values[0] - sum(values[1:]) / len(values[1:])


def gap_line(conditions: Mapping[str, Mapping[str, Any]]) -> str:
    """The gap in a sentence, or why there is none."""
    from prove.catalog.conditions import split

    found = gap(conditions)
    if found is None:
        names = ", ".join(conditions)
        if split(tuple(conditions)) is not None:
            return f"No gap: not every one of {names} has an mIoU."
        return (
            f"No gap: it takes one clear condition and adverse ones of the same dataset, and these images are {names}."
        )
    clear, adverse, points = found
    return f"Gap: {points:.2f} points of mIoU from {clear} to the mean of {', '.join(adverse)}."


def remarks(document: Mapping[str, Any]) -> list[str]:
    """What a reader must know to compare these numbers with others."""
    result, about = document["result"], document["evaluated"]["about"]
    said = []
    shared = about["shared"]
    if shared["images"]:
        said.append(
            f"WARNING: the run was trained on {shared['images']} of these {result['images']} images, such as "
            f"{shared['first']}: these numbers say nothing of unseen images."
        )
    elif shared["images"] is None:
        said.append(f"Whether the run was trained on any of these images is not known: {shared['reason']}")
    present, classes = _present(result["classes"]), len(result["classes"])
    said.append(
        f"Means are over the {present} of {classes} classes that these images show; compare them only with means over "
        "the same classes."
    )
    if about["unreachable"]:
        said.append(f"No label of {about['dataset']} stands for {', '.join(about['unreachable'])}.")
    for each in about["maps"]:
        source, target = each["map"].split(" to ")
        said.append(
            f"Labels of {each['dataset']} were read as {target}; `prove data map {source} {target}` prints how."
        )
    for row in about["wide"]:
        counted = "" if row["class"] == row["counted_as"] else f", counted as {row['counted_as']},"
        said.append(f"{row['dataset']}'s {row['class']}{counted} also holds {row['also']}.")
    return said


def _metrics(rows: Sequence[tuple[str, Mapping[str, Any]]], title: str, *, images: bool = False) -> Table:
    table = plain_table(title, *(["images"] if images else []), *METRICS)
    for name, metrics in rows:
        count = [str(metrics["images"])] if images else []
        table.add_row(name, *count, *(percent(metrics[metric]) for metric in METRICS))
    return table


def _classes(classes: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]) -> Table:
    table = plain_table("class", *("pixels" if name == "support" else name for name in CLASS_METRICS), "")
    for name, values in classes.items():
        cells = [f"{values[m]:,.0f}" if m == "support" else percent(values[m]) for m in CLASS_METRICS]
        if name in about["unreachable"]:
            table.add_row(name, *("-" for _ in CLASS_METRICS), "not labelled there")
        else:
            table.add_row(name, *cells, "" if values["support"] else "in none of the images")
    return table


def _present(classes: Mapping[str, Mapping[str, Any]]) -> int:
    return sum(bool(values["support"]) for values in classes.values())
