"""Terms evaluated together, in kernels, against the same terms one by one in plain torch."""

import tracemalloc

import pytest
import torch
from binned_lovasz import from_counts, unpack
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_batches import IGNORE, TERMS, batch, term
from torch.nn import functional as F

from prove.errors import ProveError
from prove.losses import Lovasz, Objective
from prove.losses.fused import op
from prove.losses.fused.parts import part_of
from prove.losses.fused.plan import Plan
from prove.losses.pixels import Pixels

FUSED = [text for text in TERMS if part_of(term(text)) is not None]
BINNED = ("lovasz(method=binned)", "lovasz(method=binned, classes=present, per_image=false)")
EVERYTHING = " + ".join(f"{0.1 * (i + 1):.1f}*{text}" for i, text in enumerate(FUSED))


def gradient(objective, logits, labels, **options):
    leaf = logits.detach().clone().requires_grad_()
    out = objective(leaf, labels, **options)
    (found,) = torch.autograd.grad(out.total, leaf)
    return out, found


def trained(n=2, c=8, h=96, w=128, seed=0, dtype=torch.float32):
    """Logits that are confident and mostly right, unsure near borders."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, c, h // 16, w // 16, generator=generator)
    labels = F.interpolate(coarse, size=(h, w), mode="bilinear", align_corners=False).argmax(1)
    soft = F.avg_pool2d(F.one_hot(labels, c).movedim(-1, 1).float(), 9, 1, 4)
    logits = 12 * soft + torch.randn(n, c, h, w, generator=generator)
    labels[:, :8, :8] = IGNORE
    return logits.to(dtype), labels


def test_all_parts_are_covered():
    kinds = {type(part_of(term(text))).__name__ for text in FUSED}
    assert kinds == {"LogPart", "RegionPart", "LovaszPart", "BoundaryPart"}
    assert len(FUSED) >= 20


@pytest.mark.parametrize("shape", [(2, 4, 37, 41), (1, 2, 1, 1), (3, 5, 1, 200), (1, 3, 150, 2)])
def test_together_is_the_sum_of_one_by_one(shape):
    logits, labels = batch(*shape)
    out, found = gradient(Objective(EVERYTHING, backend="fused"), logits, labels)
    expected, direction = gradient(Objective(EVERYTHING, backend="torch"), logits, labels)
    for label, value in expected.terms.items():
        assert out.terms[label].item() == pytest.approx(value.item(), rel=1e-11, abs=1e-13), label
    torch.testing.assert_close(found, direction, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("text", FUSED)
@settings(deadline=None, derandomize=True, max_examples=12)
@given(
    low=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    align_corners=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_upsampling_on_the_way_is_upsampling_first(text, low, size, align_corners, seed):
    logits, _ = batch(2, 3, *low, seed=seed)
    _, labels = batch(2, 3, *size, seed=seed)
    out, found = gradient(Objective(text, backend="fused"), logits, labels, align_corners=align_corners)
    leaf = logits.clone().requires_grad_()
    full = F.interpolate(leaf, size=size, mode="bilinear", align_corners=align_corners)
    expected = Objective(text, backend="torch")(full, labels)
    (direction,) = torch.autograd.grad(expected.total, leaf)
    assert out.total.item() == pytest.approx(expected.total.item(), rel=1e-10, abs=1e-12)
    torch.testing.assert_close(found, direction, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("text", [*FUSED, *BINNED])
def test_float32_is_as_good_as_float64(text):
    logits, labels = trained()
    out, found = gradient(Objective(text, backend="fused"), logits, labels)
    expected, direction = gradient(Objective(text, backend="torch"), logits.double(), labels)
    tolerance = 1e-3 if text in BINNED else 2e-6
    assert out.total.dtype == torch.float32
    assert out.total.item() == pytest.approx(expected.total.item(), rel=tolerance)
    assert (found - direction).norm() < (1e-2 if text in BINNED else 2e-5) * direction.norm()


@pytest.mark.parametrize("text", [*FUSED, *BINNED])
def test_a_logit_that_is_not_a_number_shows(text):
    """A training that has diverged must be seen in the value of every term, whatever class the pixel has."""
    logits, labels = batch(dtype=torch.float32)
    for class_index in range(4):
        spoilt = logits.clone()
        image, row, column = (labels != IGNORE).nonzero()[20].tolist()
        spoilt[image, class_index, row, column] = float("nan")
        out, found = gradient(Objective(text, backend="fused"), spoilt, labels)
        plain = Objective(text, backend="torch")(spoilt, labels)
        assert out.total.isnan() == plain.total.isnan()
        assert out.total.isnan() or "ohem" in text
        assert found.isnan().any() or "ohem" in text


@pytest.mark.parametrize("text", BINNED)
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e30])
def test_ignored_pixels_have_no_influence_on_bins(text, junk):
    logits, labels = trained()
    ignored = (labels == IGNORE)[:, None].expand_as(logits)
    out, found = gradient(Objective(text), logits, labels)
    spoilt, spoilt_gradient = gradient(Objective(text), logits.masked_fill(ignored, junk), labels)
    assert torch.equal(out.total, spoilt.total)
    assert torch.equal(found, spoilt_gradient)
    assert (found[ignored] == 0).all()


@pytest.mark.parametrize("text", BINNED)
@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0, 5.0, 50.0])
@pytest.mark.parametrize("seed", range(3))
def test_certificate_holds(text, scale, seed):
    """The exact value lies between the binned one and that plus the certificate."""
    logits, labels = trained(c=4, seed=seed)
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
    logits = scale * (logits / 12 + noise)
    out = Objective(text)(logits, labels)
    exact = Objective(text.replace("binned", "exact"), backend="torch")(logits.double(), labels).total.item()
    certified = out.certified["lovasz"].item()
    assert certified >= 0
    assert -1e-6 <= exact - out.total.item() <= certified + 1e-6
    if scale == 5.0:
        assert 0 < certified < 1e-3 * exact


def test_what_bins_can_not_certify_is_sorted():
    """Errors that all but tie fall into few bins, own pixels and others alike."""
    generator = torch.Generator().manual_seed(0)
    logits = 1e-3 * torch.randn(1, 2, 160, 160, generator=generator)
    labels = torch.randint(0, 2, (1, 160, 160), generator=generator)
    binned = Objective("lovasz(method=binned)")(logits, labels)
    assert binned.certified["lovasz"] > 1e-3 * binned.total
    out, found = gradient(Objective("lovasz"), logits, labels)
    assert out.certified["lovasz"] == 0
    expected, direction = gradient(Objective("lovasz(method=exact)"), logits, labels)
    assert torch.equal(out.total, expected.total)
    assert torch.equal(found, direction)


def test_auto_sorts_small_inputs_and_bins_large_ones():
    for side, inexact in ((128, False), (129, True)):
        logits, labels = batch(1, 3, side, side, dtype=torch.float32)
        assert (Objective("lovasz")(logits, labels).certified["lovasz"] > 0) == inexact
        assert not Objective("lovasz(method=exact)")(logits, labels).certified


def test_groups_that_overflow_a_bin_are_sorted():
    """More errors than a cell of the histogram can count, all in one bin."""
    labels = torch.zeros(1, 4096, 2160, dtype=torch.uint8)
    labels[0, :40] = 1
    logits = torch.zeros(1, 2, 4096, 2160)
    logits[:, 1] = -1.1
    exact = Objective("lovasz(method=exact)")(logits, labels).total
    for method in ("auto", "binned"):
        out = Objective(f"lovasz(method={method})")(logits, labels)
        assert out.certified["lovasz"] == 0
        assert torch.equal(out.total, exact)
    p = torch.sigmoid(torch.tensor(-1.1, dtype=torch.float64)).item()
    own, other = 40 * 2160, 4056 * 2160
    # two levels of errors, 1 - p above p: the gap times the Jaccard loss of the larger ones alone, and the rest times 1
    small = (1 - 2 * p) * 1.0 + p  # class 1: all of its own pixels are the larger ones
    large = (1 - 2 * p) * (own / (own + other)) + p  # class 0: the others are
    assert exact.item() == pytest.approx((small + large) / 2, rel=1e-5)


def test_bins_are_weighed_as_the_formula_says():
    import numpy as np

    from prove.losses.cpu.bins import BINS, edges, weigh_bins

    generator = np.random.default_rng(0)
    histogram = (generator.integers(0, 4, (3, 2, BINS)) << 40) + generator.integers(0, 1000, (3, 2, BINS))
    histogram[(histogram >> 40) == 0] = 0
    histogram[2, 1] = 0  # an absent class
    factor = np.array([0.5, 0.2, 0.3])
    lower, width = edges()
    weights, out = np.empty((3, 2, BINS)), np.zeros(4)
    weigh_bins(histogram, np.where([True, True, False], factor, 0.0), lower, width, weights, out)
    counts, sums = (torch.from_numpy(each)[None] for each in unpack(histogram))
    top = torch.tensor([[0.0, 0.0, 0.25]], dtype=torch.float64)
    value, table, certificate = from_counts(counts, sums, torch.from_numpy(width), torch.from_numpy(factor)[None], top)
    assert value.item() == pytest.approx(out[0] + 0.3 * 0.25, rel=1e-12)
    assert certificate.item() == pytest.approx(out[1], rel=1e-12)
    torch.testing.assert_close(table[0], torch.from_numpy(weights), rtol=1e-12, atol=0)


def test_threads_change_no_bit():
    logits, labels = batch(3, 5, 150, 90, dtype=torch.float32)
    objective = Objective(EVERYTHING + " + 0.5*lovasz(method=binned)", backend="fused")
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            out, slope = gradient(objective, logits[..., ::2, ::2], labels, align_corners=False)
            found.append((out.total, slope, *gradient(objective, logits, labels)[1:]))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_full_size_logits_are_never_stored():
    """From a stride of 4, everything that is allocated on the way is a fraction of the full-size logits."""
    logits, labels = batch(2, 19, 128, 128, dtype=torch.float32)
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    objective = Objective("ce + focal + dice + lovasz(method=binned)", backend="fused")
    leaf = logits.requires_grad_()
    tracemalloc.start()
    try:
        objective(leaf, labels, align_corners=False).total.backward()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    full = 16 * logits.numel() * 4
    assert logits.numel() * 4 < peak < 0.4 * full


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_operators_keep_the_rules_of_torch():
    logits, labels = batch(2, 3, 9, 8)
    plan = Plan(tuple(part for text in FUSED if (part := part_of(term(text))) is not None))
    leaf = logits.requires_grad_()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(op._forward, (plan.key, leaf, labels, None, IGNORE, False), test_utils=checks)


def test_compiles_without_a_graph_break():
    logits, labels = batch(2, 3, 24, 20)
    objective = Objective("ce + 0.3*focal + 0.5*dice + 0.2*lovasz + 0.1*boundary", backend="fused")
    expected = gradient(objective, logits, labels)
    compiled = torch.compile(objective, backend="aot_eager", fullgraph=True)
    out, found = gradient(compiled, logits, labels)
    assert torch.equal(out.total, expected[0].total)
    assert torch.equal(found, expected[1])
    torch._dynamo.reset()


def test_gradient_norms_are_of_the_weighted_terms():
    logits, labels = batch()
    leaf = logits.requires_grad_()
    out = Objective("ce + 0.3*dice + 0.2*hausdorff")(leaf, labels)
    norms = out.gradient_norms(leaf)
    for name, weight in (("ce", 1.0), ("dice", 0.3), ("hausdorff", 0.2)):
        (slope,) = torch.autograd.grad(weight * Objective(name, backend="torch")(leaf, labels).total, leaf)
        assert norms[name] == pytest.approx(slope.norm().item(), rel=1e-9)
    out.total.backward()  # the graph is still there


def test_the_environment_names_the_backend(monkeypatch):
    logits, labels = batch()
    monkeypatch.setenv("PROVE_LOSSES", "reference")
    assert Objective("ce").backend == "reference"
    value = Objective("ce + lovasz + boundary")(logits, labels).total
    monkeypatch.delenv("PROVE_LOSSES")
    assert Objective("ce").backend == "fused"
    assert value.item() == pytest.approx(Objective("ce + lovasz + boundary")(logits, labels).total.item(), rel=1e-12)
    monkeypatch.setenv("PROVE_LOSSES", "referense")
    with pytest.raises(ProveError, match="PROVE_LOSSES"):
        Objective("ce")


def test_the_reference_backend_is_the_reference(monkeypatch):
    """Not the modules under another name: without them it still works."""

    def refuse(self, pixels):
        raise AssertionError("the module's own code")

    monkeypatch.setattr(Lovasz, "value", refuse)
    monkeypatch.setattr(op, "evaluate", refuse)
    logits, labels = batch()
    assert Objective("lovasz", backend="reference")(logits, labels).total > 0


def test_pixel_weights_reach_the_kernels():
    logits, labels = batch(2, 4, 20, 21)
    weight = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    text = "ce(label_smoothing=0.1, class_weight=[1, 2, 3, 4]) + ohem(min_kept=9) + boundary_focal + tversky + boundary"
    _, found = gradient(Objective(text, backend="fused"), logits, labels, pixel_weight=weight)
    _, expected = gradient(Objective(text, backend="torch"), logits, labels, pixel_weight=weight)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


def test_a_changed_term_is_not_taken_for_the_one_it_derives_from():
    class Tame(Lovasz):
        def value(self, pixels: Pixels):
            return super().value(pixels) * 0.5

    logits, labels = batch()
    assert part_of(Tame()) is None
    assert Tame()(logits, labels).item() == pytest.approx(0.5 * Lovasz()(logits, labels).item())


def test_a_backend_that_does_not_exist_is_refused():
    with pytest.raises(ProveError, match="Unknown loss backend 'Fused'"):
        Objective("ce", backend="Fused")


def test_a_changed_value_is_honoured():
    logits, labels = batch()
    objective = Objective("ce + lovasz")
    objective.modules_by_label["lovasz"].value = lambda pixels: pixels.logits.sum() * 0 + 3
    assert objective(logits, labels).terms["lovasz"] == 3


def test_saturated_predictions_are_certified_by_their_own_reach():
    """Errors of 1e-9 and of 1 - 1e-9 share the outermost bins: what they weigh there is not known well enough."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(1, 400, 400, dtype=torch.long)
    labels[0, :40] = 1
    margin = -20 + torch.randn(1, 400, 400, generator=generator, dtype=torch.float64)
    margin[0, :20] *= -1
    logits = torch.stack((torch.zeros_like(margin), margin), dim=1)
    _, found = gradient(Objective("lovasz"), logits, labels)
    _, direction = gradient(Objective("lovasz(method=exact)"), logits, labels)
    assert (found - direction).norm() <= 1e-2 * direction.norm()
