"""How often a pool does what, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds of all that a pool does by the clock.

    Attributes:
        tick: between two looks at what the runs report.
        watch: between two looks at what was called off.
        heartbeat: between two touches of the launch's heartbeat.
        grace: from SIGTERM to SIGKILL. A worker that validates when it is told to stop does that first.
        again: until a run that could not be started is tried again.
        pause: that a turn of the loop may take. After a longer one (the machine or this process was suspended), others
            may have taken the launch for dead, and its runs on themselves: then it is closed.
    """

    tick: float = 0.25
    watch: float = 1.0
    heartbeat: float = 30.0
    grace: float = 300.0
    again: float = 5.0
    pause: float = 300.0


TIMING = Timing()
