"""PROVE's counts as an MMEngine metric, and the predictions that are kept for pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS

from prove.metrics import count_image, stack_counts, summarize_arrays
from prove.metrics.calibration import top_label
from prove.training.predictions import Picture


@METRICS.register_module()
class ImageCountsMetric(BaseMetric):  # type: ignore[misc]
    """Counts per image; after a validation, `arrays` holds them, and `pictures` the predictions for some images.

    Args:
        classes: names of the classes.
        normalise: the model's outputs are non-negative scores whose share is the probability (mask classification),
            not logits.
    """

    default_prefix = ""

    def __init__(self, classes: Sequence[str], normalise: bool = False) -> None:
        super().__init__(collect_device="cpu")
        self.classes = tuple(classes)
        self.normalise = normalise
        self.arrays: dict[str, Any] = {}
        self.pictured: frozenset[str] = frozenset()
        """Ids of the images whose predictions are kept."""
        self.pictures: dict[str, Picture] = {}
        """Those of the latest validation, by id."""

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        for sample in data_samples:
            scores = sample["seg_logits"]["data"].float()
            label = sample["gt_sem_seg"]["data"].squeeze(0).to(scores.device)
            if self.normalise:
                scores = scores.clamp_min(0)
                prob = scores / scores.sum(dim=0, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
            else:
                prob = scores.softmax(dim=0)
            self.results.append((sample["sample_id"], sample["condition"], count_image(prob, label)))
            if sample["sample_id"] in self.pictured:
                self.pictures[sample["sample_id"]] = Picture(
                    id=sample["sample_id"],
                    condition=sample["condition"],
                    image=Path(sample["img_path"]),
                    predicted=top_label(prob)[1].to(torch.uint8).cpu().numpy(),
                    truth=label.to(torch.uint8).cpu().numpy(),
                )

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        ids, conditions, counts = zip(*results, strict=True)
        self.arrays = {**stack_counts(counts, ids, conditions), "classes": np.array(self.classes)}
        return dict(summarize_arrays(self.arrays).metrics)
