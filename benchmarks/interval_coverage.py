"""How often the intervals of `prove report` hold what they say: simulated ablations whose truth is known.

    python benchmarks/interval_coverage.py [--simulations 4000] [-o FILE]

Each row is a design: losses (the baseline is one of them), seeds, and where the noise comes from. A run's metric is

    effect of the loss + what the seed does to all losses + the run's own noise
        + mean over the images of (image + loss x image + loss x seed x image)

and every draw is normal unless the row says otherwise. Effects are in percentage points: by default 0, 0.2, 0.4, ...
for the losses in turn. *Holds together*: all of a block's intervals hold their true effects. *Holds alone*: an interval
for one comparison, without the correction for several, does. *False alarm*: the same design with no true effect at
all; any loss of the block is called better or worse. *Best kept*: the truly best loss is marked "may be best".
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special

from prove.stats.block import compare
from prove.stats.effects import BlockData, BlockResult, Verdict
from prove.stats.pool import pool

Floats = NDArray[np.float64]

STEP = 0.2
RESAMPLES = 400


@dataclass(frozen=True)
class Design:
    """A simulated block.

    Attributes:
        losses, seeds: size of the block.
        null: no loss has an effect.
        run_sd: noise of a run, in points; times `loss_sds` where given.
        seed_sd: what a seed does to all losses.
        missing: chance that a run is not there.
        images: validation images; 0 where they make no noise.
        loss_image_sd, run_image_sd: per image, of the loss and of the single run on it.
        common_image_sd: per image, of the loss on it, whatever the model. Pooled blocks are then models on one dataset;
            None for a dataset each.
        tail_df: of the t law of the run's noise, scaled to `run_sd`; 0 for the normal law.
    """

    name: str
    losses: int
    seeds: int
    null: bool = False
    run_sd: float = 0.35
    seed_sd: float = 0.5
    loss_sds: tuple[float, ...] = ()
    missing: float = 0.0
    images: int = 0
    loss_image_sd: float = 0.0
    run_image_sd: float = 0.0
    common_image_sd: float | None = None
    tail_df: int = 0

    @property
    def effects(self) -> Floats:
        return np.asarray(STEP * np.arange(self.losses) * (0.0 if self.null else 1.0))

    @property
    def names(self) -> tuple[str, ...]:
        return ("ce", *(f"loss{n}" for n in range(1, self.losses)))

    def draw_shared(self, rng: np.random.Generator) -> Floats | None:
        """``[L, images]`` what the losses do on the images of one dataset, whatever the model."""
        if self.common_image_sd is None:
            return None
        return np.asarray(self.common_image_sd * rng.standard_normal((self.losses, self.images)))

    def simulate(
        self, rng: np.random.Generator, shift: Floats | None = None, shared: Floats | None = None
    ) -> BlockData:
        """One block; `shift` ``[L]`` is added to the effects; `shared` is of `draw_shared`."""
        shape = self.losses, self.seeds
        noise = rng.standard_t(self.tail_df, shape) if self.tail_df else rng.standard_normal(shape)
        noise *= self.run_sd / (np.sqrt(self.tail_df / (self.tail_df - 2)) if self.tail_df else 1.0)
        if self.loss_sds:
            noise *= np.array(self.loss_sds)[:, None]
        effects = self.effects if shift is None else self.effects + shift
        values = 60 + effects[:, None] + self.seed_sd * rng.standard_normal(self.seeds) + noise
        replicates = None
        if self.images:
            pixels = 8.0 * rng.standard_normal(self.images)
            pixels = pixels + self.loss_image_sd * rng.standard_normal((self.losses, 1, self.images))
            pixels = pixels + self.run_image_sd * rng.standard_normal((*shape, self.images))
            pixels = pixels if shared is None else pixels + shared[:, None]
            replicates = values[..., None] + pixels @ resamples(self.images)
            values = values + pixels.mean(axis=-1)
        values[rng.random(shape) < self.missing] = np.nan
        same = None if shared is None else "the same"
        return BlockData(
            self.names, "ce", tuple(range(self.seeds)), values, replicates, images=self.images or None,
            dataset=same or "", images_digest=same,
        )  # fmt: skip


@lru_cache
def resamples(images: int) -> Floats:
    """``[images, RESAMPLES]`` weights that sum to 1, the same for every simulation."""
    weights = np.random.default_rng(images).multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    return np.asarray(weights.T / images)


@dataclass(frozen=True)
class Coverage:
    """Shares of the simulations, in [0, 1]; NaN where the design has no such thing.

    Attributes:
        together: all intervals of a block hold.
        alone: intervals of one comparison hold.
        alarm: without any effect, some loss is called better or worse.
        best: the best loss is marked so.
        simulations: behind `together`, `alarm` and `best`; blocks without any interval are not counted.
    """

    together: float
    alone: float
    alarm: float
    best: float
    simulations: int


def block_coverage(design: Design, simulations: int, seed: int = 0) -> Coverage:
    """Simulate a design."""
    truth = dict(zip(design.names, design.effects, strict=True))
    together, alone, best = [], [], []
    for result in _results(design, simulations, seed):
        shown = [effect for effect in result.effects if effect.se is not None and effect.df is not None]
        if shown:
            hits = [_within(truth[each.loss], (each.low, each.high)) for each in shown]
            together.append(all(hits))
            for each in shown:
                reach = special.stdtrit(each.df, 0.975) * each.se
                alone.append(abs(each.delta - truth[each.loss]) <= reach)
        if result.arms[-1].may_be_best is not None:
            best.append(result.arms[-1].may_be_best)
    alarms = [
        any(effect.verdict in (Verdict.BETTER, Verdict.WORSE) for effect in result.effects)
        for result in _results(replace(design, null=True), simulations, seed + 1)
        if any(effect.se is not None for effect in result.effects)
    ]
    return Coverage(_mean(together), _mean(alone), _mean(alarms), _mean(best), len(together))


def _results(design: Design, simulations: int, seed: int) -> Iterator[BlockResult]:
    rng = np.random.default_rng((seed, design.losses, design.seeds))
    for _ in range(simulations):
        yield compare(design.simulate(rng), smallest_effect=0.0)


def _within(value: float, interval: tuple[float | None, float | None]) -> bool:
    low, high = interval
    return low is not None and high is not None and low <= value <= high


def _mean(hits: list[bool]) -> float:
    return float(np.mean(hits)) if hits else float("nan")


def one_seed_coverage(design: Design, simulations: int, seed: int = 0) -> tuple[float, float]:
    """Of the image bootstrap with one seed: how often it holds these checkpoints' difference on all images, and how
    often the loss's effect."""
    rng = np.random.default_rng((seed, design.images))
    checkpoints, loss = [], []
    for _ in range(simulations):
        own = replace(design, seeds=1, run_sd=0.0, seed_sd=0.0)
        noise = design.run_sd * rng.standard_normal(design.losses)
        result = compare(own.simulate(rng, noise), smallest_effect=0.0)
        for effect, true, lucky in zip(result.effects, own.effects[1:], noise[1:], strict=True):
            loss.append(_within(true, (effect.low, effect.high)))
            checkpoints.append(_within(true + lucky - noise[0], (effect.low, effect.high)))
    return _mean(checkpoints), _mean(loss)


