"""Forward and backward of every objective, time and peak memory, beside the libraries that have the same loss.

    python benchmarks/losses.py -o losses.md --json losses.json          about ten minutes on one thread
    python benchmarks/losses.py --sizes 1x5x32x64 --rounds 3             seconds

All in one run: in every round each contender of an objective runs once, with plain `F.cross_entropy` before and after
them; reported are the median and the quartiles of each round's ratio to it. Memory is the peak beyond logits and
labels, gradient included, in multiples of the (full-size) logits. With --check the exit code is 1 where a limit is
exceeded.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch
from loss_inputs import KINDS, Batch, Size, batch
from loss_peers import PEERS, Loss, load_peers, peer_of, torch_ce
from loss_report import Cell, report
from loss_rows import CUDA_FROM_STRIDE_4, FROM_STRIDE_4, ROWS, Row
from measuring import (
    BASELINE,
    Call,
    Clock,
    MeasurementError,
    Spread,
    as_json,
    describe,
    interleave,
    limit_threads,
    machine,
    machine_line,
    peak_beyond_inputs,
    ratios,
    reuse_memory,
    rounds_of,
)
from torch import Tensor
from torch.nn import functional as F

from prove.errors import ProveError
from prove.losses import Objective

PACKAGES = (
    "torch", "numba", "onedl-mmsegmentation", "segmentation-models-pytorch", "monai", "kornia", "torchvision",
)  # fmt: skip
DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "bfloat16", "float16")}
Limits = Mapping[str, float]
Say = Callable[[str], None]
COPY = "copy"
"""Reading the logits and writing as much once: what no loss with a gradient can go below."""

UNFUSED_UPSAMPLING = "upsample + unfused"


@dataclass
class Block:
    """An objective on one batch, with all that is measured of it."""

    row: Row
    batch: Batch
    upsample: bool
    losses: dict[str, Loss] = field(default_factory=dict)
    free: set[str] = field(default_factory=set)
    cells: dict[str, Cell] = field(default_factory=dict)

    def add(
        self, name: str, loss: Loss, note: str = "", free: bool = False, limits: Limits = MappingProxyType({})
    ) -> None:
        self.losses[name] = loss
        if free:
            self.free.add(name)
        size = "x".join(str(side) for side in self.batch.logits.shape)
        self.cells[name] = Cell(self.row.name, name, size, self.batch.kind, self.upsample, dict(limits), note)

    def value(self, name: str, on: Batch) -> Tensor:
        return self.losses[name](on.low if self.upsample else on.logits, on.free if name in self.free else on.labels)

    def call(self, name: str, on: Batch) -> Call:
        return lambda: self.value(name, on).backward()


def upsampled(loss: Loss) -> Loss:
    """What heads do: logits resized to the labels, then the loss."""
    return lambda z, y: loss(F.interpolate(z, size=y.shape[-2:], mode="bilinear", align_corners=False), y)


def objective(text: str, **arguments: str) -> Loss:
    module = Objective(text, **arguments)
    return lambda z, y: module(z, y).total


def fused_upsampling(text: str) -> Loss:
    module = Objective(text)
    return lambda z, y: module(z, y, align_corners=False).total


def full_size_block(row: Row, on: Batch, peers: bool, device: str) -> Block:
    images, classes = on.logits.shape[:2]
    block, text = Block(row, on, upsample=False), row.written(classes)
    limits = row.cuda_limits if device == "cuda" else row.limits
    block.add("PROVE", objective(text), limits=limits)
    if not peers:
        return block
    if row.terms:
        block.add("PROVE unfused", objective(text, backend="torch"))
    for library in PEERS if row.terms else ():
        peer = peer_of(library, row.terms)
        if peer is None:
            continue
        note = peer.note if peer.ignores else "; ".join(filter(None, ("can't ignore: nothing ignored", peer.note)))
        block.add(library, peer.make(images, classes), note, free=not peer.ignores)
    if block.free:
        block.add("PROVE, none ignored", objective(text), free=True)
    return block


def upsampling_block(row: Row, on: Batch, device: str, unfused: bool) -> Block:
    block, text = Block(row, on, upsample=True), row.written(on.logits.shape[1])
    block.add("PROVE", fused_upsampling(text), limits=CUDA_FROM_STRIDE_4 if device == "cuda" else FROM_STRIDE_4)
    if unfused:
        block.add(UNFUSED_UPSAMPLING, upsampled(objective(text, backend="torch")))
    return block


def blocks_of(
    batches: Sequence[Batch], rows: Sequence[Row], options: argparse.Namespace
) -> tuple[list[Block], list[str]]:
    """The blocks to measure, and what this version of PROVE lacks for the others."""
    blocks: list[Block] = []
    lacking: list[str] = []
    first = batches[0]
    for on in batches:
        for row in rows:
            if row.alone and on.logits.shape != first.logits.shape:
                continue
            first_kind = on.kind == first.kind
            peers = {"none": False, "first": on is first, "sizes": first_kind, "every": True}[options.peers]
            try:
                blocks.append(full_size_block(row, on, peers, options.device))
                if not row.alone and "method=binned" not in row.text:  # as without a method at such sizes
                    blocks.append(upsampling_block(row, on, options.device, first_kind or options.peers == "every"))
            except ProveError as error:
                lacking.append(f"{row.name}: {error.message}")
    return blocks, list(dict.fromkeys(lacking))


def measure_memory(blocks: Sequence[Block], first: Batch, device: str, say: Say) -> None:
    """Fill in the peaks: PROVE's everywhere, the others' for the first size and kind of logits alone."""
    halves: dict[int, Batch] = {}
    for block in blocks:
        on = block.batch
        for name, cell in block.cells.items():
            same = on.kind == first.kind and (block.upsample or on.logits.shape == first.logits.shape)
            if name != "PROVE" and not same:
                continue
            say(f"memory: {cell.title}")
            small = halves.setdefault(id(on), on.smaller())

            def forget(on: Batch = on, small: Batch = small) -> None:
                on.forget()
                small.forget()

            try:
                peak = peak_beyond_inputs(block.call(name, small), block.call(name, on), forget, device)
                cell.memory, cell.kept = peak.bytes / on.logit_bytes, peak.kept / on.logit_bytes
            except MeasurementError as error:
                cell.error = str(error)


def measure_time(blocks: Sequence[Block], first: Batch, options: argparse.Namespace, clock: Clock, say: Say) -> None:
    """Fill in the ratios of time; blocks of one batch take turns. On the first batch, the errors as well."""
    if not blocks:
        return
    on, reference = blocks[0].batch, torch_ce(1, 1)
    buffer = torch.empty_like(on.logits)
    calls: list[dict[str, Call]] = []
    shares: list[dict[str, int]] = []
    for block in blocks:
        say(f"first calls: {block.row.name}")
        usable: dict[str, Call] = {COPY: lambda: buffer.copy_(on.logits.detach())}
        share = {COPY: options.rounds}
        truth = Truth(block) if on is first else None
        for name, cell in block.cells.items():
            if cell.error:
                continue
            try:
                share[name] = rounds_of(first_seconds(block, name, clock, truth), options.rounds, options.budget)
                usable[name] = block.call(name, on)
            except Exception as error:  # a peer may fail in any way; the table says how
                cell.error = describe(error)
        calls.append(usable)
        shares.append(share)
    say(f"{options.rounds} rounds of {sum(map(len, calls))} calls")
    baseline = lambda: reference(on.logits, on.labels).backward()  # noqa: E731
    turns = interleave(baseline, calls, shares, options.rounds, clock, on.forget)
    for block, taken in zip(blocks, turns, strict=True):
        for name, cell in block.cells.items():
            cell.time, cell.copies = ratios(taken, name), ratios(taken, name, COPY)
            cell.seconds = Spread.of([turn[name] for turn in taken if name in turn]) if cell.time else None
            cell.baseline_seconds = Spread.of([turn[BASELINE] for turn in taken])
            cell.copy_time = ratios(taken, COPY)
        if UNFUSED_UPSAMPLING in block.cells:
            unfused, cell = block.cells[UNFUSED_UPSAMPLING], block.cells["PROVE"]
            cell.upsampled_time = ratios(taken, "PROVE", UNFUSED_UPSAMPLING)
            if cell.memory is not None and unfused.memory:
                cell.upsampled_memory = cell.memory / unfused.memory


def first_seconds(block: Block, name: str, clock: Clock, truth: Truth | None) -> float:
    """How long a contender takes: its first call, which may load or compile, or a second if that was quick."""
    on = block.batch
    found: list[Tensor] = []

    def call() -> None:
        found.append(block.value(name, on))
        found[-1].backward()

    on.forget()
    seconds = clock.seconds(call)
    if truth is not None:
        truth.compare(name, found[0].detach())
    if seconds < 1.0:
        on.forget()
        seconds = min(seconds, clock.seconds(call))
    on.forget()
    return seconds


class Truth:
    """Value and gradient of PROVE's plain torch path in float64, to compare contenders with."""

    def __init__(self, block: Block) -> None:
        self.block = block
        plain = objective(block.row.written(block.batch.logits.shape[1]), backend="torch")
        self.plain = upsampled(plain) if block.upsample else plain
        self.known: dict[bool, tuple[Tensor, Tensor]] = {}

    def compare(self, name: str, value: Tensor) -> None:
        """Fill in the errors of a contender, whose gradient is in the batch."""
        on, free = self.block.batch, name in self.block.free
        logits = on.low if self.block.upsample else on.logits
        if free not in self.known:
            leaf = logits.detach().double().requires_grad_()
            exact = self.plain(leaf, on.free if free else on.labels)
            exact.backward()
            assert leaf.grad is not None
            self.known[free] = (exact.detach(), leaf.grad)
        truth, slope = self.known[free]
        assert logits.grad is not None
        cell = self.block.cells[name]
        cell.value_error = float((value.double() - truth).abs() / truth.abs().clamp(min=1e-30))
        cell.gradient_error = float((logits.grad.double() - slope).norm() / slope.norm().clamp(min=1e-30))


