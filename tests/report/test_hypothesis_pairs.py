"""Treatments and controls: they differ in what the hypothesis is about, and in nothing else."""

import math

import pytest

from prove.errors import ProveError
from prove.report.hypothesis_pairs import check_names, common_name, known, mean_weight, pairs, passed_over, suggestions
from prove.spec import WeightSchedule, parse
from prove.spec.hypothesis import BUILT_IN, Hypothesis, read_hypotheses

BY_NAME = {each.name: each for each in BUILT_IN}


def hypothesis(treatment: str, control: str = "baseline") -> Hypothesis:
    entry = {"treatment": treatment, "control": control, "measure": "mIoU", "direction": "raises"}
    (found,) = read_hypotheses([{"name": "x", **entry}])
    return found


def compared(asked: Hypothesis, losses: list[str], baseline: str = "ce") -> list[tuple[str, str]]:
    """(treatment, control) by their texts; the control is in brackets where it is not there."""
    found = pairs(asked, tuple(losses), baseline)
    return [(p.treatment.label, p.control.label if p.control.loss else f"({p.control.label})") for p in found]


@pytest.mark.parametrize(
    ("treatment", "loss", "is_one"),
    [
        ("focal", "ce + 0.3*focal", True),
        ("focal", "ce + 0.1*focal(gamma=3)", True),
        ("focal", "ce + cosine(0.5->0.1)*focal", True),
        ("focal", "ce + 0.3*focal + 0.1*focal(gamma=3)", True),
        ("focal", "focal", False),
        ("focal", "0.7*ce + 0.3*focal", False),
        ("focal", "ce(label_smoothing=0.1) + 0.3*focal", False),
        ("focal", "ce + 0.3*focal + 0.3*dice", False),
        ("focal", "ce + 0.3*boundary_focal", False),
        ("0.3*focal", "ce + 0.3*focal", True),
        ("0.3*focal", "ce + 0.30*focal(gamma=2)", True),
        ("0.3*focal", "ce + 0.1*focal", False),
        ("1*focal", "ce + 0.3*focal", False),
        ("focal(gamma=3)", "ce + 0.3*focal(gamma=3, alpha=0.25)", True),
        ("focal(gamma=2)", "ce + 0.3*focal", True),
        ("focal(gamma=3)", "ce + 0.3*focal", False),
        ("label_smoothing", "ce(label_smoothing=0.1)", True),
        ("label_smoothing", "ce(label_smoothing=0.2)", True),
        ("label_smoothing", "ce + 0.3*ce(label_smoothing=0.1)", True),
        ("label_smoothing", "2*ce(label_smoothing=0.1)", False),
        ("label_smoothing", "ce(label_smoothing=0.1, ohem=true)", False),
        ("label_smoothing(label_smoothing=0.2)", "ce(label_smoothing=0.1)", False),
        ("label_smoothing(label_smoothing=0.2)", "ce(label_smoothing=0.2)", True),
        ("ohem", "ce(ohem=true, thresh=0.9)", True),
        ("ce(class_weight=auto)", "ce(class_weight=median_frequency)", True),
        ("constant lovasz", "ce + 0.3*lovasz", True),
        ("constant lovasz", "ce + linear(0->0.3)*lovasz", False),
        ("scheduled lovasz", "ce + linear(0->0.3)*lovasz", True),
        ("scheduled lovasz", "ce + constant(0.3, start=0.2)*lovasz", True),
        ("ce+.3*focal(gamma=2)", "ce + 0.3*focal", True),
        ("ce + 0.3*focal", "ce + 0.1*focal", False),
        ("only dice", "dice", True),
        ("mine", "ce + 0.3*mine", True),
        ("mine(k=2)", "ce + 0.3*mine(k=3)", False),
    ],
)
def test_what_is_a_treatment_over_cross_entropy(treatment: str, loss: str, is_one: bool) -> None:
    written = str(parse(loss))
    found = pairs(hypothesis(treatment), ("ce", written), "ce")
    assert [p.treatment.loss for p in found] == ([written] if is_one else [])
    assert all(p.control.loss == "ce" for p in found)


