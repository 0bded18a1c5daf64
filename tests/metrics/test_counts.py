"""The kept arrays: everything in a table can be recomputed from them alone, without torch."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

import prove.metrics
from prove.errors import ProveError
from prove.metrics import (
    METRICS,
    boundary_counts,
    boundary_summary,
    calibration_histogram,
    confusion_matrix,
    count_image,
    ece,
    stack_counts,
    summarize,
    summarize_arrays,
)

CONDITIONS = ["day", "night", "day", "", "night"]
IDS = [f"seq/frame_{i}" for i in range(5)]


def images(classes=4):
    generator = torch.Generator().manual_seed(0)
    for _ in IDS:
        logits = torch.nn.functional.interpolate(
            4 * torch.randn((1, classes, 6, 8), generator=generator), size=(48, 64), mode="bilinear"
        )[0]
        label = logits.roll(3, dims=2).argmax(0)
        label[:3] = 255
        yield logits.softmax(0), label


@pytest.fixture(scope="module")
def counts():
    return [count_image(prob, label) for prob, label in images()]


def test_one_call_equals_the_three_counts(counts):
    for got, (prob, label) in zip(counts, images(), strict=True):
        pred = prob.argmax(0)
        np.testing.assert_array_equal(got.confusion, confusion_matrix(pred, label, 4))
        np.testing.assert_array_equal(got.calibration, calibration_histogram(prob, label))
        boundary = boundary_counts(pred.numpy(), label.numpy(), 4)
        assert boundary_summary(got.boundary)["bF1"] == boundary_summary(boundary)["bF1"]


def test_file_alone_gives_every_metric(counts, tmp_path):
    path = tmp_path / "confusion.npz"
    np.savez_compressed(path, **stack_counts(counts, IDS, CONDITIONS))
    with np.load(path, allow_pickle=False) as kept:
        result = summarize_arrays(kept)
        assert kept["ids"].tolist() == IDS
    assert tuple(result.metrics) == METRICS
    truth = np.concatenate([label[label != 255] for _, label in images()])
    guess = np.concatenate([prob.argmax(0)[label != 255] for prob, label in images()])
    assert result.metrics["mIoU"] == pytest.approx(100 * jaccard_score(truth, guess, average="macro"), rel=1e-12)
    assert result.metrics["ECE"] == pytest.approx(ece(sum(c.calibration for c in counts)), rel=1e-12)
    assert set(result.per_class) == {"IoU", "Acc", "support", "bIoU", "bF1"}
    assert result.images == 5
    assert list(result.conditions) == ["day", "night"]
    night = result.conditions["night"]
    assert night.images == 2
    assert night.metrics["mIoU"] == summarize(counts[1].confusion + counts[4].confusion)["mIoU"]
    assert night.conditions == {}


def test_order_of_images_does_not_matter(counts):
    order = [3, 0, 4, 2, 1]
    one = summarize_arrays(stack_counts(counts, IDS, CONDITIONS))
    other = summarize_arrays(
        stack_counts([counts[i] for i in order], [IDS[i] for i in order], [CONDITIONS[i] for i in order])
    )
    assert other.metrics == pytest.approx(one.metrics, rel=1e-12)
    assert other.conditions["day"].metrics == pytest.approx(one.conditions["day"].metrics, rel=1e-12)


def test_what_does_not_belong_together_is_refused(counts):
    with pytest.raises(ProveError, match="No image"):
        stack_counts([], [], [])
    with pytest.raises(ProveError, match="5 counts, 4 ids"):
        stack_counts(counts, IDS[:4], CONDITIONS)
    with pytest.raises(ProveError, match=r"'seq/frame_0' occurs twice"):
        stack_counts(counts, [IDS[0], *IDS[:4]], CONDITIONS)
    odd = replace(counts[2], confusion=np.zeros((9, 9), np.int64))
    with pytest.raises(ProveError, match=r"confusion of image 'seq/frame_2' has shape \[9, 9\]"):
        stack_counts([*counts[:2], odd, *counts[3:]], IDS, CONDITIONS)
    arrays = stack_counts(counts, IDS, CONDITIONS)
    with pytest.raises(ProveError, match="lack calibration"):
        summarize_arrays({name: array for name, array in arrays.items() if name != "calibration"})
    with pytest.raises(ProveError, match="metric version 99"):
        summarize_arrays({**arrays, "metric_version": np.array(99)})
    with pytest.raises(ProveError, match="5 ids but 4 images in confusion"):
        summarize_arrays({**arrays, "confusion": arrays["confusion"][:4]})


@pytest.mark.parametrize(
    "statement", ["from prove.metrics.reduce import summarize", "from prove.metrics import summarize_arrays, ece"]
)
def test_reducing_imports_neither_torch_nor_opencv(statement):
    code = f"{statement}\nimport sys\nprint(*{{'torch', 'cv2', 'scipy', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["numpy"]


def test_every_public_name_resolves():
    for name in prove.metrics.__all__:
        assert getattr(prove.metrics, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = prove.metrics.nothing_of_the_kind
