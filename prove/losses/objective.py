"""The weighted sum of loss terms that a training minimises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from prove.catalog.losses import LOSSES, SCHEMES, class_weight_scheme, resolve, short
from prove.errors import ProveError, unknown
from prove.losses.backends import Backend, checked, chosen_backend
from prove.losses.boundary import Boundary
from prove.losses.boundary_focal import BoundaryFocal
from prove.losses.cross_entropy import CrossEntropy
from prove.losses.dice import Dice
from prove.losses.distance import Distance
from prove.losses.evaluate import Fusion, evaluate, fusion_of
from prove.losses.focal import Focal
from prove.losses.hausdorff import Hausdorff
from prove.losses.lovasz import Lovasz
from prove.losses.term import Term
from prove.losses.tversky import FocalTversky, Jaccard, Tversky
from prove.losses.user_terms import build_own
from prove.spec.expr import LossExpr, LossTerm
from prove.spec.parse import parse

TERMS: Mapping[str, type[Term]] = {
    term.name: term
    for term in (
        CrossEntropy, Focal, Lovasz, Boundary, Dice, Jaccard, Tversky, FocalTversky, BoundaryFocal, Distance, Hausdorff
    )
}  # fmt: skip
"""The module of each per-pixel loss of the catalogue; its arguments are named as the parameters there."""


@dataclass(frozen=True, eq=False)
class ObjectiveOutput:
    """The objective on one batch.

    Attributes:
        total: ``sum(weights[label] * terms[label])``, the scalar to call ``backward()`` on. A term whose weight is 0
            now is not part of it.
        terms: each term's unweighted value by label, with its graph; ``detach()`` it to keep or log it.
        weights: each term's weight at this progress.
        certified: for each `Lovasz` that is not ``method=exact``, a bound of its value's absolute error; 0 where it was
            sorted after all.
    """

    total: Tensor
    terms: dict[str, Tensor]
    weights: dict[str, float]
    certified: dict[str, Tensor]

    def gradient_norms(self, logits: Tensor) -> dict[str, float]:
        """The Euclidean norm of the gradient of ``weight * term`` on the logits that the objective was given, by label.

        To be called before ``backward()``, which frees the graph. One backward pass over the logits for each term.
        """
        norms = {}
        for label, value in self.terms.items():
            (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
            norms[label] = self.weights[label] * float(gradient.double().norm())
        return norms


class Objective(nn.Module):
    """Evaluates a loss expression on logits and labels.

    >>> out = Objective("ce + 0.3*focal")(logits, labels)
    >>> out.total.backward()

    Args:
        expr: an expression of per-pixel losses.
        ignore_index: the label of pixels that are left out of every term.
        class_weight: the weights that a term with ``class_weight=auto`` (or another scheme) uses, one per class, as
            `class_weights` computes them; to be given exactly if a term asks for them.
        backend: ``fused`` (terms that have kernels go through the logits together), ``torch`` (each term by itself) or
            ``reference`` (slow, in float64); None for what the environment variable ``PROVE_LOSSES`` says, or fused.

    Raises:
        ProveError: a malformed or unknown expression; ``class_weight`` missing or not asked for; a term that only
            the model itself can compute.
    """

    def __init__(
        self,
        expr: str | LossExpr,
        ignore_index: int = 255,
        class_weight: Sequence[float] | None = None,
        backend: Backend | None = None,
    ) -> None:
        super().__init__()
        self.backend = chosen_backend() if backend is None else checked(backend)
        self.expr = resolve(parse(expr) if isinstance(expr, str) else expr)
        self.ignore_index = ignore_index
        if class_weight is not None and class_weight_scheme(self.expr) is None:
            raise ProveError(
                f"No term of {short(self.expr)!r} takes class weights from outside.",
                hint="Write ce(class_weight=auto) to use them.",
            )
        # as children, so that the model prints them and hooks reach them
        self.term_modules = nn.ModuleDict(
            {
                label: build_term(term, ignore_index, class_weight)
                for label, term in zip(self.expr.labels, self.expr.terms, strict=True)
            }
        )

    @property
    def modules_by_label(self) -> dict[str, Term]:
        """The module of each term, in the order of the expression."""
        return {label: cast(Term, module) for label, module in self.term_modules.items()}

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        progress: float = 0.0,
        pixel_weight: Tensor | None = None,
        *,
        align_corners: bool | None = None,
        distance_maps: Tensor | None = None,
    ) -> ObjectiveOutput:
        """Evaluate all terms on one batch; autocast is off inside.

        Args:
            logits: [N, C, h, w], C >= 2, any floating type.
            labels: [N, H, W], integers in [0, C) or the ignore index.
            progress: ``iteration / max_iters`` in [0, 1], for weights that follow a schedule.
            pixel_weight: [N, H, W] weights per pixel, finite and >= 0; every term takes it or refuses it by name.
            align_corners, distance_maps: as in `prove.losses.evaluate.evaluate`: given ``align_corners``, logits of a
                lower resolution are upsampled to the labels on the way.

        Raises:
            ProveError: as `evaluate`; a progress outside [0, 1].
        """
        if not 0.0 <= progress <= 1.0:
            raise ProveError(f"Progress is iteration / max_iters in [0, 1], not {progress}.")
        weights = {
            label: term.weight.at(progress) for label, term in zip(self.expr.labels, self.expr.terms, strict=True)
        }
        found = evaluate(
            self.modules_by_label, logits, labels, self.ignore_index, weight=pixel_weight,
            align_corners=align_corners, distance_maps=distance_maps, backend=self.backend, fusion=self._fusion(),
        )  # fmt: skip
        # a term of weight 0 is left out, NaN and all; with none left the 0 still has a graph
        parts = [weight * found.values[label] for label, weight in weights.items() if weight > 0.0]
        total = torch.stack(parts).sum() if parts else nothing(logits)
        return ObjectiveOutput(total, found.values, weights, found.certified)

    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
    def _fusion(self) -> Fusion:
        return fusion_of(self.modules_by_label)

    def extra_repr(self) -> str:
        """The expression, for printing a model."""
        return repr(short(self.expr))


def build_term(term: LossTerm, ignore_index: int = 255, class_weight: Sequence[float] | None = None) -> Term:
    """The module of one term of an expression; its weight is not part of it.

    Args:
        class_weight: used where the term's ``class_weight`` names a scheme, otherwise not.

    Raises:
        ProveError: the term names a scheme and no weights are given; no module computes the term.
    """
    term = resolve(LossExpr((term,))).primary
    if (own := build_own(term, ignore_index)) is not None:
        return own
    if term.name not in TERMS:
        if LOSSES.get(term.name).kind == "criterion":
            raise ProveError(
                f"{term.name!r} is the model's own criterion; there is no module for it on logits and labels.",
                hint="In your own training loop it is prove.losses.SetCriterion, on queries; an objective has the "
                f"per-pixel terms: {', '.join(TERMS)}.",
            )
        raise unknown("loss module", term.name, TERMS)
    arguments: dict[str, Any] = dict(term.params)
    if "class_weight" in arguments:
        arguments.pop("beta", None)  # of the scheme; tversky has a beta of its own
    scheme = arguments.get("class_weight")
    if scheme in SCHEMES:
        if class_weight is None:
            raise ProveError(
                f"{term.body} computes class weights from the training set, and none were given.",
                hint="Pass class_weight=class_weights(pixel_counts, ...), or write the weights as a list.",
            )
        arguments["class_weight"] = tuple(float(weight) for weight in class_weight)
    return TERMS[term.name](ignore_index=ignore_index, **arguments)


def nothing(logits: Tensor) -> Tensor:
    """A zero whose graph ends in the logits, whatever they hold."""
    return logits.flatten()[:1].float().nan_to_num().sum() * 0.0
