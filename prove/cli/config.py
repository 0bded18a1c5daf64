"""`prove config`: what a job would train, as an MMSegmentation config."""

from __future__ import annotations

import difflib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prove.cli import run as flags
from prove.cli.options import JsonOption, print_json
from prove.cli.own_terms import TermsOption

if TYPE_CHECKING:
    from prove.cli.request import RunRequest


def config(
    dataset: flags.DatasetOption = "SynthStreet",
    model: flags.ModelOption = "segformer_mit-b0",
    strategy: flags.StrategyOption = "baseline",
    aux_loss: flags.AuxLossOption = None,
    aux_weight: flags.AuxWeightOption = None,
    loss: flags.LossOption = None,
    terms: TermsOption = None,
    seed: flags.SeedOption = 0,
    domain_filter: flags.DomainOption = None,
    real_gen_ratio: flags.RatioOption = None,
    data_root: flags.DataRootOption = None,
    gen_root: flags.GenRootOption = None,
    weights: flags.WeightsOption = None,
    max_iters: flags.ItersOption = None,
    batch_size: flags.BatchOption = None,
    crop_size: flags.CropOption = None,
    lr: flags.LrOption = None,
    eval_interval: flags.EvalOption = None,
    val_images: flags.ValImagesOption = None,
    pretrained: flags.PretrainedOption = True,
    amp: flags.AmpOption = True,
    device: flags.DeviceOption = "auto",
    workers: flags.WorkersOption = None,
    diff: Annotated[bool, typer.Option("--diff", help="Only what differs from the unpatched config.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Show the MMSegmentation config that a job would train."""
    from prove.cli.request import RunRequest

    request = RunRequest(
        dataset=dataset, model=model, strategy=strategy, aux_loss=aux_loss, aux_weight=aux_weight, loss=loss,
        terms=terms, seed=seed, data_root=data_root, max_iters=max_iters, batch_size=batch_size, crop_size=crop_size,
        lr=lr, eval_interval=eval_interval, val_images=val_images, pretrained=pretrained, amp=amp, device=device,
        workers=workers, domain_filter=domain_filter, real_gen_ratio=real_gen_ratio, gen_root=gen_root,
        weights=weights,
    )  # fmt: skip
    show(request, diff=diff, json_output=json_output)


def show(request: RunRequest, *, diff: bool = False, json_output: bool = False) -> None:
    """Print the config of a request, or its difference from the config that it was made from.

    Raises:
        ProveError: the request is wrong.
    """
    from prove.build.job_config import base_config, build_config, training_class_weight
    from prove.cli.request import plan

    chosen = plan(request)
    with tempfile.TemporaryDirectory() as folder:
        model_file = Path(folder) / "model.py"
        if chosen.model_config is not None:
            model_file.write_text(chosen.model_config, encoding="utf-8")
        weight = training_class_weight(chosen.job, chosen.dataset)
        text = build_config(chosen.job, chosen.dataset, chosen.placement, weight, model_file).config.pretty_text
        if diff:
            before = base_config(chosen.job, model_file).pretty_text
            lines = difflib.unified_diff(
                before.splitlines(), text.splitlines(), chosen.job.model.name, "patched", lineterm=""
            )
            text = "\n".join(lines) + "\n"
    if json_output:
        print_json({"key": chosen.job.key, "job": chosen.job.to_dict(), "config": text})
    else:
        typer.echo(text, nl=False)
