"""Lovász-Softmax against Berman's algorithm, the definition of the extension, and the Jaccard index."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_batches import IGNORE, batch, term, value_and_gradient
from sklearn.metrics import jaccard_score

from prove.losses.lovasz import jaccard_growth
from prove.training.stack import load_stack

both_backends = pytest.mark.usefixtures("backend")


def extension(errors, truth):
    """The Lovász extension by its definition: the integral over t of the Jaccard loss of the pixels with error > t."""
    total, last = 0.0, 0.0
    for level in np.unique(errors):
        wrong = errors > last if last > 0 else errors > 0
        union = np.count_nonzero(truth | wrong)
        jaccard_loss = 1.0 - np.count_nonzero(truth & ~wrong) / union if union else 0.0
        total += (level - last) * jaccard_loss
        last = level
    return total


def by_definition(logits, labels, classes, per_image):
    probs = logits.softmax(1).movedim(1, -1).numpy()
    labels = labels.numpy()
    groups = list(zip(probs, labels, strict=True)) if per_image else [(probs, labels)]
    losses = []
    for p, y in groups:
        p, y = p[y != IGNORE], y[y != IGNORE]
        if y.size == 0:
            continue
        chosen = {"all": range(p.shape[-1]), "present": np.unique(y)}.get(str(classes), classes)
        losses.append(np.mean([extension(np.abs((y == c) - p[:, c]), y == c) for c in chosen]))
    return np.mean(losses)


@both_backends
@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    classes=st.sampled_from(["all", "present", [0, 2]]),
    per_image=st.booleans(),
    c=st.integers(3, 6),
    size=st.integers(1, 8),
    ignored=st.sampled_from([0.0, 0.4, 0.9]),
    seed=st.integers(0, 10**6),
)
def test_equals_the_definition_of_the_extension(classes, per_image, c, size, ignored, seed):
    logits, labels = batch(3, c, size, size, ignored, seed)
    if (labels == IGNORE).all():
        return
    module = term(f"lovasz(classes={classes}, per_image={str(per_image).lower()})")
    expected = by_definition(logits, labels, classes, per_image)
    assert module(logits, labels).item() == pytest.approx(expected, abs=1e-12)


@both_backends
def test_image_without_a_valid_pixel_is_left_out():
    logits, labels = batch(n=3)
    labels[1] = IGNORE
    expected = term("lovasz")(logits[[0, 2]], labels[[0, 2]])
    assert term("lovasz")(logits, labels).item() == pytest.approx(expected.item(), abs=1e-15)


@both_backends
@pytest.mark.parametrize("seed", range(3))
def test_is_the_jaccard_loss_of_hard_predictions(seed):
    _, labels = batch(1, 4, 12, 12, ignored=0, seed=seed)
    guess = torch.randint(0, 4, labels.shape, generator=torch.Generator().manual_seed(seed))
    guess = torch.where(torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.6, labels, guess)
    logits = 1e4 * torch.nn.functional.one_hot(guess, 4).movedim(3, 1).double()
    present = labels.unique().tolist()
    expected = 1 - jaccard_score(labels.flatten(), guess.flatten(), labels=present, average="macro")
    for per_image in ("true", "false"):
        value = term(f"lovasz(classes=present, per_image={per_image})")(logits, labels)
        assert value.item() == pytest.approx(expected, abs=1e-14)
    perfect = 1e4 * torch.nn.functional.one_hot(labels, 4).movedim(3, 1).double()
    assert term("lovasz")(perfect, labels) == 0


@both_backends
def test_all_is_present_when_all_are_present():
    logits, labels = batch(n=1, c=3, h=9, w=9, seed=2)
    assert set(labels.unique().tolist()) == {0, 1, 2, IGNORE}
    assert torch.equal(term("lovasz")(logits, labels), term("lovasz(classes=present)")(logits, labels))


@both_backends
@pytest.mark.parametrize("classes", ["all", "present"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_mmsegmentation_where_that_is_right(classes, seed):
    load_stack()
    from mmseg.models.losses.lovasz_loss import lovasz_softmax

    logits, labels = batch(2, 5, 10, 11, ignored=0.2, seed=seed, dtype=torch.float32)

    def mmseg(z, y):
        return lovasz_softmax(z.softmax(1), y, classes, per_image=True, ignore_index=IGNORE)

    value, gradient = value_and_gradient(term(f"lovasz(classes={classes})"), logits, labels)
    expected, expected_gradient = value_and_gradient(mmseg, logits, labels)
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-6)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_growth_adds_up_to_the_jaccard_loss(pairs):
    errors, own = (torch.tensor(column) for column in zip(*pairs, strict=True))
    errors = errors.double()
    growth = jaccard_growth(errors, own)
    assert (growth >= 0).all()
    # when every pixel is wrong the loss is 1
    assert growth.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert (growth * errors).sum().item() == pytest.approx(extension(errors.numpy(), own.numpy()), abs=1e-12)


def test_counts_are_exact_beyond_float32():
    """2^24 + 3 pixels of the class below one other: their growth is 1 / (G + 1), counted in integers."""
    total = 2**24 + 3
    own = torch.ones(total + 1, dtype=torch.bool)
    own[5] = False
    errors = torch.full((total + 1,), 0.5)
    errors[5] = 0.75
    growth = jaccard_growth(errors, own)
    assert growth[5].item() == pytest.approx(1 / (total + 1), rel=1e-6)
    assert growth[6].item() == pytest.approx(1 / (total + 1), rel=1e-6)
    assert growth.double().sum().item() == pytest.approx(1.0, abs=1e-6)


def test_methods_are_one_loss_in_plain_torch(monkeypatch):
    """There the term always sorts; how far the bins of the fused kernels are off is tested with those."""
    monkeypatch.setenv("PROVE_LOSSES", "torch")
    logits, labels = batch()
    for classes in ("all", "present"):
        expected = value_and_gradient(term(f"lovasz(classes={classes})"), logits, labels)
        for method in ("exact", "binned"):
            value, gradient = value_and_gradient(term(f"lovasz(classes={classes}, method={method})"), logits, labels)
            assert torch.equal(value, expected[0])
            assert torch.equal(gradient, expected[1])
