"""A command line that imports a command's module when the command is called, and not before."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from prove.cli.options import RESULTS, ResultsOption, print_json
from prove.errors import ProveError

_JSON = "prove.json"


@dataclass(frozen=True)
class Entry:
    """One command.

    Attributes:
        name: what the user types.
        target: ``module:attribute``, a function or a `typer.Typer`.
        help: first line of the target's help; stated here so that `prove --help` need not import it.
    """

    name: str
    target: str
    help: str

    def load(self) -> Any:
        """The function or the Typer app."""
        module, attribute = self.target.split(":")
        return getattr(importlib.import_module(module), attribute)


class LazyGroup(TyperGroup):
    """A group of `Entry` commands that reports a `ProveError` as two lines and exit code 2."""

    entries: Sequence[Entry] = ()

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for entry in self.entries:
            self.add_command(TyperCommand(entry.name, help=entry.help, rich_markup_mode=None))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name, imported."""
        name, stub, rest = super().resolve_command(ctx, args)
        entry = next((entry for entry in self.entries if stub is not None and entry.name == stub.name), None)
        return (name, stub, rest) if entry is None else (name, command_of(entry), rest)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note whether the answer is to be JSON: an error is then JSON as well."""
        ctx.meta[_JSON] = "--json" in args
        return list(super().parse_args(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        """Carry out the command."""
        try:
            return super().invoke(ctx)
        except ProveError as error:
            report(error, as_json=bool(ctx.meta.get(_JSON)))
            raise typer.Exit(2) from None


def command_of(entry: Entry) -> Any:
    """The click command of an entry.

    Every command takes ``--results``, also one that has no use for it: a script can give it to all alike.
    """
    target = entry.load()
    if not isinstance(target, typer.Typer):
        app = _plain_app()
        app.command(entry.name)(target)
        command: Any = typer.main.get_command(app)
        _take_results(command)
        return command
    target.rich_markup_mode = None
    group = typer.main.get_group(target)
    group.name = entry.name
    for command in group.commands.values():
        _take_results(command)
    return group


def _plain_app() -> typer.Typer:
    return typer.Typer(add_completion=False, rich_markup_mode=None)


def _take_results(command: Any) -> None:
    if any("--results" in parameter.opts for parameter in command.params):
        return

    def donor(results: ResultsOption = RESULTS) -> None:
        pass

    app = _plain_app()
    app.command()(donor)
    option = next(parameter for parameter in typer.main.get_command(app).params if parameter.name == "results")
    option.expose_value = False
    command.params.append(option)


def report(error: ProveError, *, as_json: bool = False) -> None:
    """Say on stderr what is wrong and what to do about it; with ``as_json`` as a document on stdout, too."""
    if as_json:
        print_json({"error": error.message, "hint": error.hint})
    sys.stderr.write(f"error: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")
