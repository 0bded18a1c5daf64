"""Heat map of the effects by class, with how much of the validation images each class covers."""

from __future__ import annotations

from collections.abc import Mapping

from prove.report.figures.effects_map import Entries, Kind, maps
from prove.report.figures.picture import Made
from prove.report.study import Block, Measure, Study
from prove.report.views.entries import entries

OF_A_CLASS = {"mIoU": "IoU", "fwIoU": "IoU", "mAcc": "Acc", "aAcc": "Acc", "bIoU": "bIoU", "bF1": "bF1"}
"""Overall metric -> the metric of one class that it is made of."""


def make(study: Study, measure: Measure) -> Made:
    """The map of each block; classes from the most to the least labelled pixels."""

    def percent(block: Block) -> Mapping[str, float]:
        support = study.support(block)
        total = sum(support.values())
        return {name: 100 * pixels / total for name, pixels in support.items()} if total else {}

    metric = measure.metric if measure.scope == "class" else OF_A_CLASS.get(measure.metric, "IoU")

    def by_class(block: Block) -> Entries:
        return {name: entries(study, block, Measure(metric, "class", name)) for name in study.names("class", block)}

    return maps(study, Measure(metric), Kind("classes", "class", "class", "classes", "pixels"), percent, by_class)
