"""The pool's end of a zygote: has workers forked, and hears what became of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from prove.launch.zygote import LARGEST, SAID


@dataclass(frozen=True)
class Ended:
    """A worker is gone.

    Attributes:
        number: which; None stands for the zygote itself.
        status: its exit code, -n for signal n.
        said: what it wrote before it had a log of its own.
    """

    number: int | None
    status: int
    said: str


class Forks:
    """One zygote and the workers that it has forked.

    Args:
        worker: ``MODULE:FUNCTION``, what each fork calls with ``[RUN_DIR]``.
        environment: of the zygote; its workers inherit it.
        grace: seconds from SIGTERM to SIGKILL for its workers when this process is gone.

    Attributes:
        ready: whether the worker's module is imported.
        pid: the zygote's.
        pids: of the workers that run now, by number.
        forked: whether it has ever forked one.
    """

    def __init__(self, worker: str, environment: Mapping[str, str], grace: float) -> None:
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._output = os.memfd_create("zygote")
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "prove.launch.zygote", worker, "--grace", str(grace)],
                stdin=other.fileno(),
                stdout=self._output,
                stderr=self._output,
                env=environment,
                start_new_session=True,
            )
        self.ready = False
        self.pids: dict[int, int] = {}
        self.forked = False
        self._grace = grace

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def fileno(self) -> int:
        """To wait on: readable when there is something to hear."""
        return self._control.fileno()

    def start(self, number: int, run: Path, environment: Mapping[str, str]) -> None:
        """Fork a worker for a run folder; its environment has these beyond the zygote's."""
        self._tell({"start": number, "run": str(run), "environment": dict(environment)})

    def signal(self, number: int, which: int) -> None:
        """Signal a worker; SIGKILL goes to all of its processes. One that is gone is let be."""
        self._tell({"signal": number, "number": int(which)})

    def hear(self) -> list[Ended]:
        """The workers that have ended since; waits for nothing. When one has ``number`` None, all is over."""
        heard: list[Ended] = []
        while True:
            try:
                message = self._control.recv(LARGEST, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return heard
            except ConnectionResetError:
                message = b""
            if not message:
                return [*heard, self._last_words()]
            told = json.loads(message)
            if "ended" in told:
                self.pids.pop(told["ended"], None)
                heard.append(Ended(told["ended"], told["status"], told["said"]))
            elif "started" in told:
                self.pids[told["started"]] = told["pid"]
                self.forked = True
            else:
                self.ready = True

    def close(self) -> None:
        """End the zygote, which ends the workers that it still has."""
        self._control.close()
        if not self.ready:
            self._process.kill()  # it would first import all that it was about to
        try:
            self._process.wait(self._grace + 15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell(self, message: Mapping[str, object]) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it is gone: the next `hear` says so
            self._control.send(json.dumps(message).encode())

    def _last_words(self) -> Ended:
        status = self._process.wait()
        size = os.fstat(self._output).st_size
        return Ended(None, status, os.pread(self._output, SAID, max(0, size - SAID)).decode(errors="replace").strip())


def is_worker(pid: int) -> bool:
    """Whether a process lives and leads a session, as every worker does and hardly another process of that number."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            state, _, _, session = file.read().rpartition(")")[2].split()[:4]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX" and int(session) == pid


def signal_orphan(pid: int, which: int) -> None:
    """Signal a worker whose zygote is gone; SIGKILL goes to all of its processes."""
    if is_worker(pid):
        with suppress(ProcessLookupError):
            (os.killpg if which == signal.SIGKILL else os.kill)(pid, which)
