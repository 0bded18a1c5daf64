"""How runs are to be launched: what a file and the command line say together."""

from pathlib import Path
from typing import Any

import pytest

from prove.cli.launching import Launched, exit_code, how_to_launch
from prove.errors import ProveError
from prove.launch.view import PoolOutcome
from prove.spec.event import State
from prove.spec.experiment import read_experiment

NONE: dict[str, Any] = {
    "launcher": None, "jobs": None, "per_gpu": None, "threads": None, "max_attempts": None, "detach": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def test_the_local_launcher_is_the_default_and_flags_win_over_the_file() -> None:
    section = {"launcher": "local", "jobs": 4, "threads": 2, "max_attempts": 5}
    how = how_to_launch(section, {**NONE, "jobs": 2}, None)
    assert (how.launcher, dict(how.options), how.max_attempts) == ("local", {"jobs": 2, "threads": 2}, 5)
    assert how_to_launch({}, NONE, None).launcher == "local"


def test_slurm_takes_its_options_from_the_file_and_from_flags() -> None:
    section = {"launcher": "slurm", "partition": "gpu", "gpus": 1, "time": "12:00:00", "pack": 3, "jobs": 2}
    how = how_to_launch(section, NONE, ["partition=long"])
    assert (how.launcher, how.pack, how.options["partition"]) == ("slurm", 3, "long")
    assert (str(how.options["gpus"]), how.options["time"]) == ("1", "12:00:00")


@pytest.mark.parametrize(
    ("section", "flags", "slurm", "attempts"),
    [
        ({}, {}, [], 3),
        ({"max_attempts": 4}, {}, [], 4),
        ({"max_attempts": 4}, {}, ["max_attempts=6"], 6),
        ({"max_attempts": 4}, {"max_attempts": 8}, ["max_attempts=6"], 8),
    ],
)
def test_who_says_how_often_a_run_is_started(
    section: dict[str, Any], flags: dict[str, Any], slurm: list[str], attempts: int
) -> None:
    how = how_to_launch({"launcher": "slurm", **section}, {**NONE, **flags}, slurm)
    assert how.max_attempts == attempts


@pytest.mark.parametrize(
    ("section", "flags", "slurm", "says"),
    [
        ({"launcher": "slrum"}, {}, None, "Did you mean 'slurm'"),
        ({"partitoin": "gpu"}, {}, None, "partition"),
        ({}, {"launcher": "local"}, ["partition=gpu"], "--slurm belongs to --launcher slurm"),
        ({"launcher": "slurm"}, {"detach": True}, None, "--detach is for the local launcher"),
        ({"launcher": "slurm"}, {"jobs": 2}, None, "pack"),
        ({}, {}, ["partition"], "NAME=VALUE"),
        ({"jobs": "many"}, {}, None, "jobs is 'many'"),
        ({"jobs": True}, {}, None, "jobs is True"),
        ({"max_attempts": 0}, {}, None, "max_attempts is 0"),
        ({}, {"per_gpu": "all"}, None, "an integer >= 1 or auto"),
    ],
)
def test_what_contradicts_itself_is_refused(
    section: dict[str, Any], flags: dict[str, Any], slurm: list[str] | None, says: str
) -> None:
    with pytest.raises(ProveError) as refused:
        how_to_launch(section, {**NONE, **flags}, slurm)
    assert says in str(refused.value)


def test_a_mistake_in_a_file_names_its_place(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("matrix: {seed: 0..1}\nlaunch:\n  jobs: -2\n")
    with pytest.raises(ProveError, match=r"x\.yaml:3:9: jobs is -2"):
        how_to_launch(read_experiment(file).launch, NONE, None)


@pytest.mark.parametrize(
    ("outcome", "counts", "code"),
    [
        (None, {State.QUEUED: 4}, 0),
        (None, {State.FINISHED: 3, State.FAILED: 1}, 1),
        (PoolOutcome(finished=("a",)), {State.FINISHED: 1}, 0),
        (PoolOutcome(failed={"a": "killed"}), {State.PLANNED: 1}, 1),
        (PoolOutcome(not_started={"a": "why"}), {State.PLANNED: 1}, 1),
        (PoolOutcome(interrupted=("a",), failed={"b": "killed"}), {State.INTERRUPTED: 1, State.FAILED: 1}, 130),
    ],
)
def test_the_exit_code(outcome: PoolOutcome | None, counts: dict[State, int], code: int) -> None:
    assert exit_code(Launched("x", outcome=outcome), counts) == code
