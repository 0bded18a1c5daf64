"""Where the runs of a SLURM task go."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from launches import assignment

from prove.errors import ProveError
from prove.launch import task
from prove.launch.folder import Assignment
from prove.launch.slots import Gpu, Machine
from prove.launch.slurm_options import SlurmOptions


def run(seed: int, device: str) -> Assignment:
    return assignment(seed, device=device)


def machine(monkeypatch: pytest.MonkeyPatch, here: Machine) -> None:
    """What there is for runs that may use a GPU; for those that may not, its GPUs are not even looked at."""

    def machine_for(devices: Iterable[str]) -> Machine:
        return here if set(devices) - {"cpu"} else replace(here, gpus=())

    monkeypatch.setattr(task, "machine_for", machine_for)


def test_gpus_that_were_asked_for_and_are_not_there_are_no_reason_to_use_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, Machine(cores=8, memory_gib=64.0))
    for device in ("auto", "cuda"):
        with pytest.raises(ProveError, match=r"gpus=a100:2, but sees none"):
            task.places(SlurmOptions(gpus="a100:2"), [run(0, "cpu"), run(1, device)], {})
    on_purpose = task.places(SlurmOptions(gpus="1"), [run(0, "cpu")], {"SLURM_CPUS_PER_TASK": "4"})
    assert [(slot.gpu, slot.threads) for slot in on_purpose] == [(None, 4)]
    assert [slot.gpu for slot in task.places(SlurmOptions(), [run(0, "auto")], {})] == [None]


def test_runs_side_by_side_share_the_gpus_and_cores_of_the_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Machine(cores=64, memory_gib=512.0, gpus=(Gpu("3"), Gpu("5")))
    machine(monkeypatch, two)
    four = [run(seed, "auto") for seed in range(4)]
    environment = {"SLURM_CPUS_PER_TASK": "8"}
    places = task.places(SlurmOptions(gpus="2", pack=4, pack_mode="parallel"), four, environment)
    assert sorted((slot.gpu, slot.threads) for slot in places) == [("3", 2), ("3", 2), ("5", 2), ("5", 2)]
    one_by_one = task.places(SlurmOptions(gpus="2", pack=4), four, environment)
    assert [(slot.gpu, slot.threads) for slot in one_by_one] == [("3", 8)]
