"""Early stopping that really stops, and whose memory survives a restart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from prove.spec import EarlyStop


class NotFinite(Exception):
    """The metric that is watched is not a finite number."""


@dataclass
class BestSoFar:
    """The best validation, and for how many validations nothing better has come.

    Attributes:
        value: best value of the metric, in percent; None before the first validation.
        iteration: where it was reached.
        reference: the value that a rise is measured from: it moves only when the rise is at least ``min_delta``.
        waited: validations since then.
        stopped: whether patience has run out.
    """

    value: float | None = None
    iteration: int = 0
    reference: float | None = None
    waited: int = 0
    stopped: bool = False

    def update(self, metric: str, value: float | None, iteration: int, rule: EarlyStop | None) -> bool:
        """Take in one validation; returns whether it is the best so far.

        Raises:
            NotFinite: there is no finite value: a comparison with it would never stop, or never improve.
        """
        if value is None or not math.isfinite(value):
            raise NotFinite(
                f"{metric} is undefined at iteration {iteration}: the validation images have no labelled "
                f"{'boundary' if metric in ('bIoU', 'bF1') else 'pixel'}"
            )
        if rule is not None:
            if self.reference is None or value >= self.reference + rule.min_delta:
                self.reference, self.waited = value, 0
            else:
                self.waited += 1
                self.stopped = self.waited >= rule.patience
        if self.value is None or value > self.value:
            self.value, self.iteration = value, iteration
            return True
        return False

    def state(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> BestSoFar:
        return cls(**state)
