"""A run of a pool while it has a slot."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from prove.launch.slots import Slot
from prove.launch.trail import Trail
from prove.launch.view import RunView
from prove.launch.waiting import Entry


@dataclass
class Active:
    """A run that has a slot.

    Attributes:
        shared: whether it began on a GPU that another run was on.
        first: iterations that it had when it was started.
        spoken: attempts that had said something by then.
        attempt: how often it was started here, this time included.
        began: when, on the monotonic clock; ``started_at``: in seconds since 1970.
        called_off: whether somebody wants it stopped.
        told: when it was told to stop.
        orphan: its process, when its zygote is gone.
    """

    entry: Entry
    slot: Slot
    trail: Trail
    shared: bool
    first: int = field(init=False)
    spoken: int = field(init=False)
    attempt: int = field(init=False)
    began: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.time)
    called_off: bool = False
    told: float | None = None
    orphan: int | None = None

    def __post_init__(self) -> None:
        self.first, self.spoken, self.attempt = self.trail.iteration, self.trail.attempts, self.entry.starts

    @property
    def spoke(self) -> bool:
        """Whether this attempt has reported anything."""
        return self.trail.attempts > self.spoken

    @property
    def state(self) -> str:
        """As `prove.launch.view.RunView` has it."""
        return "stopping" if self.told is not None else "running" if self.spoke else "starting"

    def view(self, state: str, message: str = "") -> RunView:
        """The run as it is now."""
        trail = self.trail
        return RunView(
            key=self.entry.key,
            state=state,
            slot=self.slot.name,
            attempt=self.attempt,
            iteration=trail.iteration,
            max_iters=self.entry.max_iters,
            loss=trail.loss,
            miou_percent=trail.miou_percent,
            seconds_per_iteration=trail.seconds_per_iteration,
            started_at=self.started_at,
            message=message,
        )
