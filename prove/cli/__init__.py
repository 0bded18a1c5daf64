"""The command line: `prove`."""

from __future__ import annotations

from typing import Annotated

import typer

from prove.cli.lazy import Entry, LazyGroup

COMMANDS = (
    Entry("run", "prove.cli.run:run", "Train, evaluate and record one job."),
    Entry("status", "prove.cli.state:status", "Show the runs: how many are in which state, and their mIoU."),
    Entry("show", "prove.cli.show:show", "Show all that is known of one run."),
    Entry("logs", "prove.cli.logs:logs", "Show the end of a run's log, and follow it."),
    Entry("config", "prove.cli.config:config", "Show the MMSegmentation config that a job would train."),
    Entry("losses", "prove.cli.losses:app", "Definitions, defaults and sources of the losses."),
    Entry("data", "prove.cli.data:app", "Datasets: list, check, count, draw."),
    Entry("db", "prove.cli.db:app", "Look at the database of a results folder, and upgrade it."),
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
