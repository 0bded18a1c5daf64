"""Cells of a matrix against a brute-force reference."""

import itertools
import tracemalloc
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.spec.matrix import Block, Cell, Filter, Group, Matrix, Override, identity, matching

NAMES = ("a", "b", "c", "d")
VALUES = st.sampled_from([0, 1, 2, 1.0, True, False, "x", "y", (1, 2)])


def same(one: Any, other: Any) -> bool:
    """Independent of `identity`: true and 1 differ, 1 and 1.0 don't."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def same_cell(one: Cell, other: Cell) -> bool:
    return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)


@st.composite
def filters(draw: st.DrawFn) -> dict[str, list[Any]]:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=2))
    return {name: draw(st.lists(VALUES, min_size=1, max_size=2)) for name in names}


@st.composite
def raw_blocks(draw: st.DrawFn) -> dict[str, Any]:
    """A block as plain data: zipped groups, fixed settings, excludes and overrides that spare its axes."""
    names = draw(st.permutations(NAMES))
    cuts = sorted(draw(st.lists(st.integers(1, 4), max_size=3)))
    split = [list(names[start:end]) for start, end in itertools.pairwise([0, *cuts]) if start < end]
    groups = []
    for each in split:
        rows = st.lists(st.tuples(*[VALUES] * len(each)), min_size=1, max_size=3)
        groups.append((each, draw(rows)))
    axes = {name for each in split for name in each}
    free = [name for name in NAMES if name not in axes]
    fixed = {name: draw(VALUES) for name in free if draw(st.booleans())}
    overrides = []
    if free:
        settable = st.dictionaries(st.sampled_from(free), VALUES | st.none(), min_size=1)
        overrides = draw(st.lists(st.tuples(filters(), settable), max_size=2))
    return {
        "groups": groups,
        "fixed": fixed,
        "exclude": draw(st.lists(filters(), max_size=2)),
        "overrides": overrides,
    }


def block_of(raw: dict[str, Any]) -> Block:
    def chosen(spec: dict[str, list[Any]]) -> Filter:
        return Filter({name: frozenset(map(identity, values)) for name, values in spec.items()})

    return Block(
        tuple(Group(tuple(names), tuple(rows)) for names, rows in raw["groups"]),
        raw["fixed"],
        tuple(map(chosen, raw["exclude"])),
        tuple(Override(chosen(when), to) for when, to in raw["overrides"]),
    )


def brute_force(blocks: list[dict[str, Any]]) -> list[Cell]:
    """Every cell in order by nested loops, kept when no cell before it is the same."""
    cells: list[Cell] = []
    for raw in blocks:
        for rows in itertools.product(*(rows for _, rows in raw["groups"])):
            cell = dict(raw["fixed"])
            for (names, _), row in zip(raw["groups"], rows, strict=True):
                cell.update(zip(names, row, strict=True))

            def accepts(spec: dict[str, list[Any]], cell: Cell = cell) -> bool:
                return all(
                    name in cell and any(same(cell[name], value) for value in values) for name, values in spec.items()
                )

            if any(accepts(spec) for spec in raw["exclude"]):
                continue
            changes = [to for when, to in raw["overrides"] if accepts(when)]
            for to in changes:
                cell = {**cell, **to}
            cell = {name: value for name, value in cell.items() if value is not None}
            if not any(same_cell(cell, other) for other in cells):
                cells.append(cell)
    return cells


@settings(deadline=None, derandomize=True, max_examples=400)
@given(st.lists(raw_blocks(), max_size=3))
def test_cells_are_those_of_nested_loops(raw: list[dict[str, Any]]) -> None:
    matrix = Matrix(tuple(map(block_of, raw)))
    expected = brute_force(raw)
    cells = list(matrix.cells())
    assert len(cells) == len(expected)
    assert all(map(same_cell, cells, expected))
    assert list(matrix.cells()) == cells


@settings(deadline=None, derandomize=True, max_examples=200)
@given(raw_blocks(), st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_a_block_contains_exactly_its_cells(raw: dict[str, Any], other: Cell) -> None:
    block = block_of(raw)
    cells = list(block.cells())
    assert all(cell in block for cell in cells)
    assert (other in block) == any(same_cell(other, cell) for cell in cells)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(raw_blocks(), raw_blocks())
def test_blocks_that_share_a_cell_are_not_told_apart(one: dict[str, Any], other: dict[str, Any]) -> None:
    shared = any(same_cell(a, b) for a in brute_force([one]) for b in brute_force([other]))
    assert block_of(one).may_share(block_of(other)) or not shared


def test_blocks_without_a_common_value_are_told_apart() -> None:
    seeds = Group.axis("seed", [0, 1])
    one, other = (Block((Group.axis("model", [name]), seeds)) for name in ("m", "n"))
    assert not one.may_share(other)
    assert not one.may_share(Block((seeds,)))
    assert not one.may_share(Block((seeds,), {"model": "n"}))
    assert one.may_share(Block((seeds,), {"model": "m"}))


@settings(deadline=None, derandomize=True, max_examples=200)
@given(raw_blocks(), filters())
def test_a_filter_can_be_met_when_some_combination_meets_it(raw: dict[str, Any], spec: dict[str, list[Any]]) -> None:
    bare = {**raw, "exclude": [], "overrides": []}
    chosen = Filter({name: frozenset(map(identity, values)) for name, values in spec.items()})
    left = brute_force([{**bare, "exclude": [spec]}])
    assert block_of(bare).can_meet(chosen) == (len(left) < len(brute_force([bare])))


def test_the_first_axis_is_the_slowest_and_repeated_values_count_once() -> None:
    block = Block((Group.axis("model", ["m", "n", "m"]), Group.axis("seed", [1, 0, 1.0, True])), {"lr": 0.1})
    assert [(cell["model"], cell["seed"]) for cell in block.cells()] == [
        ("m", 1), ("m", 0), ("m", True), ("n", 1), ("n", 0), ("n", True),
    ]  # fmt: skip
    assert block.axes == ("model", "seed")


def test_zipped_axes_need_rows_of_their_length() -> None:
    with pytest.raises(ValueError, match="need 2 values"):
        Group(("model", "crop_size"), (("m",),))


def test_a_cell_that_was_excluded_can_be_added_again() -> None:
    axes = (Group.axis("model", ["m", "n"]), Group.axis("seed", [0, 1]))
    without = Block(axes, {}, (Filter({"model": frozenset(["n"])}),))
    added = Block((Group.axis("model", ["n", "m"]), Group.axis("seed", [1])))
    cells = list(Matrix((without, added)).cells())
    assert cells == [{"model": "m", "seed": 0}, {"model": "m", "seed": 1}, {"model": "n", "seed": 1}]


@settings(deadline=None, derandomize=True)
@given(st.text("ab*?[]", max_size=3), st.lists(st.text("ab*", max_size=3), max_size=5))
def test_a_text_means_itself_before_it_is_a_pattern(wanted: str, values: list[str]) -> None:
    expected = [value for value in values if value == wanted] or [v for v in values if fnmatchcase(v, wanted)]
    assert matching(wanted, values) == expected


def test_the_star_of_an_objective_is_no_pattern() -> None:
    losses = ["ce", "ce + 0.3*focal", "ce + 0.3*lovasz + 0.1*focal"]
    assert matching("ce + 0.3*focal", losses) == ["ce + 0.3*focal"]
    assert matching("*focal", losses) == losses[1:]
    assert matching(1, [True, 1.0]) == [1.0]


def test_a_million_cells_stream_in_constant_memory() -> None:
    names = ("a", "b", "c", "d", "e", "f")
    excluded = Filter({"a": frozenset({3}), "b": frozenset({4, 5})})
    block = Block(tuple(Group.axis(name, range(10)) for name in names), {"lr": 0.1}, (excluded,))
    again = Block((Group.axis("a", [3]), *(Group.axis(name, range(10)) for name in names[1:])), {"lr": 0.1})
    cells = Matrix((block, again)).cells()
    assert traced_peak(cells, 10_000) < 500_000, "bytes; the cells in a list would take hundreds of megabytes"
    assert sum(1 for _ in itertools.islice(cells, 960_000)) == 960_000  # tracing these would take a minute
    assert traced_peak(cells, 10_000) < 500_000, "bytes; the cells since then in a list would take millions"
    assert sum(1 for _ in cells) == 1_000_000 - 980_000, "the second block adds what the first excludes, nothing else"


def traced_peak(cells: Iterator[Cell], count: int) -> int:
    tracemalloc.start()
    try:
        assert sum(1 for _ in itertools.islice(cells, count)) == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
