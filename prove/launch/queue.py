"""What SLURM says of all launches' jobs: one `squeue` and one `sacct`, whose text pure functions read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from prove.errors import ProveError
from prove.launch.slurm import ask

Element = tuple[str, int]
"""An array job's id and the index of one of its tasks."""

_SQUEUE = "%F|%K|%T|%N|%r|%j"
_SACCT = "JobID,State,ExitCode,NodeList,JobName"

_WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
_RUNNING = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})

Life = Literal["waiting", "running", "over"]


@dataclass(frozen=True)
class TaskStatus:
    """One array element, as SLURM sees it.

    Attributes:
        state: SLURM's word, such as ``RUNNING`` or ``NODE_FAIL``.
        node: where it runs or ran; empty before.
        exit_code: SLURM's ``code:signal``; empty where it does not say.
        reason: why it waits; empty where it does not say.
        name: the job's name.
    """

    state: str
    node: str = ""
    exit_code: str = ""
    reason: str = ""
    name: str = ""

    @property
    def life(self) -> Life:
        """Whether it waits for its turn (again), runs, or is over."""
        if self.state in _WAITING:
            return "waiting"
        return "running" if self.state in _RUNNING else "over"


@dataclass(frozen=True)
class Queue:
    """All that SLURM knows of some jobs.

    Attributes:
        live: what `squeue` listed: what waits or runs, and what has ended lately.
        past: what `sacct` listed; None where there is no accounting on this cluster.
    """

    live: Mapping[Element, TaskStatus] = field(default_factory=dict)
    past: Mapping[Element, TaskStatus] | None = None

    @cached_property
    def jobs(self) -> frozenset[str]:
        """Ids of the array jobs of which it knows an element."""
        return frozenset(job for known in (self.live, self.past or {}) for job, _ in known)

    def find(self, element: Element) -> TaskStatus | None:
        """What is known of an element: the scheduler's word while it has one, else the accounting's."""
        live = self.live.get(element)
        past = (self.past or {}).get(element)
        if live is None or (live.life == "over" and past is not None and past.life == "over"):
            return past
        return live

    def arrays(self, name: str) -> list[str]:
        """Ids of the array jobs of this name, oldest first; not of those that SLURM refused."""
        both = [*self.live.items(), *(self.past or {}).items()]
        taken = {job for (job, _), status in both if status.name == name and status.reason != "BadConstraints"}
        return sorted(taken, key=int)


def query(names: Sequence[str], since: float) -> Queue:
    """Ask SLURM once for jobs of these names, however many.

    Args:
        names: of jobs that may be live or over.
        since: when the oldest of them may have been submitted, seconds since 1970.

    Raises:
        ProveError: it does not answer: then nothing is known.
    """
    live = dict(parse_squeue(ask("squeue", "-h", "-r", "-t", "all", "-o", _SQUEUE, f"--name={','.join(names)}")))
    try:
        past = dict(parse_sacct(_ask_accounting(names, since)))
    except _NoAccounting:
        return Queue(live)
    return Queue(live, past)


class _NoAccounting(Exception):
    """This cluster keeps no accounts."""


def _ask_accounting(names: Sequence[str], since: float) -> str:
    import time

    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 86400))
    try:
        return ask("sacct", "-n", "-P", "-X", "--allusers", f"-o{_SACCT}", f"--name={','.join(names)}", f"-S{start}")
    except ProveError as error:
        if "accounting storage is disabled" in error.message:
            raise _NoAccounting from None
        raise


def parse_squeue(text: str) -> Iterator[tuple[Element, TaskStatus]]:
    """The elements that ``squeue -h -r -o %F|%K|%T|%N|%r|%j`` lists; jobs that are no arrays are left out."""
    for line in text.splitlines():
        job, index, state, node, reason, name = (line.split("|", 5) + [""] * 6)[:6]
        for each in indices(index):
            yield (job, each), TaskStatus(state, node, "", "" if reason == "None" else reason, name)


def parse_sacct(text: str) -> Iterator[tuple[Element, TaskStatus]]:
    """The elements that ``sacct -n -P -X -o JobID,State,ExitCode,NodeList,JobName`` lists, the latest try of each."""
    for line in text.splitlines():
        whole, state, code, node, name = (line.split("|", 4) + [""] * 5)[:5]
        job, _, index = whole.partition("_")
        where = "" if node == "None assigned" else node
        for each in indices(index.strip("[]")):
            yield (job, each), TaskStatus(state.split(" ")[0], where, code, "", name)  # CANCELLED by 1000


def indices(text: str) -> list[int]:
    """The array indices of such as ``7`` or ``0-3,7-9:2%4``; none where it is no such text."""
    found: list[int] = []
    for part in re.sub(r"%\d+$", "", text.strip("[]")).split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part.strip())
        if match is None:
            return []
        first, last, step = (None if each is None else int(each) for each in match.groups())
        assert first is not None
        found.extend(range(first, (first if last is None else last) + 1, step or 1))
    return found


def compressed(job: str, wanted: Iterable[int]) -> str:
    """Elements of an array as `scancel` takes them: ``123_[0-3,7]``."""
    ranges: list[list[int]] = []
    for index in sorted(wanted):
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return f"{job}_[{','.join(str(a) if a == b else f'{a}-{b}' for a, b in ranges)}]"
