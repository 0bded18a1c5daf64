"""The losses as torch modules, and the `Objective` that sums them; usable in any training loop.

Names are imported when they are first asked for: the modules that need no torch, such as `prove.losses.weights` and
`prove.losses.distance_maps`, load without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prove.losses.boundary import Boundary
    from prove.losses.boundary_focal import BoundaryFocal
    from prove.losses.cross_entropy import CrossEntropy
    from prove.losses.dice import Dice
    from prove.losses.distance import Distance
    from prove.losses.focal import Focal
    from prove.losses.hausdorff import Hausdorff
    from prove.losses.lovasz import Lovasz
    from prove.losses.objective import Objective, ObjectiveOutput, build_term
    from prove.losses.pixels import Pixels
    from prove.losses.set_criterion import CriterionSettings, SetCriterion, semantic_to_mask_targets
    from prove.losses.term import Term
    from prove.losses.tversky import FocalTversky, Jaccard, Tversky
    from prove.losses.user_terms import load_terms
    from prove.losses.weights import class_weights

_HOMES = {
    "Boundary": "boundary",
    "BoundaryFocal": "boundary_focal",
    "CriterionSettings": "set_criterion",
    "CrossEntropy": "cross_entropy",
    "Dice": "dice",
    "Distance": "distance",
    "Focal": "focal",
    "FocalTversky": "tversky",
    "Hausdorff": "hausdorff",
    "Jaccard": "tversky",
    "Lovasz": "lovasz",
    "Objective": "objective",
    "ObjectiveOutput": "objective",
    "Pixels": "pixels",
    "SetCriterion": "set_criterion",
    "Term": "term",
    "Tversky": "tversky",
    "build_term": "objective",
    "class_weights": "weights",
    "load_terms": "user_terms",
    "semantic_to_mask_targets": "set_criterion",
}

__all__ = [
    "Boundary",
    "BoundaryFocal",
    "CriterionSettings",
    "CrossEntropy",
    "Dice",
    "Distance",
    "Focal",
    "FocalTversky",
    "Hausdorff",
    "Jaccard",
    "Lovasz",
    "Objective",
    "ObjectiveOutput",
    "Pixels",
    "SetCriterion",
    "Term",
    "Tversky",
    "build_term",
    "class_weights",
    "load_terms",
    "semantic_to_mask_targets",
]

if not TYPE_CHECKING:  # a type checker would take any name for granted

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
