"""A whole training step with every objective: forward, loss, backward, optimiser, beside stock MMSegmentation.

    python benchmarks/step.py -o step.md --json step.json              minutes on one thread
    python benchmarks/step.py --models fcn_tiny --rounds 3             seconds

The models are built as `prove run` builds them, with random weights; stock is the same model with the loss of its own
config. In every round each objective takes one step, with PROVE's `ce` before and after; reported are the median and
the quartiles of each round's ratio to it, and to stock. "By the loss alone" is what the step would take if nothing but
the loss differed: it resolves a percent where steps vary by more. The share is that of the heads' loss alone, on the
logits of that step: upsampling, values, backward to the logits. With --check the exit code is 1 where a limit is
exceeded.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from loss_inputs import IGNORE, batch
from measuring import BASELINE, Call, Clock, Spread, as_json, interleave, limit_threads, machine, machine_line, ratios
from mmengine.logging import MMLogger
from torch import Tensor, nn

from prove.build.configs import head_configs
from prove.build.job_config import base_config, build_config
from prove.cli.request import RunRequest, plan
from prove.errors import ProveError
from prove.training import registered  # noqa: F401 - registers what the config names
from prove.training.stack import load_stack, quiet_known_warnings

MODELS = ("deeplabv3plus_r50", "segformer_mit-b3")
OBJECTIVES = (
    "ce",
    "ce + 0.3*focal",
    "ce + 0.3*lovasz",
    "ce + 0.3*boundary",
    "ce + 0.3*dice",
    "ce + 0.3*tversky",
    "ce + 0.3*focal + 0.3*dice",
    "ce + 0.3*boundary_focal",
)
STOCK = "stock mmseg"
LIMIT = 1.03
"""At most, as a multiple of the step with ``ce``; asked on a data-centre GPU, shown everywhere."""
PACKAGES = ("torch", "numba", "onedl-mmsegmentation", "onedl-mmcv", "onedl-mmengine")
SCENES = "SynthStreet(height=128, width=256, train=2, val=1)"
"""Gives the label space; the images are noise."""


@dataclass
class Measured:
    """One objective in one model's training step.

    Attributes:
        to_ce: the step as a multiple of that with the first objective in the same round.
        to_stock: likewise of stock's.
        loss_seconds: the heads' losses alone, median.
        expected: the step as a multiple of the first objective's if only the losses alone differ. It sees a
            percent where the steps themselves vary by more.
    """

    model: str
    objective: str
    to_ce: Spread | None = None
    to_stock: Spread | None = None
    seconds: Spread | None = None
    loss_seconds: float | None = None
    expected: float | None = None

    @property
    def share(self) -> float | None:
        if self.loss_seconds is None or self.seconds is None:
            return None
        return self.loss_seconds / self.seconds.median

    @property
    def over(self) -> bool:
        return self.objective != STOCK and self.to_ce is not None and self.to_ce.median > LIMIT


@dataclass
class Trainee:
    """A model with its optimiser, and what its heads were last given."""

    model: nn.Module
    optimiser: Any
    data: dict[str, Any]
    seen: list[tuple[Any, Any, Any]] = field(default_factory=list)

    def step(self) -> None:
        self.model.train_step(copy.copy(self.data), self.optimiser)

    def record(self) -> None:
        """One step in which what each head's loss gets is kept."""
        heads = heads_of(self.model)
        for head in heads:
            head.loss_by_feat = self._recording(head)
        self.step()
        for head in heads:
            del head.loss_by_feat  # the method of its class is back
        self.seen = [(head, logits.detach().requires_grad_(), samples) for head, logits, samples in self.seen]

    def _recording(self, head: Any) -> Callable[..., Any]:
        original = head.loss_by_feat

        def recorded(logits: Any, samples: Any) -> Any:
            self.seen.append((head, logits, samples))
            return original(logits, samples)

        return recorded

    def losses_alone(self) -> None:
        """Values and backward to the logits of all heads."""
        for head, logits, samples in self.seen:
            logits.grad = None
            found = head.loss_by_feat(logits, samples)
            total, _ = self.model.parse_losses(found)
            total.backward()


def heads_of(model: nn.Module) -> list[Any]:
    heads: list[Any] = [model.decode_head]
    auxiliary = getattr(model, "auxiliary_head", None)
    if auxiliary is not None:
        heads += list(auxiliary) if isinstance(auxiliary, nn.ModuleList) else [auxiliary]
    return heads


def trainee(model: str, objective: str, options: argparse.Namespace) -> Trainee:
    """A model as `prove run --no-pretrained` builds it, with the loss of its own config for `STOCK`."""
    from mmengine.optim import build_optim_wrapper
    from mmseg.registry import MODELS as REGISTRY

    torch.manual_seed(0)
    height, width = options.crop
    request = RunRequest(
        dataset=SCENES, model=model, loss="ce" if objective == STOCK else objective, crop_size=f"{height}x{width}",
        max_iters=100, batch_size=options.batch, pretrained=False, device=options.device,
    )  # fmt: skip
    chosen = plan(request)
    built = build_config(chosen.job, chosen.dataset, chosen.placement).config
    if objective == STOCK:
        own = dict(head_configs(base_config(chosen.job).model))
        for path, head in head_configs(built.model):
            for name in set(head) - set(own[path]) - {"ignore_index", "num_classes"}:
                head.pop(name)
            head["type"], head["loss_decode"] = own[path]["type"], own[path]["loss_decode"]
    network = REGISTRY.build(built.model)
    network.init_weights()
    network.to(options.device).train()
    optimiser = build_optim_wrapper(network, built.optim_wrapper)
    return Trainee(network, optimiser, images(options, network.decode_head.num_classes))