def pool_coverage(design: Design, blocks: int, tau: float, simulations: int, seed: int = 0) -> tuple[float, float]:
    """Of the pooled effects: how often an interval holds the mean effect, and how often any loss is called better or
    worse if the mean effects are 0.

    Args:
        tau: SD of a loss's true effect between the blocks.
    """
    shares = []
    for null in (False, True):
        rng = np.random.default_rng((seed, blocks, design.seeds, null))
        made = replace(design, null=null)
        hits, alarms = [], []
        for _ in range(simulations):
            results = []
            shared = made.draw_shared(rng)
            for _ in range(blocks):
                shift = tau * rng.standard_normal(design.losses)
                shift[0] = 0.0
                results.append(compare(made.simulate(rng, shift, shared), smallest_effect=0.0))
            pooled = pool(results)
            hits += [_within(true, (each.low, each.high)) for each, true in zip(pooled, made.effects[1:], strict=True)]
            alarms.append(any(each.verdict in (Verdict.BETTER, Verdict.WORSE) for each in pooled))
        shares.append(_mean(alarms) if null else _mean(hits))
    return shares[0], shares[1]


CLASS_SKILL = np.array([2.5, 1.5, 0.8, 0.2])
CLASS_SIZE = np.array([0.55, 0.3, 0.1, 0.05])
CLASS_CHANCE = np.array([1.0, 0.9, 0.6, 0.3])
SKILL_EFFECT = 0.15


