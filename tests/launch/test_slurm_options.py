"""Options of the SLURM launcher: what is refused, how a profile counts, what the batch script says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prove.errors import ProveError
from prove.launch import slurm_options
from prove.launch.folder import LaunchDir
from prove.launch.slurm import command
from prove.launch.slurm_options import SlurmOptions, time_seconds


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of profiles, which is not there."""
    file = tmp_path / "slurm.yaml"
    monkeypatch.setattr(slurm_options, "profiles_file", lambda: file)
    return file


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90 * 60),
        ("12:30", 12 * 60 + 30),
        ("12:00:00", 12 * 3600),
        ("2-00", 2 * 86400),
        ("2-06:30", 2 * 86400 + 6 * 3600 + 30 * 60),
        ("1-00:00:30", 86400 + 30),
        ("0", None),
        ("12h", None),
        ("", None),
        ("1:2:3:4", None),
    ],
)
def test_times_as_sbatch_reads_them(text: str, seconds: int | None) -> None:
    assert time_seconds(text) == seconds


def test_what_is_given() -> None:
    options = SlurmOptions.from_mapping(
        {
            "partition": "gpu",
            "gpus": 1,
            "cpus": "4",
            "memory": "32gb".upper(),
            "time": "12:00:00",
            "setup": "module load cuda\nexport A=1",
            "directives": {"mail_type": "END", "--exclusive": True},
            "constraint": None,
        },
        "in launch",
    )
    assert (options.partition, options.gpus, options.cpus, options.memory) == ("gpu", "1", 4, "32G")
    assert options.setup == ("module load cuda", "export A=1")
    assert options.directives == {"mail-type": "END", "exclusive": True}
    assert SlurmOptions.from_dict(options.to_dict()) == options


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"partion": "x"}, "Did you mean 'partition'"),
        ({"time": 43200}, 'time: "12:00:00"'),
        ({"time": "soon"}, "time limit"),
        ({"memory": 32}, "32G"),
        ({"memory": "32"}, "32G"),
        ({"gpus": "a100"}, "a100:2"),
        ({"gpus": True}, "a100:2"),
        ({"pack": 0}, "from 1"),
        ({"pack_mode": "paralel"}, "Did you mean 'parallel'"),
        ({"requeue": "maybe"}, "true or false"),
        ({"directives": {"array": "0-3"}}, "'parallel'"),
        ({"directives": {"time": "1"}}, "'time'"),
        ({"directives": "exclusive"}, "mapping"),
        ({"setup": [1]}, "shell lines"),
        ({"time": "2", "signal_seconds": 120}, "signal_seconds"),
        ({"partition": "a\nb"}, "one line"),
        ({"profile": "a100"}, "There is no SLURM profile"),
    ],
)
def test_what_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ProveError) as caught:
        SlurmOptions.from_mapping(given, "in launch")
    assert words in str(caught.value)


def test_flags_are_texts() -> None:
    options = SlurmOptions.from_mapping({"requeue": "false", "pack": "4", "time": "90"}, "in --slurm")
    assert (options.requeue, options.pack, options.time) == (False, 4, "90")


def test_a_profile_gives_way_to_what_is_named(profiles: Path) -> None:
    profiles.write_text('default: {account: lab}\na100: {partition: gpu, gpus: "a100:1", time: "12:00:00"}\n')
    options = SlurmOptions.from_mapping({"profile": "a100", "gpus": 2}, "in launch")
    assert (options.partition, options.gpus, options.time, options.account) == ("gpu", "2", "12:00:00", None)
    assert SlurmOptions.from_mapping({}, "in launch").account == "lab"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a100: {partition: gpu}\n", "Did you mean 'a100'"),
        ("a10: {partion: gpu}\n", "Did you mean 'partition'"),
        ("a10: gpu\n", "must be a mapping"),
        ("a10: {profile: b}\n", "can't name another"),
        ("a10: [\n", "not valid YAML"),
    ],
)
def test_a_wrong_profile(profiles: Path, text: str, words: str) -> None:
    profiles.write_text(text)
    with pytest.raises(ProveError) as caught:
        SlurmOptions.from_mapping({"profile": "a10"}, "in launch")
    assert words in str(caught.value)
    assert str(profiles) in str(caught.value)


def test_the_command_survives_a_shell(tmp_path: Path) -> None:
    import shlex

    folder = LaunchDir(tmp_path / "it's a place; $HOME" / "launches" / "one")
    words = shlex.split(command(folder, 1000, SlurmOptions(cpus=3)))
    assert words[0] == "exec"
    assert "--cpus-per-task=3" in words
    assert words[-3:] == [str(folder.path), "--offset", "1000"]
