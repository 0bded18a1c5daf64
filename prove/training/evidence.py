"""What the wiring proof saw: the record that lands in ``evidence.json``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PartEvidence:
    """One part of a set criterion, over all decoder layers.

    Attributes:
        part: ``loss_cls``, ``loss_mask`` or ``loss_dice``.
        layers: what it adds to the loss in each layer that is trained, the last one last.
        contribution: the sum of these.
        loss_share: its share of the criterion's loss.
        gradient_norm: L2 norm of its weighted gradient on the outputs of all layers.
        gradient_share: its share of the sum of the parts' norms.
    """

    part: str
    layers: tuple[float, ...]
    contribution: float
    loss_share: float
    gradient_norm: float
    gradient_share: float


@dataclass(frozen=True)
class TermEvidence:
    """One term in one head, seen on one real batch.

    Attributes:
        term: label of the term, unique in the objective.
        text: the term with the weight it has in this head.
        progress: progress of training at which it was looked at; a delayed term is seen where its weight is largest.
        weight: its weight there.
        value: unweighted value, as the head computed it.
        reference_value: the same from PROVE's plain reference on the same logits (and, for a set criterion, points).
        second_implementation: whether that reference is written a second time; False for a term of the user's own that
            comes without one, which is compared with itself in float64.
        method: how it is computed: fused with others or on its own, and for Lovász whether errors are sorted or binned,
            with the certified error; empty where it was not looked at, as for a set criterion.
        contribution: what it adds to the total loss.
        loss_share: its share of the total loss, over all heads.
        gradient_norm: L2 norm of its weighted gradient on the head's logits.
        gradient_share: its share of the sum of these norms in this head.
        cosine_to_primary: cosine between its gradient and the primary term's; None for the primary term.
        doubling: by what its contribution grows when its weight is doubled; 2 when the weight is wired.
        valid_gradient: largest absolute gradient on a valid pixel.
        ignored_gradient: largest absolute gradient on an ignored pixel; exactly 0 when `ignore_index` is wired. None
            for a set criterion, which counts ignored pixels as background of every mask by design.
        parts: of a set criterion; empty for a per-pixel term.
    """

    term: str
    text: str
    progress: float
    weight: float
    value: float
    reference_value: float | None
    contribution: float
    loss_share: float
    gradient_norm: float
    gradient_share: float
    cosine_to_primary: float | None
    doubling: float
    valid_gradient: float
    ignored_gradient: float | None
    second_implementation: bool = True
    method: str = ""
    parts: tuple[PartEvidence, ...] = ()


@dataclass(frozen=True)
class HeadEvidence:
    """All terms of one head; `replaced` names the loss of the config that the objective took the place of."""

    head: str
    replaced: str
    terms: tuple[TermEvidence, ...]


@dataclass(frozen=True)
class BatchEvidence:
    """The batch of the proof. `planted`: it had no ignored pixel, so a block was set to ignore."""

    images: int
    pixels: int
    ignored_pixels: int
    planted: bool


@dataclass(frozen=True)
class MixEvidence:
    """A batch whose images were mixed, as the strategy does it in training, seen at the start of training.

    Attributes:
        mix: ``CutMix`` or ``MixUp``.
        alpha: both parameters of the beta distribution that shares are drawn from.
        share: of each image and its label that is its own: a share of its pixels, or the weight of its loss.
        total: the loss that would be minimised on the mixed batch.
        formula: the same from the references on the pasted labels, or from both label maps with their weights.
    """

    mix: str
    alpha: float
    share: float
    total: float | None
    formula: float | None


@dataclass(frozen=True)
class Evidence:
    """The outcome of the wiring proof; it holds when there are no problems.

    `mix` is None where the strategy leaves batches as they are.
    """

    objective: str
    total: float | None
    formula: float | None
    heads: tuple[HeadEvidence, ...]
    batch: BatchEvidence
    problems: tuple[str, ...]
    class_weight: tuple[float, ...] | None = None
    mix: MixEvidence | None = None

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The document that is written as ``evidence.json``."""
        return {"ok": self.ok, **dataclasses.asdict(self)}
