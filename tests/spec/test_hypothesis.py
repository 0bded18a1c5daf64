"""Hypotheses as data: what their texts mean, and where their errors point."""

from pathlib import Path
from typing import Any

import pytest

from prove.errors import ProveError
from prove.spec.hypothesis import (
    BUILT_IN,
    Hypothesis,
    Matcher,
    Quantity,
    read_hypotheses,
    read_matcher,
    read_quantity,
    with_built_in,
)
from prove.spec.located import Node
from prove.spec.yaml_file import read_yaml

ENTRY = {"name": "x", "treatment": "dice", "measure": "mIoU", "direction": "raises"}


def node(tmp_path: Path, text: str) -> Node:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    root, _ = read_yaml(file, "experiment")
    report = root.value["report"]
    found = report.value["hypotheses"]
    assert isinstance(found, Node)
    return found


@pytest.mark.parametrize(
    ("text", "role", "expected"),
    [
        ("focal", "treatment", Matcher("term", "focal")),
        ("0.3*focal", "treatment", Matcher("term", "0.3*focal")),
        ("focal(gamma=3)", "treatment", Matcher("term", "focal(gamma=3)")),
        ("constant(0.3, start=0.2)*lovasz", "treatment", Matcher("term", "constant(0.3, start=0.2)*lovasz")),
        ("ce + 0.3*focal", "treatment", Matcher("objective", "ce + 0.3*focal")),
        ("only dice", "treatment", Matcher("objective", "dice")),
        ("only 0.5*dice", "treatment", Matcher("objective", "0.5*dice")),
        ("scheduled lovasz", "treatment", Matcher("scheduled", "lovasz")),
        ("constant  lovasz(per_image=false)", "control", Matcher("constant", "lovasz(per_image=false)")),
        ("ce", "control", Matcher("objective", "ce")),
        (" only ce ", "control", Matcher("objective", "ce")),
        ("constantly", "treatment", Matcher("term", "constantly")),
    ],
)
def test_what_a_text_matches(text: str, role: Any, expected: Matcher) -> None:
    assert read_matcher(text, role) == expected
    assert read_matcher(str(expected), "treatment") == expected  # its own text reads back


@pytest.mark.parametrize("text", ["", "0.3*", "constant ce + focal", "scheduled 0.3*lovasz", "only", "focal - dice"])
def test_what_matches_nothing(text: str) -> None:
    if text == "only":  # a term of that name, for all one knows here
        assert read_matcher(text, "treatment") == Matcher("term", "only")
        return
    with pytest.raises(ProveError):
        read_matcher(text, "treatment")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mIoU", Quantity("mIoU")),
        ("ECE", Quantity("ECE")),
        ("rare_IoU", Quantity("rare_IoU")),
        ("oscillation", Quantity("oscillation")),
        ("IoU of rider", Quantity("IoU", "class", "rider")),
        ("bF1 of traffic light", Quantity("bF1", "class", "traffic light")),
        ("IoU of man in black", Quantity("IoU", "class", "man in black")),
        ("mIoU in night", Quantity("mIoU", "condition", "night")),
        ("ECE in out of town", Quantity("ECE", "condition", "out of town")),
    ],
)
def test_what_a_measure_means(text: str, expected: Quantity) -> None:
    assert read_quantity(f" {text} ") == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("miou", "'mIoU'"),
        ("IoU", "IoU of CLASS"),
        ("mIoU of rider", "'IoU'"),
        ("IoU in night", "'mIoU'"),
        ("rare_IoU in night", "Unknown metric 'rare_IoU'"),
        ("oscilation", "'oscillation'"),
        ("mIoU at night", "Unknown measure"),
    ],
)
def test_a_measure_that_is_none(text: str, says: str) -> None:
    with pytest.raises(ProveError) as error:
        read_quantity(text)
    assert says in str(error.value)


def test_a_list_and_a_mapping_say_the_same(tmp_path: Path) -> None:
    rest = {
        "claim": "Dice finds riders.",
        "treatment": "ce + 0.3*dice",
        "control": "ce + 0.3*focal",
        "measure": "IoU of rider",
        "direction": "raises",
        "smallest_effect": 2,
    }
    expected = Hypothesis(
        "riders",
        "Dice finds riders.",
        Matcher("objective", "ce + 0.3*dice"),
        Matcher("objective", "ce + 0.3*focal"),
        Quantity("IoU", "class", "rider"),
        "raises",
        2.0,
    )
    listed = "report:\n  hypotheses:\n    - name: riders\n" + "".join(f"      {k}: {v}\n" for k, v in rest.items())
    mapped = "report:\n  hypotheses:\n    riders:\n" + "".join(f"      {k}: {v}\n" for k, v in rest.items())
    for value in ([{"name": "riders", **rest}], {"riders": rest}, node(tmp_path, listed), node(tmp_path, mapped)):
        assert read_hypotheses(value) == (expected,)


