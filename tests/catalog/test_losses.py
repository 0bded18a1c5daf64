"""The loss catalogue: what it accepts, what it fills in, what it refuses."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.catalog.losses import ALIASES, LOSSES, class_weight_scheme, from_aux, resolve, short
from prove.errors import ProveError
from prove.spec import LossExpr, LossTerm, WeightSchedule, parse


def params(text):
    return dict(resolve(parse(text)).primary.params)


def test_every_default_is_filled_in():
    assert params("focal") == {"gamma": 2.0, "alpha": 0.5, "form": "softmax", "ohem": False}
    assert params("focal(form=sigmoid)") == {"gamma": 2.0, "alpha": 0.5, "form": "sigmoid"}
    assert params("ce") == {"class_weight": None, "label_smoothing": 0.0, "ohem": False}
    assert params("ohem") == {
        "class_weight": None,
        "label_smoothing": 0.0,
        "ohem": True,
        "thresh": 0.7,
        "min_kept": 100_000,
    }
    assert params("lovasz") == {"classes": "all", "per_image": True, "method": "auto"}
    assert params("dice") == {"smooth": 1.0, "squared": False, "classes": "present"}
    assert params("boundary") == {"pos_weight": "balanced"}
    assert params("m2f") == {
        "cls": "ce",
        "points": "uncertain",
        "deep_supervision": True,
        "deep_weight": 1.0,
        "no_object": 0.1,
        "class_weight": 2.0,
        "mask_weight": 5.0,
        "dice_weight": 5.0,
        "num_points": 12_544,
        "oversample_ratio": 3.0,
        "importance_sample_ratio": 0.75,
    }
    assert params("m2f(deep_supervision=false, points=full)").keys() == {
        *("cls", "points", "deep_supervision", "no_object", "class_weight", "mask_weight", "dice_weight", "num_points")
    }


def test_one_meaning_has_one_form():
    assert resolve(parse("ohem")) == resolve(parse("ce(ohem=true)")) == resolve(parse("ce(ohem, thresh=0.7)"))
    assert resolve(parse("label_smoothing")) == resolve(parse("ce(label_smoothing=0.1)"))
    assert resolve(parse("ce(class_weight=auto)")) == resolve(parse("ce(class_weight=median_frequency)"))
    assert resolve(parse("focal(gamma=2)")) == resolve(parse("focal(gamma=2.0, alpha=.5)"))
    assert resolve(parse("dice(classes=[3, 1])")) == resolve(parse("dice(classes=[1, 3])"))
    assert resolve(parse("0.3->0.3*focal")) == resolve(parse("0.3*focal"))
    for value in params("ce(class_weight=[1, 2])")["class_weight"]:
        assert isinstance(value, float)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.3*focal(gamma=3, alpha=0.5)+ce", "ce + 0.3*focal(gamma=3)"),
        ("ohem(thresh=0.6)", "ce(ohem=true, thresh=0.6)"),
        ("ce(class_weight=effective_number)", "ce(class_weight=effective_number)"),
        ("ce(class_weight=auto)", "ce(class_weight=median_frequency)"),
        ("ce + lovasz(classes=all)", "ce + lovasz"),
        ("ce + linear(0->1, start=0.1)*boundary", "ce + linear(0->1, start=0.1)*boundary"),
        ("0.3*lovasz + m2f(num_points=12544, cls=focal)", "m2f(cls=focal) + 0.3*lovasz"),
    ],
)
def test_canonical_text(text, canonical):
    assert short(parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("ce + 0.3*focal(gama=2)", 10, "no parameter 'gama'"),
        ("focal(gamma=-1)", 1, "gamma=-1 is not a number >= 0"),
        ("focal(gamma=high)", 1, "gamma=high"),
        ("focal(gamma=true)", 1, "gamma=true"),
        ("focal(alpha=0)", 1, "alpha=0"),
        ("focal(alpha=[0, 0])", 1, "not all 0"),
        ("focal(alpha=[1])", 1, "one per class"),
        ("ce(ohem=1)", 1, "true or false"),
        ("ce(label_smoothing=1)", 1, "[0, 1)"),
        ("ce(ohem, min_kept=0.5)", 1, "whole number"),
        ("ce(ohem, thresh=0)", 1, "(0, 1]"),
        ("ce(thresh=0.5)", 1, "only with ohem=true"),
        ("ce(beta=0.9)", 1, "only with class_weight=effective_number"),
        ("ce(class_weight=mean)", 1, "class_weight=mean"),
        ("lovasz(classes=some)", 1, "classes=some"),
        ("lovasz(classes=[])", 1, "classes=[]"),
        ("lovasz(classes=[1, 1])", 1, "different class indices"),
        ("dice(classes=[-1])", 1, "classes=[-1]"),
        ("m2f(x=1)", 1, "no parameter 'x'"),
        ("m2f(cls=dice)", 1, "cls=dice is not ce, focal"),
        ("m2f(deep_supervision=false, deep_weight=0.5)", 1, "only with deep_supervision=true"),
        ("m2f(deep_weight=0)", 1, "a number > 0"),
        ("m2f(points=random, oversample_ratio=2)", 1, "only with points=uncertain"),
        ("m2f(points=full, importance_sample_ratio=0.5)", 1, "only with points=uncertain"),
        ("m2f(oversample_ratio=0.5)", 1, ">= 1"),
        ("m2f(importance_sample_ratio=1.5)", 1, "[0, 1]"),
        ("m2f(no_object=0)", 1, "> 0"),
        ("m2f(mask_weight=0, dice_weight=0)", 1, "can't all be 0"),
        ("m2f + 0.5*m2f(cls=focal)", 11, "one set criterion"),
        ("ce + 0*focal", 8, "0 throughout"),
        ("ce + step(0->1, end=1)*focal", 24, "0 throughout"),
        ("focal + 0.3*focal(gamma=2)", 13, "stands twice"),
        ("ce + ce(label_smoothing=0)", 6, "stands twice"),
    ],
)
def test_refused_at_its_position(text, column, says):
    with pytest.raises(ProveError) as error:
        resolve(parse(text))
    assert says in error.value.message
    assert error.value.message.splitlines()[-1].index("^") == column + 1


def test_unknown_loss_names_the_nearest():
    with pytest.raises(ProveError) as error:
        resolve(parse("ce + 0.3*lovas"))
    assert error.value.message == """Unknown loss 'lovas' in "ce + 0.3*lovas" (column 10)."""
    assert error.value.hint.startswith("Did you mean 'lovasz'?")


def test_expression_without_text_is_refused_with_its_own_text():
    with pytest.raises(ProveError, match=r"Objective 'focal\(gamma=-1\)': focal: gamma=-1"):
        resolve(LossExpr((LossTerm("focal", params=(("gamma", -1),)),)))
    with pytest.raises(ProveError, match="finite"):
        resolve(LossExpr((LossTerm("focal", WeightSchedule("constant", float("nan"), float("nan"))),)))
    with pytest.raises(ProveError, match="gamma"):
        resolve(LossExpr((LossTerm("focal", params=(("gamma", float("inf")),)),)))


@pytest.mark.parametrize(
    ("aux", "canonical"),
    [
        ("none", "ce"),
        (" None ", "ce"),
        ("focal", "ce + 0.3*focal"),
        ("focal(gamma=3)", "ce + 0.3*focal(gamma=3)"),
        ("0.5*focal", "ce + 0.5*focal"),
        ("1 * focal", "ce + focal"),
        ("focal+0.1*lovasz", "ce + 0.3*focal + 0.1*lovasz"),
        ("ohem", "ce + 0.3*ce(ohem=true)"),
        ("linear(0->1)*dice", "ce + linear(0->1)*dice"),
    ],
)
def test_auxiliary_shorthand(aux, canonical):
    expr = from_aux(aux)
    assert short(expr) == canonical
    assert expr == resolve(parse(canonical))


def test_auxiliary_weight():
    assert short(from_aux("focal + 0.5*dice", weight=0.2)) == "ce + 0.5*dice + 0.2*focal"


@pytest.mark.parametrize(
    ("aux", "says"),
    [
        ("ce", "not an auxiliary"),
        ("m2f", "not an auxiliary"),
        ("m2f(cls=focal)", "not an auxiliary"),
        ("focl", "Unknown loss 'focl'"),
        ("", "empty"),
    ],
)
def test_auxiliary_shorthand_refuses(aux, says):
    with pytest.raises(ProveError, match=says):
        from_aux(aux)


def test_class_weight_scheme():
    assert class_weight_scheme(parse("ce + focal")) is None
    assert class_weight_scheme(parse("ce(class_weight=[1, 2])")) is None
    assert class_weight_scheme(parse("ce(class_weight=auto) + dice")) == ("median_frequency", None)
    assert class_weight_scheme(parse("ce(class_weight=effective_number)")) == ("effective_number", 0.9999999)
    with pytest.raises(ProveError, match="different ways"):
        class_weight_scheme(parse("ce(class_weight=auto) + ce(class_weight=inverse)"))


def test_entries_are_complete():
    for entry in LOSSES:
        assert entry.summary
        assert entry.formula
        assert entry.paper
        assert entry.averages
        assert entry.pixel_weight
        assert entry.cost
        assert entry.avoid
        for param in entry.params:
            assert param.doc
            assert param.read(param.default) == param.default
            if param.only_with is not None:
                other, value = param.only_with
                assert entry.param(other).read(value) == value
    for name, preset in ALIASES.values():
        assert set(preset) <= {param.name for param in LOSSES.get(name).params}


VALUE_STRATEGIES = {
    "flag": st.booleans(),
    "integer": st.integers(1, 10**9),
    "number": st.floats(0.001, 0.999),
    "numbers": st.lists(st.floats(0.1, 10), min_size=2, max_size=4).map(tuple),
    "classes": st.sets(st.integers(0, 30), min_size=1, max_size=4).map(tuple),
}


@st.composite
def written_terms(draw):
    entry = draw(st.sampled_from([entry for entry in LOSSES if entry.kind == "per_pixel"]))
    chosen = {}
    for param in entry.params:
        form = draw(st.sampled_from(param.forms))
        words = st.sampled_from([None if word == "none" else word for word in param.words] or [None])
        if draw(st.booleans()):
            chosen[param.name] = draw(words if form == "word" else VALUE_STRATEGIES[form])
    for param in entry.params:
        if param.only_with is not None and chosen.get(param.only_with[0]) != param.only_with[1]:
            chosen.pop(param.name, None)
    for param in entry.params:
        if param.high_with is not None and chosen.get(param.high_with[0]) == param.high_with[1]:
            chosen.pop(param.name, None)
    weight = draw(st.floats(0.01, 5))
    return LossTerm(entry.name, WeightSchedule("constant", weight, weight)).with_params(chosen)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(written_terms(), min_size=1, max_size=3, unique_by=lambda term: term.name))
def test_resolved_short_and_parsed_are_one_expression(terms):
    resolved = resolve(LossExpr(tuple(terms)))
    assert resolve(resolved) == resolved
    assert resolve(parse(short(resolved))) == resolved
    assert resolve(parse(str(resolved))) == resolved
    assert short(parse(short(resolved))) == short(resolved)
