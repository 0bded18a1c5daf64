"""Terms evaluated together: what has fused kernels in one operator, the rest one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from prove.catalog.losses import LOSSES
from prove.errors import ProveError
from prove.losses.backends import VARIABLE, Backend
from prove.losses.fused import op
from prove.losses.fused.parts import part_of
from prove.losses.fused.plan import LovaszPart, Plan
from prove.losses.pixels import Pixels, check_form
from prove.losses.term import Term
from prove.losses.user_terms import own_spec, scalar
from prove.spec.expr import LossTerm, Value


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Terms on one batch.

    Attributes:
        values: each term's unweighted value by label, a scalar with its graph.
        certified: for a value that need not be exact, a bound of its absolute error; 0 where it was exact after all.
        fused: labels of the terms that were evaluated together.
    """

    values: dict[str, Tensor]
    certified: dict[str, Tensor]
    fused: tuple[str, ...] = ()

    def method(self, label: str) -> str:
        """How a term was computed, in words: ``fused, sorted``."""
        if label not in self.fused:
            return "on its own"
        if label not in self.certified:
            return "fused"
        bound, value = float(self.certified[label]), float(self.values[label].detach())
        return f"fused, binned (relative error <= {bound / value:.1e})" if bound > 0 else "fused, sorted"


class Fusion(NamedTuple):
    """Terms that are evaluated in one operator.

    Attributes:
        labels: their labels, in the order of the plan.
        plan: its key.
        bounded: labels of those whose values may come with a bound of their error.
    """

    labels: tuple[str, ...]
    plan: str
    bounded: tuple[str, ...]


def evaluate(
    terms: Mapping[str, Term],
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    *,
    weight: Tensor | None = None,
    align_corners: bool | None = None,
    distance_maps: Tensor | None = None,
    backend: Backend = "fused",
    fusion: Fusion | None = None,
) -> Evaluated:
    """Evaluate terms on one batch; autocast is off inside.

    Args:
        terms: by label.
        logits: [N, C, h, w], C >= 2, any floating type.
        labels: [N, H, W], integers in [0, C) or ``ignore_index``.
        weight: [N, H, W] weights per pixel, finite and >= 0, or None.
        align_corners: None for logits of the labels' size. Otherwise logits are upsampled to it as by
            `torch.nn.functional.interpolate` (bilinear), without full-size logits ever being stored, as far as terms
            have fused kernels.
        distance_maps: [N, C, H, W], for `Distance`, when they are known already.
        fusion: `fusion_of` these terms, when it is known already.

    Raises:
        ProveError: a shape, type, device, label or weight that does not fit, or a ``weight`` that a term refuses.
    """
    check_form(logits, labels, weight, resized=align_corners is not None)
    if weight is not None:
        for term in terms.values():
            term.check_weight()
    with torch.autocast(logits.device.type, enabled=False):
        if backend == "reference":
            return _by_reference(terms, _full(logits, labels, align_corners), labels, ignore_index, weight)
        values: dict[str, Tensor] = {}
        certified: dict[str, Tensor] = {}
        fused: tuple[str, ...] = ()
        if backend == "fused" and op.available(logits.device):
            together = fusion_of(terms) if fusion is None else fusion
            fused = together.labels
            if fused:
                found, bounds = op.evaluate(together.plan, logits, labels, weight, ignore_index, bool(align_corners))
                values = dict(zip(together.labels, found.unbind(), strict=True))
                by_label = dict(zip(together.labels, bounds.unbind(), strict=True))
                certified = {label: by_label[label] for label in together.bounded}
        if len(values) < len(terms):
            pixels = Pixels.of(_full(logits, labels, align_corners), labels, ignore_index, weight, distance_maps)
            alone = {label: term for label, term in terms.items() if label not in values}
            values |= {label: scalar(term.value(pixels), f"{term.name}: value") for label, term in alone.items()}
    return Evaluated({label: values[label] for label in terms}, certified, fused)


def fusion_of(terms: Mapping[str, Term]) -> Fusion:
    """The terms that have fused kernels, as the operator takes them."""
    parts = {label: part_of(term) for label, term in terms.items()}
    fused = {label: part for label, part in parts.items() if part is not None}
    bounded = (label for label, part in fused.items() if isinstance(part, LovaszPart) and part.method != "exact")
    return Fusion(tuple(fused), Plan(tuple(fused.values())).key, tuple(bounded))


def _full(logits: Tensor, labels: Tensor, align_corners: bool | None) -> Tensor:
    if align_corners is None or logits.shape[2:] == labels.shape[1:]:
        return logits
    if logits.dtype != torch.float64:
        logits = logits.float()
    return F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=align_corners)


def _by_reference(
    terms: Mapping[str, Term], logits: Tensor, labels: Tensor, ignore_index: int, weight: Tensor | None
) -> Evaluated:
    from prove.losses.reference import reference

    if weight is not None:
        raise ProveError("The references take no weight per pixel.", hint=f"Unset {VARIABLE}, or leave the weight out.")
    Pixels.of(logits, labels, ignore_index)  # its checks
    dtype = logits.dtype if logits.dtype == torch.float64 else torch.float32
    return Evaluated(
        {label: reference(spec_of(term), logits, labels, ignore_index).to(dtype) for label, term in terms.items()}, {}
    )


def spec_of(term: Term) -> LossTerm:
    """A term as it stands in a resolved expression."""
    if (own := own_spec(term)) is not None:
        return own
    params: dict[str, Value] = {
        param.name: getattr(term, param.name) for param in LOSSES.get(term.name).params if hasattr(term, param.name)
    }
    return LossTerm(term.name).with_params(params)
