"""What a user sees instead of a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ProveError(Exception):
    """A request that can't be carried out.

    Args:
        message: what is wrong and where, one sentence or a few lines.
        hint: what to do about it; empty when the message says so already.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def nearest(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """The choices closest to a misspelt name, best first; compared without regard to case."""
    by_folded = {choice.casefold(): choice for choice in choices}
    matches = difflib.get_close_matches(name.casefold(), by_folded, n=count, cutoff=0.5)
    return [by_folded[match] for match in matches]


def unknown(kind: str, name: str, choices: Iterable[str], *, where: str = "") -> ProveError:
    """The error for a name that is not in a catalogue: names the nearest choices, or all of them.

    Args:
        kind: what the name should have named, such as "loss" or "model".
        where: where it stood, such as ``in "ce + 0.3*lovas" (column 10)``.
    """
    options = sorted(choices)
    close = nearest(name, options)
    place = f" {where}" if where else ""
    if close:
        hint = f"Did you mean {' or '.join(repr(c) for c in close)}?"
        if len(options) <= 12:
            hint += f" Valid: {', '.join(options)}."
    else:
        hint = f"Valid: {', '.join(options)}."
    return ProveError(f"Unknown {kind} {name!r}{place}.", hint=hint)