def test_the_control_that_is_named() -> None:
    losses = ["ce", "ce + 0.3*focal", "ce + 0.3*focal(gamma=3)", "ce + 0.3*focal + 0.2*dice", "dice"]
    assert compared(hypothesis("dice", "ce+0.3*focal"), losses) == [("ce + 0.2*dice + 0.3*focal", "ce + 0.3*focal")]
    assert compared(hypothesis("focal(gamma=3)", "ce + 0.3*focal"), losses) == [
        ("ce + 0.3*focal(gamma=3)", "ce + 0.3*focal")
    ]
    assert compared(hypothesis("only dice", "ce + focal"), losses) == [("dice", "(ce + focal)")]
    assert compared(hypothesis("focal"), losses) == [("ce + 0.3*focal", "ce"), ("ce + 0.3*focal(gamma=3)", "ce")]
    assert passed_over(hypothesis("focal"), losses, pairs(hypothesis("focal"), tuple(losses), "ce")) == (
        "ce + 0.2*dice + 0.3*focal",
    )


def test_a_schedule_against_the_constant_weight_nearest_to_its_mean() -> None:
    schedule = BY_NAME["lovasz_schedule"]
    constants = [f"ce + {w}*lovasz" for w in (0.1, 0.3, 0.5)]
    losses = ["ce", *constants, "ce + cosine(0.5->0.1)*lovasz", "ce + linear(0->0.2)*lovasz", "ce + 0.3*focal"]
    assert compared(schedule, losses) == [
        ("ce + cosine(0.5->0.1)*lovasz", "ce + 0.3*lovasz"),
        ("ce + linear(0->0.2)*lovasz", "ce + 0.1*lovasz"),
    ]
    (found,) = pairs(schedule, ("ce + 0.5*lovasz", "ce + cosine(0.5->0.1)*lovasz"), "ce")
    assert found.control.loss == "ce + 0.5*lovasz"
    assert "0.3 on average" in found.note
    assert "0.5" in found.note


def test_no_control_of_another_strength_or_with_another_difference() -> None:
    schedule = BY_NAME["lovasz_schedule"]
    moving = "ce + cosine(0.5->0.1)*lovasz"
    missing = [(moving, "(ce + 0.3*lovasz)")]
    assert compared(schedule, ["ce", moving]) == missing
    assert compared(schedule, ["ce + 0.7*lovasz", moving]) == missing  # more than twice its mean
    assert compared(schedule, ["ce + 0.3*lovasz(per_image=false)", moving]) == missing
    assert compared(schedule, ["ce(label_smoothing=0.1) + 0.3*lovasz", moving]) == missing
    assert compared(schedule, ["ce + 0.3*lovasz"]) == []


def test_mask_classification_keeps_its_criterion() -> None:
    """Its losses are compared, and called, as those of other models."""
    assert compared(BY_NAME["focal_rare"], ["m2f", "m2f + 0.3*focal"], "m2f") == [("ce + 0.3*focal", "ce")]
    assert compared(hypothesis("ce + 0.3*focal", "ce"), ["m2f", "m2f + 0.3*focal"], "m2f") == [("ce + 0.3*focal", "ce")]
    both = known("m2f + 0.3*ce")
    assert both is not None
    assert [term.name for term in both.terms] == ["m2f", "ce"]


