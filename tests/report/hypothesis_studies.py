"""A simulated study for hypotheses: effects as in `tests.report.studies`, and curves of known unsteadiness."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prove.report.hypothesis_finding import Finding
from prove.report.study import Block, Measure, Trained
from prove.spec.hypothesis import Hypothesis, read_hypotheses
from tests.report.studies import SimulatedStudy, simulate

FOCAL = "ce + 0.3*focal"
TWO = {"ce": 0.0, FOCAL: 0.0}


@dataclass
class HypothesisStudy(SimulatedStudy):
    """A simulated study with validation curves of known unsteadiness."""

    jumps: Mapping[str, float] = field(default_factory=dict)
    """Objective -> SD of the noise of a validation; 0.5 unless it is here."""
    validations: int = 16
    draw: int = 0
    curves_read: list[str] = field(default_factory=list)
    digest: str | None = None
    """Of the validation images, the same in all blocks."""

    def images_digest(self, block: Block, measure: Measure) -> str | None:
        return self.digest

    def curve(self, run: Trained, split: str) -> tuple[tuple[int, Mapping[str, Any]], ...]:
        assert split == "val"
        self.curves_read.append(run.loss)
        rng = np.random.default_rng([self.draw, run.run_id, zlib.crc32(run.loss.encode())])
        steps = [run.max_iters * (i + 1) // self.validations for i in range(self.validations)]
        noise = self.jumps.get(run.loss, 0.5) * rng.normal(size=len(steps))
        return tuple(
            (step, {"metrics": {"mIoU": 50 - 30 * math.exp(-step / 80) + float(e)}})
            for step, e in zip(steps, noise, strict=True)
        )


def study(effects: Mapping[str, float], *, more: Mapping[str, Any] | None = None, **asked: Any) -> HypothesisStudy:
    made = simulate(effects, **{"image_sd": None, **asked})
    fields = {each.name: getattr(made, each.name) for each in dataclasses.fields(SimulatedStudy)}
    return HypothesisStudy(**fields, **(more or {}))


def hypothesis(treatment: str = "focal", measure: str = "mIoU", direction: str = "raises", **rest: Any) -> Hypothesis:
    entry = {"name": "x", "treatment": treatment, "measure": measure, "direction": direction, **rest}
    return read_hypotheses([entry])[0]


def only(found: Sequence[Finding]) -> Finding:
    (finding,) = found
    return finding
