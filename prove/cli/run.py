"""`prove run`: one job, from its flags to its table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prove.cli.options import RESULTS, JsonOption, ResultsOption, console, notes, print_json
from prove.cli.own_terms import TermsOption

if TYPE_CHECKING:
    from prove.cli.request import RunRequest
    from prove.store import RunRow, Store

DatasetOption = Annotated[str, typer.Option("--dataset", help="Name (`prove data list`), YAML file, or multi_A+B.")]
ModelOption = Annotated[
    str, typer.Option("--model", help="Name (docs/models.md lists them) or an MMSegmentation config file.")
]
StrategyOption = Annotated[
    str, typer.Option("--strategy", help="What a model is trained on and how images are changed (docs/strategies.md).")
]
DomainOption = Annotated[
    str | None,
    typer.Option("--domain-filter", metavar="CONDITIONS", help="Train on these alone, such as clear_day+cloudy."),
]
RatioOption = Annotated[
    float | None,
    typer.Option("--real-gen-ratio", help="Share of real images with --strategy gen_NAME, 0 to 1.  [default: 0.5]"),
]
GenRootOption = Annotated[
    str | None, typer.Option("--gen-root", metavar="DIR", help="Folder of generated images, or $PROVE_GEN_ROOT.")
]
WeightsOption = Annotated[
    str | None, typer.Option("--weights", metavar="FILE", help="Pretrained backbone of your own, a local file.")
]
AuxLossOption = Annotated[
    str | None,
    typer.Option("--aux-loss", help="Auxiliary loss beside CE, in every head: none, focal, lovasz, boundary, dice."),
]
AuxWeightOption = Annotated[float | None, typer.Option("--aux-weight", help="Weight of --aux-loss.  [default: 0.3]")]
LossOption = Annotated[str | None, typer.Option("--loss", help='The whole objective: "ce + 0.3*focal(gamma=2)".')]
SeedOption = Annotated[int, typer.Option("--seed", help="Initial weights and batches.")]
DataRootOption = Annotated[
    str | None, typer.Option("--data-root", help="Folder of the dataset, or $PROVE_<DATASET>_ROOT.")
]
ItersOption = Annotated[
    int | None, typer.Option("--max-iters", help="Optimiser steps.  [default: 15000; SynthStreet 200]")
]
BatchOption = Annotated[int | None, typer.Option("--batch-size", help="Images per step.  [default: 16; SynthStreet 4]")]
CropOption = Annotated[str | None, typer.Option("--crop-size", metavar="HxW", help="Training crop in pixels.")]
LrOption = Annotated[
    float | None, typer.Option("--lr", help="Learning rate.  [default: the model's, scaled to the batch]")
]
EvalOption = Annotated[
    int | None, typer.Option("--eval-interval", help="Iterations between validations.  [default: 2000; SynthStreet 50]")
]
ValImagesOption = Annotated[
    int | None, typer.Option("--val-images", help="Validate on this many images, evenly spaced, instead of on all.")
]
EarlyOption = Annotated[
    bool, typer.Option("--early-stop/--no-early-stop", help="Stop when the metric no longer rises.")
]
PatienceOption = Annotated[int | None, typer.Option("--patience", help="Validations without a rise.  [default: 5]")]
DeltaOption = Annotated[float | None, typer.Option("--min-delta", help="Smallest rise, in points.  [default: 0.1]")]
MonitorOption = Annotated[
    str | None, typer.Option("--monitor", help="Metric that early stopping watches.  [default: mIoU]")
]
PretrainedOption = Annotated[
    bool, typer.Option("--pretrained/--no-pretrained", help="Start from the pretrained backbone.")
]
AmpOption = Annotated[bool, typer.Option("--amp/--no-amp", help="Mixed precision on CUDA; a CPU always uses float32.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", help="Processes that load data.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", help="Threads of the training process.")]


def run(
    dataset: DatasetOption = "SynthStreet",
    model: ModelOption = "segformer_mit-b0",
    strategy: StrategyOption = "baseline",
    aux_loss: AuxLossOption = None,
    aux_weight: AuxWeightOption = None,
    loss: LossOption = None,
    terms: TermsOption = None,
    seed: SeedOption = 0,
    domain_filter: DomainOption = None,
    real_gen_ratio: RatioOption = None,
    data_root: DataRootOption = None,
    gen_root: GenRootOption = None,
    weights: WeightsOption = None,
    max_iters: ItersOption = None,
    batch_size: BatchOption = None,
    crop_size: CropOption = None,
    lr: LrOption = None,
    eval_interval: EvalOption = None,
    val_images: ValImagesOption = None,
    early_stop: EarlyOption = True,
    patience: PatienceOption = None,
    min_delta: DeltaOption = None,
    monitor: MonitorOption = None,
    pretrained: PretrainedOption = True,
    amp: AmpOption = True,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    restart: Annotated[
        bool, typer.Option("--restart/--resume", help="Train from the start again, or continue from the checkpoint.")
    ] = False,
    results: ResultsOption = RESULTS,
    json_output: JsonOption = False,
) -> None:
    """Train, evaluate and record one job."""
    from prove.cli.request import RunRequest

    request = RunRequest(
        dataset=dataset, model=model, strategy=strategy, aux_loss=aux_loss, aux_weight=aux_weight, loss=loss,
        terms=terms, seed=seed, data_root=data_root, max_iters=max_iters, batch_size=batch_size, crop_size=crop_size,
        lr=lr, eval_interval=eval_interval, val_images=val_images, early_stop=early_stop, patience=patience,
        min_delta=min_delta, monitor=monitor, pretrained=pretrained, amp=amp, device=device, workers=workers,
        threads=threads, domain_filter=domain_filter, real_gen_ratio=real_gen_ratio, gen_root=gen_root,
        weights=weights,
    )  # fmt: skip
    raise typer.Exit(carry_out(request, results, restart=restart, json_output=json_output))


def carry_out(request: RunRequest, results: Path, *, restart: bool = False, json_output: bool = False) -> int:
    """Run a request and show its result.

    Returns:
        Exit code: 0 finished, 1 failed, 130 interrupted.

    Raises:
        ProveError: the request is wrong; nothing was trained.
    """
    from prove.cli.execute import EXIT_CODES, execute
    from prove.cli.objectives import kept_criterion
    from prove.cli.progress import Progress
    from prove.cli.request import plan
    from prove.cli.show import as_json, gather
    from prove.data.compose import counts_in_words
    from prove.store import Store

    chosen = plan(request)
    progress = Progress(chosen.job.train.max_iters, quiet=json_output)
    progress.note(headline(chosen.job, counts_in_words(chosen.dataset)))
    if remark := kept_criterion(chosen.job.loss, chosen.job.model.name):
        progress.note(f"  {remark}")
    row = execute(chosen, results, restart=restart, progress=progress)
    with Store.open(results) as store:
        if json_output:
            print_json(as_json(gather(store, row.key, results)))
        else:
            show_outcome(row, store, results)
    return EXIT_CODES.get(row.state, 1)


def headline(job: Any, counts: str = "") -> str:
    """The job in two lines, and in a third what it is trained on where that is not all images of its dataset.

    Args:
        counts: how many images of each kind an epoch has.
    """
    from prove.catalog.losses import short

    train = job.train
    start = "pretrained backbone" if train.pretrained else "random weights"
    words = ": ".join(part for part in (job.recipe.words, counts) if part)
    trained_on = f"\n  trained on {words}" if words else ""
    subset = f", validated on {train.val_images} images" if train.val_images else ""
    return (
        f"run {job.key}: {job.dataset_name} x {job.model.name} x {job.strategy} x {short(job.loss)} x seed {job.seed}\n"
        f"  {train.max_iters} iterations of {train.batch_size} crops {train.crop_size[0]}x{train.crop_size[1]}, "
        f"lr {train.lr:.3g}, {start}{subset}{trained_on}"
    )


def show_outcome(row: RunRow, store: Store, results: Path) -> None:
    """The table of a finished run, or how it ended."""
    from prove.cli.gap import gap_of
    from prove.cli.tables import class_order, class_table, condition_table, overall_table
    from prove.rundir import RunDir
    from prove.spec.event import State

    folder = RunDir.of(results, row.key)
    if row.state is State.FINISHED:
        numbers, out = store.results(row.key), console()
        out.print(f"{row.dataset} x {row.model} x {row.strategy} x {row.loss} x seed {row.seed}, in percent")
        parts = (
            (overall_table(numbers), ""),
            (condition_table(numbers), gap_of(numbers)),
            (class_table(numbers, class_order(folder)), ""),
        )
        for table, sentence in parts:
            if table is not None:
                out.print("")
                out.print(table)
                if sentence:
                    out.print(sentence)
        notes().print(f"\nOne seed is no proof: repeat it with other seeds. Details: prove show {row.key}")
        return
    if row.state is State.FAILED:
        notes().print(
            f"run {row.key} failed ({row.failure}) at iteration {row.iteration}: {row.message}\n"
            f"{row.advice}\nlog: {folder.log}"
        )
        return
    notes().print(f"run {row.key} was interrupted at iteration {row.iteration}; the same command continues it.")
