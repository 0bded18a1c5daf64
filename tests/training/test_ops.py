"""What stands in for mmcv's compiled extension, and when."""

from __future__ import annotations

import importlib
import itertools
import pathlib
import re
import sys
from collections.abc import Iterator

import pytest
import torch

from prove.errors import ProveError
from prove.training import ops as supplied
from prove.training.stack import load_stack

load_stack()

import mmcv  # noqa: E402
from mmcv import ops  # noqa: E402

pytestmark = pytest.mark.skipif(
    not isinstance(sys.modules[supplied.EXTENSION], supplied._Extension), reason="mmcv has its own compiled operators"
)


def names_that_mmcv_asserts() -> set[str]:
    folder = pathlib.Path(ops.__file__).parent
    lists = (
        re.findall(r"load_ext\(\s*'_ext',\s*\[(.*?)\]", file.read_text(), re.DOTALL) for file in folder.glob("*.py")
    )
    return set(re.findall(r"'(\w+)'", " ".join(itertools.chain(*lists))))


def test_every_operator_is_supplied_or_says_what_is_missing() -> None:
    extension = importlib.import_module("mmcv._ext")
    assert importlib.util.find_spec("mmcv._ext") is extension.__spec__ is not None
    names = names_that_mmcv_asserts()
    assert names > set(supplied.SUPPLIED)
    for name in names - set(supplied.SUPPLIED):
        with pytest.raises(NotImplementedError, match=f"'{name}'.*\n.*compiled"):
            getattr(extension, name)(torch.zeros(1), some_option=1)
    assert not hasattr(extension, "__path__")


def test_an_operator_that_is_not_supplied_raises_through_mmcv() -> None:
    boxes, scores = torch.rand(2, 5), torch.rand(2)
    with pytest.raises(ProveError, match="'nms_rotated' needs compiled code") as raised:
        ops.nms_rotated(boxes, scores, 0.5)
    assert isinstance(raised.value, supplied.MissingOperatorError)


def test_versions_are_reported() -> None:
    assert torch.__version__ in ops.get_compiler_version()
    assert ops.get_compiling_cuda_version()


@pytest.fixture
def built_extension(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A file where mmcv's compiled extension would be, with nothing installed yet."""
    monkeypatch.setattr(mmcv, "__path__", [*mmcv.__path__, str(tmp_path)])
    monkeypatch.setattr(mmcv, "_ext", None)
    monkeypatch.delitem(sys.modules, supplied.EXTENSION)
    file = tmp_path / "_ext.py"
    yield file
    importlib.invalidate_caches()


def test_a_compiled_extension_is_used_untouched(built_extension: pathlib.Path) -> None:
    built_extension.write_text("nms = 'compiled'\n")
    assert supplied.install()
    assert supplied.install()
    extension = sys.modules[supplied.EXTENSION]
    assert extension.__file__ == str(built_extension)
    assert extension.nms == "compiled"
    assert not hasattr(extension, "softnms")


def test_a_compiled_extension_that_does_not_load_is_an_error(built_extension: pathlib.Path) -> None:
    built_extension.write_text("raise ImportError('undefined symbol: _ZN2at')\n")
    with pytest.raises(ProveError, match=r"undefined symbol: _ZN2at\n.*Rebuild mmcv"):
        supplied.install()


def test_without_a_compiled_extension_install_supplies_and_repeats(
    built_extension: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not built_extension.exists()
    assert not supplied.install()
    extension = sys.modules[supplied.EXTENSION]
    assert not supplied.install()
    assert sys.modules[supplied.EXTENSION] is extension
    assert mmcv._ext is extension
