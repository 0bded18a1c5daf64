"""What each standard strategy does to the same four street scenes: images above their labels, as models get them.

    uv run python benchmarks/strategy_pictures.py        # writes docs/img/strategies/NAME.png, in half a minute

Each picture is made by the pipeline and the mix of the config that `prove config --strategy NAME` shows.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from prove.build.job_config import build_config
from prove.catalog.strategies import STRATEGIES
from prove.cli.request import RunRequest, plan
from prove.training import registered  # noqa: F401 - registers what configs name

CONDITIONS = ("clear_day", "foggy", "rainy", "night")
"""One training image of SynthStreet in each."""

CROP = (128, 176)
GAP = 4

UInt8 = npt.NDArray[np.uint8]


def batch_of(strategy: str, seed: int) -> tuple[Any, UInt8]:
    """The scenes as a batch under a strategy, and the colours of the classes, with that of ignored pixels at 255."""
    from mmseg.registry import DATASETS

    from prove.training.mixing import mix_of
    from prove.training.seeding import generator

    chosen = plan(
        RunRequest(
            model="fcn_tiny", strategy=strategy, crop_size=f"{CROP[0]}x{CROP[1]}", seed=seed, device="cpu",
            pretrained=False,
        )
    )  # fmt: skip
    config = build_config(chosen.job, chosen.dataset, chosen.placement).config
    dataset = DATASETS.build(config.train_dataloader.dataset)
    shown = [sample.condition for sample in dataset.samples]
    items = [dataset[(shown.index(condition), position)] for position, condition in enumerate(CONDITIONS)]
    batch: Any = {name: [item[name] for item in items] for name in ("inputs", "data_samples")}
    mix = mix_of(config.train_cfg.get("mix"))
    if mix is not None:
        draws = (mix(batch, generator("picture", attempt)) for attempt in range(1000))
        batch = next(mixed for mixed in draws if 0.55 < mixed["data_samples"][0].mix_share < 0.7)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(dataset.metainfo["palette"])] = dataset.metainfo["palette"]
    return batch, colours


def sheet(batch: Any, colours: UInt8) -> Image.Image:
    """A column for each image, its label below it; under MixUp the colours of both labels, in their shares."""
    columns = []
    for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
        shown = framed(image.numpy().transpose(1, 2, 0)[:, :, ::-1], 255)
        label = colours[framed(sample.gt_sem_seg.data[0].numpy(), 255)].astype(float)
        if "gt_second_sem_seg" in sample:
            second = colours[framed(sample.gt_second_sem_seg.data[0].numpy(), 255)]
            label = sample.mix_share * label + (1 - sample.mix_share) * second
        gap = np.full((GAP, CROP[1], 3), 255)
        columns.append(np.concatenate([shown, gap, label]))
        columns.append(np.full((2 * CROP[0] + GAP, GAP, 3), 255))
    whole = np.concatenate(columns[:-1], axis=1)
    return Image.fromarray(whole.round().astype(np.uint8)).quantize(256, dither=Image.Dither.NONE)


def framed(values: Any, fill: int) -> Any:
    """An image that is smaller than the crop, in a frame of its size."""
    pad = [(0, CROP[0] - values.shape[0]), (0, CROP[1] - values.shape[1]), (0, 0)]
    return np.pad(values, pad[: values.ndim], constant_values=fill)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "img" / "strategies")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for entry in STRATEGIES:
        file = options.out / f"{entry.name}.png"
        sheet(*batch_of(entry.name, options.seed)).save(file, optimize=True)
        print(f"{file}: {file.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
