"""What holds for every term, whatever it computes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_batches import IGNORE, TERMS, batch, term, value_and_gradient

from prove.catalog.losses import resolve
from prove.losses.reference import reference
from prove.spec import parse

pytestmark = pytest.mark.usefixtures("backend")

each_term = pytest.mark.parametrize("text", TERMS)

NAMES_NO_CLASS = [text for text in TERMS if "classes=[" not in text]
"""Terms that treat all classes alike."""

NEIGHBOURHOODS = ("boundary", "distance", "hausdorff")
"""How the names of terms begin that look at where pixels lie."""

ONE_AGAINST_ALL = [text for text in TERMS if "form=sigmoid" in text]
"""Terms of a sigmoid per class: there a logit has a meaning of its own, not only beside the others."""


def close(first, second, tolerance=1e-12):
    return torch.allclose(first, second, rtol=tolerance, atol=tolerance)


@each_term
@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    n=st.integers(1, 3),
    c=st.integers(2, 6),
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    ignored=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_equals_the_reference(text, n, c, h, w, ignored, seed):
    logits, labels = batch(n, c, h, w, ignored, seed)
    value, gradient = value_and_gradient(term(text), logits, labels)
    leaf = logits.clone().requires_grad_()
    expected = reference(resolve(parse(text)).primary, leaf, labels, IGNORE)
    (expected_gradient,) = torch.autograd.grad(expected, leaf)
    assert close(value, expected.detach(), 1e-9)
    assert close(gradient, expected_gradient, 1e-8)


@each_term
def test_gradient_is_the_derivative(text):
    logits, labels = batch(n=2, c=3, h=4, w=5)
    module = term(text)
    assert torch.autograd.gradcheck(lambda z: module(z, labels), (logits.requires_grad_(),))


@each_term
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_ignored_pixels_have_no_influence(text, junk):
    logits, labels = batch(ignored=0.3, seed=3)
    ignored = (labels == IGNORE)[:, None].expand_as(logits)
    value, gradient = value_and_gradient(term(text), logits, labels)
    assert gradient[~ignored].abs().max() > 0
    assert (gradient[ignored] == 0).all()
    junk_value, junk_gradient = value_and_gradient(term(text), logits.masked_fill(ignored, junk), labels)
    assert torch.equal(value, junk_value)
    assert torch.equal(gradient, junk_gradient)


@each_term
@pytest.mark.parametrize("index", [-100, -1, 7, 1])
def test_any_ignore_index(text, index):
    logits, labels = batch(c=3)
    labels[labels == 1] = IGNORE  # class 1 makes room to stand for "ignore" itself
    expected = term(text)(logits, labels)
    moved = torch.where(labels == IGNORE, index, labels)
    assert torch.equal(term(text, ignore_index=index)(logits, moved), expected)


@each_term
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_all_ignored_is_zero_with_a_zero_gradient(text, dtype):
    logits, labels = batch(dtype=dtype)
    value, gradient = value_and_gradient(term(text), logits * float("nan"), torch.full_like(labels, IGNORE))
    assert value == 0
    assert (gradient == 0).all()


@each_term
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "case", ["saturated", "one valid pixel", "one class", "two classes", "one image", "one by one"]
)
def test_edge_cases_are_finite(text, dtype, case):
    logits, labels = batch(dtype=dtype)
    if case == "saturated":
        logits = 1e4 * logits.sign()
    elif case == "one valid pixel":
        labels = torch.full_like(labels, IGNORE)
        labels[1, 3, 2] = 0
    elif case == "one class":
        labels = torch.where(labels == IGNORE, IGNORE, 1)
    elif case == "two classes":
        logits, labels = batch(c=2, dtype=dtype)
    elif case == "one image":
        logits, labels = batch(n=1, dtype=dtype)
    else:
        logits, labels = batch(n=1, h=1, w=1, ignored=0, dtype=dtype)
    value, gradient = value_and_gradient(term(text), logits, labels)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert gradient.dtype == dtype
    assert value.isfinite()
    # Kervadec's distances are negative inside of a class: a perfect prediction is its smallest value, not 0
    assert value >= 0 or text.startswith("distance")
    assert gradient.isfinite().all()


@each_term
def test_half_types_are_computed_in_float32(text):
    for dtype in (torch.float16, torch.bfloat16):
        logits, labels = batch(dtype=dtype)
        assert torch.equal(term(text)(logits, labels), term(text)(logits.float(), labels))


@each_term
def test_autocast_changes_nothing(text):
    logits, labels = batch(dtype=torch.float32)
    expected = term(text)(logits, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(term(text)(logits, labels), expected)


@each_term
def test_memory_format_changes_nothing(text):
    logits, labels = batch()
    expected_value, expected_gradient = value_and_gradient(term(text), logits, labels)
    for other in (logits.to(memory_format=torch.channels_last), logits.transpose(2, 3).contiguous().transpose(2, 3)):
        assert not other.is_contiguous()
        value, gradient = value_and_gradient(term(text), other, labels)
        assert close(value, expected_value)
        assert close(gradient, expected_gradient)


@pytest.mark.parametrize("text", [text for text in TERMS if text not in ONE_AGAINST_ALL])
def test_constant_added_to_all_logits_of_a_pixel_changes_nothing(text):
    logits, labels = batch()
    shift = 50 * torch.randn(2, 1, 7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value, gradient = value_and_gradient(term(text), logits, labels)
    moved_value, moved_gradient = value_and_gradient(term(text), logits + shift, labels)
    assert close(value, moved_value, 1e-10)
    assert close(gradient, moved_gradient, 1e-10)


@each_term
def test_order_of_images_does_not_matter(text):
    logits, labels = batch(n=3)
    order = [2, 0, 1]
    assert close(term(text)(logits, labels), term(text)(logits[order], labels[order]))


@pytest.mark.parametrize("text", NAMES_NO_CLASS)
def test_names_of_classes_do_not_matter(text):
    logits, labels = batch(c=4)
    order = torch.tensor([2, 0, 3, 1])
    renamed = torch.where(labels == IGNORE, IGNORE, order.argsort()[labels.clamp(max=3)])
    assert close(term(text)(logits, labels), term(text)(logits[:, order], renamed))


@pytest.mark.parametrize("text", [text for text in TERMS if not text.startswith(NEIGHBOURHOODS)])
def test_order_of_pixels_does_not_matter(text):
    logits, labels = batch()
    order = torch.randperm(42, generator=torch.Generator().manual_seed(0))
    shuffled = logits.flatten(2)[:, :, order].view_as(logits), labels.flatten(1)[:, order].view_as(labels)
    assert close(term(text)(logits, labels), term(text)(*shuffled))


@each_term
def test_a_mirrored_image_is_worth_the_same(text):
    logits, labels = batch()
    expected = term(text)(logits, labels)
    assert close(term(text)(logits.flip(2), labels.flip(1)), expected)
    assert close(term(text)(logits.flip(3), labels.flip(2)), expected)
    assert close(term(text)(logits.transpose(2, 3), labels.transpose(1, 2)), expected)


@each_term
def test_better_logits_are_worth_less(text):
    logits, labels = batch(scale=0.5)
    right = torch.nn.functional.one_hot(labels.clamp(max=3), 4).movedim(3, 1).double()
    assert term(text)(logits + 4 * right, labels) < term(text)(logits, labels)


@each_term
def test_pixel_weight_of_one_changes_nothing_or_is_refused(text):
    logits, labels = batch()
    ones = torch.ones(labels.shape)
    if text.startswith("lovasz"):
        with pytest.raises(Exception, match="lovasz takes no weight per pixel"):
            term(text)(logits, labels, ones)
    else:
        assert torch.equal(term(text)(logits, labels, ones), term(text)(logits, labels))


# mining ranks a pixel of weight 0 among the others, and neighbourhoods hold it: there it is not as good as ignored
@pytest.mark.parametrize(
    "text", [text for text in TERMS if "ohem" not in text and not text.startswith(("lovasz", *NEIGHBOURHOODS))]
)
def test_pixel_weight_of_zero_is_as_good_as_ignored(text):
    logits, labels = batch()
    weight = (torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    expected = value_and_gradient(term(text), logits, torch.where(weight > 0, labels, IGNORE))
    value, gradient = value_and_gradient(term(text), logits, labels, weight)
    assert close(value, expected[0])
    assert close(gradient, expected[1])


@pytest.mark.parametrize(
    "text",
    [
        "ce",
        "focal",
        "focal(form=sigmoid)",
        "boundary",
        "boundary_focal",
        "distance",
        "hausdorff",
        "dice(smooth=0)",
        "jaccard(smooth=0)",
        "tversky(smooth=0)",
        "focal_tversky(smooth=0)",
    ],
)
def test_pixel_weight_of_two_counts_a_pixel_twice(text):
    logits, labels = batch(n=3)
    weight = torch.ones(labels.shape)
    weight[1] = 2
    twice = [0, 1, 1, 2]
    assert close(term(text)(logits, labels, weight), term(text)(logits[twice], labels[twice]))


@each_term
def test_a_term_has_no_state(text):
    assert not term(text).state_dict()
    assert not list(term(text).parameters())
