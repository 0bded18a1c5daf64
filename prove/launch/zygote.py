"""``python -m prove.launch.zygote MODULE:FUNCTION``: imports the worker once, then forks it for each run.

What it is told and what it answers are single messages, JSON, over the socket that is its standard input.

Told:

    {"start": id, "run": path, "environment": {name: value}}     fork a worker, which calls FUNCTION([path])
    {"signal": id, "number": n}                                  SIGKILL goes to all processes of the worker

Answers:

    {"ready": pid}                                               once, when MODULE is imported
    {"started": id, "pid": pid}
    {"ended": id, "status": code, "said": text}                  code: as `subprocess` has it, -n for signal n;
                                                                 text: what it wrote before it had a log of its own

When the other end of the socket is gone, however that came about, its workers get SIGTERM, and after ``--grace``
seconds SIGKILL; then it ends itself. When it is killed, the kernel sends SIGTERM to its workers.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

Worker = Callable[[list[str]], int]

LARGEST = 2**17
"""Bytes of the longest message."""

SAID = 4000
"""Bytes, from the end, of what a worker wrote before it had a log."""

IMPORT_FAILED = 3
"""Exit code when the worker's module can't be imported: standard error says why."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class _Child:
    """A worker: its number in the messages, and the file that it wrote to before it had a log."""

    number: int
    output: int


class Zygote:
    """Forks workers and reports on them, in one thread.

    Args:
        control: the socket to the pool.
        worker: what each fork calls.
        grace: seconds from SIGTERM to SIGKILL when the pool is gone.
    """

    def __init__(self, control: socket.socket, worker: Worker, grace: float) -> None:
        self._control, self._worker, self._grace = control, worker, grace
        self._children: dict[int, _Child] = {}
        self._woken, self._waker = os.pipe()
        for end in (self._woken, self._waker):
            os.set_blocking(end, False)

    def serve(self) -> None:
        """Do what is asked until the other end is gone, then end all workers."""
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        try:
            self._answer({"ready": os.getpid()})
            with selectors.DefaultSelector() as selector:
                selector.register(self._control, selectors.EVENT_READ)
                selector.register(self._woken, selectors.EVENT_READ)
                while True:
                    for ready, _ in selector.select():
                        if ready.fileobj is self._control:
                            message = self._control.recv(LARGEST)
                            if not message:
                                return
                            self._obey(json.loads(message))
                        else:
                            os.read(self._woken, 4096)
                    self._reap()
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            self._end_all()

    def _obey(self, message: dict[str, Any]) -> None:
        if "start" in message:
            self._start(message)
        else:
            for pid, child in self._children.items():
                if child.number == message["signal"]:
                    _signal(pid, message["number"])

    def _start(self, message: dict[str, Any]) -> None:
        number = message["start"]
        zygote = os.getpid()
        try:
            output = os.memfd_create("output")
        except OSError as error:
            self._answer({"ended": number, "status": 70, "said": f"no worker could be started: {error}"})
            return
        try:
            pid = os.fork()
        except OSError as error:
            os.close(output)
            self._answer({"ended": number, "status": 70, "said": f"no worker could be started: {error}"})
            return
        if not pid:
            self._become_worker(message, output, zygote)
        self._children[pid] = _Child(number, output)
        self._answer({"started": number, "pid": pid})

    def _become_worker(self, message: dict[str, Any], output: int, zygote: int) -> NoReturn:
        code = 70
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _end_with_parent(zygote)
            self._control.close()
            nothing = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((nothing, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            for fd in (nothing, output, self._woken, self._waker, *(each.output for each in self._children.values())):
                os.close(fd)
            os.environ.update(message["environment"])
            code = self._worker([message["run"]])
        except SystemExit as request:
            code = request.code if isinstance(request.code, int) else int(request.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        """Report the workers that have ended."""
        while self._children:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            _signal(ended.si_pid, signal.SIGKILL)  # what it left running; its number is taken until it is waited for
            status = os.waitstatus_to_exitcode(os.waitpid(ended.si_pid, 0)[1])
            child = self._children.pop(ended.si_pid, None)
            if child is not None:
                said = _tail(child.output)
                os.close(child.output)
                self._answer({"ended": child.number, "status": status, "said": said})

    def _answer(self, message: dict[str, Any]) -> None:
        self._control.send(json.dumps(message).encode())

    def _end_all(self) -> None:
        self._control.close()
        for pid in self._children:
            _signal(pid, signal.SIGTERM)
        self._wait(self._grace)
        for pid in self._children:
            _signal(pid, signal.SIGKILL)
        self._wait(10.0)

    def _wait(self, seconds: float) -> None:
        """Wait for the workers, so long at most."""
        deadline = time.monotonic() + seconds
        while self._children and time.monotonic() < deadline:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                time.sleep(0.02)
                continue
            _signal(ended.si_pid, signal.SIGKILL)
            os.waitpid(ended.si_pid, 0)
            self._children.pop(ended.si_pid, None)


def load(name: str) -> Worker:
    """The function that ``MODULE:FUNCTION`` names, imported."""
    module, _, function = name.partition(":")
    worker: Worker = getattr(importlib.import_module(module), function)
    return worker


def main(arguments: list[str] | None = None) -> int:
    """Serve the socket on standard input.

    Returns:
        0, or `IMPORT_FAILED`.
    """
    parser = argparse.ArgumentParser(prog="python -m prove.launch.zygote", description="Forks workers for a pool.")
    parser.add_argument("worker", metavar="MODULE:FUNCTION")
    parser.add_argument("--grace", type=float, default=300.0, metavar="SECONDS")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    _end_with_parent(os.getppid())  # until it listens, it would not notice that the pool is gone
    try:
        worker = load(asked.worker)
    except Exception:
        traceback.print_exc()
        return IMPORT_FAILED
    _outlive_parent()
    gc.collect()
    gc.freeze()  # a collection in a fork would touch, and so copy, all that was imported
    Zygote(control, worker, asked.grace).serve()
    return 0


def _signal(pid: int, number: int) -> None:
    """Signal a worker that has not been waited for; SIGKILL goes to all of its session."""
    try:
        if number == signal.SIGKILL:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        if number == signal.SIGKILL:
            os.kill(pid, number)  # it has not become the leader of its own session yet


def _end_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent is gone, also when it went a moment ago."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


def _outlive_parent() -> None:
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)


def _tail(file: int) -> str:
    size = os.fstat(file).st_size
    return os.pread(file, SAID, max(0, size - SAID)).decode(errors="replace").strip()


if __name__ == "__main__":
    sys.exit(main())
