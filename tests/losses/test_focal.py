"""Focal loss against its formula in high precision, against cross-entropy, and against torchvision."""

import math
from decimal import Decimal, getcontext

import pytest
import torch
from loss_batches import IGNORE, batch, term, value_and_gradient
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from prove.catalog.losses import resolve
from prove.errors import ProveError
from prove.losses import Focal
from prove.spec import parse

pytestmark = pytest.mark.usefixtures("backend")


def test_without_focus_it_is_cross_entropy():
    logits, labels = batch()
    value, gradient = value_and_gradient(term("focal(gamma=0, alpha=1)"), logits, labels)
    expected, expected_gradient = value_and_gradient(
        lambda z, y: F.cross_entropy(z, y, ignore_index=IGNORE), logits, labels
    )
    assert value.item() == pytest.approx(expected.item(), abs=1e-13)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-13)


def test_alpha_per_class():
    logits, labels = batch(c=3)
    one_class = [term("focal(alpha=1)")(logits, torch.where(labels == c, labels, IGNORE)) for c in range(3)]
    counts = [(labels == c).sum().item() for c in range(3)]
    expected = sum(a * n * value for a, n, value in zip([0.2, 1.0, 3.0], counts, one_class, strict=True)) / sum(counts)
    assert term("focal(alpha=[0.2, 1, 3])")(logits, labels).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("gamma", [0.25, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("margin", [-30.0, -3.0, 0.0, 3.0, 12.0, 20.0, 60.0])
def test_float32_holds_at_confident_logits(gamma, margin):
    """Two classes: p = 1 / (1 + exp(-m)); the derivative is written by hand, with 60 digits."""
    getcontext().prec = 60
    m, g = Decimal(margin), Decimal(gamma)
    p, q = 1 / (1 + (-m).exp()), 1 / (1 + m.exp())
    loss = -(q**g) * p.ln()
    slope = g * q**g * p * p.ln() - q ** (g + 1)
    logits = torch.tensor([margin, 0.0]).view(1, 2, 1, 1)
    value, gradient = value_and_gradient(
        term(f"focal(gamma={gamma}, alpha=1)"), logits, torch.zeros(1, 1, 1, dtype=torch.long)
    )
    tiny = 1e-37  # below it float32 has no normal numbers
    assert value.item() == pytest.approx(float(loss), rel=2e-5, abs=tiny)
    assert gradient[0, 0].item() == pytest.approx(float(slope), rel=2e-5, abs=tiny)
    assert gradient[0, 1].item() == pytest.approx(-float(slope), rel=2e-5, abs=tiny)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1, 2])
def test_saturated_logits_have_the_limit_as_gradient(gamma):
    logits = torch.tensor([1e4, -1e4, 0.0]).view(1, 3, 1, 1)
    value, gradient = value_and_gradient(term(f"focal(gamma={gamma})"), logits, torch.zeros(1, 1, 1).long())
    assert value == 0
    assert (gradient == 0).all()
    value, gradient = value_and_gradient(term(f"focal(gamma={gamma}, alpha=1)"), logits, torch.ones(1, 1, 1).long())
    assert value == 2e4
    assert gradient.flatten().tolist() == [1.0, -1.0, 0.0]


def test_more_focus_takes_weight_off_easy_pixels():
    easy = torch.tensor([math.log(9.0), 0.0]).view(1, 2, 1, 1)  # p = 0.9
    label = torch.zeros(1, 1, 1).long()
    ratio = term("focal(gamma=2, alpha=1)")(easy, label) / term("ce")(easy, label)
    assert ratio.item() == pytest.approx(0.1**2, rel=1e-5)


@pytest.mark.parametrize("min_kept", [1, 8, 40])
@pytest.mark.parametrize("thresh", [0.2, 0.7])
def test_mines_as_cross_entropy_does(thresh, min_kept):
    logits, labels = batch()
    mining = f"ohem, thresh={thresh}, min_kept={min_kept}"
    value, gradient = value_and_gradient(term(f"focal(gamma=0, alpha=1, {mining})"), logits, labels)
    expected, expected_gradient = value_and_gradient(term(f"ce({mining})"), logits, labels)
    assert value.item() == pytest.approx(expected.item(), abs=1e-13)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-14)


