"""`prove data`: which datasets there are, whether one is sound, what it holds, and how to draw SynthStreet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prove.cli.label_maps import show_maps
from prove.cli.manifest import make_manifest

if TYPE_CHECKING:
    from prove.data.check import CheckReport
    from prove.data.manifest import Manifest

app = typer.Typer(help="Datasets: list, check, count, draw.", no_args_is_help=True)
make = typer.Typer(help="Draw a dataset.", no_args_is_help=True)
app.add_typer(make, name="make")

DatasetArgument = Annotated[str, typer.Argument(help="A name from `prove data list`, or the path of a YAML file.")]
RootOption = Annotated[
    Path | None, typer.Option("--data-root", help="Where it lies; else PROVE_* variables, else config.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

BAD_DATA = 2


@app.command("list")
def list_datasets(as_json: JsonOption = False) -> None:
    """List the datasets that PROVE knows."""
    from prove.catalog.datasets import DATASETS
    from prove.data.roots import variable

    rows = [
        {
            "name": entry.name,
            "classes": entry.label_space.num_classes,
            "conditions": list(entry.conditions),
            "crop": list(entry.default_crop),
            "root_variable": variable(entry.name),
            "description": entry.description,
            "paper": entry.paper,
        }
        for entry in DATASETS
    ]
    if as_json:
        _print_json(rows)
        return
    wide = max(len(entry.name) for entry in DATASETS)
    for entry in DATASETS:
        typer.echo(f"{entry.name:<{wide}}  {entry.label_space.num_classes:>3} classes  {entry.description}")
    typer.echo("Several at once: multi_ACDC+MapillaryVistas. In other classes: MapillaryVistas@cityscapes19.", err=True)


@app.command("check")
def check_dataset(dataset: DatasetArgument, data_root: RootOption = None, as_json: JsonOption = False) -> None:
    """Read every image and label, and list all faults. Exit code 2 if there are errors."""
    from prove.data.check import check
    from prove.data.source import open_dataset, resolve_dataset

    report = check(open_dataset(resolve_dataset(dataset), root=data_root))
    if as_json:
        _print_json(report.to_dict())
    else:
        _print_findings(report)
    if report.errors:
        raise typer.Exit(BAD_DATA)


@app.command("stats")
def show_stats(dataset: DatasetArgument, data_root: RootOption = None, as_json: JsonOption = False) -> None:
    """Count images by condition and pixels by class."""
    from prove.data.source import open_dataset, resolve_dataset

    opened = open_dataset(resolve_dataset(dataset), root=data_root)
    root = None if opened.definition.members else str(opened.root)
    document = {
        "dataset": opened.definition.name,
        "root": root,
        "layout": opened.layout.name,
        "splits": {manifest.split: _split_stats(manifest) for manifest in opened.splits},
    }
    if as_json:
        _print_json(document)
        return
    typer.echo(f"{document['dataset']}{f' in {root}' if root else ''} ({document['layout']})")
    for manifest in opened.splits:
        _print_split(manifest.split, _split_stats(manifest))


app.command("manifest")(make_manifest)
app.command("map")(show_maps)


@make.command("synthstreet")
def make_synthstreet(
    out: Annotated[Path | None, typer.Option(help="A new folder; else the user's cache.")] = None,
    size: Annotated[str, typer.Option(help="Height x width in pixels, such as 192x384.")] = "192x384",
    train: Annotated[int | None, typer.Option(help="Training images.")] = None,
    val: Annotated[int | None, typer.Option(help="Validation images.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed draws other streets.")] = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="Also write an overview of images and labels (PNG).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw SynthStreet: street scenes with exact labels in seven conditions."""
    from prove.data import synthstreet
    from prove.data.definition import SynthStreetSize
    from prove.errors import ProveError

    height, _, width = size.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ProveError(f"--size is {size!r}, but must be HEIGHTxWIDTH.", hint="Such as 192x384.")
    given = {"train": train, "val": val, "seed": seed}
    wanted = SynthStreetSize(
        height=int(height), width=int(width), **{key: value for key, value in given.items() if value is not None}
    )
    root = synthstreet.ensure(wanted) if out is None else synthstreet.generate(out, wanted)
    if contact_sheet is not None:
        from PIL import Image

        Image.fromarray(synthstreet.contact_sheet(wanted)).save(contact_sheet, optimize=True)
    if as_json:
        _print_json({"dataset": "SynthStreet", "root": str(root), **vars(wanted)})
    else:
        typer.echo(f"SynthStreet: train {wanted.train}, val {wanted.val} images of {size} in {root}")


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=1))


def _print_findings(report: CheckReport) -> None:
    for finding in report.findings:
        typer.echo(f"{finding.severity}: {finding.split}: {finding.kind}: {finding.message}")
    typer.echo(report.total)


def _split_stats(manifest: Manifest) -> dict[str, Any]:
    from collections import Counter

    from prove.data.stats import label_statistics

    labels = label_statistics(manifest)
    valid = max(int(labels.pixels.sum()), 1)
    return {
        "images": len(manifest),
        "conditions": dict(sorted(Counter(sample.condition for sample in manifest).items())),
        "ignored_percent": 100 * labels.ignored / max(valid + labels.ignored, 1),
        "classes": {
            name: {"pixels": int(count), "percent": 100 * int(count) / valid, "images": int(seen)}
            for name, count, seen in zip(manifest.label_space.classes, labels.pixels, labels.images, strict=True)
        },
    }


def _print_split(split: str, stats: dict[str, Any]) -> None:
    conditions = ", ".join(f"{name} {count}" for name, count in stats["conditions"].items())
    typer.echo(f"\n{split}: {stats['images']} images ({conditions}), {stats['ignored_percent']:.1f}% of pixels ignored")
    wide = max(len(name) for name in stats["classes"])
    typer.echo(f"  {'class':<{wide}}  {'% of pixels':>11}  {'images':>6}")
    for name, row in stats["classes"].items():
        typer.echo(f"  {name:<{wide}}  {row['percent']:>11.3f}  {row['images']:>6}")