def test_what_may_be_left_out() -> None:
    (found,) = read_hypotheses([ENTRY])
    assert found.control is None
    assert found.smallest_effect is None
    assert found.claim == "dice raises mIoU over the baseline."
    assert read_hypotheses([{**ENTRY, "control": "baseline"}]) == (found,)
    assert read_hypotheses([]) == ()


def test_a_users_own_replaces_a_built_in_of_its_name() -> None:
    own = read_hypotheses([{**ENTRY, "name": "lovasz_miou"}, {**ENTRY, "name": "mine"}])
    every = with_built_in(own)
    assert [each.name for each in every] == [*(each.name for each in BUILT_IN), "mine"]
    assert [each.built_in for each in every] == [each.name != "lovasz_miou" for each in BUILT_IN] + [False]
    assert every[1] == own[0]


def test_the_built_in_ones_can_be_written_in_a_file() -> None:
    """What PROVE tests by itself can be said in the words of the file."""
    for each in BUILT_IN:
        written = {
            "name": each.name,
            "claim": each.claim,
            "treatment": str(each.treatment),
            "control": str(each.control) if each.control else "baseline",
            "measure": str(each.measure),
            "direction": each.direction,
        }
        (found,) = read_hypotheses([written])
        assert (found.treatment, found.control, found.measure) == (each.treatment, each.control, each.measure)
    assert len({each.name for each in BUILT_IN}) == len(BUILT_IN) == 7


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"direction": "rases"}, "'raises'"),
        ({"treatmnt": "dice"}, "'treatment'"),
        ({"measure": "mIuO"}, "'mIoU'"),
        ({"treatment": "ce + + dice"}, "column"),
        ({"control": "ce + 0.3*"}, "expected the name of a loss"),
        ({"control": "constant lovasz"}, "scheduled lovasz"),
        ({"smallest_effect": 0}, "> 0"),
        ({"smallest_effect": True}, "> 0"),
        ({"smallest_effect": float("nan")}, "> 0"),
        ({"treatment": 3}, "must be text"),
        ({"claim": None}, "must be text"),
        ({"name": ""}, "must be text"),
    ],
)
def test_an_entry_at_fault(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ProveError) as error:
        read_hypotheses([ENTRY, {**ENTRY, "name": "y", **change}])
    assert says in str(error.value)
    assert error.value.message.startswith(f"hypotheses[1].{next(iter(change))}: ")


@pytest.mark.parametrize("missing", ["name", "treatment", "measure", "direction"])
def test_what_an_entry_needs(missing: str) -> None:
    with pytest.raises(ProveError, match=f"needs {missing}"):
        read_hypotheses([{key: value for key, value in ENTRY.items() if key != missing}])


@pytest.mark.parametrize("value", ["focal", 3, None, [["x"]], ["focal"], {"x": "focal"}])
def test_what_is_no_hypothesis(value: Any) -> None:
    with pytest.raises(ProveError, match="mapping"):
        read_hypotheses(value)


def test_one_name_twice() -> None:
    with pytest.raises(ProveError, match="Two hypotheses"):
        read_hypotheses([ENTRY, ENTRY])


@pytest.mark.parametrize(
    ("entry", "place", "says"),
    [
        ("{name: x, treatment: dice, measure: mIuO, direction: raises}", (3, 44), "'mIoU'"),
        ("{name: x, treatment: dice, measure: mIoU, direction: up}", (3, 61), "Unknown direction"),
        ("{name: x, tretment: dice, measure: mIoU, direction: raises}", (3, 18), "'treatment'"),
        ("{name: x, measure: mIoU, direction: raises}", (3, 8), "needs treatment"),
    ],
)
def test_errors_name_the_place(tmp_path: Path, entry: str, place: tuple[int, int], says: str) -> None:
    text = f"report:\n  hypotheses:\n     - {entry}\n"
    with pytest.raises(ProveError) as error:
        read_hypotheses(node(tmp_path, text))
    assert says in str(error.value)
    assert f"x.yaml:{place[0]}:{place[1]}: " in error.value.message