def test_mining_divides_by_the_pixels_kept():
    logits, labels = batch()
    prob = logits.softmax(1).gather(1, labels.clamp(max=3)[:, None])[:, 0]
    kept = torch.where(prob < 0.2, labels, IGNORE)
    assert 0 < (kept != IGNORE).sum() < (labels != IGNORE).sum()
    expected = value_and_gradient(term("focal"), logits, kept)
    value, gradient = value_and_gradient(term("focal(ohem, thresh=0.2, min_kept=1)"), logits, labels)
    assert value.item() == pytest.approx(expected[0].item(), abs=1e-15)
    torch.testing.assert_close(gradient, expected[1], rtol=0, atol=1e-16)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
def test_sigmoid_form_is_torchvisions(alpha, gamma):
    logits, labels = batch()

    def torchvision(z, y):
        one_hot = F.one_hot(y.clamp(max=3), 4).movedim(3, 1).double()
        each = sigmoid_focal_loss(z, one_hot, alpha=alpha, gamma=gamma, reduction="none")
        return each.sum(dim=1)[y != IGNORE].mean()

    value, gradient = value_and_gradient(term(f"focal(form=sigmoid, alpha={alpha}, gamma={gamma})"), logits, labels)
    expected, expected_gradient = value_and_gradient(torchvision, logits, labels)
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-13)


def test_sigmoid_form_with_alpha_per_class():
    """Each class is a task of its own: its alpha weighs its pixels, and 1 - alpha all others."""
    logits, labels = batch(c=3)
    alphas = [0.2, 1.0, 0.7]
    one_hot = F.one_hot(labels.clamp(max=2), 3).movedim(3, 1).double()
    parts = [sigmoid_focal_loss(logits[:, c], one_hot[:, c], alpha=a, reduction="none") for c, a in enumerate(alphas)]
    expected = sum(parts)[labels != IGNORE].mean()
    value = term(f"focal(form=sigmoid, alpha={alphas})")(logits, labels)
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2])
def test_sigmoid_form_is_finite_where_logits_saturate(gamma):
    """torchvision's gradient is NaN here for gamma < 1."""
    logits = torch.tensor([1e4, -1e4, 3e4]).view(1, 3, 1, 1)
    module = term(f"focal(form=sigmoid, gamma={gamma}, alpha=0.5)")
    value, gradient = value_and_gradient(module, logits, torch.zeros(1, 1, 1).long())
    assert value.item() == pytest.approx(0.5 * 3e4)
    assert gradient.flatten().tolist() == pytest.approx([0.0, 0.0, 0.5])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("focal(form=sigmoid, ohem)", "ohem has a meaning only with form=softmax"),
        ("focal(form=sigmoid, thresh=0.5)", "thresh has a meaning only with ohem=true"),
        ("focal(form=sigmoid, alpha=1.5)", "alpha=1.5 exceeds 1"),
        ("focal(form=sigmoid, alpha=[0.5, 2])", "exceeds 1"),
        ("focal(form=sofmax)", "form=sofmax"),
    ],
)
def test_what_the_sigmoid_form_refuses(text, says):
    with pytest.raises(ProveError, match="focal") as error:
        resolve(parse(text))
    assert says in error.value.message


def test_modules_made_by_hand_refuse_the_same():
    with pytest.raises(ProveError, match="no ohem in its sigmoid form"):
        Focal(form="sigmoid", ohem=True)
    with pytest.raises(ProveError, match=r"no alpha=1\.5 in its sigmoid form"):
        Focal(form="sigmoid", alpha=[0.5, 1.5])
    with pytest.raises(ProveError, match="Unknown form 'sofmax'"):
        Focal(form="sofmax")
