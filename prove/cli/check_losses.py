"""`prove losses check`: the wiring proof of an objective on a model, without training."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prove.cli.options import JsonOption, console, print_json

if TYPE_CHECKING:
    from rich.table import Table

SCENES = "SynthStreet(height=128, width=256, train=8, val=1)"
"""What an objective is proved on unless a dataset is named."""


def check(
    expr: Annotated[str, typer.Argument(metavar="EXPR", help='An objective, such as "ce + 0.3*lovasz".')],
    model: Annotated[str, typer.Option("--model", help="Name of a model, or a config file.")] = "fcn_tiny",
    dataset: Annotated[str, typer.Option("--dataset", help="Dataset whose images it is proved on.")] = SCENES,
    data_root: Annotated[str | None, typer.Option("--data-root", help="Folder of the dataset.")] = None,
    crop_size: Annotated[str, typer.Option("--crop-size", metavar="HxW", help="Crop in pixels.")] = "128x128",
    json_output: JsonOption = False,
) -> None:
    """Prove that a model minimises an objective: every term wired, weighted and blind to ignored pixels."""
    from prove.cli.execute import prepare, train
    from prove.cli.progress import Progress
    from prove.cli.request import RunRequest, plan
    from prove.errors import ProveError
    from prove.rundir import RunDir, read_json

    request = RunRequest(
        dataset=dataset, data_root=data_root, model=model, loss=expr, crop_size=crop_size, max_iters=1, batch_size=2,
        eval_interval=1, pretrained=False, device="cpu",
    )  # fmt: skip
    chosen = plan(request)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir.of(Path(folder), chosen.job.key)
        run.create()
        prepare(run, chosen, proof_only=True)
        complaint = train(run, Progress(1, quiet=True))
        if not run.evidence.exists():
            raise ProveError(f"The proof could not be carried out: {_ending(run) or complaint}")
        evidence = read_json(run.evidence)
    if json_output:
        print_json(evidence)
    else:
        out = console()
        out.print(evidence_table(evidence, chosen.job.model.name))
        for problem in evidence["problems"]:
            out.print(f"  NOT WIRED  {problem}")
        out.print(_verdict(evidence))
    if not evidence["ok"]:
        raise typer.Exit(1)


def evidence_table(evidence: dict[str, Any], model: str) -> Table:
    """What the proof saw, a row per head and term."""
    from rich.table import Table

    table = Table(title=f"{evidence['objective']} on {model}", title_justify="left")
    for name in ("head", "term"):
        table.add_column(name)
    for name in (
        "value",
        "reference",
        "share of loss",
        "share of gradient",
        "cosine to primary",
        "doubling",
        "on ignored",
    ):
        table.add_column(name, justify="right")
    for head in evidence["heads"]:
        for term in head["terms"]:
            table.add_row(
                head["head"],
                term["text"],
                _short(term["value"]),
                _short(term["reference_value"]),
                f"{term['loss_share']:.1%}",
                f"{term['gradient_share']:.1%}",
                _short(term["cosine_to_primary"]),
                f"x{term['doubling']:.4g}",
                _short(term["ignored_gradient"]),
            )
    return table


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _verdict(evidence: dict[str, Any]) -> str:
    batch = evidence["batch"]
    where = f"{batch['images']} images, {batch['pixels']:,} pixels, {batch['ignored_pixels']:,} ignored"
    if evidence["ok"]:
        total, formula = evidence["total"], evidence["formula"]
        return f"proved: the loss that is minimised is {total:.6g}, the formula gives {formula:.6g} ({where})"
    return f"NOT proved ({where})"


def _ending(run: Any) -> str:
    """The message of the worker's last event."""
    import json

    lines = run.events.read_text(encoding="utf-8").splitlines() if run.events.exists() else []
    return str(json.loads(lines[-1]).get("message", "")) if lines else ""
