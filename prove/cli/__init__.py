"""The command line: `prove`."""

from __future__ import annotations

from typing import Annotated

import typer

from prove.cli.lazy import Entry, LazyGroup

COMMANDS = (
    Entry("run", "prove.cli.run:run", "Train, evaluate and record one job."),
    Entry("sweep", "prove.cli.sweep:sweep", "Turn a matrix into a finished set of runs."),
    Entry(
        "status",
        "prove.cli.state:status",
        "Show the runs: their states, their mIoU, what failed and why.",
    ),
    Entry("watch", "prove.cli.watch:watch", "Follow the runs until none is queued or running."),
    Entry("show", "prove.cli.show:show", "Show all that is known of one run."),
    Entry("evaluate", "prove.cli.evaluate:evaluate", "Evaluate a finished run on another dataset."),
    Entry("logs", "prove.cli.logs:logs", "Show the end of a run's log, and follow it."),
    Entry("cancel", "prove.cli.control:cancel", "Call off runs: waiting ones don't start, running ones stop."),
    Entry("retry", "prove.cli.control:retry", "Launch failed and cancelled runs again."),
    Entry("report", "prove.cli.report:app", "What the runs say: tables, figures, one HTML file."),
    Entry("config", "prove.cli.config:config", "Show the MMSegmentation config that a job would train."),
    Entry("losses", "prove.cli.losses:app", "Definitions, defaults and sources of the losses."),
    Entry("data", "prove.cli.data:app", "Datasets: list, check, count, draw."),
    Entry("db", "prove.cli.db:app", "Look at the database, upgrade it, exchange runs with others."),
    Entry("doctor", "prove.cli.doctor:doctor", "Show what this machine has and what is missing, with the fix."),
)


class Commands(LazyGroup):
    """The commands of `prove`."""

    entries = COMMANDS


app = typer.Typer(
    name="prove",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"prove {version('prove-seg')}")
        raise typer.Exit


@app.callback()
def prove(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Does this loss, on this model and this data, really help?"""


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 a run failed, 2 the request was wrong, 130 interrupted."""
    app()
