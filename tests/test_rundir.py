import fcntl
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from threading import Timer
from typing import IO

import pytest

from prove.errors import ProveError
from prove.rundir import RunDir, read_json, write_atomically, write_json


def run_python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


HOLDER = """
    import os, sys, time
    from pathlib import Path
    from prove.rundir import RunDir
    with RunDir(Path(sys.argv[1])).lock():
        if len(sys.argv) > 2:
            child = os.fork()
            if child == 0:
                os.close(0)
                print(os.getpid(), flush=True)
                time.sleep(600)
                os._exit(0)
        else:
            print("held", flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir.of(tmp_path, "0123456789ab")
    run.create()
    return run


def test_one_worker_at_a_time(run: RunDir) -> None:
    assert run.is_held() is False
    with run_python(HOLDER, run.path) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert run.is_held() is True
        with pytest.raises(ProveError, match="being trained by another process"), run.lock():
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert run.is_held() is False
        with run.lock():
            assert run.is_held() is True
    assert run.is_held() is False


def test_children_of_a_killed_worker_do_not_hold_its_folder(run: RunDir) -> None:
    with run_python(HOLDER, run.path, "fork") as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            assert run.is_held() is True
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
            os.kill(child, 0)  # it lives
            assert run.is_held() is False
        finally:
            os.kill(child, signal.SIGKILL)


def test_looking_does_not_stop_a_worker_from_starting(run: RunDir) -> None:
    with open(run.path / "worker.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # somebody looks, and is slow
        Timer(0.2, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        with run.lock():
            assert run.is_held() is True


def test_two_who_look_do_not_see_each_other(run: RunDir) -> None:
    with open(run.path / "worker.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert run.is_held() is False


def test_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_colleagues_may_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "x.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o640


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProveError, match="There is no"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ProveError, match="can't be read"):
        read_json(tmp_path / "bad.json")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(ProveError, match="can't be written"):
        RunDir.of(tmp_path, "0123456789ab").create()


def test_checkpoints_newest_first(run: RunDir) -> None:
    for name in ("iter_5.pth", "iter_40.pth", "iter_20.pth", "best.pth", "iter_x.pth", ".iter_60.pth.1.ab"):
        (run.checkpoints / name).touch()
    assert run.saved_iterations() == [40, 20, 5]
    assert run.checkpoint(40) == run.checkpoints / "iter_40.pth"


def test_a_lock_is_that_of_the_folder_which_is_there_now(run: RunDir) -> None:
    """Who waits for the lock of a folder that is deleted meanwhile, and made anew, does not get the old one."""
    with open(run.worker_lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # somebody looks, and is slow

        def replace() -> None:
            run.path.rename(run.path.with_name("gone"))
            run.create()
            fcntl.flock(file, fcntl.LOCK_UN)

        Timer(0.2, replace).start()
        with run.lock():
            assert run.is_held() is True
    assert run.is_held() is False


def test_one_who_is_late_does_not_hold_a_moved_folder_beside_its_new_worker(run: RunDir) -> None:
    with open(run.worker_lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the worker of the folder that is moved

        def replace() -> None:
            run.path.rename(run.path.with_name("gone"))
            run.create()

        Timer(0.2, replace).start()
        with run.lock():  # not refused: nobody holds the new one
            assert run.is_held() is True
