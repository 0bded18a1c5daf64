"""Findings as tables: what a reader sees agrees with what was found."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from prove.report.hypothesis_finding import BlockTest, Finding, Outcome
from prove.report.render import render
from prove.report.table import Table
from prove.report.views.hypotheses import effect_text, hypotheses
from prove.spec.hypothesis import BUILT_IN

BY_NAME = {each.name: each for each in BUILT_IN}
POINTS, RATIO = BY_NAME["lovasz_miou"], BY_NAME["lovasz_oscillates"]


def block(name: str = "A, m1", **change: Any) -> BlockTest:
    plain = BlockTest(name, 0.81, 0.11, 1.51, 0.021, 0.3, 8.0, 3, 40.0, 40.81, "", ("aaa", "bbb"), counts=True)
    return replace(plain, **change)


def finding(**change: Any) -> Finding:
    plain = Finding(
        hypothesis=POINTS,
        treatment="ce + 0.3*lovasz",
        control="ce",
        outcome=Outcome.SUPPORTED,
        effect=0.81,
        low=0.11,
        high=1.51,
        p=0.021,
        p_adjusted=0.042,
        smallest_effect=0.3,
        tau=None,
        seeds=3,
        blocks=1,
        by_block=(block(),),
        why="The interval lies on the claimed side of no effect.",
    )
    return replace(plain, **change)


NOTHING = finding(
    hypothesis=BY_NAME["boundary_bf1"], treatment="", outcome=Outcome.OPEN, effect=None, low=None, high=None, p=None,
    p_adjusted=None, seeds=0, blocks=0, by_block=(), why="No run has it.", settle="Add ce + 0.3*boundary.",
)  # fmt: skip


@pytest.mark.parametrize(
    ("hypothesis", "numbers", "text"),
    [
        (POINTS, (0.81, 0.11, 1.51), "+0.81 [+0.11, +1.51]"),
        (POINTS, (-12.34, -22.3, -2.4), "-12.3 [-22.3, -2.4]"),
        (POINTS, (0.0211, 0.0001, 0.0421), "+0.021 [+0.0001, +0.042]"),
        (POINTS, (0.5, None, None), "+0.50"),
        (POINTS, (None, None, None), "–"),
        (RATIO, (100 * math.log(1.5), 100 * math.log(1.1), 100 * math.log(2.0)), "×1.50 [1.10, 2.00]"),
        (RATIO, (0.0, 100 * math.log(1.001), 100 * math.log(300)), "×1.00 [1.001, 3.0e+02]"),
        (RATIO, (0.0, None, None), "×1.00"),
    ],
)
def test_an_effect_as_text(hypothesis: Any, numbers: tuple[Any, ...], text: str) -> None:
    assert effect_text(finding(hypothesis=hypothesis), *numbers) == text


def test_a_row_for_each_finding() -> None:
    refuted = finding(outcome=Outcome.NOT_SUPPORTED, why="The effect goes the other way.", notes=("One run failed.",))
    (table,) = hypotheses([finding(), NOTHING, refuted])
    assert all(len(row) == len(table.columns) for row in table.rows)
    claim, effect, p, adjusted, seeds, outcome = table.rows[0]
    assert claim.text == "Lovász loss raises mIoU.\nce + 0.3*lovasz against ce"
    assert (effect.text, effect.value) == ("+0.81 [+0.11, +1.51]", 0.81)
    assert (p.text, adjusted.text, seeds.text) == (".021", ".042", "3")
    assert (outcome.text, outcome.bold, outcome.muted) == ("supported", True, False)
    assert effect.runs == ("aaa", "bbb")
    notes = dict(table.notes)
    assert outcome.marks == ()
    open_one = table.rows[1][-1]
    assert (open_one.text, open_one.bold, open_one.muted) == ("can't tell yet", False, True)
    assert notes[open_one.marks[0]] == "No run has it. To settle it: Add ce + 0.3*boundary."
    assert [notes[mark] for mark in table.rows[2][-1].marks] == ["The effect goes the other way.", "One run failed."]
    assert hypotheses([]) == ()


def test_the_caption_counts_the_comparisons_that_were_made() -> None:
    (table,) = hypotheses([finding(), finding(hypothesis=RATIO, smallest_effect=100 * math.log(1.25)), NOTHING])
    assert "the 2 comparisons that could be made" in table.caption
    assert "mIoU 0.3 points" in table.caption
    assert "oscillation ×1.25" in table.caption
    assert "Holm" in table.caption


def test_the_caption_says_where_an_effect_is_an_estimate_of_the_model() -> None:
    complete, estimated = finding(), finding(by_block=(block(estimated=True), block("A, m2")))
    (table,) = hypotheses([complete])
    assert "additive" not in table.caption
    overview, blocks = hypotheses([complete, estimated])
    for caption in (overview.caption, blocks.caption):
        assert "Where runs are missing" in caption
        assert "least-squares estimate of the additive loss + seed model" in caption
        assert "not the mean of the paired differences" in caption
    assert [record["estimated"] for record in blocks.records] == [True, False]


def test_what_is_not_comparable_is_marked_in_every_table_and_record() -> None:
    sentence = "2 of the 6 runs in A, m1 are not comparable (--allow-mixed): other code."
    odd = block(mixed=2, cautions=(sentence,))
    withheld = finding(
        by_block=(odd, block("A, m2")), outcome=Outcome.OPEN, withheld="No.", why="No.", notes=(sentence,)
    )
    overview, blocks = hypotheses([withheld, finding()])
    assert sentence in [text for mark, text in overview.notes if mark in overview.rows[0][-1].marks]
    assert overview.rows[0][1].muted
    assert not overview.rows[1][1].muted
    assert "Neither is said of runs that are not comparable" in overview.caption
    assert [record["mixed"] for record in overview.records] == [2, 0]
    assert sentence in blocks.rows[0][-1].text
    assert [(record["mixed"], record["notes"]) for record in blocks.records] == [(2, sentence), (0, "")]


@pytest.mark.parametrize(
    ("confidence", "shown", "level"), [(0.95, "95%", "0.05"), (0.975, "97.5%", "0.025"), (0.9875, "98.75%", "0.0125")]
)
def test_a_confidence_has_all_its_digits(confidence: float, shown: str, level: str) -> None:
    overview, blocks = hypotheses([finding(by_block=(block(), block("A, m2")))], confidence=confidence)
    for table in (overview, blocks):
        assert [column.name for column in table.columns if "interval" in column.name] == [f"Effect [{shown} interval]"]
    assert f"Holm's p is at most {level}." in overview.caption


def test_records_are_flat_unrounded_and_alike() -> None:
    ratio = finding(hypothesis=RATIO, effect=100 * math.log(1.5), low=0.0, high=100 * math.log(3.0))
    (table,) = hypotheses([finding(), ratio, NOTHING])
    assert len({tuple(record) for record in table.records}) == 1
    first, second, third = table.records
    assert (first["effect"], first["low"], first["p_adjusted"]) == (0.81, 0.11, 0.042)
    assert (first["unit"], second["unit"]) == ("points", "ratio")
    assert second["effect"] == pytest.approx(1.5)
    assert (second["low"], second["high"]) == (1.0, pytest.approx(3.0))
    assert third["treatment"] is None
    assert json.loads(json.dumps(table.records, allow_nan=False))[2]["settle"] == "Add ce + 0.3*boundary."


def test_several_blocks_get_a_table_of_their_own() -> None:
    lone = block("B, m1", p=None, low=None, high=None, seeds=1, why="One paired seed can't tell a loss from luck.")
    out = replace(lone, block="B, m2", counts=False)
    several = finding(by_block=(block(), block("A, m2"), lone, out), blocks=2, seeds=6, tau=0.1)
    overview, blocks = hypotheses([several, finding()])
    assert overview.rows[0][4].text == "6\n2 blocks"
    assert "Hartung-Knapp" in overview.caption
    assert [row[1].text for row in blocks.rows] == ["A, m1", "A, m2", "B, m1", "B, m2"]
    assert blocks.rows[2][-1].text == "One paired seed can't tell a loss from luck."
    assert blocks.rows[3][-1].text == "Not counted: One paired seed can't tell a loss from luck."
    assert all(len(row) == len(blocks.columns) for row in blocks.rows)
    assert [(record["block"], record["counts"]) for record in blocks.records] == [
        ("A, m1", True),
        ("A, m2", True),
        ("B, m1", True),
        ("B, m2", False),
    ]


def test_hundreds_of_blocks_stay_readable_and_complete() -> None:
    _, blocks = hypotheses([finding(by_block=tuple(block(f"D{i}, m1") for i in range(230)), blocks=230)])
    assert (len(blocks.rows), len(blocks.records)) == (200, 230)
    assert blocks.notes == (("", "30 more rows are in the CSV and JSON forms."),)


@pytest.mark.parametrize("form", ["rich", "md", "latex", "csv", "html", "json"])
def test_every_format_takes_them(form: str) -> None:
    several = finding(by_block=(block(), block("A, m2")), blocks=2, seeds=6, tau=0.1)
    tables: tuple[Table, ...] = hypotheses([several, NOTHING])
    text = render(tables, form)
    assert "supported" in text
    if form == "rich":
        assert max(map(len, text.splitlines())) <= 100
