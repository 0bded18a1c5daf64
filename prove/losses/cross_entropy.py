"""Cross-entropy with class weights, label smoothing and online hard example mining."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prove.losses.ohem import hard_mass
from prove.losses.pixels import Pixels, ratio
from prove.losses.term import Term


class CrossEntropy(Term):
    """``sum(m * w_y * -log p_y) / sum(m * w_y)`` over pixels of mass m (1, or the weight per pixel), in [0, inf).

    With label smoothing e, ``(1 - e)`` times that plus ``e / C * sum(m * sum_c w_c * -log p_c) / sum(m * w_y)``: both
    as `torch.nn.functional.cross_entropy`. With ``ohem`` only hard pixels have mass (`hard_mass`), above and below
    the line.

    Args:
        class_weight: one number >= 0 per class, or None for 1 everywhere.
        label_smoothing: e, in [0, 1).
        ohem: train on hard pixels only.
        thresh: probability in (0, 1] below which a pixel is hard.
        min_kept: pixels kept at least, times the images of the batch.
    """

    name = "ce"

    def __init__(
        self,
        class_weight: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        ohem: bool = False,
        thresh: float = 0.7,
        min_kept: int = 100_000,
        ignore_index: int = 255,
    ) -> None:
        super().__init__(ignore_index)
        self.class_weight = None if class_weight is None else tuple(class_weight)
        self.label_smoothing = label_smoothing
        self.ohem = ohem
        self.thresh = thresh
        self.min_kept = min_kept

    def value(self, pixels: Pixels) -> Tensor:
        """The unweighted value, a scalar."""
        mass = hard_mass(pixels, self.thresh, self.min_kept) if self.ohem else pixels.mass
        log_probs = pixels.log_probs
        nll = -pixels.of_label(log_probs)
        if self.class_weight is None:
            divisor = mass.sum()
            smooth = -log_probs.sum(dim=1) if self.label_smoothing else None
        else:
            weight = pixels.per_class(self.class_weight, "class_weight")
            nll = nll * weight[pixels.labels]
            divisor = (mass * weight[pixels.labels]).sum()
            smooth = -(log_probs * weight.view(1, -1, 1, 1)).sum(dim=1) if self.label_smoothing else None
        if smooth is not None:
            nll = torch.lerp(nll, smooth / pixels.num_classes, self.label_smoothing)
        return ratio((mass * nll).sum(), divisor)

    def extra_repr(self) -> str:
        """The parameters, for printing a model."""
        mining = f", ohem=True, thresh={self.thresh}, min_kept={self.min_kept}" if self.ohem else ""
        return f"class_weight={self.class_weight}, label_smoothing={self.label_smoothing}{mining}"