def _counts(rng: np.random.Generator, losses: int, seeds: int, images: int) -> Floats:
    """``[losses, seeds, images, 3, 4]``: intersection, predicted and labelled pixels of four classes.

    A class is right with a chance whose logit is the class's skill, plus `SKILL_EFFECT` per loss, plus noise by run,
    image, loss x image and run x image; wrong pixels go to the other classes alike.
    """
    labelled = CLASS_SIZE * rng.gamma(2.0, 1.0, (images, 4)) * (rng.random((images, 4)) < CLASS_CHANCE)
    logit = (
        CLASS_SKILL
        + SKILL_EFFECT * np.arange(losses)[:, None, None, None]
        + 0.05 * rng.standard_normal((losses, seeds, 1, 4))
        + 0.6 * rng.standard_normal((images, 4))
        + 0.25 * rng.standard_normal((losses, 1, images, 4))
        + 0.25 * rng.standard_normal((losses, seeds, images, 4))
    )
    right = special.expit(logit) * labelled
    wrong = labelled - right
    predicted = right + (wrong.sum(axis=-1, keepdims=True) - wrong) / 3
    return np.stack([right, predicted, np.broadcast_to(labelled, right.shape)], axis=-2)


def _miou(counts: Floats) -> Floats:
    """Percent; of counts ``[..., 3, 4]`` summed over the images."""
    right, predicted, labelled = np.moveaxis(counts, -2, 0)
    return np.asarray(100 * (right / (predicted + labelled - right)).mean(axis=-1))


def miou_coverage(losses: int, seeds: int, images: int, simulations: int, seed: int = 0) -> tuple[float, float]:
    """As `together` and `alone`, for mIoU computed from per-image counts, which is no mean over images."""
    rng = np.random.default_rng((seed, losses, seeds, images))
    runs = np.concatenate(
        [_miou(_counts(np.random.default_rng(n), losses, 20, 4000).sum(axis=2)) for n in range(10)], axis=1
    )
    truth = runs.mean(axis=1) - runs[0].mean()
    names = Design("", losses, seeds).names
    weights = resamples(images) * images
    together, alone = [], []
    for _ in range(simulations):
        counts = _counts(rng, losses, seeds, images)
        replicates = _miou(np.einsum("lsnij,nb->lsbij", counts, weights, optimize=True))
        data = BlockData(names, "ce", tuple(range(seeds)), _miou(counts.sum(axis=2)), replicates, images=images)
        effects = compare(data, smallest_effect=0.0).effects
        together.append(all(_within(true, (e.low, e.high)) for e, true in zip(effects, truth[1:], strict=True)))
        for effect, true in zip(effects, truth[1:], strict=True):
            if effect.se is not None:
                alone.append(abs(effect.delta - true) <= special.stdtrit(effect.df, 0.975) * effect.se)
    return _mean(together), _mean(alone)


BLOCKS = (
    *(Design("seeds only", losses, seeds) for losses in (2, 6) for seeds in (2, 3, 5, 10)),
    *(Design("a sixth of the runs missing", 6, seeds, missing=1 / 6) for seeds in (3, 5, 10)),
    *(Design("loss x image noise", 6, seeds, images=100, loss_image_sd=2.5) for seeds in (3, 5, 10)),
    *(
        Design("loss x image and run x image noise", losses, seeds, images=100, loss_image_sd=2.5, run_image_sd=3.0)
        for losses in (2, 6)
        for seeds in (3, 5, 10)
    ),
    *(Design("run x image noise alone", 6, seeds, run_sd=0.1, images=100, run_image_sd=4.0) for seeds in (3, 5, 10)),
    *(
        Design("both, a sixth missing", 6, seeds, missing=1 / 6, images=100, loss_image_sd=2.5, run_image_sd=3.0)
        for seeds in (3, 5, 10)
    ),
    *(Design("both, 30 images", 6, seeds, images=30, loss_image_sd=2.5, run_image_sd=3.0) for seeds in (3, 5, 10)),
    *(Design("heavy tails (t, 3 df)", 6, seeds, tail_df=3) for seeds in (3, 5, 10)),
    *(Design("one loss twice as noisy", 6, seeds, loss_sds=(1, 1, 1, 1, 1, 2)) for seeds in (3, 5, 10)),
    *(Design("the baseline twice as noisy", 6, seeds, loss_sds=(2, 1, 1, 1, 1, 1)) for seeds in (3, 5, 10)),
)
ONE_SEED = tuple(
    Design("one seed", 2, 1, images=images, loss_image_sd=0.6, run_image_sd=0.6) for images in (30, 100, 500)
)
POOLED = (
    *(((Design("", 4, seeds)), blocks, tau) for seeds in (3, 5) for blocks in (3, 6, 12) for tau in (0.0, 0.3)),
    *(((Design("", 2, 3)), blocks, tau) for blocks in (8, 16) for tau in (0.0, 0.3)),
    *(
        (Design("", 4, 1, images=100, loss_image_sd=0.6, run_image_sd=0.6), blocks, tau)
        for blocks in (3, 6, 12)
        for tau in (0.0, 0.3)
    ),
)
ONE_DATASET = tuple(
    (Design("", 4, 3, run_sd=0.2, images=100, loss_image_sd=own, run_image_sd=2.0, common_image_sd=common), blocks, tau)
    for own, common in ((2.5, 2.5), (1.0, 5.0), (2.5, 0.0))
    for blocks in (4, 8)
    for tau in (0.0, 0.3)
)
MIOU = ((2, 3, 100), (6, 3, 100), (6, 5, 100), (6, 10, 100))


