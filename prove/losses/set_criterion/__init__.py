"""The set criterion of mask-classification models such as Mask2Former, usable in any training loop.

Names are imported when they are first asked for: `settings` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prove.losses.set_criterion.criterion import CriterionOutput, SetCriterion
    from prove.losses.set_criterion.matching import Assignment
    from prove.losses.set_criterion.points import Points, draw_points
    from prove.losses.set_criterion.settings import CriterionSettings
    from prove.losses.set_criterion.targets import MaskTargets, semantic_to_mask_targets

_HOMES = {
    "Assignment": "matching",
    "CriterionOutput": "criterion",
    "CriterionSettings": "settings",
    "MaskTargets": "targets",
    "Points": "points",
    "SetCriterion": "criterion",
    "draw_points": "points",
    "semantic_to_mask_targets": "targets",
}

__all__ = [
    "Assignment",
    "CriterionOutput",
    "CriterionSettings",
    "MaskTargets",
    "Points",
    "SetCriterion",
    "draw_points",
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
