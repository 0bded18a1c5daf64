"""What tests of several packages share: a cache of their own, and a small dataset on disk."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

# A shell starts its background jobs deaf to Ctrl-C, nohup to hang-ups, and children inherit that: some tests send them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # parallel tests on few cores: a thread per core each slows all down
cv2.setNumThreads(0)  # tests fork workers: a fork of a process with OpenCV's threads would wait for them for ever


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the user's cache, nor follow the user's variables."""
    for name in [name for name in os.environ if name.startswith("PROVE_") and name != "PROVE_CAMVID_ROOT"]:
        del os.environ[name]
    os.environ["PROVE_CACHE"] = str(tmp_path_factory.getbasetemp().parent / "prove-cache")


def write_camvid(root: Path, train: int = 6, val: int = 3, size: tuple[int, int] = (72, 96)) -> Path:
    """A dataset in CamVid's layout: boxes of the 11 classes on a road, with void pixels; always the same."""
    rng = np.random.default_rng(7)
    height, width = size
    for split, count in (("train", train), ("val", val)):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            label = np.full(size, 3, np.uint8)
            label[: height // 3] = 0
            for value in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 11):
                top, left = rng.integers(0, height - 16), rng.integers(0, width - 20)
                label[top : top + rng.integers(6, 16), left : left + rng.integers(6, 20)] = value
            image = (label[..., None] * np.array([20, 11, 5]) + rng.integers(0, 30, (*size, 3))).astype(np.uint8)
            name = f"{'0001TP' if index % 2 else '0016E5'}_{index:06}.png"
            Image.fromarray(image).save(root / split / name)
            Image.fromarray(label).save(root / f"{split}annot" / name)
    return root


@pytest.fixture(scope="session")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small dataset in CamVid's layout."""
    return write_camvid(tmp_path_factory.mktemp("camvid"))
