"""`prove losses check`: the wiring proof of an objective on a model, without training."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from prove.cli.options import JsonOption, console, notes, print_json
from prove.cli.own_terms import TermsOption
from prove.cli.run import GenRootOption, RatioOption

SCENES = "SynthStreet(height=128, width=256, train=8, val=1)"
"""What an objective is proved on unless a dataset is named."""


def check(
    expr: Annotated[str, typer.Argument(metavar="EXPR", help='An objective, such as "ce + 0.3*lovasz".')],
    model: Annotated[str, typer.Option("--model", help="Name of a model, or a config file.")] = "fcn_tiny",
    dataset: Annotated[str, typer.Option("--dataset", help="Dataset whose images it is proved on.")] = SCENES,
    data_root: Annotated[str | None, typer.Option("--data-root", help="Folder of the dataset.")] = None,
    crop_size: Annotated[str, typer.Option("--crop-size", metavar="HxW", help="Crop in pixels.")] = "128x128",
    strategy: Annotated[str, typer.Option("--strategy", help="Strategy under which it is proved.")] = "baseline",
    real_gen_ratio: RatioOption = None,
    gen_root: GenRootOption = None,
    terms: TermsOption = None,
    json_output: JsonOption = False,
) -> None:
    """Prove that a model minimises an objective: every term wired, weighted and blind to ignored pixels."""
    from prove.cli.execute import prepare, train
    from prove.cli.objectives import kept_criterion
    from prove.cli.progress import Progress
    from prove.cli.request import RunRequest, plan
    from prove.cli.tables import evidence_table, verdict
    from prove.errors import ProveError
    from prove.rundir import RunDir, read_json

    request = RunRequest(
        dataset=dataset, data_root=data_root, model=model, loss=expr, terms=terms, crop_size=crop_size, max_iters=1,
        batch_size=2, eval_interval=1, pretrained=False, device="cpu", strategy=strategy,
        real_gen_ratio=real_gen_ratio, gen_root=gen_root,
    )  # fmt: skip
    chosen = plan(request, proof_only=True)
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
        if remark := kept_criterion(chosen.job.loss, chosen.job.model.name):
            notes().print(remark)
        out = console()
        out.print(f"{evidence['objective']} on {chosen.job.model.name}")
        out.print(evidence_table(evidence))
        out.print(verdict(evidence))
    if not evidence["ok"]:
        raise typer.Exit(1)


def _ending(run: Any) -> str:
    """The message of the worker's last event."""
    import json

    lines = run.events.read_text(encoding="utf-8").splitlines() if run.events.exists() else []
    return str(json.loads(lines[-1]).get("message", "")) if lines else ""
