"""What a worker says, and when it must not go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from prove.errors import ProveError
from prove.rundir import RunDir
from prove.training.recorder import Recorder


def test_attempts_are_counted_and_lines_are_whole(tmp_path: Path) -> None:
    run = RunDir.of(tmp_path, "0123456789ab")
    run.create()
    for _ in range(2):
        with Recorder(run) as recorder:
            recorder.emit("started", device="cpu", max_iters=3, resumed_from=0)
        with open(run.events, "a") as file:
            file.write('{"kind": "tra')  # killed inside a line
    lines = run.events.read_text().splitlines()
    assert [json.loads(lines[number])["attempt"] for number in (0, 2)] == [1, 2]


@pytest.mark.parametrize("anew", [False, True])
def test_a_worker_whose_folder_was_deleted_does_not_go_on(tmp_path: Path, anew: bool) -> None:
    run = RunDir.of(tmp_path, "0123456789ab")
    run.create()
    with Recorder(run) as recorder:
        recorder.emit("started", device="cpu", max_iters=3, resumed_from=0)
        shutil.rmtree(run.path)
        if anew:
            run.create()
            run.events.touch()
        for kind in ("train", "failed"):
            with pytest.raises(ProveError, match="run 0123456789ab was deleted while it was trained"):
                recorder.emit(kind, iteration=1)
    assert not anew or run.events.read_bytes() == b""
