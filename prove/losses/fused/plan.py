"""What a fused evaluation computes: each term reduced to one of four parts, as data that kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from prove.losses.pixels import Classes, check_length, check_listed


@dataclass(frozen=True)
class LogPart:
    """``sum(k m_i a_y (1 - q)^gamma * -log q) / D`` with q the softmax probability of the pixel's own class.

    Attributes:
        scale: k, a factor.
        class_weight: a, one per class, or None for 1.
        gamma: 0 is cross-entropy.
        smoothing: share of the target spread evenly over all classes, weighted by class as in PyTorch.
        weighted_mean: D is ``sum(m_i a_y)``, otherwise ``sum(m_i)``.
        weight_name: what a user calls the class weights.
        mining: ``(thresh, min_kept per image)``: only hard pixels have mass, above and below the line.
        edges: ``(edge_weight, width)``: each pixel counts ``1 + edge_weight * edge`` times above the line.
    """

    scale: float = 1.0
    class_weight: tuple[float, ...] | None = None
    gamma: float = 0.0
    smoothing: float = 0.0
    weighted_mean: bool = True
    mining: tuple[float, int] | None = None
    edges: tuple[float, int] | None = None
    weight_name: str = "class_weight"


@dataclass(frozen=True)
class RegionPart:
    """A mean over classes of a function of per-class sums.

    With ``FP = sum(m p)`` over pixels of other classes, ``FN = sum(m (1 - p))`` and ``I = sum(m p)`` over the class's
    own, and ``E = alpha FP + beta FN``: ``(E / (I + E + s)) ** power``. Squared: with
    ``E = sum(m (g - p)^2)``, ``E / (sum(m p^2) + sum(m g) + s)``.

    Attributes:
        smooth: s.
    """

    alpha: float
    beta: float
    smooth: float
    power: float = 1.0
    squared: bool = False
    classes: Classes = "present"


@dataclass(frozen=True)
class LovaszPart:
    """Lovász-Softmax over groups of pixels: images, or the whole batch.

    Attributes:
        method: ``exact`` sorts the errors, ``binned`` counts them in bins (in groups of up to `MOST_BINNED` pixels),
            ``auto`` is exact in groups of up to `AUTO_EXACT_PIXELS` pixels and otherwise binned, or exact where the
            bins can't certify `CERTIFIED` and `CERTIFIED_SLOPES`; on a GPU, where to look is to wait, it stays binned.
    """

    classes: Classes = "all"
    per_image: bool = True
    method: Literal["auto", "exact", "binned"] = "auto"

    def binned(self, pixels_per_image: int, images: int) -> bool:
        """Whether bins are used at first for a batch of this size."""
        group = pixels_per_image if self.per_image else pixels_per_image * images
        wanted = self.method == "binned" or (self.method == "auto" and group > AUTO_EXACT_PIXELS)
        return wanted and group <= MOST_BINNED


@dataclass(frozen=True)
class BoundaryPart:
    """Cross-entropy between Sobel edges of the probabilities and of the labels (`prove.losses.Boundary`)."""

    pos_weight: Literal["balanced"] | float = "balanced"


Part = LogPart | RegionPart | LovaszPart | BoundaryPart

AUTO_EXACT_PIXELS = 1 << 14
"""Pixels per group up to which ``method=auto`` sorts."""

MOST_BINNED = (1 << 23) - 1
"""Pixels per group that a bin can count; larger groups are sorted, whatever the method."""

CERTIFIED = 1e-3
"""Largest certified relative error of a binned value that ``method=auto`` accepts."""

CERTIFIED_SLOPES = 1e-2
"""The same for what all errors weigh, as far as it reaches the logits, in the Euclidean norm."""


@dataclass(frozen=True)
class Plan:
    """The parts of an objective, in its order.

    Attributes:
        key: the name under which the operator finds this plan again (`plan_of`).
    """

    parts: tuple[Part, ...]
    key: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", repr(self.parts))
        _PLANS[self.key] = self

    def check(self, num_classes: int) -> None:
        """Refuse parts that don't fit the logits.

        Raises:
            ProveError: class weights that are not one per class; a listed class that the logits don't have.
        """
        for part in self.parts:
            if isinstance(part, LogPart) and part.class_weight is not None:
                check_length(part.class_weight, part.weight_name, num_classes)
            elif isinstance(part, RegionPart | LovaszPart):
                check_listed(part.classes, num_classes)

    def of(self, kind: type[Part]) -> list[tuple[int, Part]]:
        """The parts of one kind with their positions."""
        return [(index, part) for index, part in enumerate(self.parts) if isinstance(part, kind)]


_PLANS: dict[str, Plan] = {}


def plan_of(key: str) -> Plan:
    """The plan with this key."""
    return _PLANS[key]


def chosen_classes(classes: Classes, present: Sequence[bool]) -> list[int]:
    """The classes that a mean runs over, as indices."""
    if classes == "all":
        return list(range(len(present)))
    if classes == "present":
        return [index for index, there in enumerate(present) if there]
    return [int(index) for index in classes]
