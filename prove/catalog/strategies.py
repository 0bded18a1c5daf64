"""Training strategies by name: what a model is trained on, and what happens to the images before it sees them.

A strategy is a sum of parts, ``gen_cycleGAN+std_cutmix``: at most one generative part, which adds images of that name
to the real ones, and standard parts, which change images on the way. Of each stage of that way there is one part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prove.catalog.registry import Registry
from prove.errors import ProveError

BASELINE = "baseline"
GENERATED = "gen_"

Stage = Literal["frame", "change", "mix"]

STAGES: Mapping[Stage, str] = {
    "frame": "chooses the part of an image that is trained on",
    "change": "changes one image and its label",
    "mix": "mixes the images of a batch",
}
"""What a standard part does, in the order in which it happens."""


@dataclass(frozen=True)
class StrategyEntry:
    """One standard strategy.

    Attributes:
        name: the study's name.
        summary: one line for a list.
        stage: when it happens; a strategy has one part of each stage. Without a ``frame`` it is the baseline's.
        steps: the MMEngine transforms of a ``frame`` or a ``change``; a crop takes its size from the job.
        mix: of a ``mix``: the class in `prove.training.mixing` and its parameters.
        source: paper that defines it.
    """

    name: str
    summary: str
    stage: Stage
    steps: tuple[Mapping[str, Any], ...] = ()
    mix: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


STRATEGIES = Registry(
    "strategy",
    (
        StrategyEntry(
            BASELINE,
            "random scale 0.5 to 2, random crop, random horizontal flip",
            stage="frame",
            steps=(
                {"type": "RandomScale", "low": 0.5, "high": 2.0},
                {"type": "RandomCrop", "cat_max_ratio": 0.75},
                {"type": "RandomFlip", "prob": 0.5},
            ),
        ),
        StrategyEntry(
            "std_minimal",
            "random crop at the image's own scale, random horizontal flip, nothing else",
            stage="frame",
            steps=({"type": "RandomCrop"}, {"type": "RandomFlip", "prob": 0.5}),
        ),
        StrategyEntry(
            "std_photometric_distort",
            "random brightness, contrast, saturation and hue, each with probability 0.5",
            stage="change",
            steps=({"type": "PhotoMetricDistortion"},),
            source="Liu 2016, arXiv:1512.02325, section 2.2; as in MMSegmentation",
        ),
        StrategyEntry(
            "std_autoaugment",
            "one of the 25 sub-policies that were learnt on ImageNet: colours, shears, rotations",
            stage="change",
            steps=({"type": "AutoAugmentWithLabels"},),
            source="Cubuk 2019, arXiv:1805.09501, table 9",
        ),
        StrategyEntry(
            "std_randaugment",
            "2 of 14 operations at magnitude 9 of 30: colours, shears, translations, rotations",
            stage="change",
            steps=({"type": "RandAugmentWithLabels", "count": 2, "magnitude": 9},),
            source="Cubuk 2020, arXiv:1909.13719",
        ),
        StrategyEntry(
            "std_cutmix",
            "a box of each image and its label comes from another image of the batch",
            stage="mix",
            mix={"type": "CutMix", "alpha": 1.0},
            source="Yun 2019, arXiv:1905.04899",
        ),
        StrategyEntry(
            "std_mixup",
            "each image is a weighted mean of two, and so are the losses of their labels",
            stage="mix",
            mix={"type": "MixUp", "alpha": 0.2},
            source="Zhang 2018, arXiv:1710.09412",
        ),
    ),
)


@dataclass(frozen=True)
class Strategy:
    """A strategy taken apart.

    Attributes:
        generated: name of the generated images that are mixed in, ``cycleGAN``; None without.
        standard: what happens to images, in the order of the catalogue; empty for the baseline.
    """

    generated: str | None = None
    standard: tuple[StrategyEntry, ...] = ()

    @property
    def name(self) -> str:
        """The canonical text; strategies of one name are one strategy."""
        parts = [f"{GENERATED}{self.generated}"] if self.generated is not None else []
        return "+".join([*parts, *(entry.name for entry in self.standard)]) or BASELINE

    def part(self, stage: Stage) -> StrategyEntry | None:
        """What happens at a stage; None where nothing does. The baseline's frame stands where no other does."""
        found = next((entry for entry in self.standard if entry.stage == stage), None)
        return STRATEGIES.get(BASELINE) if found is None and stage == "frame" else found


def resolve_strategy(text: str) -> Strategy:
    """A strategy from its text, in whatever order its parts are written.

    Raises:
        ProveError: an unknown part (names the nearest), a part that stands twice, or parts that exclude each other.
    """
    parts = [part.strip() for part in text.split("+")]
    repeated = sorted({part for part in parts if parts.count(part) > 1})
    if repeated:
        raise ProveError(f"Strategy {text!r} has {repeated[0] or 'an empty part'!r} twice.")
    if parts[0].startswith("multi_"):
        raise ProveError(
            f"Joint training is a dataset, not a strategy: {text!r}.", hint=f"Write --dataset {text.strip()!r}."
        )
    generated = [part.removeprefix(GENERATED) for part in parts if part.startswith(GENERATED)]
    if len(generated) > 1:
        raise ProveError(
            f"Strategy {text!r} mixes in two sets of generated images.", hint="Name one, beside any standard parts."
        )
    if generated and re.fullmatch(r"[A-Za-z0-9][\w.-]*", generated[0]) is None:
        raise ProveError(f"Strategy {text!r}: {generated[0]!r} can't be the name of generated images.")
    known = tuple(entry.name for entry in STRATEGIES)
    entries = [STRATEGIES.get(part) for part in parts if not part.startswith(GENERATED)]
    entries.sort(key=lambda entry: known.index(entry.name))
    _one_of_each_stage(text, entries)
    return Strategy(generated[0] if generated else None, tuple(e for e in entries if e.name != BASELINE))


def _one_of_each_stage(text: str, entries: list[StrategyEntry]) -> None:
    for stage, does in STAGES.items():
        rivals = [entry.name for entry in entries if entry.stage == stage]
        if len(rivals) > 1:
            raise ProveError(
                f"Strategy {text!r} can't have both {rivals[0]} and {rivals[1]}: each {does}.",
                hint="Keep one of them; parts that do different things can be combined, as std_randaugment+std_cutmix.",
            )


def require_batch(strategy: Strategy, batch_size: int) -> None:
    """Refuse a batch in which there is nothing to mix.

    Raises:
        ProveError: the strategy mixes the images of a batch, and a batch has only one.
    """
    mix = strategy.part("mix")
    if mix is not None and batch_size < 2:
        raise ProveError(
            f"{mix.name} mixes the images of a batch, and --batch-size {batch_size} leaves one image in it.",
            hint="Use --batch-size 2 or more.",
        )
