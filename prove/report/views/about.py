"""Captions: what a table rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prove.report.study import Block, BlockKey, Study
from prove.report.views.entries import Entry
from prove.report.views.numbers import confidence_text, listed, plural

MODELLED = (
    "Where a run of a block is missing, Δ is the least-squares estimate of the additive loss + seed model, to which "
    "the other losses contribute; it need not be the difference of the means shown."
)
"""Said where any Δ is such an estimate."""

Images = dict[BlockKey, int | None]
"""Validation images of each block; None where unknown."""


def count_images(study: Study, blocks: Sequence[Block]) -> Images:
    """How many images the blocks were validated on, asked of one run for each set of validation data."""
    known: dict[tuple[Any, ...], int | None] = {}
    found: Images = {}
    for block in blocks:
        run = next(iter(block.runs.values()), None)
        if run is None:
            found[block.key] = None
            continue
        data = (run.dataset, str(run.facts.get("data_val")), str(run.facts.get("val_images")))
        if data not in known:
            points = study.curve(run, "val")
            known[data] = points[-1][1].get("images") if points else None
        found[block.key] = known[data]
    return found


def spread(entries: Iterable[Entry]) -> str:
    """What stands beside a mean."""
    return "Mean ± SD over seeds (n-1)" if any(entry.arm.seeds > 1 for entry in entries) else "One run each"


def rests_on(study: Study, blocks: Sequence[Block], images: Images) -> str:
    """``3 seeds, 20 validation images, last checkpoint, PROVE's code c0dec0de.``"""
    counts = [len(runs) for block in blocks for runs in _seeds_by_loss(block) if runs]
    seeds = {seed for block in blocks for _, seed in block.runs}
    said = [_span(counts, "seed")]
    if len(set(counts)) == 1 and len(seeds) == counts[0]:
        said[0] += f" ({listed(map(str, sorted(seeds)), 10)})"
    numbers = [count for block in blocks if (count := images.get(block.key)) is not None]
    if numbers:
        said.append(_span(numbers, "validation image"))
    said.append(f"{study.options.checkpoint} checkpoint")
    return f"{', '.join(said)}, {code(blocks)}."


def _seeds_by_loss(block: Block) -> list[set[int]]:
    found: dict[str, set[int]] = {loss: set() for loss in block.losses}
    for loss, seed in block.runs:
        found.setdefault(loss, set()).add(seed)
    return list(found.values())


def _span(counts: Sequence[int], noun: str) -> str:
    if not counts:
        return f"no {noun}s"
    low, high = min(counts), max(counts)
    return plural(low, noun) if low == high else f"{low:,} to {plural(high, noun)}"


def code(blocks: Sequence[Block]) -> str:
    """``PROVE's code c0dec0de``: by what hash a reader finds what trained these runs."""
    hashes = {str(run.facts["code"])[:8] for block in blocks for run in block.runs.values() if run.facts.get("code")}
    return f"PROVE's code {listed(sorted(hashes), 4)}" if hashes else "PROVE's code not recorded"


MOST_FAMILIES = 8
"""Whose sizes a caption lists."""


def family(found: Mapping[str, Iterable[Entry]], place: str = "") -> str:
    """Which comparisons hold together: those that have a p; where none is given, those that have an interval.

    Args:
        found: name of each family → what may belong to it.
        place: where one stands, such as ``in each column``; empty where there is one family alone.
    """
    known = {name: list(entries) for name, entries in found.items()}
    tells = _has_p if any(_has_p(entry) for entries in known.values() for entry in entries) else _has_interval
    counts = {name: sum(map(tells, entries)) for name, entries in known.items()}
    sizes = [(name, count) for name, count in counts.items() if count]
    if len({count for _, count in sizes}) < 2:
        return f"the {plural(sizes[0][1] if sizes else 0, 'comparison')} {place or 'of this table'}"
    named = "; ".join(f"{name}: {count}" for name, count in sizes[:MOST_FAMILIES])
    more = f"; {len(sizes) - MOST_FAMILIES} more" if len(sizes) > MOST_FAMILIES else ""
    return f"the comparisons {place} ({named}{more})"


def _has_p(entry: Entry) -> bool:
    return entry.effect is not None and entry.effect.p_adjusted is not None


def _has_interval(entry: Entry) -> bool:
    return entry.effect is not None and entry.effect.low is not None


def of_effects(study: Study, entries: Iterable[Entry], family: str) -> str:
    """How Δ, its interval and its verdict were made, and what is best; empty where there is nothing to say of it.

    Args:
        family: which comparisons the interval is simultaneous for, such as ``the 3 comparisons of this table``.
    """
    known = list(entries)
    effects = [entry.effect for entry in known if entry.effect is not None and entry.effect.low is not None]
    if not effects:
        adjusted = any(entry.is_best and entry.is_modelled for entry in known)
        return "Underlined: best mean, adjusted for the missing runs by the additive loss + seed model." * adjusted
    options = study.options
    confidence = confidence_text(options.confidence)
    bases = dict.fromkeys(effect.basis for effect in effects)
    several = [basis for basis in bases if basis.startswith("seeds")]
    baselines = {entry.loss for entry in known if entry.is_baseline}
    baseline = next(iter(baselines)) if len(baselines) == 1 else options.baseline
    modelled = any(entry.is_modelled for entry in known)
    said = [f"Δ: difference to {baseline}{'' if modelled else ', paired by seed'}, in percentage points"]
    if several:
        by = "seeds and images" if several[0] == "seeds and images" else "seeds"
        what = "interval and p" if any(map(_has_p, known)) else "interval"
        said.append(
            f"with its {confidence} {what}, simultaneous for {family} (Dunnett; loss x seed analysis of variance, "
            f"variance of {by})"
        )
    else:
        said.append(f"with its {confidence} interval from resampled images")
    text = f"{', '.join(said)}."
    text += f" {MODELLED}" if modelled else ""
    if several:
        text += (
            f" Equivalent: the interval lies within ±{options.smallest_effect:g} points; else better or worse: it"
            " excludes 0. Bold: better; underlined: best mean"
            f"{', adjusted for the missing runs by that model' if modelled else ''}."
        )
    return text
