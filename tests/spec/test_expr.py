"""The text of an objective, and the expression it stands for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.errors import ProveError
from prove.spec import LossExpr, LossTerm, WeightSchedule, parse


def constant(weight):
    return WeightSchedule("constant", weight, weight)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("ce", (LossTerm("ce"),)),
        ("ce + 0.3*focal", (LossTerm("ce"), LossTerm("focal", constant(0.3)))),
        (
            "ce+.3 * focal( gamma = 2,alpha=0.5 )",
            (LossTerm("ce"), LossTerm("focal", constant(0.3), (("alpha", 0.5), ("gamma", 2)))),
        ),
        ("ce +2*dice", (LossTerm("ce"), LossTerm("dice", constant(2.0)))),
        ("1e-3*dice", (LossTerm("dice", constant(1e-3)),)),
        ("ce(class_weight=[1, 2.5, -3])", (LossTerm("ce", params=(("class_weight", (1, 2.5, -3)),)),)),
        ("ce(ohem, class_weight=none)", (LossTerm("ce", params=(("class_weight", None), ("ohem", True))),)),
        ("0.5->0.1*dice", (LossTerm("dice", WeightSchedule("linear", 0.5, 0.1)),)),
        ("0.5→0.1*dice", (LossTerm("dice", WeightSchedule("linear", 0.5, 0.1)),)),
        ("step(0.5->0.1)*dice", (LossTerm("dice", WeightSchedule("step", 0.5, 0.1, 0.0, 0.5)),)),
        ("cosine(0->1, start=0.2, end=0.8)*dice", (LossTerm("dice", WeightSchedule("cosine", 0.0, 1.0, 0.2, 0.8)),)),
        ("constant(0.3, start=0.25,)*dice", (LossTerm("dice", WeightSchedule("constant", 0.3, 0.3, 0.25)),)),
    ],
)
def test_text_reads_as_terms(text, terms):
    assert parse(text).terms == terms


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("ce + 0.3*", 10, "name of a loss"),
        ("ce + + focal", 6, "name of a loss"),
        ("ce - focal", 4, "never subtracted"),
        ("ce -0.3*focal", 4, "never subtracted"),
        ("ce focal", 4, "expected '+'"),
        ("0.3 focal", 5, "expected '*'"),
        ("-1*ce", 1, ">= 0"),
        ("1e999*ce", 1, "finite"),
        ("2focal", 1, "can't stand here"),
        ("ce & focal", 4, "can't stand here"),
        ("focal(gamma=)", 13, "expected a value"),
        ("focal(gamma=2", 14, "expected ','"),
        ("focal(gamma=2, gamma=3)", 16, "set twice"),
        ("focal(2)", 7, "name of a parameter"),
        ("ce(class_weight=[1, 2)", 22, "expected ','"),
        ("ce + 0.3*focal + 0.2*focal", 22, "stands twice"),
        ("linear(0.5)*ce", 11, "'->'"),
        ("linear(0.5->0.1, stop=1)*ce", 1, "no option 'stop'"),
        ("linear(0.5->0.1, start=0.9, end=0.1)*ce", 1, "start < end"),
        ("linear(0.5->0.1, start=1)*ce", 1, "start < end"),
        ("linear(0.5->0.1, start)*ce", 1, "numbers"),
        ("constant(0.3, end=0.5)*ce", 1, "no end"),
    ],
)
def test_malformed_text_is_marked_where_it_is_wrong(text, column, says):
    with pytest.raises(ProveError) as error:
        parse(text)
    assert says in error.value.message
    quoted, mark = error.value.message.splitlines()[-2:]
    assert quoted == f"  {text}"
    assert mark.index("^") == column + 1  # two spaces of indentation, columns from 1
    assert f"column {column}:" in error.value.message


def test_empty_text_is_an_error():
    with pytest.raises(ProveError, match="empty"):
        parse("  ")


def test_cross_entropy_comes_first_and_order_does_not_matter():
    assert parse("0.3*focal + ce + dice") == parse("ce + dice + 0.3*focal")
    assert str(parse("0.3*focal + ce + dice")) == "ce + dice + 0.3*focal"
    assert parse("0.5*ce(ohem) + ce") == parse("ce + 0.5*ce(ohem)")
    assert parse("ce + m2f").primary.name == "m2f"
    assert parse("focal + dice").primary.name == "focal"


def test_labels_are_unique():
    assert parse("ce + focal + 0.3*focal(gamma=3)").labels == ("ce", "focal", "focal_2")


def test_column_is_not_part_of_the_identity():
    first, second = parse("ce+dice"), parse("   ce   +   dice")
    assert first == second
    assert hash(first) == hash(second)


WEIGHTS = st.one_of(
    st.floats(0, 1e6).map(constant),
    st.builds(
        WeightSchedule,
        st.sampled_from(["linear", "cosine", "step"]),
        st.floats(0, 10),
        st.floats(0, 10),
        st.floats(0, 0.4),
        st.floats(0.5, 1),
    ),
    st.builds(lambda w, s: WeightSchedule("constant", w, w, s), st.floats(0, 10), st.floats(0, 0.9)),
)
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
WORDS = NAMES.filter(lambda word: word not in {"true", "false", "none"})
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(10**6), 10**6), st.floats(-1e9, 1e9), WORDS)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=4).map(tuple))
TERMS = st.builds(
    LossTerm,
    NAMES.filter(lambda name: name not in {"constant", "linear", "cosine", "step"}),
    WEIGHTS,
    st.dictionaries(NAMES, VALUES, max_size=3).map(lambda params: tuple(sorted(params.items()))),
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(TERMS, min_size=1, max_size=4, unique_by=lambda term: (term.name, term.params)))
def test_text_of_an_expression_reads_back_as_it(terms):
    expr = LossExpr(tuple(terms))
    assert parse(str(expr)) == expr
    assert str(parse(str(expr))) == str(expr)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.text(alphabet="ce+*()[],=->. 012afoclinear→\n", max_size=30))
def test_any_text_parses_or_is_refused(text):
    try:
        expr = parse(text)
    except ProveError:
        return
    assert parse(str(expr)) == expr


def test_schedule_over_training():
    linear = WeightSchedule("linear", 0.5, 0.1, 0.2, 0.7)
    assert [linear.at(p) for p in (0.0, 0.19, 0.2, 0.45, 0.7, 1.0)] == pytest.approx([0, 0, 0.5, 0.3, 0.1, 0.1])
    cosine = WeightSchedule("cosine", 0.0, 1.0)
    assert [cosine.at(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0, 0.1464466, 0.5, 1])
    step = WeightSchedule("step", 0.5, 0.1, 0.0, 0.5)
    assert [step.at(p) for p in (0.0, 0.499, 0.5, 1.0)] == [0.5, 0.5, 0.1, 0.1]
    late = WeightSchedule("constant", 0.3, 0.3, 0.25)
    assert [late.at(p) for p in (0.0, 0.24, 0.25, 1.0)] == [0, 0, 0.3, 0.3]


@pytest.mark.parametrize("text", ["step(0.5->0.1, end=1)*dice", "step(0.5->0.1)*dice", "step(0.5->0.1, end=0.7)*dice"])
def test_a_step_says_where_it_ends(text: str) -> None:
    """``end=1`` was left out as if it were the default, and read back as 0.5: another schedule than the job's."""
    expr = parse(f"ce + {text}")
    assert parse(str(expr)) == expr
    assert parse(str(expr)).auxiliary[0].weight.end == expr.auxiliary[0].weight.end
