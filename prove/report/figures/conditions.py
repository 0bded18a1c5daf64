"""Heat map of the effects by condition, such as night or fog, with the number of validation images of each."""

from __future__ import annotations

from collections.abc import Mapping

from prove.report.figures.effects_map import Entries, Kind, maps
from prove.report.figures.picture import Made
from prove.report.study import Block, Measure, Study
from prove.report.views.domains import by_condition, count_condition


def make(study: Study, measure: Measure) -> Made:
    """The map of each block; conditions from the most to the fewest images."""

    def images(block: Block) -> Mapping[str, float]:
        names = study.names("condition", block)
        counts = {name: count_condition(study, block, Measure(measure.metric, "condition", name)) for name in names}
        return {name: float(count) for name, count in counts.items() if count is not None}

    def entries(block: Block) -> Entries:
        return by_condition(study, block, measure.metric, study.names("condition", block))

    kind = Kind("conditions", "condition", "condition", "conditions", "images")
    return maps(study, Measure(measure.metric), kind, images, entries)