def images(options: argparse.Namespace, classes: int) -> dict[str, Any]:
    """What a data loader would give: noise as images, smooth regions as labels."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    height, width = options.crop
    labels: Tensor = batch("untrained", (options.batch, classes, height, width)).labels
    assert bool((labels == IGNORE).any())
    generator = torch.Generator().manual_seed(0)
    samples = []
    for label in labels:
        sample = SegDataSample(gt_sem_seg=PixelData(data=label[None]))
        sample.set_metainfo({"img_shape": (height, width), "ori_shape": (height, width), "pad_shape": (height, width)})
        samples.append(sample)
    noise = torch.randint(0, 256, (options.batch, 3, height, width), dtype=torch.uint8, generator=generator)
    return {"inputs": list(noise), "data_samples": samples}


def measure(
    model: str, options: argparse.Namespace, clock: Clock, say: Callable[[str], None]
) -> tuple[list[Measured], list[str]]:
    """Every objective on one model, and what this version of PROVE lacks for the others."""
    trainees: dict[str, Trainee] = {}
    lacking = []
    for objective in (*options.objectives, STOCK):
        say(f"{model}: {objective}")
        try:
            trainees[objective] = trainee(model, objective, options)
        except ProveError as error:
            lacking.append(f"{objective}: {error.message}")
            continue
        trainees[objective].step()  # what is compiled or allocated once
    calls: dict[str, Call] = {objective: one.step for objective, one in trainees.items()}
    first = next(iter(calls))
    baseline = calls.pop(first)
    turns = interleave(baseline, [calls], [dict.fromkeys(calls, options.rounds)], options.rounds, clock)[0]
    measured = []
    for objective, one in trainees.items():
        name = BASELINE if objective == first else objective
        found = Measured(model, objective, ratios(turns, name), ratios(turns, name, STOCK))
        found.seconds = Spread.of([turn[name] for turn in turns])
        one.record()
        one.losses_alone()
        found.loss_seconds = statistics.median(clock.seconds(one.losses_alone) for _ in range(options.rounds))
        measured.append(found)
        base = measured[0]
        if base.loss_seconds is not None and base.seconds is not None:
            found.expected = 1.0 + (found.loss_seconds - base.loss_seconds) / base.seconds.median
    return measured, lacking


def report(measured: Sequence[Measured], machine: str, lacking: Sequence[str], options: argparse.Namespace) -> str:
    height, width = options.crop
    lines = [
        "# What a training step costs", "",
        f"Forward, loss, backward, optimiser; batch {options.batch}, crop {height}x{width}, {options.device}; ratios "
        f"of each round, median (quartiles). Asked: at most {LIMIT:g} of the step with `ce`.", "",
        machine, "",
    ]  # fmt: skip
    for model in dict.fromkeys(each.model for each in measured):
        lines += [f"## {model}", "", "| objective | to `ce` | | by the loss alone | to stock | ms | loss, ms | share |",
                  "|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for each in measured:
            if each.model != model:
                continue
            assert each.seconds is not None
            assert each.loss_seconds is not None
            verdict = "" if each.objective in (STOCK, "ce") else "**over**" if each.over else "ok"
            columns = [each.objective, _precise(each.to_ce), verdict, f"{each.expected:.3f}", _precise(each.to_stock)]
            columns += [f"{1000 * each.seconds.median:.4g}", f"{1000 * each.loss_seconds:.3g}", f"{each.share:.1%}"]
            lines.append("| " + " | ".join(columns) + " |")
        lines.append("")
    if lacking:
        lines += ["## Not in this version", "", *(f"- {each}" for each in dict.fromkeys(lacking)), ""]
    return "\n".join(lines).rstrip()


def _precise(spread: Spread | None) -> str:
    return f"{spread.median:.3f} ({spread.low:.3f} to {spread.high:.3f})" if spread else ""


def crop_of(text: str) -> tuple[int, int]:
    height, width = (int(side) for side in text.split("x"))
    return height, width


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS), help="names, by commas")
    parser.add_argument("--objectives", type=lambda text: [each.strip() for each in text.split(";")],
                        default=list(OBJECTIVES), help="separated by ;, the first is the baseline")  # fmt: skip
    parser.add_argument("--crop", type=crop_of, default="128x256", help="HxW")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a limit is exceeded")
    parser.add_argument("-o", "--output", type=Path, help="write the Markdown here as well")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    limit_threads(options.threads)
    load_stack()
    quiet_known_warnings()
    MMLogger.get_instance("step", log_level="WARNING")  # or each model would list its initialisation

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    clock, measured, lacking = Clock(options.device), [], []
    for model in options.models:
        found, missing = measure(model, options, clock, say)
        measured += found
        lacking += missing
    about = machine(options.device, options.threads, PACKAGES)
    text = report(measured, machine_line(about), lacking, options)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    if options.json:
        rows = [{**as_json(each), "share": each.share} for each in measured]
        document = {
            "machine": about,
            "crop": options.crop,
            "batch": options.batch,
            "lacking": lacking,
            "measured": rows,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return int(options.check and any(each.over for each in measured))


if __name__ == "__main__":
    sys.exit(main())
