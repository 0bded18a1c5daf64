"""Can a mask-classification model learn two images by heart, with each form of its criterion?

    python benchmarks/overfit_masks.py --data-root /data/camvid -o overfit.md           some 15 minutes on one core
    python benchmarks/overfit_masks.py --models mask2former_tiny --objectives "m2f(cls=focal)" --iterations 100

The models are built as `prove run --no-pretrained` builds them, their wiring is proved, and they are trained on the
same two images, unaugmented and scaled to the crop: two of CamVid where its folder is given, of SynthStreet otherwise.
Told are the mIoU on these images beside the best that one class everywhere reaches; how far each loss fell, as the
mean of the last tenth of the iterations over the first one's value, summed over the layers and for the one that fell
least; and how many queries predict a class at the end, rather than "no object".
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from measuring import limit_threads, machine, machine_line
from mmengine.logging import MMLogger
from torch import Tensor

from prove.build.job_config import build_config
from prove.build.objective import CRITERION_PARTS
from prove.cli.request import RunRequest, plan
from prove.data.labels import read_image, read_label
from prove.data.manifest import Manifest
from prove.training import registered  # noqa: F401 - registers what the config names
from prove.training.seeding import seed_torch
from prove.training.stack import load_stack, quiet_known_warnings
from prove.training.wiring import prove_wiring

IGNORE = 255
MODELS = ("mask2former_tiny", "dinov3_tiny_mask2former")
OBJECTIVES = (
    "m2f",
    "m2f(cls=focal)",
    "m2f(points=random)",
    "m2f(points=full)",
    "m2f(deep_supervision=false)",
    "m2f(deep_weight=0.5)",
    "m2f(no_object=0.05)",
    "m2f + 0.3*lovasz",
)
SCENES = "SynthStreet(height=96, width=128, train=8, val=1)"
PACKAGES = ("torch", "timm", "onedl-mmsegmentation", "onedl-mmdetection")


@dataclass(frozen=True)
class Overfit:
    """One model with one objective after its training.

    Attributes:
        proved: whether the wiring proof held before it.
        miou: on the two images, percent; one_class: the most that one class everywhere would reach.
        first, last: each loss by its name: in the first iteration, and its mean over the last tenth.
        queries: share of the queries whose most likely class is not "no object", at the end.
        predicted: classes in the predictions, of those in the labels.
    """

    model: str
    objective: str
    iterations: int
    proved: bool
    miou: float
    one_class: float
    first: dict[str, float]
    last: dict[str, float]
    queries: float
    predicted: tuple[int, int]
    seconds: float

    def fell_to(self, part: str) -> float:
        """What is left of a part, or of a per-pixel term, over all layers."""
        names = [name for name in self.first if name.endswith(part)]
        return sum(self.last[name] for name in names) / sum(self.first[name] for name in names)

    @property
    def least(self) -> tuple[str, float]:
        """The loss that fell least, and what is left of it."""
        left = {name: self.last[name] / value for name, value in self.first.items()}
        name = max(left, key=lambda each: left[each])
        return name, left[name]


def overfit(
    model: str, objective: str, *, data_root: Path | None, crop: tuple[int, int], iterations: int, lr: float
) -> Overfit:
    """Train a model on two images."""
    from mmengine.optim import build_optim_wrapper
    from mmseg.registry import MODELS as REGISTRY

    request = RunRequest(
        dataset="CamVid" if data_root else SCENES, data_root=str(data_root) if data_root else None, model=model,
        loss=objective, crop_size=f"{crop[0]}x{crop[1]}", max_iters=iterations, eval_interval=iterations,
        batch_size=2, pretrained=False, device="cpu", lr=lr, early_stop=False,
    )  # fmt: skip
    chosen = plan(request)
    built = build_config(chosen.job, chosen.dataset, chosen.placement)
    batch = two_images(chosen.dataset.train, crop)
    seed_torch("overfit", 0)
    network: Any = REGISTRY.build(built.config.model)
    network.init_weights()
    proof = prove_wiring(network, fresh(batch), built.heads, objective=objective, class_weight=None)
    optimiser = build_optim_wrapper(network, built.config.optim_wrapper)
    rates = [group["lr"] for group in optimiser.optimizer.param_groups]
    history: list[dict[str, float]] = []
    start = time.perf_counter()
    network.train()
    for iteration in range(iterations):
        seed_torch("iteration", 0, iteration)
        for group, rate in zip(optimiser.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - iteration / iterations) ** 0.9
        losses = network.train_step(fresh(batch), optimiser)
        history.append({name: float(value.detach()) for name, value in losses.items() if name != "loss"})
    seconds = time.perf_counter() - start
    tail = history[-max(1, iterations // 10) :]
    last = {name: float(np.mean([each[name] for each in tail])) for name in history[0]}
    miou, one_class, predicted, queries = outcome(network, batch)
    return Overfit(
        model, objective, iterations, proof.ok, miou, one_class, history[0], last, queries, predicted, seconds
    )


def two_images(manifest: Manifest, crop: tuple[int, int]) -> dict[str, Any]:
    """The first sample of a training set and the one in its middle, scaled to the crop, as a data loader gives them."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    inputs, samples = [], []
    for sample in (manifest.samples[0], manifest.samples[len(manifest.samples) // 2]):
        image = cv2.resize(read_image(sample.image), crop[::-1], interpolation=cv2.INTER_AREA)
        label = read_label(sample.label, manifest.encoding, manifest.label_space).astype(np.uint8)
        label = cv2.resize(label, crop[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        inputs.append(torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))))
        data = SegDataSample(gt_sem_seg=PixelData(data=torch.from_numpy(label).long()[None]))
        data.set_metainfo({"img_shape": crop, "ori_shape": crop, "pad_shape": crop})
        samples.append(data)
    return {"inputs": inputs, "data_samples": samples}


def fresh(batch: dict[str, Any]) -> dict[str, Any]:
    """A copy that a model's preprocessor may write into."""
    return {"inputs": list(batch["inputs"]), "data_samples": [each.clone() for each in batch["data_samples"]]}


def outcome(network: Any, batch: dict[str, Any]) -> tuple[float, float, tuple[int, int], float]:
    """mIoU, the best mIoU of one class everywhere, classes predicted and labelled, share of queries with a class."""
    seen: list[Tensor] = []
    handle = network.decode_head.register_forward_hook(lambda module, inputs, output: seen.append(output[0][-1]))
    network.eval()
    with torch.no_grad():
        found = network.val_step(fresh(batch))
    handle.remove()
    truth = torch.stack([each.gt_sem_seg.data[0] for each in batch["data_samples"]])
    guess = torch.stack([each.pred_sem_seg.data[0] for each in found])
    scores = torch.cat(seen)
    queries = float((scores.argmax(-1) != scores.shape[-1] - 1).double().mean())
    kinds = [kind for kind in truth.unique().tolist() if kind != IGNORE]
    constant = max(mean_iou(torch.full_like(truth, kind), truth, kinds) for kind in kinds)
    predicted = len(set(guess.unique().tolist()) & set(kinds))
    return mean_iou(guess, truth, kinds), constant, (predicted, len(kinds)), queries


def mean_iou(guess: Tensor, truth: Tensor, kinds: Sequence[int]) -> float:
    """Over the classes that are in the labels, in percent."""
    valid = truth != IGNORE
    ious = []
    for kind in kinds:
        both = ((guess == kind) & (truth == kind)).sum()
        either = (((guess == kind) | (truth == kind)) & valid).sum()
        ious.append(float(both) / float(either))
    return 100 * sum(ious) / len(ious)


def report(found: Sequence[Overfit], about: str, options: argparse.Namespace) -> str:
    height, width = options.crop
    lines = [
        "# Two images by heart", "",
        f"{'CamVid' if options.data_root else 'SynthStreet'}, {height}x{width}, batch 2, random weights, "
        f"AdamW {options.lr:g}.", "", about, "",
        "| model | objective | iterations | mIoU | one class | cls | mask | dice | fell least | queries | classes "
        "| seconds |", "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for each in found:
        parts = [f"{each.fell_to(part):.2f}" for part in CRITERION_PARTS]
        name, left = each.least
        columns = [
            each.model, each.objective if each.proved else f"{each.objective} NOT PROVED", str(each.iterations),
            f"{each.miou:.1f}", f"{each.one_class:.1f}", *parts, f"{left:.2f} ({name.partition('.')[2]})",
            f"{each.queries:.0%}", f"{each.predicted[0]} of {each.predicted[1]}", f"{each.seconds:.0f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(columns) + " |")
    return "\n".join(lines)


def crop_of(text: str) -> tuple[int, int]:
    height, width = (int(side) for side in text.split("x"))
    return height, width


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS), help="names, by commas")
    parser.add_argument("--objectives", type=lambda text: [each.strip() for each in text.split(";")],
                        default=list(OBJECTIVES), help="separated by ;")  # fmt: skip
    parser.add_argument("--data-root", type=Path, help="folder of CamVid; without it, SynthStreet")
    parser.add_argument("--crop", type=crop_of, default="96x128", help="HxW")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, help="write the Markdown here as well")
    parser.add_argument("--json", type=Path, help="write every loss here")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    limit_threads(options.threads)
    load_stack()
    quiet_known_warnings()
    MMLogger.get_instance("overfit", log_level="WARNING")  # or each model would list its initialisation
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    found = []
    for model in options.models:
        for objective in options.objectives:
            found.append(
                overfit(
                    model, objective, data_root=options.data_root, crop=options.crop, iterations=options.iterations,
                    lr=options.lr,
                )
            )  # fmt: skip
            say(report(found[-1:], "", options).splitlines()[-1])
    text = report(found, machine_line(machine("cpu", options.threads, PACKAGES)), options)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n", encoding="utf-8")
    return int(not all(each.proved for each in found))


if __name__ == "__main__":
    sys.exit(main())
