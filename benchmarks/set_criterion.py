"""The set criterion beside the published ones: time, memory, and how many operations its matching takes.

    python benchmarks/set_criterion.py -o set_criterion.md       minutes on one thread
    python benchmarks/set_criterion.py --rounds 1 --layers 2     seconds

Each call is the criterion on the outputs of a model and a label map, and its backward to these outputs. In every round
PROVE's runs before and after the others. Operations are those that PyTorch dispatches, views left out, as PROVE does
them on a GPU, where each is a kernel launch or a few. "For matching" are those that lead to the assignments of all
layers and images.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from loss_inputs import IGNORE
from measuring import (
    BASELINE,
    Call,
    Clock,
    MeasurementError,
    Spread,
    interleave,
    limit_threads,
    machine,
    machine_line,
    peak_beyond_inputs,
    ratios,
)
from set_criterion_peers import Criterion, hugging_face_criterion, mmseg_criterion
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prove.losses import SetCriterion
from prove.losses.set_criterion import masks as mask_parts
from prove.losses.set_criterion import matching
from prove.losses.set_criterion.points import sample
from prove.training.stack import load_stack

PACKAGES = ("torch", "onedl-mmdetection", "onedl-mmsegmentation", "transformers", "scipy")
STATED = {19: 12, 150: 20}
"""Classes of the label space, and how many of them each image holds."""
OURS: dict[str, dict[str, Any]] = {
    "m2f": {},
    "m2f(cls=focal)": {"cls": "focal"},
    "m2f(points=random)": {"points": "random"},
    "m2f(points=full)": {"points": "full"},
    "m2f(deep_supervision=false)": {"deep_supervision": False},
}
PEERS: dict[str, Callable[[int, int, int], Criterion]] = {
    "mmseg": mmseg_criterion,
    "Hugging Face": hugging_face_criterion,
}


class Counting(TorchDispatchMode):
    """Counts operations that do more than change how memory is read."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.count += 1
        return func(*args, **(kwargs or {}))


def inputs(options: argparse.Namespace, classes: int) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Leaves of a model that has learned something, and labels: blocks of some classes, 5% of the rows ignored."""
    generator = torch.Generator().manual_seed(0)
    height, width = options.masks
    n, queries = options.batch, options.queries
    blocks = []
    for _ in range(n):
        chosen = torch.randperm(classes, generator=generator)[: STATED[classes]]
        places = torch.cat(
            (torch.arange(len(chosen)), torch.randint(len(chosen), (48 - len(chosen),), generator=generator))
        )
        blocks.append(chosen[places[torch.randperm(48, generator=generator)]].view(6, 8))
    coarse = torch.stack(blocks)[:, None].float()
    labels = torch.nn.functional.interpolate(coarse, size=(4 * height, 4 * width)).long()[:, 0]
    labels[:, -(4 * height) // 20 :] = IGNORE
    small = labels[:, ::4, ::4]
    cls, masks = [], []
    for _ in range(options.layers):
        guess = torch.randint(classes, (n, queries), generator=generator)
        cls.append(torch.randn(n, queries, classes + 1, generator=generator))
        logits = 2.0 * torch.randn(n, queries, height, width, generator=generator) - 2.0
        masks.append(logits + 4.0 * (small[:, None] == guess[:, :, None, None]))
    return [x.requires_grad_() for x in cls], [x.requires_grad_() for x in masks], labels


def call_of(criterion: Criterion, cls: list[Tensor], masks: list[Tensor], labels: Tensor) -> Callable[[], None]:
    """Forward and backward."""

    def call() -> None:
        for leaf in (*cls, *masks):
            leaf.grad = None
        torch.stack(list(criterion(cls, masks, labels).values())).sum().backward()

    return call


def ours(classes: int, options: argparse.Namespace, **settings: Any) -> Criterion:
    criterion = SetCriterion(classes, num_points=options.points, **settings)
    return lambda cls, masks, labels: criterion(cls, masks, labels).terms


@dataclass
class Measured:
    """One criterion at one number of classes.

    Attributes:
        ratio: its time as a multiple of PROVE's ``m2f`` in the same round.
        peak: bytes beyond inputs, the gradient among them; why there is none, if it is text.
        operations: of the whole call.
        matching: of these, those that lead to the assignment.
    """

    name: str
    ratio: Spread | None
    seconds: float
    peak: int | str
    operations: int
    matching: int


def measure(options: argparse.Namespace, classes: int, clock: Clock, say: Callable[[str], None]) -> list[Measured]:
    """PROVE's variants and the peers, at one number of classes."""
    cls, masks, labels = inputs(options, classes)
    small = inputs(argparse.Namespace(**{**vars(options), "masks": (16, 24), "layers": 1}), classes)
    criteria = {name: ours(classes, options, **changed) for name, changed in OURS.items()}
    criteria |= {name: make(classes, options.queries, options.points) for name, make in PEERS.items()}
    calls: dict[str, Call] = {name: call_of(criterion, cls, masks, labels) for name, criterion in criteria.items()}
    peaks: dict[str, int | str] = {}
    counts: dict[str, tuple[int, int]] = {}
    for name, criterion in criteria.items():
        say(f"{classes} classes: {name}")
        peaks[name] = peak_of(calls[name], call_of(criterion, *small), cls, masks) if options.memory else "not measured"
        counts[name] = operations(criterion, cls, masks, labels)
    baseline, *others = calls
    shares = dict.fromkeys(others, options.rounds)
    turns = interleave(calls[baseline], [{name: calls[name] for name in others}], [shares], options.rounds, clock)[0]
    found = []
    for name in calls:
        taken = [turn[BASELINE if name == baseline else name] for turn in turns]
        ratio = None if name == baseline else ratios(turns, name)
        found.append(Measured(name, ratio, statistics.median(taken), peaks[name], *counts[name]))
    return found


