"""The weighted sum of terms."""

import inspect

import pytest
import torch
from loss_batches import IGNORE, TERMS, batch, term, value_and_gradient
from torch.nn import functional as F

from prove.catalog.losses import LOSSES, from_aux, resolve, short
from prove.errors import ProveError
from prove.losses import Objective, Term, build_term, class_weights
from prove.losses.objective import TERMS as MODULES
from prove.losses.reference import reference
from prove.spec import parse

pytestmark = pytest.mark.usefixtures("backend")

EVERYTHING = " + ".join(f"{0.1 * (i + 1):.1f}*{text}" for i, text in enumerate(TERMS))


def test_total_is_the_weighted_sum_of_the_terms_alone():
    logits, labels = batch()
    logits.requires_grad_()
    out = Objective(EVERYTHING)(logits, labels)
    (gradient,) = torch.autograd.grad(out.total, logits)
    total, expected = 0.0, torch.zeros_like(logits)
    for i, text in enumerate(TERMS):
        value, part = value_and_gradient(term(text), logits, labels)
        total += 0.1 * (i + 1) * value
        expected += 0.1 * (i + 1) * part
    assert out.total.item() == pytest.approx(total.item(), abs=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_terms_are_named_and_differentiable():
    logits, labels = batch()
    logits.requires_grad_()
    objective = Objective("0.3*focal(gamma=3) + ce + 0.2*focal")
    out = objective(logits, labels)
    assert list(out.terms) == list(out.weights) == list(objective.modules_by_label) == ["ce", "focal", "focal_2"]
    assert out.weights == {"ce": 1.0, "focal": 0.2, "focal_2": 0.3}
    for label, value in out.terms.items():
        (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
        assert gradient.abs().sum() > 0
        assert torch.equal(value, objective.modules_by_label[label](logits, labels))
    assert set(dict(objective.named_modules())) == {"", "term_modules", *(f"term_modules.{k}" for k in out.terms)}


def test_weights_follow_their_schedule():
    logits, labels = batch()
    objective = Objective("ce + linear(0.5->0.1)*dice + constant(0.3, start=0.5)*focal")
    for progress, dice, focal in ((0.0, 0.5, 0.0), (0.5, 0.3, 0.3), (1.0, 0.1, 0.3)):
        out = objective(logits, labels, progress)
        assert out.weights == pytest.approx({"ce": 1.0, "dice": dice, "focal": focal})
        expected = out.terms["ce"] + dice * out.terms["dice"] + focal * out.terms["focal"]
        assert out.total.item() == pytest.approx(expected.item(), abs=1e-12)


def test_weight_of_zero_leaves_a_graph():
    logits, labels = batch()
    logits.requires_grad_()
    out = Objective("constant(1, start=0.5)*ce")(logits, labels, 0.2)
    assert out.total == 0
    assert out.terms["ce"] > 0
    out.total.backward()
    assert (logits.grad == 0).all()


def test_mining_does_not_cut_the_gradient_of_terms_that_follow():
    logits, labels = batch()
    logits.requires_grad_()
    out = Objective("ohem(min_kept=2) + dice + lovasz + boundary")(logits, labels)
    for name in ("dice", "lovasz", "boundary"):
        (gradient,) = torch.autograd.grad(out.terms[name], logits, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_autocast_is_off_inside_terms():
    class Probe(Term):
        name = "probe"

        def value(self, pixels):
            assert not torch.is_autocast_enabled("cpu")
            return (pixels.logits.flatten(1) @ pixels.logits.flatten(1).T).sum()

    logits, labels = batch(dtype=torch.float32)
    objective = Objective("ce")
    objective.term_modules["ce"] = Probe()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Probe()(logits, labels).dtype == torch.float32
        assert objective(logits, labels).total.dtype == torch.float32


def test_half_precision_and_autocast():
    logits, labels = batch(dtype=torch.float32)
    expected = Objective(EVERYTHING)(logits, labels).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(Objective(EVERYTHING)(logits, labels).total, expected)
    leaf = logits.half().requires_grad_()
    out = Objective(EVERYTHING).half()(leaf, labels)
    assert out.total.dtype == torch.float32
    out.total.backward()
    assert leaf.grad.isfinite().all()


def test_ignore_index():
    logits, labels = batch()
    moved = torch.where(labels == IGNORE, -100, labels)
    expected = Objective(EVERYTHING)(logits, labels).total
    assert torch.equal(Objective(EVERYTHING, ignore_index=-100)(logits, moved).total, expected)


def test_pixel_weight_reaches_every_term_or_is_refused():
    logits, labels = batch()
    weight = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0))
    out = Objective(" + ".join(name for name in MODULES if name != "lovasz"))(logits, labels, pixel_weight=weight)
    for name, value in out.terms.items():
        assert torch.equal(value, term(name)(logits, labels, weight))
        assert not torch.equal(value, term(name)(logits, labels))
    with pytest.raises(ProveError, match="lovasz takes no weight per pixel"):
        Objective("ce + lovasz")(logits, labels, pixel_weight=weight)


def test_class_weights_from_outside():
    logits, labels = batch(c=4)
    weights = class_weights([10, 200, 30, 5])
    expected = F.cross_entropy(logits, labels, torch.tensor(weights, dtype=torch.float64), ignore_index=IGNORE)
    for text in ("ce(class_weight=auto)", "ce(class_weight=inverse)", "ce(class_weight=effective_number)"):
        assert Objective(text, class_weight=weights)(logits, labels).total.item() == pytest.approx(expected.item())
        resolved = resolve(parse(text)).primary
        assert reference(resolved, logits, labels, IGNORE, weights).item() == pytest.approx(expected.item())
    mixed = Objective("ce(class_weight=auto) + ce(class_weight=[1, 1, 1, 1])", class_weight=weights)(logits, labels)
    assert mixed.terms["ce"].item() != pytest.approx(mixed.terms["ce_2"].item())


def test_requests_that_make_no_sense():
    logits, labels = batch()
    with pytest.raises(ProveError, match="none were given"):
        Objective("ce(class_weight=auto)")
    with pytest.raises(ProveError, match="takes class weights from outside"):
        Objective("ce + dice", class_weight=[1, 1])
    with pytest.raises(ProveError, match="the model's own criterion"):
        Objective("m2f + 0.3*focal")
    with pytest.raises(ProveError, match="different ways"):
        Objective("ce(class_weight=auto) + ce(class_weight=inverse)", class_weight=[1, 1])
    with pytest.raises(ProveError, match="Unknown loss 'lovas'"):
        Objective("ce + lovas")
    with pytest.raises(ProveError, match="Progress"):
        Objective("ce")(logits, labels, progress=300)


def test_modules_and_catalogue_agree():
    per_pixel = [entry for entry in LOSSES if entry.kind == "per_pixel"]
    assert set(MODULES) == {entry.name for entry in per_pixel}
    for entry in per_pixel:
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(MODULES[entry.name]).parameters.items()
            if name != "ignore_index"
        }
        # the beta of ce belongs to the scheme that computes the weights which the module is given
        names = [param.name for param in entry.params if (entry.name, param.name) != ("ce", "beta")]
        assert defaults == {name: entry.param(name).default for name in names}
        assert bool(MODULES[entry.name].refuses_weight) == entry.pixel_weight.startswith("refused")
        assert MODULES[entry.name].name == entry.name


