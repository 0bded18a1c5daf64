"""What must be equal before two runs are compared, and what a reader must know where it is not.

One table, `FACTS`, says it all. A fact is taken from the run's job (what was asked for) or from its environment (what
it ran on). Objective and seed are no facts: they are what is compared and what pairs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prove.report.study import Trained

UNKNOWN = "unknown"
"""Value of a fact of which nothing is recorded; equal to itself: runs of which nothing is known are compared."""


@dataclass(frozen=True)
class Fact:
    """One thing that two runs have in common or not.

    Attributes:
        name: key in `Trained.facts`; its value is hashable: ``libraries`` are pairs of name and major version.
        what: how a sentence calls it: ``another learning rate``.
        forbids: where it differs, no effect is reported; otherwise the difference is told.
        show: how a value is written; None where the values would tell a reader nothing.
    """

    name: str
    what: str
    forbids: bool = True
    show: Callable[[Any], str] | None = str


def _short(value: Any) -> str:
    return str(value)[:8]


def _brief(value: Any) -> str:
    return str(value) if len(str(value)) <= 40 else f"{str(value)[:37]}..."


FACTS = (
    # what was asked for
    Fact("max_iters", "trained for another number of iterations"),
    Fact("lr", "another learning rate"),
    Fact("batch_size", "another batch size"),
    Fact("crop_size", "another crop"),
    Fact("early_stop", "another rule for stopping", show=_brief),
    Fact("eval_interval", "validated at another interval"),
    Fact("val_images", "validated on another number of images"),
    Fact("pretrained", "another start: pretrained or not"),
    Fact("domain_filter", "trained on images of other conditions"),
    Fact("real_gen_ratio", "another share of real images"),
    Fact("weights", "other pretrained weights of one's own", show=_short),
    Fact("settings", "other training settings", show=_brief),
    Fact("definition", "another definition of the dataset (splits, classes, ignored labels)", show=None),
    Fact("model", "another model of this name", show=_short),
    # what it ran on
    Fact("data_train", "other training data", show=_short),
    Fact("data_val", "other validation data", show=_short),
    Fact("metric_version", "metrics of another version"),
    Fact("weights_sha256", "other pretrained weights", show=_short),
    Fact("batch_size_per_device", "another batch size per device"),
    Fact("code", "trained by other code of PROVE", show=_short),
    Fact("libraries", "other major versions of libraries"),
    # what a reader should know
    Fact("iteration", "stopped at another iteration", forbids=False),
    Fact("versions", "other minor versions of libraries", forbids=False, show=None),
    Fact("device", "another device", forbids=False),
    Fact("amp", "another precision (amp)", forbids=False),
    Fact("deterministic", "another setting of determinism", forbids=False),
    Fact("resumed", "resumed from a checkpoint, or not", forbids=False),
)

FORBIDDING = tuple(fact for fact in FACTS if fact.forbids)

ASKED = ("max_iters", "lr", "batch_size", "crop_size", "early_stop", "eval_interval", "val_images", "pretrained",
         "domain_filter", "real_gen_ratio", "weights", "settings", "definition", "model", "amp_asked")  # fmt: skip
"""What the job asks for. Settings that the baseline was trained with make a block of their own. ``amp_asked`` is no
fact to compare by: what was in force is, and that is only told."""

TOLD = tuple(fact for fact in FACTS if not fact.forbids)


def differences(a: Mapping[str, Any], b: Mapping[str, Any], facts: Iterable[Fact] = FACTS) -> tuple[Fact, ...]:
    """The facts in which two runs differ."""
    return tuple(fact for fact in facts if a.get(fact.name, UNKNOWN) != b.get(fact.name, UNKNOWN))


def why_not_comparable(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Why no effect may be computed between two runs, said of the first; empty where one may.

    Args:
        a, b: facts of the runs, by the names of `FACTS`.
    """
    return "; ".join(_said(fact, a, b) for fact in differences(a, b, FORBIDDING))


def _said(fact: Fact, a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    one, other = a.get(fact.name, UNKNOWN), b.get(fact.name, UNKNOWN)
    if one == UNKNOWN or other == UNKNOWN:
        return f"{fact.what}? Nothing is recorded of {'it' if one == UNKNOWN else 'the others'}"
    if fact.name == "libraries":
        own, others = dict(one), dict(other)
        changed = [name for name in sorted({*own, *others}) if own.get(name) != others.get(name)]
        shown = ", ".join(f"{name} {own.get(name, 'absent')}, not {others.get(name, 'absent')}" for name in changed)
        return f"{fact.what} ({shown})"
    return fact.what if fact.show is None else f"{fact.what} ({fact.show(one)}, not {fact.show(other)})"


def signature(facts: Mapping[str, Any]) -> tuple[Any, ...]:
    """What runs that may be compared have in common: equal exactly where `why_not_comparable` is empty."""
    return tuple([facts.get(name, UNKNOWN) for name in _FORBIDDING_NAMES])


_FORBIDDING_NAMES = tuple(fact.name for fact in FORBIDDING)


def warnings(runs: Sequence[Trained]) -> tuple[str, ...]:
    """Differences among runs that are compared all the same, one sentence each; said where they go with the loss."""
    return tuple(said for fact in TOLD if (said := _warning(fact, runs)))


def _warning(fact: Fact, runs: Sequence[Trained]) -> str:
    values = [run.facts.get(fact.name, UNKNOWN) for run in runs]
    counts = Counter(values)
    if len(counts) < 2:
        return ""
    by_loss: dict[str, set[Any]] = defaultdict(set)
    for run, value in zip(runs, values, strict=True):
        by_loss[run.loss].add(value)
    usual = counts.most_common(1)[0][0]
    confined = sorted(loss for loss, found in by_loss.items() if usual not in found)
    odd = len(runs) - counts[usual]
    shown = ""
    if fact.show is not None:
        each = [f"{fact.show(value)} ({count})" for value, count in counts.most_common(4)]
        shown = f": {', '.join(each)}{', ...' if len(counts) > 4 else ''}"
    said = f"{_plural(odd)} of {len(runs)}: {fact.what}{shown}."
    if confined and len(confined) < len(by_loss):
        said += f" It goes with the loss: every run of {', '.join(confined)}."
    return said


def _plural(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
