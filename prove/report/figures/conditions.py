"""Heat map of the effects by condition, such as night or fog, with the number of validation images of each."""

from __future__ import annotations

from collections.abc import Mapping

from prove.report.figures.effects_map import Kind, maps
from prove.report.figures.picture import Made
from prove.report.study import Block, Measure, Study


def make(study: Study, measure: Measure) -> Made:
    """The map of each block; conditions from the most to the fewest images."""

    def images(block: Block) -> Mapping[str, float]:
        return _images(study, block)

    kind = Kind("conditions", "condition", "condition", "conditions", "images")
    return maps(study, Measure(measure.metric), kind, images)


def _images(study: Study, block: Block) -> dict[str, float]:
    """Condition -> validation images, as the last validation of the block's first run says."""
    for run in list(block.runs.values())[:1]:
        for _, payload in reversed(study.curve(run, "val")):
            counts = {name: each.get("images") for name, each in (payload.get("conditions") or {}).items()}
            if counts and all(count is not None for count in counts.values()):
                return {name: float(count) for name, count in counts.items()}
    return {}