PARTS = ("blocks", "one seed", "pooled", "one dataset")


def report(simulations: int, parts: Sequence[str] = PARTS) -> Iterator[str]:
    """The tables, line by line, in Markdown; only these `PARTS`."""
    error = 100 * np.sqrt(0.95 * 0.05 / simulations)
    yield f"{simulations} simulations a row unless it says otherwise, {RESAMPLES} resamples of the images: a share of"
    yield f"95% is known to {error:.1f} points (one standard error)."
    yield f"{os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}; {date.today()}."
    yield ""
    if "blocks" in parts:
        yield from _block_table(simulations)
    if "one seed" in parts:
        yield from _one_seed_table(simulations)
    if "pooled" in parts:
        yield from _pooled_table(simulations // 2)
    if "one dataset" in parts:
        yield from _one_dataset_table(simulations // 8)


def _block_table(simulations: int) -> Iterator[str]:
    yield "| noise | losses | seeds | holds together | holds alone | false alarm | best kept |"
    yield "|---|---|---|---|---|---|---|"
    for design in BLOCKS:
        found = block_coverage(design, simulations)
        shares = (found.together, found.alone, found.alarm, found.best)
        yield f"| {design.name} | {design.losses} | {design.seeds} | {' | '.join(map(percent, shares))} |"
    for losses, seeds, images in MIOU:
        pair = miou_coverage(losses, seeds, images, simulations // 4)
        name = f"mIoU from counts, {images} images ({simulations // 4} simulations)"
        yield f"| {name} | {losses} | {seeds} | {' | '.join(map(percent, pair))} | | |"
    yield ""


def _one_seed_table(simulations: int) -> Iterator[str]:
    yield "| one seed, images | holds these checkpoints' difference | holds the loss's effect |"
    yield "|---|---|---|"
    for design in ONE_SEED:
        yield f"| {design.images} | {' | '.join(map(percent, one_seed_coverage(design, simulations)))} |"
    yield ""


def _pooled_table(simulations: int) -> Iterator[str]:
    yield f"| pooled ({simulations} simulations), losses | seeds | blocks | tau | holds | false alarm |"
    yield "|---|---|---|---|---|---|"
    for design, blocks, tau in POOLED:
        pair = pool_coverage(design, blocks, tau, simulations)
        yield f"| {design.losses} | {design.seeds} | {blocks} | {tau} | {' | '.join(map(percent, pair))} |"
    yield ""


def _one_dataset_table(simulations: int) -> Iterator[str]:
    name = f"models on one dataset ({simulations} simulations): loss x image SD common to all"
    yield f"| {name} | of each | models | tau | holds | false alarm |"
    yield "|---|---|---|---|---|---|"
    for design, blocks, tau in ONE_DATASET:
        pair = pool_coverage(design, blocks, tau, simulations)
        sds = f"{design.common_image_sd} | {design.loss_image_sd}"
        yield f"| {sds} | {blocks} | {tau} | {' | '.join(map(percent, pair))} |"


def percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.1f}%"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("-o", "--output", type=Path, help="write the tables here, too")
    parser.add_argument("--only", choices=PARTS, action="append", help="only this table; may be given again")
    arguments = parser.parse_args()
    lines = []
    for line in report(arguments.simulations, arguments.only or PARTS):
        print(line, flush=True)
        lines.append(line)
    if arguments.output is not None:
        arguments.output.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
