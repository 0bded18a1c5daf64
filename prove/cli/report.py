"""`prove report`: what the runs say, with its uncertainty, its cost and its evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prove.cli.options import notes, print_json
from prove.cli.reporting import Flags, Format, Output, chosen_format, deliver, finish, put, shares_flags, study_of
from prove.errors import ProveError, unknown

if TYPE_CHECKING:
    from prove.report.opening import Found
    from prove.report.recorded import RecordedStudy
    from prove.report.study import Block
    from prove.report.table import Table

app = typer.Typer(help="What the runs say: tables, figures, one HTML file.", no_args_is_help=True)

BY = ("dataset", "condition", "class")

OF_A_CLASS = {"mIoU": "IoU", "fwIoU": "IoU", "mAcc": "Acc", "aAcc": "Acc", "bIoU": "bIoU", "bF1": "bF1"}
"""What a metric of an image set is for one class; ECE is none."""

BLOCKS_SHOWN = 24
"""Blocks whose classes and conditions are shown on a terminal and in the HTML file."""

Rows = Annotated[str, typer.Option("--rows", metavar="AXIS", help="loss, model, dataset, strategy or settings.")]
Columns = Annotated[
    str | None, typer.Option("--columns", metavar="AXIS", help="Another of them.  [default: what there are several of]")
]
By = Annotated[str | None, typer.Option("--by", metavar="WHAT", help=f"One table by {', '.join(BY)}.")]


@app.command("tables")
@shares_flags
def tables(
    flags: Flags,
    rows: Rows = "loss",
    columns: Columns = None,
    by: By = None,
    form: Format = None,
    output: Output = None,
) -> None:
    """Compare every loss with the baseline: mean and spread over seeds, difference, interval, verdict.

    Bold: better than the baseline. Underlined: the best mean. Below each table stands what it rests on, what is
    missing and what was not comparable. Exit code 2 where every comparison rests on one seed: then there is no verdict.
    """
    from prove.report.views.across import across
    from prove.report.views.integrity import integrity
    from prove.report.views.results import results

    if by is not None and by not in BY:
        raise unknown("axis", by, BY, where="in --by")
    if by == "class":
        classes(flags, form, output)
        return
    if by == "condition":
        domains(flags, None, form, output)
        return
    alone = chosen_format(form, output, flags.json_output) in ("csv", "latex")  # these go into programs and papers

    def make(study: RecordedStudy) -> Sequence[Table]:
        chosen = results(study, rows=rows, columns="dataset" if by == "dataset" and columns is None else columns)
        told = not alone and any(block.left_out or block.mixed or block.warnings for block in study.blocks)
        return [*across(study), *chosen, *(integrity(study) if told else ())]

    _show(flags, form, output, make)


@app.command("classes")
@shares_flags
def class_by_class(flags: Flags, form: Format = None, output: Output = None) -> None:
    """Compare class by class: difference in IoU, labelled pixels; exploratory, with a false discovery rate.

    With --metric mAcc, bIoU or bF1 in that metric of each class.
    """
    classes(flags, form, output)


def classes(flags: Flags, form: str | None, output: Path | None) -> None:
    """The tables by class, in the class's form of the headline metric."""
    from prove.report.views.classes import classes as view

    def make(study: RecordedStudy) -> Sequence[Table]:
        headline = study.options.metrics[0]
        if headline not in OF_A_CLASS:
            raise ProveError(f"{headline} has no value by class.", hint=f"Ask for one of {', '.join(OF_A_CLASS)}.")
        made = view(study, OF_A_CLASS[headline], blocks=_some(study, form, output, flags.json_output))
        if not made:
            raise ProveError("No run has results by class.", hint="They come with the last validation of a run.")
        return made

    _show(flags, form, output, make)


@app.command("domains")
@shares_flags
def condition_by_condition(
    flags: Flags,
    clear: Annotated[
        str | None, typer.Option("--clear", metavar="NAME", help="The condition that the others are held against.")
    ] = None,
    form: Format = None,
    output: Output = None,
) -> None:
    """Compare condition by condition, and the gap between clear and adverse conditions."""
    domains(flags, clear, form, output)


def domains(flags: Flags, clear: str | None, form: str | None, output: Path | None) -> None:
    """The tables by condition."""
    from prove.report.views.domains import domains as view

    def make(study: RecordedStudy) -> Sequence[Table]:
        made = view(study, clear=clear, blocks=_some(study, form, output, flags.json_output))
        if not made:
            raise ProveError(
                "No run has results by condition: their datasets name no conditions of the images.",
                hint="`prove data list --json` shows which datasets do; docs/data.md, how your own can.",
            )
        return made

    _show(flags, form, output, make)


def _some(study: RecordedStudy, form: str | None, output: Path | None, as_json: bool) -> Sequence[Block]:
    """The blocks that are shown: all in a file, the first ones on the terminal, which says so."""
    if output is not None or chosen_format(form, output, as_json) != "rich" or len(study.blocks) <= BLOCKS_SHOWN:
        return study.blocks
    notes().print(f"The first {BLOCKS_SHOWN} of {len(study.blocks)} blocks; all of them with -o FILE.")
    return study.blocks[:BLOCKS_SHOWN]


