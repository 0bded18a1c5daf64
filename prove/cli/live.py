"""What a user sees while a sweep trains: a table on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from prove.cli.tables import percent, plain_table
from prove.launch.lines import duration, summary

if TYPE_CHECKING:
    from rich.console import RenderableType

    from prove.launch.view import PoolView, RunView

LINE_SECONDS = 30.0
"""Where there is no terminal, a line about the whole is printed at most this often."""

SHOWN = 20
"""Most running runs that the table lists."""


class Live:
    """Shows a pool at work; a context manager.

    Args:
        names: what to call each run, by key.
        quiet: show nothing.
    """

    def __init__(self, names: Mapping[str, str], *, quiet: bool = False) -> None:
        self.names = names
        self.total = len(names)
        self.quiet = quiet
        self._live: Any = None
        self._printed = time.monotonic()

    def __enter__(self) -> Live:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live as Screen

            screen = Console(stderr=True, highlight=False, emoji=False)
            self._live = Screen(console=screen, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, view: PoolView) -> None:
        """Take in the pool as it is now."""
        if self.quiet:
            return
        for run in view.ended:
            self.say(self._ended(run))
        if self._live is not None:
            self._live.update(self._table(view), refresh=True)
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self.say(self._summary(view))

    def say(self, text: str) -> None:
        """One line above the table; none when quiet."""
        if self.quiet:
            return
        self._printed = time.monotonic()
        if self._live is not None:
            self._live.console.print(text, markup=False)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def _ended(self, run: RunView) -> str:
        how = f"mIoU {percent(run.miou_percent)}" if run.state == "finished" else run.message
        reached = "" if run.state == "finished" else f" at iteration {run.iteration}"
        return f"{run.key}  {self.names.get(run.key, '')}  {run.state}{reached}{f': {how}' if how else ''}"

    def _summary(self, view: PoolView) -> str:
        hint = ": each run writes its checkpoint; Ctrl-C again ends them at once" if view.stopping else ""
        return f"{self.total} runs: {summary(view)}{hint}"

    def _table(self, view: PoolView) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = plain_table("key", "run", "on", "iteration", "loss", "mIoU", "s/iter", "left", left=3)
        for run in view.active[:SHOWN]:
            rate = run.seconds_per_iteration
            table.add_row(
                run.key,
                self.names.get(run.key, ""),
                run.slot,
                f"{run.iteration}/{run.max_iters}" if run.state != "starting" else "starting",
                "-" if run.loss is None else f"{run.loss:.4g}",
                percent(run.miou_percent),
                "-" if rate is None else f"{rate:.2f}",
                "-" if rate is None else duration(rate * (run.max_iters - run.iteration)),
            )
        more = len(view.active) - SHOWN
        whole = Table.grid(padding=(0, 1))
        whole.add_row(
            ProgressBar(total=max(1, self.total), completed=view.finished + view.failed, width=30),
            Text(self._summary(view)),
        )
        below = [Text(f"... and {more} more", style="dim")] if more > 0 else []
        return Group(table, *below, whole)
