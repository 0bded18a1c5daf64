"""The terms of a user's own that this process knows, beside those of the catalogue."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prove.catalog.losses import ALIASES, LOSSES
from prove.catalog.registry import Registry
from prove.errors import ProveError
from prove.spec.expr import LossExpr

if TYPE_CHECKING:
    from prove.catalog.term_file import UserTerm

SOURCE = "source"
"""The parameter of each that says which code computes it: ``sha256_`` and 12 hex digits of its Python file."""

USER_TERMS: Registry[UserTerm] = Registry("term of your own")
"""What `register_terms` has made known, by name; each has an entry in `LOSSES` too."""


def register_terms(files: Iterable[str | Path]) -> tuple[UserTerm, ...]:
    """Make terms of a user's own known by name, as their YAML files describe them; no code is executed.

    Registering the same term again changes nothing, wherever its files are.

    Raises:
        ProveError: a file is at fault (see `prove.catalog.term_file.read_term`), a term has the name of a loss that
            PROVE knows, or a different term of that name is known already.
    """
    return tuple(_register(Path(file).expanduser()) for file in files)


def terms_of(expr: LossExpr) -> tuple[UserTerm, ...]:
    """The user's terms in an expression, each once."""
    names = dict.fromkeys(term.name for term in expr.terms if term.name in USER_TERMS)
    return tuple(USER_TERMS.get(name) for name in names)


def require_sources(expr: LossExpr) -> None:
    """Refuse to go on with other code than that which a resolved expression was made for.

    Raises:
        ProveError: a user's term is not known here, or its code is another.
    """
    for term in expr.terms:
        meant = dict(term.params).get(SOURCE)
        if meant is None:
            continue
        if term.name not in USER_TERMS:
            raise ProveError(
                f"The term {term.name!r} of this job is not known here: its files are missing.", hint="Run it anew."
            )
        known = USER_TERMS.get(term.name)
        if known.source != meant:
            raise ProveError(
                f"{known.code} is no longer the code that this job was made from ({known.source}, not {meant}).",
                hint="Run it anew.",
            )


def _register(file: Path) -> UserTerm:
    from prove.catalog.term_file import read_term  # pydantic and yaml load only where a term is named

    term = read_term(file)
    if term.name in USER_TERMS:
        known = USER_TERMS.get(term.name)
        if known != term:
            raise ProveError(
                f"{file}: another term {term.name!r} is in use already, from {known.file}.",
                hint="Give one of them another name. After a change of its code or its YAML, start Python anew.",
            )
        return known
    if term.name in LOSSES or term.name in ALIASES:
        raise ProveError(f"{file}: {term.name!r} is a loss that PROVE knows.", hint="Choose another name.")
    LOSSES.add(term.entry)
    return USER_TERMS.add(term)