@app.command("cost")
@shares_flags
def cost(flags: Flags, form: Format = None, output: Output = None) -> None:
    """Show what each loss costs: GPU hours, seconds per iteration, peak memory."""
    from prove.report.views.cost import cost as view

    _show(flags, form, output, view, verdicts=False)


@app.command("power")
@shares_flags
def power(flags: Flags, form: Format = None, output: Output = None) -> None:
    """Show the smallest effect that this design can see, and how many seeds would settle each open comparison."""
    from prove.report.views.precision import precision as view

    _show(flags, form, output, view)


@app.command("hypotheses")
@shares_flags
def hypotheses(flags: Flags, form: Format = None, output: Output = None) -> None:
    """Put the study's hypotheses to the test: supported, not supported, or what would settle them."""
    _show(flags, form, output, None)


@app.command("integrity")
@shares_flags
def integrity(flags: Flags, form: Format = None, output: Output = None) -> None:
    """Show what became of every run: compared, failed, missing, not comparable, and why."""
    from prove.report.views.integrity import integrity as view

    _show(flags, form, output, view, verdicts=False)


@app.command("plots")
@shares_flags
def plots(
    flags: Flags,
    which: Annotated[
        list[str] | None, typer.Option("--figure", metavar="NAMES", help="Only these.  [default: all]")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="NAMES", help="Of pdf, svg, png; the data come as CSV.")
    ] = "pdf,svg,png",
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write them into.")] = Path(
        "plots"
    ),
) -> None:
    """Draw the figures: effects, classes, conditions, curves, ranks, cost, shares, predictions."""
    from prove.report.figures import draw

    if str(output) in ("", "."):
        raise ProveError("The figures need a folder of their own.", hint="Write for example -o plots.")
    names = [name.strip() for text in which or () for name in text.split(",") if name.strip()]
    with study_of(flags) as (study, _):
        drawn = draw(study, output, formats=[each.strip() for each in form.split(",")], which=names or None)
        if flags.json_output:
            print_json(
                [
                    {"name": each.name, "title": each.title, "caption": each.caption, "reason": each.reason,
                     "files": [str(file) for file in each.files]}
                    for each in drawn
                ]
            )  # fmt: skip
        for each in drawn:
            said = f"not drawn: {each.reason}" if each.reason else ", ".join(file.name for file in each.files)
            notes().print(f"{each.name}: {said}")
        if not any(each.files for each in drawn):
            raise ProveError("None of the figures can be drawn.", hint="The reasons stand above.")
        finish(study)


@app.command("html")
@shares_flags
def html(
    flags: Flags,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write it.")] = Path(
        "report.html"
    ),
) -> None:
    """Write everything into one HTML file that needs no network: tables, figures, evidence, failures, environment."""
    from prove.report.figures import pictures
    from prove.report.page import page

    if output.suffix.lower() not in (".html", ".htm") and str(output) != "-":
        raise ProveError(f"{output} is no name of an HTML file.", hint="Write for example -o report.html.")
    with study_of(flags) as (study, found):
        document = page(study, tables=_sections(study, found), figures=pictures(study))
        put(document, output)
        if flags.json_output:
            print_json({"file": str(output), "bytes": len(document.encode())})
        finish(study)


def _sections(study: RecordedStudy, found: Found) -> dict[str, Sequence[Table]]:
    from prove.report.views.across import across
    from prove.report.views.classes import classes as by_class
    from prove.report.views.cost import cost as cost_view
    from prove.report.views.domains import domains as by_condition
    from prove.report.views.integrity import integrity
    from prove.report.views.precision import precision
    from prove.report.views.results import results
    from prove.report.views.secondary import secondary

    first = study.blocks[:BLOCKS_SHOWN]
    return {
        "integrity": integrity(study),
        "results": results(study),
        "across": across(study),
        "hypotheses": _hypotheses(study, found),
        "classes": by_class(study, blocks=first),
        "domains": by_condition(study, blocks=first),
        "secondary": secondary(study, blocks=first),
        "precision": precision(study, blocks=first),
        "cost": cost_view(study),
    }


def _show(
    flags: Flags,
    form: str | None,
    output: Path | None,
    make: Callable[[RecordedStudy], Sequence[Table]] | None,
    *,
    verdicts: bool = True,
) -> None:
    """Make tables and deliver them; without ``make``, those of the hypotheses."""
    chosen = chosen_format(form, output, flags.json_output)
    with study_of(flags, verdicts=verdicts) as (study, found):
        made = _hypotheses(study, found) if make is None else make(study)
        deliver(made, chosen, output)
        if verdicts:
            finish(study)


def _hypotheses(study: RecordedStudy, found: Found) -> Sequence[Table]:
    from prove.report.hypotheses import findings
    from prove.report.views.hypotheses import hypotheses as view
    from prove.spec.hypothesis import read_hypotheses, with_built_in

    asked = with_built_in(read_hypotheses(found.section.get("hypotheses", [])))
    return view(findings(study, asked), confidence=study.options.confidence)
