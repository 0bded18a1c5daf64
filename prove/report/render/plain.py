"""What no form of a table may take over from a name that comes from outside."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with spaces for white space of any kind, and a sign for what can't be printed.

    An escape sequence in a class name would command the terminal, a NUL is no valid HTML.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}" for char in text
    )
