"""Mask2Former's head with per-pixel terms beside its set criterion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from mmseg.models.decode_heads import Mask2FormerHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from prove.spec import parse
from prove.training.fused_heads import weighted
from prove.training.objective import ProveTerm, semantic_logits


@MODELS.register_module()
class SemanticMask2FormerHead(Mask2FormerHead):  # type: ignore[misc]
    """`Mask2FormerHead` that also minimises per-pixel terms on the semantic map of its last layer.

    MMSegmentation's own head swallows ``loss_decode``: the term would never be trained.

    Args:
        semantic_terms: configs of `ProveTerm`.
        criterion_weight: weight or schedule of the whole set criterion, as text.
    """

    def __init__(
        self, semantic_terms: Sequence[Mapping[str, Any]] = (), criterion_weight: str = "1", **options: Any
    ) -> None:
        super().__init__(**options)
        self.semantic_terms = nn.ModuleList([MODELS.build(dict(term)) for term in semantic_terms])
        self.criterion_schedule = parse(f"{criterion_weight}*m2f").primary.weight
        self.loss_weight = self.criterion_schedule.at(0.0)

    def set_progress(self, progress: float) -> None:
        """Move the criterion's weight, if it has a schedule, to where it is at a progress in [0, 1]."""
        if not self.criterion_schedule.is_constant:
            self.loss_weight = self.criterion_schedule.at(progress)

    def loss(self, x: tuple[Tensor, ...], batch_data_samples: Sequence[Any], train_cfg: Any) -> dict[str, Tensor]:
        """The criterion's losses by layer and part, and one entry per semantic term."""
        instances, metas = self._seg_data_to_instance_data(batch_data_samples)
        all_cls_scores, all_mask_preds = self(x, batch_data_samples)
        losses = self.criterion(all_cls_scores, all_mask_preds, instances, metas)
        labels = torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in batch_data_samples])
        losses.update(self.semantic_losses(all_cls_scores[-1], all_mask_preds[-1], labels))
        return losses

    def criterion(
        self, cls_scores: Sequence[Tensor], mask_preds: Sequence[Tensor], instances: Sequence[Any], metas: Sequence[Any]
    ) -> dict[str, Tensor]:
        """The weighted set criterion over all layers, in float32: half precision overflows in the matching costs."""
        with torch.autocast(cls_scores[0].device.type, enabled=False):
            losses = self.loss_by_feat(
                [scores.float() for scores in cls_scores], [masks.float() for masks in mask_preds], instances, metas
            )
        return {name: value * self.loss_weight for name, value in losses.items()}

    def semantic_losses(self, cls_score: Tensor, mask_pred: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The per-pixel terms on the semantic map; nothing is computed when there are none."""
        if not self.semantic_terms:
            return {}
        logits = semantic_logits(cls_score, mask_pred, (labels.shape[-2], labels.shape[-1]))
        terms = cast(list[ProveTerm], list(self.semantic_terms))
        return weighted(terms, logits, labels, self.ignore_index)
