"""Where the runs of a SLURM task go."""

from typing import Any

import pytest
from launches import assignment

from prove.errors import ProveError
from prove.launch import task
from prove.launch.folder import Assignment
from prove.launch.slots import Gpu, Machine
from prove.launch.slurm_options import SlurmOptions


def run(seed: int, cuda: bool) -> Assignment:
    placement: dict[str, Any] = {**assignment(seed).placement, "cuda": cuda, "num_workers": 0}
    return assignment(seed, placement=placement)


def test_gpus_that_were_asked_for_and_are_not_there_are_no_reason_to_use_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(task, "this_machine", lambda: Machine(cores=8, memory_gib=64.0))
    with pytest.raises(ProveError, match=r"gpus=a100:2, but sees none"):
        task.places(SlurmOptions(gpus="a100:2"), [run(0, cuda=True)], {})
    on_purpose = task.places(SlurmOptions(gpus="1"), [run(0, cuda=False)], {"SLURM_CPUS_PER_TASK": "4"})
    assert [(slot.gpu, slot.threads) for slot in on_purpose] == [(None, 4)]
    assert [slot.gpu for slot in task.places(SlurmOptions(), [run(0, cuda=True)], {})] == [None]


def test_runs_side_by_side_share_the_gpus_and_cores_of_the_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Machine(cores=64, memory_gib=512.0, gpus=(Gpu("3"), Gpu("5")))
    monkeypatch.setattr(task, "this_machine", lambda: two)
    four = [run(seed, cuda=True) for seed in range(4)]
    environment = {"SLURM_CPUS_PER_TASK": "8"}
    places = task.places(SlurmOptions(gpus="2", pack=4, pack_mode="parallel"), four, environment)
    assert sorted((slot.gpu, slot.threads) for slot in places) == [("3", 2), ("3", 2), ("5", 2), ("5", 2)]
    one_by_one = task.places(SlurmOptions(gpus="2", pack=4), four, environment)
    assert [(slot.gpu, slot.threads) for slot in one_by_one] == [("3", 8)]
