"""What can be chosen about the set criterion, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from prove.errors import ProveError, unknown

Classification = Literal["ce", "focal"]
PointChoice = Literal["uncertain", "random", "full"]


@dataclass(frozen=True)
class CriterionSettings:
    """The set criterion of Mask2Former (Cheng 2022, arXiv:2112.01527) and its parts; the defaults are those published.

    Attributes:
        cls: the classification part: ``ce``, softmax cross-entropy over the classes and "no object", or ``focal``, the
            same times ``(1 - p)^2`` (Lin 2017, softmax form).
        points: where the mask and dice parts are computed: at ``uncertain`` points (PointRend, Kirillov 2020,
            arXiv:1912.08193), at uniformly ``random`` ones, or at ``full``, every pixel of the labels. Matching is at
            uniformly random points in each case.
        deep_supervision: whether the predictions before every decoder layer are trained beside the final ones.
        deep_weight: the weight of each of these; that of the final ones is 1.
        no_object: the weight, in the classification part, of queries that no class was matched to.
        class_weight, mask_weight, dice_weight: weights of the three parts, in the loss and in the matching alike.
        num_points: points per image for matching, and per mask for the loss.
        oversample_ratio: candidates per point among which the uncertain ones are chosen, at least 1.
        importance_sample_ratio: share of the points that are the most uncertain; the others are random.

    Raises:
        ProveError: a value that is not among the choices or outside its range.
    """

    cls: Classification = "ce"
    points: PointChoice = "uncertain"
    deep_supervision: bool = True
    deep_weight: float = 1.0
    no_object: float = 0.1
    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    num_points: int = 12544
    oversample_ratio: float = 3.0
    importance_sample_ratio: float = 0.75

    def __post_init__(self) -> None:
        for name, choices in (("cls", get_args(Classification)), ("points", get_args(PointChoice))):
            if getattr(self, name) not in choices:
                raise unknown(f"value of {name}", str(getattr(self, name)), choices)
        if not isinstance(self.deep_supervision, bool):
            raise ProveError(f"deep_supervision is true or false, not {self.deep_supervision!r}.")
        for name in ("deep_weight", "no_object", "class_weight", "mask_weight", "dice_weight"):
            _number(name, getattr(self, name), low=0.0)
        _number("oversample_ratio", self.oversample_ratio, low=1.0)
        _number("importance_sample_ratio", self.importance_sample_ratio, low=0.0, high=1.0)
        if not isinstance(self.num_points, int) or isinstance(self.num_points, bool) or self.num_points < 1:
            raise ProveError(f"num_points is a whole number of at least 1, not {self.num_points!r}.")

    @property
    def num_candidates(self) -> int:
        """Points per mask among which the uncertain ones are chosen."""
        return int(self.num_points * self.oversample_ratio) if self.points == "uncertain" else 0

    @property
    def num_uncertain(self) -> int:
        """Points per mask that are chosen as the most uncertain ones."""
        return int(self.importance_sample_ratio * self.num_points) if self.points == "uncertain" else 0

    @property
    def num_random(self) -> int:
        """Points per mask that are random whatever the model says there."""
        return 0 if self.points == "full" else self.num_points - self.num_uncertain

    def changed(self, values: Mapping[str, Any]) -> CriterionSettings:
        """These settings with other values for some fields.

        Raises:
            ProveError: a name that is not a setting; a bad value.
        """
        known = [field.name for field in fields(self)]
        for name in values:
            if name not in known:
                raise unknown("setting of the set criterion", name, known)
        return replace(self, **values)


def _number(name: str, value: object, *, low: float, high: float = math.inf) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high:
        return
    span = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
    raise ProveError(f"{name} is a finite number {span}, not {value!r}.")
