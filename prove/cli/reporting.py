"""What every `prove report` command shares: its flags, the study behind it, and where its answer goes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prove.cli.options import RESULTS, JsonOption, ResultsOption, notes
from prove.errors import ProveError, unknown
from prove.spec.event import State

if TYPE_CHECKING:
    from prove.report.opening import Found
    from prove.report.recorded import RecordedStudy
    from prove.report.table import Table

FORMATS = {"rich": ".txt", "md": ".md", "latex": ".tex", "csv": ".csv", "html": ".html", "json": ".json"}
"""What `--format` takes, and the ending of a file that means the same."""

WAITING = (State.PLANNED, State.QUEUED, State.RUNNING, State.INTERRUPTED)
"""States of runs that are going to finish."""

NOTES_SHOWN = 8
"""Notes on the whole study that are printed."""

SILENCE = 3.0
"""Seconds after which a command says what it is busy with."""

Experiment = Annotated[
    str | None,
    typer.Argument(metavar="EXPERIMENT", help="Its name or its file; without it, all runs of the results folder."),
]
Metric = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", metavar="NAMES", help="mIoU, aAcc, mAcc, fwIoU, bIoU, bF1, ECE; the first is the headline."
    ),
]
Baseline = Annotated[str | None, typer.Option("--baseline", metavar="LOSS", help="Compare with this objective.")]
Checkpoint = Annotated[str | None, typer.Option("--checkpoint", metavar="RULE", help="last or best, for all runs.")]
SmallestEffect = Annotated[
    float | None, typer.Option("--smallest-effect", metavar="POINTS", help="Smallest difference that matters.")
]
Confidence = Annotated[float | None, typer.Option("--confidence", metavar="SHARE", help="Of all intervals: 0.95.")]
AllowMixed = Annotated[
    bool, typer.Option("--allow-mixed", help="Compare also what is not comparable, with a mark that says so.")
]
Format = Annotated[str | None, typer.Option("--format", metavar="NAME", help=f"{', '.join(FORMATS)}.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there; its ending says how.")
]


@dataclass(frozen=True)
class Flags:
    """The flags that all reports share, in the order of their help."""

    experiment: Experiment = None
    metric: Metric = None
    baseline: Baseline = None
    checkpoint: Checkpoint = None
    smallest_effect: SmallestEffect = None
    confidence: Confidence = None
    allow_mixed: AllowMixed = False
    results: ResultsOption = RESULTS
    json_output: JsonOption = False


def shares_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose first parameter is a `Flags`, a flag for each of them beside its own."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=parameter.default, annotation=parameter.annotation
        )
        for name, parameter in inspect.signature(Flags, eval_str=True).parameters.items()
    ]
    names = [field.name for field in fields(Flags)]

    def with_flags(**given: Any) -> None:
        command(Flags(**{name: given.pop(name) for name in names}), **given)

    kept = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    position = next(i for i, each in enumerate(shared) if each.name == "results")
    signature = inspect.Signature([*shared[:position], *kept, *shared[position:]])
    with_flags.__signature__ = signature  # type: ignore[attr-defined]
    with_flags.__doc__ = command.__doc__
    with_flags.__name__ = command.__name__
    return with_flags


@contextmanager
def study_of(flags: Flags, *, verdicts: bool = True) -> Iterator[tuple[RecordedStudy, Found]]:
    """The study that the flags ask for, over a database that is up to date.

    Args:
        verdicts: whether verdicts are going to be read off it, which is kept.

    Raises:
        ProveError: nothing is there, or nothing to compare.
    """
    from prove.launch.settle import refresh
    from prove.report.opening import Asked, open_study
    from prove.store import Store

    if Store.holds_nothing(flags.results):
        raise ProveError(
            f"No runs yet in {flags.results}/: there is nothing to report.",
            hint="Train some with `prove sweep experiments/quickstart.yaml`, or name another with --results DIR.",
        )
    metrics = tuple(name.strip() for text in flags.metric or () for name in text.split(",") if name.strip())
    asked = Asked(
        experiment=flags.experiment,
        baseline=flags.baseline,
        metrics=metrics,
        checkpoint=flags.checkpoint,
        smallest_effect=flags.smallest_effect,
        confidence=flags.confidence,
        allow_mixed=flags.allow_mixed,
    )
    with Store.open_existing(flags.results) as store:
        for line in refresh(store):
            notes().print(line)
        study, found = open_study(store, asked, comparing=verdicts, on_progress=_teller())
        if verdicts:
            study.look()
        yield study, found


def _teller() -> Callable[[int, int], None]:
    """Says that images are resampled, where it takes long enough to wonder."""
    import time

    began = said = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < SILENCE:
            return
        if said == began:
            notes().print("resampling the validation images of runs that are new (once; it is kept)")
        notes().print(f"  {done} of {of} in this block")
        said = now

    return tell


def chosen_format(given: str | None, output: Path | None, json_output: bool) -> str:
    """The format that is asked for, by name or by the file's ending.

    Raises:
        ProveError: an unknown one.
    """
    if json_output:
        if (given or "json") != "json" or (output is not None and output.suffix not in ("", ".json")):
            raise ProveError("--json asks for JSON, and --format or the file's ending for something else.")
        return "json"
    if given is not None:
        name = {"tex": "latex", "markdown": "md", "text": "rich", "txt": "rich"}.get(given.lower(), given.lower())
        if name not in FORMATS:
            raise unknown("format", given, FORMATS, where="in --format")
        return name
    if output is not None and str(output) != "-":
        by_ending = {ending: name for name, ending in FORMATS.items()}
        if output.suffix.lower() not in by_ending:
            raise ProveError(
                f"The ending of {output} does not say in which format it is to be.",
                hint=f"Give --format, or one of {', '.join(by_ending)}.",
            )
        return by_ending[output.suffix.lower()]
    return "rich"


def deliver(tables: Sequence[Table], form: str, output: Path | None) -> None:
    """Print the tables, or write them to the file.

    Raises:
        ProveError: they can't be written.
    """
    from prove.report.render import render

    on_terminal = output is None and sys.stdout.isatty()
    put(render(tables, form, colour=on_terminal), output)


def put(text: str, output: Path | None) -> None:
    """Print a document on stdout, also for the file ``-``, or write it to the file.

    Raises:
        ProveError: it can't be written.
    """
    if output is not None and str(output) != "-":
        write(output, text.encode())
        return
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # the reader has seen enough
    except OSError as error:
        raise ProveError(f"Stdout can't be written ({error.strerror}).") from error


def write(file: Path, content: bytes) -> None:
    """Write a file of the user's, whole or not at all, and say so.

    Raises:
        ProveError: it can't be written.
    """
    from prove.rundir import write_atomically

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda opened: opened.write(content))
    except OSError as error:
        raise ProveError(f"{file} can't be written ({error.strerror}).", hint="Choose another with -o FILE.") from error
    notes().print(f"wrote {file}")


def finish(study: RecordedStudy) -> None:
    """Say what every reader must know; leave with exit code 2 where nothing could be said of any loss.

    One seed measures these checkpoints, not the loss: the tables show the images' share of the doubt, and no verdict.
    """
    for note in study.notes[:NOTES_SHOWN]:
        notes().print(note)
    if len(study.notes) > NOTES_SHOWN:
        notes().print(f"... and {len(study.notes) - NOTES_SHOWN} notes more: the HTML file has all.")
    most = max((_paired_seeds(block) for block in study.blocks if block.baseline is not None), default=0)
    if most > 1:
        return
    if most == 0:
        said = "No verdict: no objective has a seed in common with the baseline."
    else:
        said = (
            "No verdict: every comparison rests on one seed. Its interval is about these checkpoints only; another "
            "seed can turn it round."
        )
    waiting = sum(run.state in WAITING for run in study.runs)
    if waiting:
        advice = f"{waiting} of {len(study.runs)} runs have not finished: `prove watch`, or `prove sweep` again."
    else:
        advice = "Train the same seeds of each objective, three at least and better five (seed: 0..4), and ask again."
    notes().print(f"{said} {advice}")
    raise typer.Exit(2)


def _paired_seeds(block: Any) -> int:
    """The most seeds that an objective of the block shares with the baseline."""
    own = {seed for loss, seed in block.runs if loss == block.baseline}
    return max(
        (
            len(own & {seed for loss, seed in block.runs if loss == other})
            for other in block.losses
            if other != block.baseline
        ),
        default=0,
    )