def peak_of(call: Call, warm_up: Call, cls: list[Tensor], masks: list[Tensor]) -> int | str:
    try:
        return peak_beyond_inputs(warm_up, call, lambda: forget(cls, masks), "cpu").bytes
    except MeasurementError as error:
        return str(error)


def forget(cls: list[Tensor], masks: list[Tensor]) -> None:
    for leaf in (*cls, *masks):
        leaf.grad = None


def operations(criterion: Criterion, cls: list[Tensor], masks: list[Tensor], labels: Tensor) -> tuple[int, int]:
    """How many a call takes, and how many of them lead to the assignment of all layers and images."""
    with as_on_a_gpu(), Counting() as counting, matching_seen(counting) as spans:
        call_of(criterion, cls, masks, labels)()
    return counting.count, sum(spans)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """PROVE's criterion with as much at once as on a GPU; on a CPU it goes by layer, image and block of masks."""
    before = matching.ELEMENTS_AT_ONCE, matching.sample_all, mask_parts.PIXELS_AT_ONCE
    matching.ELEMENTS_AT_ONCE = {True: matching.ELEMENTS_AT_ONCE[False]}
    mask_parts.PIXELS_AT_ONCE = {True: mask_parts.PIXELS_AT_ONCE[False]}
    matching.sample_all = lambda maps, points, out: out.copy_(sample(maps, points))
    try:
        yield
    finally:
        matching.ELEMENTS_AT_ONCE, matching.sample_all, mask_parts.PIXELS_AT_ONCE = before


@contextmanager
def matching_seen(counting: Counting) -> Iterator[list[int]]:
    """Collects how many operations each call of a criterion's matching takes."""
    load_stack()
    import mmdet.models.dense_heads.mask2former_head as mmdet
    import transformers.models.mask2former.modeling_mask2former as hugging_face

    import prove.losses.set_criterion.criterion as own

    places: list[tuple[Any, str]] = [
        (mmdet.Mask2FormerHead, "_get_targets_single"),
        (hugging_face.Mask2FormerHungarianMatcher, "forward"),
        (own, "match"),
    ]
    spans: list[int] = []
    originals = [getattr(owner, name) for owner, name in places]

    def noting(original: Any) -> Any:
        def matched(*arguments: Any, **options: Any) -> Any:
            before = counting.count
            found = original(*arguments, **options)
            spans.append(counting.count - before)
            return found

        return matched

    for (owner, name), original in zip(places, originals, strict=True):
        setattr(owner, name, noting(original))
    try:
        yield spans
    finally:
        for (owner, name), original in zip(places, originals, strict=True):
            setattr(owner, name, original)


def report(found: dict[int, list[Measured]], options: argparse.Namespace, about: dict[str, Any]) -> str:
    """The tables as Markdown."""
    height, width = options.masks
    lines = [
        "# What the set criterion costs",
        "",
        f"Forward and backward; {options.queries} queries, {options.layers} layers, batch {options.batch}, masks "
        f"{height}x{width}, labels {4 * height}x{4 * width}, {options.points} points; time as a multiple of PROVE's "
        "`m2f` in the same round, median (quartiles); memory at its peak beyond the inputs, gradient included.",
        "",
        machine_line(about),
    ]
    for classes, rows in found.items():
        lines += [
            "",
            f"## {classes} classes, {STATED[classes]} in each image",
            "",
            "| criterion | time | ms | memory, MB | operations | of these for matching |",
            "|---|---|---|---|---|---|",
        ]
        for row in rows:
            memory = row.peak if isinstance(row.peak, str) else f"{row.peak / 1e6:.0f}"
            ratio = "1" if row.ratio is None else str(row.ratio)
            lines.append(
                f"| {row.name} | {ratio} | {1000 * row.seconds:.0f} | {memory} | {row.operations} | {row.matching} |"
            )
    return "\n".join(lines) + "\n"


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write the report there instead of to stdout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--points", type=int, default=12544)
    parser.add_argument("--masks", type=int, nargs=2, default=(128, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--classes", type=int, nargs="+", default=list(STATED), choices=list(STATED))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    limit_threads(options.threads)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    found = {classes: measure(options, classes, Clock("cpu"), say) for classes in options.classes}
    text = report(found, options, machine("cpu", options.threads, PACKAGES))
    if options.output:
        options.output.write_text(text)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
