"""The Triton kernels of the fused objective: on a GPU if there is one, and otherwise in Triton's interpreter.

The interpreter is chosen when Triton is imported, so without a GPU these tests run in a child process; here they are
skipped, and the kernels are compiled for an H100 instead.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loss_batches import IGNORE, TERMS, batch, term

from prove.errors import ProveError
from prove.losses.evaluate import evaluate
from prove.losses.fused.parts import part_of
from prove.losses.fused.plan import LogPart, LovaszPart, Plan

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU and not INTERPRETED else "cpu"
EXACT = [text for text in TERMS if part_of(term(text)) is not None]
BINNED = ("lovasz(method=binned)", "lovasz(method=binned, classes=present, per_image=false)")
SOME = ("ce(label_smoothing=0.1)", "focal", "dice", "lovasz(method=exact)", "boundary")

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
runs_kernels = pytest.mark.skipif(
    not (INTERPRETED or GPU), reason="runs in the child process that test_everything_here_in_the_interpreter starts"
)


def engine():
    from prove.losses.cuda import engine

    return engine


def kernels(texts, logits, labels, weight=None, align_corners=False, slopes=None):
    """Values, certificates and the gradient of ``sum(slopes * values)``, on the CPU."""
    plan = Plan(tuple(part_of(term(text)) for text in texts))
    there = [None if tensor is None else tensor.to(DEVICE) for tensor in (logits, labels, weight)]
    values, certificates, state, dense, saved = engine().forward(plan, *there, IGNORE, align_corners)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    assert (state.numel(), dense.numel(), saved.numel()) == engine().sizes(
        plan, *logits.shape[:2], *labels.shape[1:], dtype
    )
    assert values.dtype == certificates.dtype == dense.dtype == dtype
    arriving = slopes_of(texts) if slopes is None else slopes
    found = engine().backward(plan, arriving.to(values), *there, state, dense, saved, IGNORE, align_corners)
    assert found.dtype == logits.dtype
    assert found.shape == logits.shape
    return values.cpu(), certificates.cpu(), found.cpu()


def slopes_of(texts):
    return 0.3 + torch.arange(len(texts), dtype=torch.float64) % 5 / 7


def torch_alone(texts, logits, labels, weight=None, align_corners=None):
    """The same in float64 by plain torch and autograd."""
    leaf = logits.double().requires_grad_()
    values = []
    for text in texts:
        found = evaluate(
            {"it": term(text)}, leaf, labels, IGNORE, weight=weight, align_corners=align_corners, backend="torch"
        )
        values.append(found.values["it"])
    together = torch.stack(values)
    (gradient,) = torch.autograd.grad((slopes_of(texts) * together).sum(), leaf)
    return together.detach(), gradient


def agree(texts, logits, labels, *, rel=1e-10, weight=None, align_corners=None):
    values, _, found = kernels(texts, logits, labels, weight, bool(align_corners))
    expected, gradient = torch_alone(texts, logits, labels, weight, align_corners)
    torch.testing.assert_close(values.double(), expected, rtol=rel, atol=rel)
    assert (found.double() - gradient).norm() <= 10 * rel * gradient.norm() + 1e-30


@needs_triton
@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED or GPU, reason="this process runs the kernels itself")
def test_everything_here_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    command += ["-W", "ignore::RuntimeWarning"]  # numpy's, of lanes that are masked afterwards
    root = Path(__file__).parents[2]
    child = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=child, cwd=root, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) > 80


@needs_triton
@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED or GPU, reason="compiles for a GPU that is not here")
@pytest.mark.parametrize(
    ("classes", "dtype", "low"), [(19, torch.float32, (16, 32)), (19, torch.float32, (8, 8)), (150, torch.half, (8, 8))]
)
def test_kernels_compile_for_a_gpu(classes, dtype, low, tmp_path, monkeypatch):
    """The whole sequence of kernels down to machine code for compute capability 9.0, none of them launched."""
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class Absent:
        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self):
            return 0

        def get_current_stream(self, device):
            return 0

    compiled = set()
    run = JITFunction.run

    def only_compile(self, *arguments, grid, warmup, **options):
        kernel = run(self, *arguments, grid=grid, warmup=True, **options)
        assert kernel.asm["cubin"]
        compiled.add(self.fn.__name__)

    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path))
    monkeypatch.setattr(JITFunction, "run", only_compile)
    monkeypatch.setattr(driver, "_active", Absent())
    labels = torch.zeros(1, 16, 32, dtype=torch.long)
    texts = (
        "ce(label_smoothing=0.1)",
        "ohem(min_kept=4)",
        "boundary_focal",
        "dice",
        "lovasz(method=binned)",
        "boundary",
    )
    kernels(texts, torch.zeros(1, classes, *low, dtype=dtype), labels)
    last = "add_slopes" if low == (16, 32) else "add_low_slopes"
    assert compiled == {
        "survey", "neighbourhoods", "add_values", "weigh_bins", "add_edge_values", "set_values", "set_factors",
        "edge_slopes", "spread_slopes", last,
    }  # fmt: skip


@runs_kernels
@pytest.mark.parametrize("text", EXACT)
def test_a_term_alone(text):
    logits, labels = batch(h=11, w=9)
    agree((text,), logits, labels)


@runs_kernels
@pytest.mark.parametrize("shape", [(2, 2, 5, 9), (1, 3, 1, 1), (3, 5, 1, 20), (1, 4, 20, 1)])
def test_all_terms_together(shape):
    logits, labels = batch(*shape)
    agree(EXACT, logits, labels, rel=1e-9)


@runs_kernels
def test_weight_per_pixel():
    logits, labels = batch()
    weight = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight[0, 0, :3] = 0.0
    weight[labels == IGNORE] = float("nan")
    texts = [text for text in EXACT if not text.startswith("lovasz")]
    agree(texts, logits, labels, weight=torch.where(labels == IGNORE, 1.0, weight))
    values, _, found = kernels(texts, logits, labels, weight)
    assert values.isfinite().all()
    assert found.isfinite().all()


@runs_kernels
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("low", "high"),
    [((3, 4), (12, 16)), ((3, 5), (13, 11)), ((7, 6), (4, 3)), ((1, 1), (6, 5)), ((5, 1), (5, 9)), ((6, 3), (13, 4))],
)
def test_upsampled(low, high, align_corners):
    logits, _ = batch(h=low[0], w=low[1])
    _, labels = batch(h=high[0], w=high[1])
    agree((*SOME, "lovasz(per_image=false)"), logits, labels, align_corners=align_corners, rel=1e-9)


@runs_kernels
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_low_column_that_reaches_more_than_a_tile(align_corners):
    logits, _ = batch(n=2, c=40, h=2, w=2)
    _, labels = batch(n=2, c=40, h=3, w=41)
    agree(("ce", "dice"), logits, labels, align_corners=align_corners, rel=1e-9)


@runs_kernels
@pytest.mark.parametrize("low", [(14, 6), (5, 4)])
def test_bands_of_rows_make_no_difference(low, monkeypatch):
    from prove.losses.cuda import gradient

    logits, _ = batch(h=low[0], w=low[1])
    _, labels = batch(h=14, w=6)
    whole = kernels(("ce", "boundary"), logits, labels)
    monkeypatch.setattr(gradient, "SCRATCH_BYTES", 7 * 3 * 4 * 6 * 8)
    banded = kernels(("ce", "boundary"), logits, labels)
    torch.testing.assert_close(banded, whole, rtol=1e-12, atol=1e-15)


@runs_kernels
@pytest.mark.parametrize("per_image", ["true", "false"])
def test_sorting_a_few_classes_at_a_time_makes_no_difference(per_image, monkeypatch):
    from prove.losses.cuda import lovasz

    logits, labels = batch(c=5)
    text = f"lovasz(method=exact, per_image={per_image})"
    whole = kernels((text,), logits, labels)
    monkeypatch.setattr(lovasz, "SORTED_AT_ONCE", 2 * labels[0].numel() * (1 if per_image == "true" else 2))
    torch.testing.assert_close(kernels((text,), logits, labels), whole, rtol=1e-12, atol=1e-15)


@runs_kernels
@pytest.mark.parametrize("classes", [2, 19, 150])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float16, 5e-4), (torch.bfloat16, 4e-3)])
def test_types_and_class_counts(classes, dtype, tolerance):
    """Logits of a half type are computed in float32: only the gradient is rounded to it."""
    logits, labels = batch(c=classes, h=7, w=6, dtype=dtype)
    texts = SOME if classes == 2 else SOME[:-1]  # boundaries are slow in the interpreter, class by class
    values, _, found = kernels(texts, logits, labels)
    expected, gradient = torch_alone(texts, logits, labels)
    torch.testing.assert_close(values.double(), expected, rtol=2e-6, atol=1e-6)
    assert (found.double() - gradient).norm() < tolerance * gradient.norm()


@runs_kernels
@pytest.mark.parametrize("size", [(8, 10), (16, 13)])
def test_float32_upsampled(size):
    logits, _ = batch(c=6, h=8, w=10, dtype=torch.float32)
    _, labels = batch(c=6, h=size[0], w=size[1])
    values, _, found = kernels(SOME, logits, labels)
    expected, gradient = torch_alone(SOME, logits, labels, align_corners=False)
    torch.testing.assert_close(values.double(), expected, rtol=2e-6, atol=1e-6)
    assert (found.double() - gradient).norm() < 2e-6 * gradient.norm()


@runs_kernels
@pytest.mark.parametrize("text", BINNED)
@pytest.mark.parametrize("scale", [0.01, 2.0, 12.0])
def test_bins_are_within_their_certificate(text, scale):
    logits, labels = batch(c=5, h=24, w=24, dtype=torch.float32, scale=scale)
    labels[labels == 3] = 2  # a class that is absent: its largest probability counts, exactly
    value, certificate, found = kernels((text,), logits, labels)
    exact, gradient = torch_alone((text.replace("binned", "exact"),), logits, labels)
    assert certificate >= 0
    assert certificate > 0 or scale == 0.01  # where all own pixels come first, bins are exact
    assert -1e-6 <= exact - value.double() <= certificate + 1e-6
    assert (found.double() - gradient).norm() < 2e-2 * gradient.norm()


@runs_kernels
def test_bins_are_those_of_the_cpu():
    from prove.losses.cpu import backend

    logits, labels = batch(c=5, h=24, w=24, dtype=torch.float32)
    labels[labels == 3] = 2
    plan = Plan(
        (LogPart(), LovaszPart(method="binned", per_image=False, classes=(0, 1, 3)), LovaszPart(method="binned"))
    )
    values, _, *kept = backend.forward(plan, logits, labels, None, IGNORE, False)
    gradient = backend.backward(plan, slopes_of(range(3)), logits, labels, None, *kept, IGNORE, False)
    found, _, ours = kernels(
        ("ce", "lovasz(method=binned, per_image=false, classes=[0, 1, 3])", BINNED[0]), logits, labels
    )
    torch.testing.assert_close(found, values, rtol=1e-6, atol=0)
    assert (ours - gradient).norm() < 1e-5 * gradient.norm()


@runs_kernels
@pytest.mark.parametrize("junk", [float("nan"), float("inf")])
def test_ignored_pixels_have_no_influence(junk):
    logits, labels = batch(dtype=torch.float32)
    ignored = (labels == IGNORE)[:, None].expand_as(logits)
    clean = kernels((*EXACT, *BINNED), logits, labels)
    spoilt = kernels((*EXACT, *BINNED), logits.masked_fill(ignored, junk), labels)
    for ours, theirs in zip(spoilt, clean, strict=True):
        assert torch.equal(ours, theirs)
    assert (clean[2][ignored] == 0).all()
    assert clean[2].isfinite().all()


@runs_kernels
@pytest.mark.parametrize("low", [(7, 6), (3, 2)])
def test_all_ignored(low):
    logits, _ = batch(h=low[0], w=low[1], dtype=torch.float32)
    values, certificates, found = kernels((*EXACT, *BINNED), logits, torch.full((2, 7, 6), IGNORE))
    assert (values == 0).all()
    assert (certificates == 0).all()
    assert (found == 0).all()


@runs_kernels
def test_one_valid_pixel():
    logits, labels = batch()
    kept = labels[0, 4, 2].item()
    labels = torch.full_like(labels, IGNORE)
    labels[0, 4, 2] = 1 if kept == IGNORE else kept
    agree([text for text in EXACT if "ohem" not in text], logits, labels)


@runs_kernels
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_extreme_logits(scale):
    logits, labels = batch(dtype=torch.float32)
    values, _, found = kernels((*EXACT, *BINNED), logits.sign() * scale, labels)
    assert values.isfinite().all()
    assert found.isfinite().all()


@runs_kernels
@pytest.mark.parametrize("text", [*EXACT, *BINNED])
def test_a_logit_that_is_not_a_number_shows(text):
    logits, labels = batch(dtype=torch.float32, ignored=0.0)
    logits[1, 1, 3, 2] = float("nan")
    values, _, found = kernels((text,), logits, labels)
    assert values.isnan().all()
    assert found.isnan().any()


@runs_kernels
@pytest.mark.skipif(not GPU, reason="needs a GPU: the interpreter runs one program after the other")
def test_the_same_bits_again():
    logits, labels = batch(n=2, c=19, h=200, w=300, dtype=torch.float32)
    for size in ((200, 300), (50, 75)):
        low = logits[:, :, : size[0], : size[1]]
        first = kernels((*EXACT, *BINNED), low, labels)
        for ours, theirs in zip(kernels((*EXACT, *BINNED), low, labels), first, strict=True):
            assert torch.equal(ours, theirs)


@runs_kernels
def test_what_is_wrong_is_named():
    logits, labels = batch()
    wrong = labels.clone()
    wrong[1, 2, 3] = 77
    with pytest.raises(ProveError, match="Label 77 at image 1, row 2, column 3"):
        kernels(("ce",), logits, wrong)
    weight = torch.ones(labels.shape)
    labels[0, 1, 2] = 0
    for value in (-1.0, float("nan"), float("inf")):
        weight[0, 1, 2] = value
        with pytest.raises(ProveError, match=r"weight .* at image 0, row 1, column 2"):
            kernels(("ce",), logits, labels, weight)


@runs_kernels
@pytest.mark.skipif(not GPU, reason="needs a GPU")
def test_the_host_waits_for_the_check_alone():
    logits, labels = batch(c=19, h=64, w=64, dtype=torch.float32)
    plan = Plan(tuple(part_of(term(text)) for text in (*EXACT, *BINNED)))
    logits, labels, slopes = logits.cuda(), labels.cuda(), torch.ones(len(plan.parts), device="cuda")

    def both():
        _, _, *kept = engine().forward(plan, logits, labels, None, IGNORE, False)
        engine().backward(plan, slopes, logits, labels, None, *kept, IGNORE, False)

    both()  # compiles, and copies tables
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        both()
    finally:
        torch.cuda.set_sync_debug_mode(before)


@runs_kernels
@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("low", [(40, 30), (10, 8)])
def test_objective_on_a_gpu(low):
    terms = {text: term(text) for text in (*EXACT, *BINNED)}
    logits, _ = batch(h=low[0], w=low[1], dtype=torch.float32)
    _, labels = batch(h=40, w=30)
    found = []
    for device in ("cuda", "cpu"):
        leaf = logits.detach().to(device).requires_grad_()
        values = evaluate(terms, leaf, labels.to(device), IGNORE, align_corners=False).values
        (gradient,) = torch.autograd.grad(sum(values.values()), leaf)
        found.append((torch.stack(list(values.values())).cpu(), gradient.cpu()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    assert (found[0][1] - found[1][1]).norm() < 1e-5 * found[1][1].norm()