def test_catalogue_says_why_a_term_is_not_fused():
    for entry in LOSSES:
        assert entry.fused or entry.unfused_because
    apart = {entry.name for entry in LOSSES if not entry.fused}
    assert apart == {"distance", "hausdorff", "m2f"}
    assert "form=sigmoid" in LOSSES.get("focal").unfused_because


def test_parameters_reach_the_modules():
    module = build_term(resolve(parse("tversky(alpha=0.25, beta=0.125)")).primary)
    assert (module.alpha, module.beta) == (0.25, 0.125)
    for text in TERMS:
        resolved = resolve(parse(text)).primary
        module = build_term(resolved)
        for name, value in resolved.params:
            assert getattr(module, name) == value


def test_auxiliary_shorthand_takes_every_term():
    for name in MODULES:
        if name != "ce":
            assert short(from_aux(name)) == f"ce + 0.3*{name}"


def test_modules_print_what_they_compute():
    text = repr(Objective("ce + 0.3*focal(gamma=3) + boundary + ohem"))
    for part in ("0.3*focal(gamma=3)", "gamma=3.0, alpha=0.5", "pos_weight='balanced'", "thresh=0.7"):
        assert part in text


def test_one_term_without_its_weight():
    logits, labels = batch()
    module = build_term(parse("0.3*focal").primary, ignore_index=IGNORE)
    assert torch.equal(module(logits, labels), Objective("focal")(logits, labels).total)
