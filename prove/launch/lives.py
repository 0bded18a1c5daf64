"""What a run folder says of the attempts that one launch has made at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prove.rundir import RunDir


@dataclass(frozen=True)
class Lives:
    """The attempts that one launcher has made at a run.

    Attributes:
        attempts: how many have reported something.
        ending: kind of the event that ended the latest one (``finished``, ``failed``, ``interrupted``); None where it
            goes on, or ended without a word, or there was none. A result counts whoever has brought it about.
    """

    attempts: int = 0
    ending: str | None = None

    @classmethod
    def of(cls, run: RunDir, launcher: str, since: float) -> Lives:
        """What is in a run folder.

        Args:
            launcher: what the attempts call the one that has started them.
            since: from when on attempts by the local launcher are this launch's, seconds since 1970. A SLURM job's are
                told by its name, which needs no two clocks that agree.
        """
        from prove.launch.worker import events_since

        return cls.among(events_since(run, 0), launcher, since)

    @classmethod
    def among(cls, events: Iterable[Mapping[str, Any]], launcher: str, since: float) -> Lives:
        """`of`, from events."""
        attempts: dict[Any, bool] = {}
        ending = None
        for event in events:
            kind, number = event["kind"], event.get("attempt")
            if kind == "started":
                local = launcher == "local"
                attempts[number] = event.get("launcher") == launcher and not (local and event["time"] < since)
                ending = None
            mine = attempts.setdefault(number, event.get("time", 0.0) >= since)  # one that failed before it started
            if kind == "finished" or (mine and kind in ("failed", "interrupted")):
                ending = kind
        return cls(sum(attempts.values()), ending)

    @property
    def concluded(self) -> bool:
        """Whether there is nothing more to do."""
        return self.ending in ("finished", "failed")
