"""`prove data map`: how the labels of one label space are read as those of another."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prove.cli.options import JsonOption, console, print_json
from prove.errors import ProveError, unknown

if TYPE_CHECKING:
    from prove.catalog.label_maps import LabelMap


def show_maps(
    source: Annotated[str | None, typer.Argument(help="A label space or a dataset; without one, all maps.")] = None,
    target: Annotated[str | None, typer.Argument(help="The label space to read it as; without one, each.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Show where every class goes when labels are read as those of another label space."""
    chosen = chosen_maps(source, target)
    if json_output:
        print_json([as_json(each) for each in chosen])
    elif markdown:
        sys.stdout.write("\n".join(as_markdown(each) for each in chosen))
    elif source is None:
        _list(chosen)
    else:
        for each in chosen:
            _show(each)


def chosen_maps(source: str | None, target: str | None) -> list[LabelMap]:
    """The maps that are asked for.

    Raises:
        ProveError: an unknown label space or dataset, or no map from the one to the other.
    """
    from prove.catalog.datasets import DATASETS
    from prove.catalog.label_maps import LABEL_MAPS, known_space
    from prove.catalog.label_spaces import LABEL_SPACES
    from prove.data.definition import resolve_dataset
    from prove.spec.dataset_text import JOINT

    if source is None:
        return list(LABEL_MAPS)
    space = source
    if source not in LABEL_SPACES:
        if re.fullmatch(r"[\w-]+", source) and source not in DATASETS and not source.startswith(JOINT):
            raise unknown("label space or dataset", source, (*LABEL_SPACES.names, *DATASETS.names))
        own = resolve_dataset(source).label_space
        known = known_space(own)
        if known is None:
            raise ProveError(
                f"No map leads from the {own.num_classes} classes of {source}: they are those of no label space.",
                hint="`prove data map` lists the maps that there are.",
            )
        space = known.name
    found = [each for each in LABEL_MAPS if each.source.name == space]
    if target is not None:
        LABEL_SPACES.get(target)
        found = [each for each in found if each.target.name == target]
    if not found:
        raise ProveError(
            f"No map leads from {space} to {target or 'another label space'}.", hint="`prove data map` lists them all."
        )
    return found


def as_json(label_map: LabelMap) -> dict[str, Any]:
    """A map as plain JSON types; a target of null is ignored."""
    return {
        "source": label_map.source.name,
        "target": label_map.target.name,
        "digest": label_map.digest,
        "classes": [
            {
                "class": row.source,
                "target": row.target,
                "also_holds": row.also,
                "original_study": row.study or row.target or "ignore",
                "note": row.note,
            }
            for row in label_map.rows
        ],
        "unreachable": list(label_map.unreachable),
    }


def as_markdown(label_map: LabelMap) -> str:
    """A map as a section of a page."""
    lines = [
        f"### {label_map.name}",
        "",
        "| class | is | also holds | original study | why |",
        "|---|---|---|---|---|",
        *(
            f"| {row.source} | {row.target or '*ignored*'} | {row.also} | {row.study} | {row.note} |"
            for row in label_map.rows
        ),
        "",
    ]
    if label_map.unreachable:
        lines += [f"Nothing is read as {', '.join(label_map.unreachable)}.", ""]
    return "\n".join(lines)


def _list(maps: list[LabelMap]) -> None:
    from prove.cli.tables import plain_table

    table = plain_table("source", "target", "classes", "ignored", "of the target", "without a source", left=2)
    for each in maps:
        ignored = sum(row.target is None for row in each.rows)
        table.add_row(
            each.source.name,
            each.target.name,
            str(len(each.rows)),
            str(ignored),
            str(each.target.num_classes),
            str(len(each.unreachable)),
        )
    console().print(table)


def _show(label_map: LabelMap) -> None:
    from prove.cli.tables import plain_table

    out = console()
    ignored = sum(row.target is None for row in label_map.rows)
    out.print(f"{label_map.name}: {len(label_map.rows)} classes, {ignored} of them ignored", style="bold")
    studied = any(row.study for row in label_map.rows)
    table = plain_table("class", "is", "also holds", *(["original study"] if studied else []), "why", left=5)
    for row in label_map.rows:
        study = [row.study] if studied else []
        table.add_row(row.source, row.target or "ignored", row.also, *study, row.note)
    out.print(table)
    if label_map.unreachable:
        out.print(f"Nothing is read as {', '.join(label_map.unreachable)}.")
    out.print()
