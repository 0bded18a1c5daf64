"""MMSegmentation comes up silently and can build the study's models."""

from __future__ import annotations

import logging
import pathlib
import subprocess
import sys
import warnings
from typing import Any

import cv2
import pytest
import torch

from prove.training.stack import _muted, load_stack, set_threads

load_stack()

import mmseg  # noqa: E402
from mmengine.config import Config, ConfigDict  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402

CONFIGS = pathlib.Path(mmseg.__file__).parent / ".mim" / "configs"
STUDY = {
    "deeplabv3plus_r50": "deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py",
    "pspnet_r50": "pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py",
    "segformer_mit-b3": "segformer/segformer_mit-b3_8xb1-160k_cityscapes-1024x1024.py",
    "segnext_mscan-b": "segnext/segnext_mscan-b_1xb16-adamw-160k_ade20k-512x512.py",
    "hrnet_hr48": "hrnet/fcn_hr48_4xb2-40k_cityscapes-512x1024.py",
    "mask2former_swin-b": "mask2former/mask2former_swin-b-in22k-384x384-pre_8xb2-90k_cityscapes-512x1024.py",
}
HEADS = {
    "deeplabv3plus_r50": "DepthwiseSeparableASPPHead",
    "pspnet_r50": "PSPHead",
    "segformer_mit-b3": "SegformerHead",
    "segnext_mscan-b": "LightHamHead",
    "hrnet_hr48": "FCNHead",
    "mask2former_swin-b": "Mask2FormerHead",
}


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)


def test_loading_prints_nothing_even_where_warnings_are_errors() -> None:
    result = run("from prove.training.stack import load_stack; load_stack()", "-W", "error")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_what_runs_after_loading_prints_and_warns_as_ever() -> None:
    result = run(
        "import sys, warnings\n"
        "from prove.training.stack import load_stack\n"
        "before = sys.stdout, sys.stderr, list(warnings.filters)\n"
        "load_stack()\n"
        "assert before == (sys.stdout, sys.stderr, list(warnings.filters))\n"
        "from mmengine.logging import print_log\n"
        "print_log('to stdout'); warnings.warn('to stderr')\n"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "to stdout\n"
    assert "UserWarning: to stderr" in result.stderr


def test_an_error_while_loading_gets_out() -> None:
    result = run("import sys; sys.modules['mmseg'] = None\nfrom prove.training.stack import load_stack; load_stack()\n")
    assert result.returncode == 1
    assert "ModuleNotFoundError: No module named 'mmseg" in result.stderr


def test_a_stream_kept_while_muted_works_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    with _muted("stdout"):
        kept = sys.stdout
        print("dropped")
    print("kept", file=kept)
    print("own")
    assert capsys.readouterr().out == "kept\nown\n"


def test_loading_again_changes_nothing() -> None:
    modules, handlers = set(sys.modules), list(logging.getLogger().handlers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_stack()
    assert (set(sys.modules), logging.getLogger().handlers) == (modules, handlers)
    assert DefaultScope.get_current_instance().scope_name == "mmseg"


def test_set_threads_reaches_torch_and_opencv() -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        set_threads(1)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def without_weights(node: Any) -> Any:
    """The config without anything that names a file of weights."""
    if isinstance(node, dict):
        return {key: without_weights(value) for key, value in node.items() if key not in ("init_cfg", "pretrained")}
    if isinstance(node, (list, tuple)):
        return type(node)(without_weights(value) for value in node)
    return node


@pytest.mark.filterwarnings("ignore:Default ``avg_non_ignore`` is False")
@pytest.mark.parametrize("name", STUDY)
def test_study_model_builds_from_the_packaged_config(name: str) -> None:
    config = Config.fromfile(CONFIGS / STUDY[name]).model.to_dict()
    model = MODELS.build(ConfigDict(without_weights(config)))
    assert type(model.decode_head).__name__ == HEADS[name]
    assert sum(parameter.numel() for parameter in model.parameters()) > 25e6
