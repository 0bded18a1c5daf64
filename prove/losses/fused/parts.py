"""Which terms have fused kernels, and what they are to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prove.losses.boundary import Boundary
from prove.losses.boundary_focal import BoundaryFocal
from prove.losses.cross_entropy import CrossEntropy
from prove.losses.dice import Dice
from prove.losses.focal import Focal
from prove.losses.fused.plan import BoundaryPart, LogPart, LovaszPart, Part, RegionPart
from prove.losses.lovasz import Lovasz
from prove.losses.term import Term
from prove.losses.tversky import FocalTversky, Jaccard, Tversky


def part_of(term: Term) -> Part | None:
    """The part that computes a term; None for a term that is evaluated on its own in torch."""
    # exactly the type, unchanged: a subclass may compute something else
    recipe = None if "value" in vars(term) else _RECIPES.get(type(term))
    return recipe(term) if recipe else None


def _cross_entropy(term: CrossEntropy) -> Part:
    mining = (term.thresh, term.min_kept) if term.ohem else None
    return LogPart(class_weight=term.class_weight, smoothing=term.label_smoothing, mining=mining)


def _focal(term: Focal) -> Part | None:
    if term.form != "softmax":
        return None
    mining = (term.thresh, term.min_kept) if term.ohem else None
    return _faded(term.alpha, gamma=term.gamma, mining=mining)


def _boundary_focal(term: BoundaryFocal) -> Part:
    return _faded(term.alpha, gamma=term.gamma, edges=(term.edge_weight, term.width))


def _faded(alpha: float | Sequence[float], **options: Any) -> LogPart:
    if isinstance(alpha, int | float):
        return LogPart(scale=float(alpha), weighted_mean=False, **options)
    return LogPart(class_weight=tuple(alpha), weighted_mean=False, weight_name="alpha", **options)


def _dice(term: Dice) -> Part:
    # not squared, it is Tversky's ratio with both halves of every count
    smooth = term.smooth if term.squared else term.smooth / 2
    return RegionPart(0.5, 0.5, smooth, squared=term.squared, classes=term.classes)


def _jaccard(term: Jaccard) -> Part:
    return RegionPart(1.0, 1.0, term.smooth, classes=term.classes)


def _tversky(term: Tversky) -> Part:
    return RegionPart(term.alpha, term.beta, term.smooth, classes=term.classes)


def _focal_tversky(term: FocalTversky) -> Part:
    return RegionPart(term.alpha, term.beta, term.smooth, power=1.0 / term.gamma, classes=term.classes)


def _lovasz(term: Lovasz) -> Part:
    return LovaszPart(term.classes, term.per_image, term.method)


def _boundary(term: Boundary) -> Part:
    return BoundaryPart(term.pos_weight)


_RECIPES: dict[type[Term], Callable[[Any], Part | None]] = {
    CrossEntropy: _cross_entropy,
    Focal: _focal,
    BoundaryFocal: _boundary_focal,
    Dice: _dice,
    Jaccard: _jaccard,
    Tversky: _tversky,
    FocalTversky: _focal_tversky,
    Lovasz: _lovasz,
    Boundary: _boundary,
}
