"""What a sweep shows while it trains."""

import io
import re
import sys
from dataclasses import replace

import pytest

from prove.cli.live import Live
from prove.cli.sweeping import names_of
from prove.launch.view import PoolView, RunView
from tests.journal import make_job

RUN = RunView("0123456789ab", "running", "cpu:0", 1, 30, 60, 1.25, 12.345, 2.0, 0.0)
VIEW = PoolView(active=(RUN,), ended=(), queued=2, finished=1, failed=0, eta_seconds=3700.0, stopping=False)


def test_names_say_what_differs() -> None:
    one = make_job(0)
    other = make_job(1, train=replace(one.train, lr=0.5))
    assert list(names_of([one, other]).values()) == [
        "ce + 0.3*focal, lr 0.01, seed 0",
        "ce + 0.3*focal, lr 0.5, seed 1",
    ]
    assert names_of([one]) == {one.key: "ce + 0.3*focal, seed 0"}


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    names = {RUN.key: "ce, seed 0", "b": "ce, seed 1"}
    with Live(names) as live:
        live.show(VIEW)  # too early for a summary
        live.show(replace(VIEW, ended=(replace(RUN, state="finished", iteration=60),)))
        live.show(replace(VIEW, ended=(replace(RUN, state="failed", message="diverged: [ce] is nan"),)))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "0123456789ab  ce, seed 0  finished: mIoU 12.35",
        "0123456789ab  ce, seed 0  failed at iteration 30: diverged: [ce] is nan",
    ]


def test_nothing_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Live({RUN.key: "ce"}, quiet=True) as live:
        live.show(replace(VIEW, ended=(RUN,)))
    assert capsys.readouterr() == ("", "")


def test_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with Live({RUN.key: "ce + 0.3*focal(alpha=[0.25]), seed 0", "b": "", "c": "", "d": ""}) as live:
        live.show(replace(VIEW, stopping=True))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    for fact in ("ce + 0.3*focal(alpha=[0.25]), seed 0", "30/60", "1.25", "12.35", "60 s", "4 runs: 1 finished",
                 "Ctrl-C again"):  # fmt: skip
        assert fact in " ".join(shown.split()), fact
    assert max(map(len, shown.splitlines())) <= 100
