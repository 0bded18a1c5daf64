"""The tables of `benchmarks/losses.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from loss_inputs import Batch
from loss_peers import LEFT_OUT
from measuring import Spread

MEMORY = {
    False: "Freed memory is the C library's to give back. Linux's gives back every buffer above 32 MiB at once and "
    "pays for its pages anew, about half of the time of `F.cross_entropy` on such logits: that favours few buffers.",
    True: "Freed memory stays with the process, so that no call pays for page faults.",
}
"""What is said of the allocator, by whether memory is reused."""


@dataclass
class Cell:
    """One contender on one objective and batch.

    Attributes:
        limits: what is asked, by the quantity.
        note: in what its loss differs.
        error: how it failed; empty if it did not.
        time: as a multiple of `F.cross_entropy` on full-size logits in the same round.
        copies: as a multiple of copying the logits once.
        copy_time: copying the logits, as a multiple of `F.cross_entropy`.
        memory: peak beyond the inputs, gradient included, in multiples of the full-size logits.
        kept: of it, what is held between two calls.
        upsampled_time: from stride-4 logits, as a multiple of upsampling and the unfused objective.
        upsampled_memory: likewise.
        value_error: relative difference to plain torch in float64.
        gradient_error: likewise, in the Euclidean norm.
    """

    objective: str
    contender: str
    size: str
    kind: str
    upsample: bool
    limits: dict[str, float]
    note: str = ""
    error: str = ""
    time: Spread | None = None
    seconds: Spread | None = None
    baseline_seconds: Spread | None = None
    copies: Spread | None = None
    copy_time: Spread | None = None
    memory: float | None = None
    kept: float | None = None
    upsampled_time: Spread | None = None
    upsampled_memory: float | None = None
    value_error: float | None = None
    gradient_error: float | None = None

    @property
    def title(self) -> str:
        return f"{self.objective}, {self.contender}, {self.size}" + (" from stride 4" if self.upsample else "")

    def measured(self, quantity: str) -> float | None:
        """The figure that a limit is compared with."""
        found = getattr(self, quantity.replace(" ", "_"))
        return found.median if isinstance(found, Spread) else found

    def verdict(self, quantity: str) -> str:
        """``ok`` or ``over``; empty where nothing was asked or measured."""
        value, limit = self.measured(quantity), self.limits.get(quantity)
        return "" if value is None or limit is None else "ok" if value <= limit else "**over**"

    @property
    def over(self) -> bool:
        return any(self.verdict(quantity) == "**over**" for quantity in self.limits)


def report(
    cells: Sequence[Cell], batches: Sequence[Batch], machine: str, lacking: Sequence[str], options: argparse.Namespace
) -> str:
    """The whole Markdown document."""
    lines = [
        "# What the losses cost", "",
        "Forward and backward, time as a multiple of plain `F.cross_entropy` on the full-size logits in the same round "
        "(median, quartiles), memory at its peak beyond logits and labels, gradient included, in multiples of the "
        f"full-size logits; {options.dtype}, 5% of the pixels ignored.", "",
        machine, MEMORY[options.reuse], "",
    ]  # fmt: skip
    for on in batches:
        size, there = "x".join(map(str, on.logits.shape)), on.kind
        mine = [cell for cell in cells if (cell.size, cell.kind) == (size, there)]
        base = next((cell for cell in mine if cell.baseline_seconds and cell.copy_time), None)
        lines += [f"## [{', '.join(map(str, on.logits.shape))}], {there} logits", ""]
        line = f"Logits: {on.accuracy:.0%} of the pixels right, {on.sure:.0%} of these with a probability above 0.99."
        if base and base.baseline_seconds and base.copy_time:
            seconds, copy = base.baseline_seconds.median, base.copy_time.median * base.baseline_seconds.median
            rate = 2 * on.logit_bytes / copy / 1e9
            line += f" `F.cross_entropy`: {1000 * seconds:.3g} ms; reading the logits and writing as much once: "
            line += f"{1000 * copy:.3g} ms ({rate:.3g} GB/s)."
        lines += [line, "", *_asked(mine), *_peers(mine), *_upsampled(mine)]
    lines += _values(cells)
    failed = list(dict.fromkeys(f"{cell.objective}, {cell.contender}: {cell.error}" for cell in cells if cell.error))
    for title, items in (("Failed", failed), ("Not in this version", lacking), ("Left out: other losses", LEFT_OUT)):
        if items:
            lines += [f"## {title}", "", *(f"- {item}" for item in items), ""]
    return "\n".join(lines).rstrip()


def _asked(cells: Sequence[Cell]) -> list[str]:
    lines = [
        "| objective | time | asked | | memory | asked | | ms | x copy | asked | |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        if cell.contender != "PROVE" or cell.upsample:
            continue
        columns = [cell.objective, _spread(cell.time), _limit(cell, "time"), cell.verdict("time")]
        columns += [_number(cell.memory), _limit(cell, "memory"), cell.verdict("memory"), _milliseconds(cell)]
        columns += [_number(cell.measured("copies")), _limit(cell, "copies"), cell.verdict("copies")]
        lines.append(_row(columns))
    return [*lines, ""]


def _peers(cells: Sequence[Cell]) -> list[str]:
    """Objectives by contenders: time, memory."""
    full = [cell for cell in cells if not cell.upsample]
    names = list(dict.fromkeys(cell.contender for cell in full))
    if names == ["PROVE"]:
        return []
    order = ["PROVE", "PROVE, none ignored", "PROVE unfused"]
    names = [name for name in order if name in names] + [name for name in names if name not in order]
    notes: list[str] = []
    lines = ["Beside others, time; memory:", "", _row(["objective", *names]), "|---" * (len(names) + 1) + "|"]
    for objective in dict.fromkeys(cell.objective for cell in full):
        by_name = {cell.contender: cell for cell in full if cell.objective == objective}
        if set(by_name) != {"PROVE"}:
            lines.append(_row([objective, *(_cell(by_name.get(name), notes) for name in names)]))
    return [*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, 1)), ""]


def _cell(cell: Cell | None, notes: list[str]) -> str:
    if cell is None:
        return ""
    mark = ""
    if cell.note:
        if cell.note not in notes:
            notes.append(cell.note)
        mark = f" [{notes.index(cell.note) + 1}]"
    if cell.error:
        return "fails" + mark
    return f"{_number(cell.measured('time'))}; {_number(cell.memory)}{mark}"


def _upsampled(cells: Sequence[Cell]) -> list[str]:
    lines = [
        "From stride-4 logits, upsampling fused, against `F.interpolate` and the same objective unfused:", "",
        "| objective | time / unfused | asked | | memory / unfused | asked | | time | asked | | memory "
        "| unfused: time; memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    found = [cell for cell in cells if cell.upsample]
    for objective in dict.fromkeys(cell.objective for cell in found):
        by_name = {cell.contender: cell for cell in found if cell.objective == objective}
        cell = by_name.get("PROVE", Cell(objective, "PROVE", "", "", True, {}))
        columns = [objective]
        for quantity in ("upsampled time", "upsampled memory", "time"):
            value = _spread(cell.time) if quantity == "time" else _spread(cell.upsampled_time)
            value = _number(cell.upsampled_memory) if quantity == "upsampled memory" else value
            columns += [value, _limit(cell, quantity), cell.verdict(quantity)]
        lines.append(_row([*columns, _number(cell.memory), _cell(by_name.get("upsample + unfused"), [])]))
    return [*lines, ""] if found else []


def _values(cells: Sequence[Cell]) -> list[str]:
    lines = [
        "## Values", "", "Relative difference to PROVE's plain torch path in float64:", "",
        "| objective | contender | value | gradient | |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for cell in cells:
        if cell.value_error is not None and cell.gradient_error is not None:
            name = cell.objective + (" from stride 4" if cell.upsample else "")
            errors = [f"{cell.value_error:.1e}", f"{cell.gradient_error:.1e}"]
            lines.append(_row([name, cell.contender, *errors, cell.note]))
    return [*lines, ""]


def _row(columns: Sequence[str]) -> str:
    return "| " + " | ".join(columns) + " |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _spread(spread: Spread | None) -> str:
    return str(spread) if spread else ""


def _limit(cell: Cell, quantity: str) -> str:
    return f"{cell.limits[quantity]:g}" if cell.verdict(quantity) else ""


def _milliseconds(cell: Cell) -> str:
    return f"{1000 * cell.seconds.median:.3g}" if cell.seconds else ""
