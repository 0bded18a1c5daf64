"""What a user sees while a run trains: a bar on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from prove.spec.narrate import line, terms

if TYPE_CHECKING:
    from rich.progress import TaskID

LINE_SECONDS = 10.0
"""Where there is no terminal, a line about training is printed at most this often."""


class Progress:
    """Shows the events of one run.

    Args:
        max_iters: length of the training.
        quiet: show nothing.
    """

    def __init__(self, max_iters: int, *, quiet: bool = False) -> None:
        self.max_iters = max_iters
        self.quiet = quiet
        self._printed = 0.0
        self._bar: Any = None
        self._task: TaskID | None = None

    def note(self, text: str) -> None:
        """One message; none when quiet."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar
            from rich.table import Column

            self._bar = Bar(
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
                BarColumn(bar_width=16),
                MofNCompleteColumn(table_column=Column(no_wrap=True)),
                TimeRemainingColumn(table_column=Column(no_wrap=True)),
                TextColumn(
                    "{task.fields[terms]}",
                    markup=False,
                    table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
                ),
                console=Console(stderr=True),
                expand=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self.max_iters, terms="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def show(self, event: Mapping[str, Any] | None) -> None:
        """Take in one event; None is a moment in which nothing happened."""
        if event is None or self.quiet:
            return
        kind = event["kind"]
        if kind == "train":
            self._train(event)
        elif kind in ("started", "wired", "validated"):
            self.note(line(event, self.max_iters))
            self._describe("building" if kind == "started" else "training")
        elif kind == "finished" and event["reason"] == "early_stop":
            self.note(line(event, self.max_iters))

    def _train(self, event: Mapping[str, Any]) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=event["iteration"], terms=terms(event))
            return
        now = time.monotonic()
        if now - self._printed < LINE_SECONDS and event["iteration"] < self.max_iters:
            return
        self._printed = now
        self.note(line(event, self.max_iters))

    def _describe(self, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=text)
