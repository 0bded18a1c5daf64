"""How many runs go on side by side: on made-up machines, and with what NVIDIA's tool prints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from prove.errors import ProveError
from prove.launch import slots as module
from prove.launch.slots import (
    CONTEXT_MIB,
    FRAGMENTED,
    Gpu,
    Machine,
    Slot,
    fits,
    gpus_of,
    machine_for,
    slots,
    visible_gpus,
)

LAPTOP = Machine(cores=8, memory_gib=16)
BOX = Machine(cores=16, memory_gib=128, gpus=(Gpu("0", 80_000), Gpu("GPU-ab12", 80_000)))


def shape(found: tuple[Slot, ...]) -> list[tuple[str, int]]:
    return [(slot.name, slot.threads) for slot in found]


@pytest.mark.parametrize(
    ("machine", "runs", "wanted", "expected"),
    [
        (LAPTOP, 100, {}, (8, 1)),  # a core each
        (LAPTOP, 3, {}, (3, 2)),  # few runs share the cores
        (Machine(64, 16.0), 100, {}, (8, 8)),  # 2 GiB each
        (Machine(1, 0.5), 100, {}, (1, 1)),
        (LAPTOP, 100, {"jobs": 2}, (2, 4)),
        (LAPTOP, 100, {"jobs": 20}, (20, 1)),  # more than cores, if that is what is wanted
        (LAPTOP, 100, {"threads": 3}, (2, 3)),  # as many as the cores bear
        (LAPTOP, 100, {"workers": 1}, (4, 1)),  # a process that loads data takes a core too
        (LAPTOP, 100, {"workers": 2, "jobs": 2}, (2, 2)),
        (LAPTOP, 0, {}, (1, 8)),
    ],
)
def test_without_gpus(machine: Machine, runs: int, wanted: dict[str, Any], expected: tuple[int, int]) -> None:
    found = slots(machine, runs, **wanted)
    assert shape(found) == [(f"cpu:{number}", expected[1]) for number in range(expected[0])]
    assert all(slot.gpu is None and not slot.environment for slot in found)


def test_one_run_per_gpu() -> None:
    found = slots(BOX, 100)
    assert shape(found) == [("gpu:0", 8), ("gpu:1", 8)]
    assert [slot.environment for slot in found] == [{"CUDA_VISIBLE_DEVICES": name} for name in ("0", "GPU-ab12")]
    assert [slot.shared_mib for slot in found] == [None, None]


def test_several_per_gpu_begin_on_all() -> None:
    found = slots(BOX, 100, per_gpu=2, workers=2)
    assert shape(found) == [("gpu:0.0", 2), ("gpu:1.0", 2), ("gpu:0.1", 2), ("gpu:1.1", 2)]
    assert slots(BOX, 100, per_gpu=2, jobs=3)[-1].name == "gpu:0.1"
    assert len(slots(BOX, 3, per_gpu=2)) == 3


def test_auto_leaves_it_to_the_memory() -> None:
    found = slots(BOX, 100, per_gpu="auto")
    assert len(found) == 16
    assert {slot.shared_mib for slot in found} == {80_000}
    assert sum(slot.threads for slot in found) <= 16
    unknown = Machine(cores=16, memory_gib=128, gpus=(Gpu("0"),))
    assert shape(slots(unknown, 100, per_gpu="auto")) == [("gpu:0", 16)]


@pytest.mark.parametrize("wanted", [{"jobs": 0}, {"threads": -1}, {"per_gpu": 0}])
def test_numbers_below_one(wanted: dict[str, Any]) -> None:
    with pytest.raises(ProveError, match="is less than 1"):
        slots(BOX, 5, **wanted)


def test_sharing_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ProveError, match="no GPU is visible"):
        slots(LAPTOP, 5, per_gpu="auto")


def test_what_fits() -> None:
    each = (0.9 * 80_000 / 4 - CONTEXT_MIB) / FRAGMENTED  # four just fit
    assert fits(80_000, [], None)  # the first one always
    assert fits(80_000, [each] * 3, each)
    assert not fits(80_000, [each] * 4, each)
    assert not fits(80_000, [each] * 3, each * 1.01)
    assert not fits(80_000, [10.0], None)  # nobody knows
    assert not fits(80_000, [None], 10.0)


LISTING = """GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-aaaa1111-0)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-bbbb2222-0)
  MIG 3g.40gb     Device  0: (UUID: MIG-cccc3333)
  MIG 1g.10gb     Device  1: (UUID: MIG-dddd4444)
"""
MEMORY = "0, GPU-aaaa1111-0, 81920\n1, GPU-bbbb2222-0, [N/A]\n"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [("0", 81920), ("MIG-cccc3333", 40960), ("MIG-dddd4444", 10240)]),
        ("0", [("0", 81920)]),
        ("GPU-aaaa", [("GPU-aaaa", 81920)]),
        ("MIG-dddd4444,0", [("MIG-dddd4444", 10240), ("0", 81920)]),
        ("1", [("1", None)]),
        ("0,-1,1", [("0", 81920)]),
        ("", []),
        ("MIG-GPU-old/1/0", [("MIG-GPU-old/1/0", None)]),
    ],
)
def test_gpus_are_named_as_cuda_names_them(visible: str | None, expected: list[tuple[str, float | None]]) -> None:
    assert [(gpu.name, gpu.memory_mib) for gpu in gpus_of(visible, LISTING, MEMORY)] == expected


def test_without_nvidias_tool_the_visible_devices_are_known() -> None:
    assert gpus_of("0,3", "", "") == (Gpu("0"), Gpu("3"))
    assert gpus_of(None, "", "") == ()


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an NVIDIA driver, and a folder for its tool."""
    monkeypatch.setattr(module, "DRIVER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def tool(folder: Path, script: str) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)


def test_a_driver_that_does_not_answer_is_not_the_same_as_no_gpu(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProveError, match=r"GPUs can't be asked for: nvidia-smi can't be run") as caught:
        visible_gpus()
    assert "--device cpu" in str(caught.value.hint)
    tool(driver, "echo Driver/library version mismatch; exit 18")
    with pytest.raises(ProveError, match=r"nvidia-smi failed with code 18 \(Driver/library version mismatch\)"):
        visible_gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(ProveError, match="failed with code 18"):
        machine_for(["cpu", "auto"])
    assert machine_for(["cpu"]).gpus == ()  # nobody needs to know
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    tool(driver, "exec /bin/sleep 60")
    with pytest.raises(ProveError, match="nvidia-smi has not answered for"):
        visible_gpus()


def test_gpus_that_are_named_or_hidden_need_no_tool(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert visible_gpus() == (Gpu("3"),)
    tool(driver, "exit 18")
    for hidden in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert visible_gpus() == ()


def test_what_the_tool_says(driver: Path) -> None:
    tool(driver, f"if [ $1 = -L ]; then echo '{LISTING}'; else echo '{MEMORY.strip()}'; fi")
    assert [gpu.name for gpu in machine_for(["auto"]).gpus] == ["0", "MIG-cccc3333", "MIG-dddd4444"]


def test_this_machine() -> None:
    here = machine_for(["cpu"])
    assert 1 <= here.cores <= len(os.sched_getaffinity(0))
    assert 0 < here.memory_gib <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
