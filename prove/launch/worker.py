"""Starts workers. A worker is a process of its own that knows nothing but its run folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from prove.rundir import RunDir


def start_worker(run: RunDir) -> subprocess.Popen[bytes]:
    """Start the worker of a run folder, detached from this terminal's Ctrl-C: the caller passes it on."""
    return subprocess.Popen(
        [sys.executable, "-m", "prove.training", str(run.path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def follow(run: RunDir, worker: subprocess.Popen[bytes], start: int) -> Iterator[dict[str, Any] | None]:
    """Events of a run folder from byte ``start`` on, as they are written, until the worker has ended.

    Yields None where there is nothing new, about five times a second.
    """
    position = start
    while True:
        ended = worker.poll() is not None
        events, position = read_events(run, position)
        yield from events
        if ended:
            return
        yield None
        try:
            worker.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            continue


def events_since(run: RunDir, start: int) -> list[dict[str, Any]]:
    """Events of a run folder from byte ``start`` on; a last line without its end is left out."""
    return read_events(run, start)[0]


def read_events(run: RunDir, start: int) -> tuple[list[dict[str, Any]], int]:
    """Events of a run folder from a byte on, and where they end; a last line without its end is left out."""
    try:
        with open(run.events, "rb") as file:
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return [], start
    end = data.rfind(b"\n") + 1
    events = []
    for line in data[:end].splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a line that a kill cut short; the store reports it
        if isinstance(event, dict) and "kind" in event:
            events.append(event)
    return events, start + end
