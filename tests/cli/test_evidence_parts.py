"""The parts of a set criterion in the table of the wiring proof."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from prove.cli.tables import evidence_table


def part(name: str, share: float, layers: int) -> dict[str, Any]:
    return {
        "part": name, "layers": [1.0] * layers, "contribution": 1.0 * layers, "loss_share": share,
        "gradient_norm": 1.0, "gradient_share": share,
    }  # fmt: skip


def term(name: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "term": name, "text": name, "weight": 1.0, "value": 6.0, "reference_value": 6.0, "loss_share": 0.5,
        "gradient_share": 0.8, "cosine_to_primary": None, "doubling": 2.0, "ignored_gradient": None, "parts": parts,
    }  # fmt: skip


def shown(terms: list[dict[str, Any]]) -> list[list[str]]:
    out = Console(file=io.StringIO(), width=200)
    out.print(evidence_table({"heads": [{"head": "decode_head", "terms": terms}]}))
    return [line.split() for line in out.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_parts_stand_below_their_term_with_their_share_of_the_whole() -> None:
    rows = shown([term("m2f", [part("loss_cls", 0.75, 3), part("loss_mask", 0.25, 1)]), term("focal", [])])
    assert rows[1][:2] == ["decode_head", "m2f"]
    assert rows[2] == ["loss_cls,", "3", "layers", "3", "37.5%", "60.0%"]
    assert rows[3] == ["loss_mask,", "1", "layer", "1", "12.5%", "20.0%"]
    assert rows[4][:2] == ["decode_head", "focal"]


def test_evidence_from_before_there_were_parts_is_shown() -> None:
    old = term("m2f", [])
    del old["parts"]
    assert len(shown([old])) == 2
