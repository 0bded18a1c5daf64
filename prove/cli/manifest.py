"""`prove data manifest`: the list that ties generated images to the images they were made from."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from prove.data.check import CheckReport
    from prove.data.generated import GeneratedSet
    from prove.data.source import Dataset

FAULTY = 2

SHOWN = 50
"""Faults that are printed one by one; --json has all."""


def make_manifest(
    folder: Annotated[Path, typer.Argument(help="Holds a folder of generated images for each target domain.")],
    dataset: Annotated[str, typer.Option("--dataset", help="What they were made from: a name, or a YAML file.")],
    data_root: Annotated[Path | None, typer.Option("--data-root", help="Where the dataset lies.")] = None,
    original: Annotated[
        Path | None, typer.Option("--original", help="Folder of the originals, where names alone don't tell.")
    ] = None,
    suffix: Annotated[str, typer.Option("--suffix", help="What the generator added to names: _fake_B.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Check the manifest that is there; write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write it anew where there is one.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write manifest.csv for a folder of generated images, or check the one it has. Exit code 2 if there are faults."""
    from prove.data.generated import MANIFEST
    from prove.data.source import open_dataset, resolve_dataset
    from prove.errors import ProveError

    folder = folder.expanduser().absolute()
    require_name(folder)
    opened = open_dataset(resolve_dataset(dataset), root=data_root)
    written = False
    if not check:
        if (folder / MANIFEST).exists() and not force:
            raise ProveError(
                f"{folder / MANIFEST} exists.", hint="--check looks for faults in it, --force writes it anew."
            )
        written = _write(folder, opened, original, suffix, json_output)
    elif original is not None or suffix or force:
        raise ProveError("--check writes nothing: --original, --suffix and --force don't go with it.")
    _report(folder, opened, written, json_output)


def require_name(folder: Path) -> None:
    """Refuse a folder whose images no strategy could name.

    Raises:
        ProveError: its name is no name for a strategy, or is built in.
    """
    from prove.catalog.strategies import GENERATED, resolve_strategy
    from prove.data.compose import BUILT_IN
    from prove.errors import ProveError

    if folder.name in BUILT_IN:
        raise ProveError(f"{GENERATED}{folder.name} is built in.", hint="Rename the folder.")
    if "+" in folder.name:
        raise ProveError(f"{folder.name!r} can't be the name of generated images.", hint="Rename the folder.")
    resolve_strategy(f"{GENERATED}{folder.name}")


def _write(folder: Path, dataset: Dataset, original: Path | None, suffix: str, as_json: bool) -> bool:
    """Write the manifest; False, with what is wrong on the screen, if an original is not clear."""
    from prove.data.generated_files import propose, write_manifest

    found = propose(folder, dataset, original=original, suffix=suffix)
    if not found.unmatched:
        write_manifest(folder, found.rows)
        return True
    if as_json:
        faults = [{"file": str(each.file), "message": each.message} for each in found.unmatched]
        _print_json({"folder": str(folder), "ok": False, "written": False, "faults": faults})
    else:
        for each in found.unmatched[:SHOWN]:
            typer.echo(f"error: {each.message}")
        total = len(found.unmatched) + len(found.rows)
        typer.echo(f"{len(found.unmatched)} of {total} images have no clear original; nothing is written")
    raise typer.Exit(FAULTY)


def _report(folder: Path, dataset: Dataset, written: bool, as_json: bool) -> None:
    from prove.data.check import check, shared_files
    from prove.data.generated import read_generated

    found = read_generated(folder, folder.name, dataset)
    generated = replace(dataset.train, samples=found.samples)
    read = check(replace(dataset, train=generated), splits=("train",))
    # Where every line has a fault no image is left: that is what the faults say already.
    beside = ("absent_class", "empty_split") if found.faults else ("absent_class",)
    findings = [each for each in read.findings if each.kind not in beside] + shared_files(generated, dataset.val)
    read = replace(read, findings=tuple(findings))
    ok = not found.faults and not read.errors
    if as_json:
        _print_json(_document(folder, found, read, ok=ok, written=written))
    else:
        _print(folder, dataset, found, read, written)
    if not ok:
        raise typer.Exit(FAULTY)


def _document(folder: Path, found: GeneratedSet, read: CheckReport, *, ok: bool, written: bool) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "ok": ok,
        "written": written,
        "images": found.rows,
        "conditions": _conditions(found),
        "originals": len(set(found.originals)),
        "other_datasets": dict(found.elsewhere),
        "faults": [asdict(fault) for fault in found.faults],
        "findings": [asdict(finding) for finding in read.findings],
    }


def _conditions(found: GeneratedSet) -> dict[str, int]:
    return dict(sorted(Counter(sample.condition for sample in found.samples).items()))


def _print(folder: Path, dataset: Dataset, found: GeneratedSet, read: CheckReport, written: bool) -> None:
    lines = [f"error: line {each.line}: {each.column}: {each.message}" for each in found.faults]
    resized = [each for each in read.findings if each.kind == "resized_image"]
    lines += [f"{each.severity}: {each.kind}: {each.message}" for each in read.findings if each not in resized[1:]]
    if resized[1:]:
        lines.append(f"warning: resized_image: {len(resized)} images are resized to their labels, this one the first")
    for line in lines[:SHOWN]:
        typer.echo(line)
    if len(lines) > SHOWN:
        typer.echo(f"and {len(lines) - SHOWN} more; --json has all")
    counted = ", ".join(f"{name} {count}" for name, count in _conditions(found).items())
    errors, name = len(found.faults) + len(read.errors), dataset.definition.name
    state = f"{errors} errors" if errors else "no faults"
    others = f"; {found.elsewhere.total()} of other datasets" if found.elsewhere else ""
    typer.echo(
        f"{found.file}{' written' if written else ''}: {found.rows} images from {len(set(found.originals))} of "
        f"{len(dataset.train)} training images of {name} ({counted}){others}, {state}"
    )
    if not errors:
        typer.echo(
            f'train on them: prove run --dataset "{name}" --strategy gen_{folder.name} --gen-root {folder.parent}'
        )


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=1))