def size_of(text: str) -> Size:
    sides = tuple(int(side) for side in text.split("x"))
    if len(sides) != 4 or min(sides) < 1 or sides[1] < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 2x19x256x512")
    return sides


def several(known: Sequence[str]) -> Callable[[str], list[str]]:
    def split(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return split


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=lambda text: [size_of(each) for each in text.split(",")],
                        default="2x19x256x512,2x19x512x1024", help="NxCxHxW, separated by commas")  # fmt: skip
    parser.add_argument("--logits", type=several(KINDS), default=",".join(KINDS), help="kinds, separated by commas")
    parser.add_argument("--rows", help="measure only objectives that contain one of these texts, separated by ;")
    parser.add_argument("--slow", action="store_true", help="also distance transforms, which take minutes")
    parser.add_argument("--peers", choices=("none", "first", "sizes", "every"), default="first",
                        help="other libraries: never, at the first size and kind of logits, at all sizes")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--budget", type=float, default=1.0,
                        help="seconds for all rounds of a contender; a slow one takes part in three")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32")
    parser.add_argument("--reuse", action="store_true",
                        help="keep freed memory in the process, so that no call pays for page faults")  # fmt: skip
    parser.add_argument("--no-memory", action="store_true", help="measure time alone")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a limit is exceeded")
    parser.add_argument("-o", "--output", type=Path, help="write the Markdown here as well")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    wanted = options.rows.split(";") if options.rows else [""]
    rows = [row for row in ROWS if any(text.strip() in row.name for text in wanted) and (options.slow or not row.slow)]
    torch.set_num_threads(1)  # until memory is measured: a forked process must not inherit a pool of threads
    load_peers()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    batches = [batch(kind, size, DTYPES[options.dtype], options.device)
               for size in options.sizes for kind in options.logits]  # fmt: skip
    blocks, lacking = blocks_of(batches, rows, options)
    if not options.no_memory:
        for on in batches:
            measure_memory([block for block in blocks if block.batch is on], batches[0], options.device, say)
    if options.reuse:
        reuse_memory()
    limit_threads(options.threads)
    clock = Clock(options.device)
    for on in batches:
        measure_time([block for block in blocks if block.batch is on], batches[0], options, clock, say)

    about = machine(options.device, options.threads, PACKAGES)
    cells = [cell for block in blocks for cell in block.cells.values()]
    text = report(cells, batches, machine_line(about), lacking, options)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    if options.json:
        document = {"machine": about, "dtype": options.dtype, "lacking": lacking, "measured": cells}
        options.json.write_text(json.dumps(document, default=as_json, indent=1) + "\n", encoding="utf-8")
    return int(options.check and any(cell.over for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
