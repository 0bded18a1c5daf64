"""`prove losses`: what the losses are, by name."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from prove.catalog.loss_entry import LossEntry
from prove.catalog.losses import ALIASES, LOSSES
from prove.catalog.user_terms import SOURCE, register_terms
from prove.cli.check_losses import check
from prove.cli.options import JsonOption, console, print_json
from prove.cli.own_terms import TermsOption
from prove.errors import unknown
from prove.spec.expr import LossTerm, text_of

app = typer.Typer(help="Definitions, defaults and sources of the losses.", no_args_is_help=True)


app.command("check")(check)


@app.command("list")
def list_losses(terms: TermsOption = None, json_output: JsonOption = False) -> None:
    """List every loss with its defaults."""
    register_terms(terms or ())
    if json_output:
        print_json([describe(entry) for entry in LOSSES])
        return
    from rich.table import Table

    table = Table("loss", "defaults", "what it is", box=None, pad_edge=False)
    for entry in LOSSES:
        defaults = ", ".join(f"{param.name}={text_of(param.default)}" for param in entry.params if param.name != SOURCE)
        table.add_row(entry.name, defaults or "-", entry.summary)
    for alias in ALIASES:
        table.add_row(alias, "-", f"Short for {meaning(alias)}.")
    console().print(table)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A loss, such as focal.", metavar="NAME")],
    terms: TermsOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show one loss: definition, parameters, source, cost."""
    register_terms(terms or ())
    show_loss(name, json_output=json_output)


def show_loss(name: str, *, json_output: bool = False) -> None:
    """Print the definition of a loss, or of what an alias stands for.

    Raises:
        ProveError: no loss of that name.
    """
    if name not in LOSSES and name not in ALIASES:
        raise unknown("loss", name, (*LOSSES.names, *ALIASES))
    entry = LOSSES.get(ALIASES[name][0] if name in ALIASES else name)
    if json_output:
        print_json(describe(entry))
        return
    from rich.table import Table

    out = console()
    if name in ALIASES:
        out.print(f"{name} is short for {meaning(name)}.\n")
    out.print(entry.name, entry.summary, sep="  ")
    facts = Table(box=None, show_header=False, pad_edge=False)
    for label, value in _facts(entry).items():
        facts.add_row(label.replace("_", " "), value)
    out.print(facts)
    if entry.params:
        params = Table("parameter", "default", "takes", "meaning", box=None, pad_edge=False)
        for param in entry.params:
            params.add_row(param.name, text_of(param.default), param.expected, param.doc)
        out.print()
        out.print(params)


def describe(entry: LossEntry) -> dict[str, Any]:
    """An entry as plain JSON types."""
    return {
        "name": entry.name,
        "summary": entry.summary,
        "kind": entry.kind,
        "params": [
            {"name": param.name, "default": param.default, "takes": param.expected, "meaning": param.doc}
            for param in entry.params
        ],
        "aliases": {alias: meaning(alias) for alias, (name, _) in ALIASES.items() if name == entry.name},
        **_facts(entry),
    }


def meaning(alias: str) -> str:
    """What an alias stands for, as text."""
    name, preset = ALIASES[alias]
    return LossTerm(name).with_params(preset).body


def _facts(entry: LossEntry) -> dict[str, str]:
    alone = entry.unfused_because
    return {
        "formula": entry.formula,
        "mean_over": entry.averages,
        "pixel_weight": entry.pixel_weight,
        "cost": entry.cost,
        "fused": f"yes (on its own {alone})" if entry.fused and alone else "yes" if entry.fused else f"no: {alone}",
        "not_to_use": entry.avoid,
        "source": entry.paper,
    }
