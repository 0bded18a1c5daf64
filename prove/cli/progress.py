"""What a user sees while a run trains: a bar on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from prove.cli.tables import percent

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

            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[terms]}", markup=False),
                console=Console(stderr=True),
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
        elif kind == "started":
            resumed = f", continuing from iteration {event['resumed_from']}" if event["resumed_from"] else ""
            self.note(f"attempt {event['attempt']} on {event['device']}{resumed}")
            self._describe("checking data, building the model")
        elif kind == "wired":
            self.note(wiring_line(event["evidence"]))
            self._describe("training")
        elif kind == "validated":
            metrics = event["metrics"]
            shown = ", ".join(f"{name} {percent(metrics[name])}" for name in ("mIoU", "aAcc", "mAcc"))
            self.note(f"iteration {event['iteration']}: {shown} on {event['images']} images")

    def _train(self, event: Mapping[str, Any]) -> None:
        terms = "  ".join(f"{name} {value:.3f}" for name, value in event["terms"].items() if value is not None)
        if self._bar is not None:
            self._bar.update(self._task, completed=event["iteration"], terms=terms)
            return
        now = time.monotonic()
        if now - self._printed < LINE_SECONDS and event["iteration"] < self.max_iters:
            return
        self._printed = now
        left = (self.max_iters - event["iteration"]) * event["seconds_per_iteration"]
        self.note(
            f"iteration {event['iteration']}/{self.max_iters}  loss {percent(event['loss'])}  {terms}  "
            f"{clock(left)} left"
        )

    def _describe(self, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=text)


def wiring_line(evidence: Mapping[str, Any]) -> str:
    """The wiring proof in a line: every head, every term, its share of the loss."""
    heads = [
        f"{head['head']}: "
        + " + ".join(f"{term['text']} ({term['loss_share']:.0%} of the loss)" for term in head["terms"])
        for head in evidence["heads"]
    ]
    return "wiring proved: " + "; ".join(heads)


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
