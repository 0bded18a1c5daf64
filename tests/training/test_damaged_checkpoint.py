"""A checkpoint that can't be read is refused in one line that is PROVE's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prove.training.stack import load_stack

load_stack()

import torch  # noqa: E402

from prove.errors import ProveError  # noqa: E402
from prove.training.runner import load_checkpoint, save_checkpoint  # noqa: E402


def flipped(content: bytes) -> bytes:
    """With one bit of a tensor turned."""
    middle = content.index(torch.arange(1000.0).numpy().tobytes()[400:440])
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[: len(content) // 2], "is damaged: it is cut off, or was never a checkpoint"),
        (lambda content: b"", "is damaged"),
        (lambda content: b"PK nothing of use", "is damaged"),
        (lambda content: content[:-30], "is damaged"),
        (flipped, "is damaged: archive/data/0 in it is not what was written."),
    ],
)
def test_damage_is_said_in_one_line(damage: Callable[[bytes], bytes], said: str, tmp_path: Path) -> None:
    file = tmp_path / "last.pth"
    save_checkpoint(file, {"state_dict": {"w": torch.arange(1000.0)}, "iteration": 3})
    assert load_checkpoint(file)["iteration"] == 3
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ProveError) as caught:
        load_checkpoint(file)
    assert caught.value.message.startswith(f"The checkpoint {file} {said}")
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_what_is_pickled_is_not_executed_and_no_advice_is_given_to_do_so(tmp_path: Path) -> None:
    file = tmp_path / "last.pth"
    torch.save({"path": file}, file)
    with pytest.raises(ProveError) as caught:
        load_checkpoint(file)
    assert str(caught.value) == (f"The checkpoint {file} holds more than tensors and plain values.")


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(ProveError, match="can't be read: No such file or directory"):
        load_checkpoint(tmp_path / "none.pth")