def test_another_criterion_is_an_arm_of_its_own() -> None:
    """Only the plain one is what ``ce`` stands for."""
    losses = ["m2f", "m2f(cls=focal)", "m2f(no_object=0.05)", "m2f(cls=focal) + 0.3*lovasz", "m2f + 0.3*lovasz"]
    assert [common_name(loss) for loss in losses] == ["ce", *losses[1:4], "ce + 0.3*lovasz"]
    assert [common_name(loss) for loss in ("0.5*m2f", "m2f + 0.3*ce", "ce")] == ["0.5*ce", "m2f + 0.3*ce", "ce"]
    assert compared(hypothesis("m2f(cls=focal)"), losses, "m2f") == [("m2f(cls=focal)", "ce")]
    assert compared(hypothesis("m2f(cls=focal)", "ce + 0.3*lovasz"), losses, "m2f") == [
        ("m2f(cls=focal) + 0.3*lovasz", "ce + 0.3*lovasz")
    ]
    assert compared(hypothesis("lovasz"), losses, "m2f(cls=focal)") == [
        ("m2f(cls=focal) + 0.3*lovasz", "m2f(cls=focal)")
    ]
    assert compared(hypothesis("m2f(points=random)"), losses, "m2f") == []
    assert suggestions(hypothesis("m2f(points=random)"), losses, "m2f") == ("m2f(points=random)",)


def test_what_tells_two_objectives_of_one_text_apart_stays() -> None:
    losses = ["ce", "ce + 0.3*mine [mine.source abc]", "ce + 0.3*mine [mine.source def]"]
    assert compared(hypothesis("mine"), losses) == [(losses[1], "ce"), (losses[2], "ce")]
    assert known("no objective (") is None


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (WeightSchedule("constant", 0.3, 0.3), 0.3),
        (WeightSchedule("constant", 0.3, 0.3, start=0.5), 0.15),
        (WeightSchedule("linear", 0.5, 0.1), 0.3),
        (WeightSchedule("cosine", 0.5, 0.1), 0.3),
        (WeightSchedule("step", 0.4, 0.0, end=0.25), 0.1),
        (WeightSchedule("linear", 0.0, 1.0, end=0.5), 0.75),
    ],
)
def test_the_mean_of_a_weight(schedule: WeightSchedule, expected: float) -> None:
    assert mean_weight(schedule) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", sorted(BY_NAME))
@pytest.mark.parametrize("losses", [["ce"], ["ce", "ce + 0.2*lovasz"], ["m2f"], ["ce", "0.5*ce + 0.3*focal"]])
def test_what_is_suggested_gives_a_pair(name: str, losses: list[str]) -> None:
    """With the suggested objectives the hypothesis can be tested."""
    asked, baseline = BY_NAME[name], losses[0]
    added = list(suggestions(asked, losses, baseline))
    if not pairs(asked, tuple(losses), baseline):
        assert added
        found = pairs(asked, (*losses, *added), baseline)
        assert found
        assert all(p.control.loss for p in found)


@pytest.mark.parametrize(
    ("treatment", "control"), [("dice", "ce + 0.3*focal"), ("ce + dice", "focal"), ("0.2*dice", "ce"), ("ohem", "ce")]
)
def test_what_is_suggested_for_a_users_own(treatment: str, control: str) -> None:
    asked = hypothesis(treatment, control)
    found = pairs(asked, suggestions(asked, [], "ce"), "ce")
    assert found
    assert all(p.control.loss for p in found)


def test_names_that_nobody_knows() -> None:
    with pytest.raises(ProveError, match="'lovas' in the hypothesis 'x'") as error:
        check_names(hypothesis("lovas"), ["ce"])
    assert "'lovasz'" in error.value.hint
    with pytest.raises(ProveError, match="gama"):
        check_names(hypothesis("focal(gama=3)"), ["ce"])
    with pytest.raises(ProveError, match="mine"):
        check_names(hypothesis("focal", "mine"), ["ce"])
    check_names(hypothesis("mine", "ce + label_smoothing"), ["ce + 0.3*mine [mine.source abc]"])


def test_the_bound_on_the_ratio_of_weights_is_a_factor_of_two() -> None:
    schedule = BY_NAME["lovasz_schedule"]
    for weight, there in ((0.6, True), (0.61, False), (0.15, True), (0.149, False)):
        (found,) = pairs(schedule, (f"ce + {weight}*lovasz", "ce + linear(0.5->0.1)*lovasz"), "ce")
        assert bool(found.control.loss) is there, (weight, math.log(weight / 0.3))
