"""Mask2Former's head with the set criterion of an objective, and per-pixel terms beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from mmengine.config import ConfigDict
from mmseg.models.decode_heads import Mask2FormerHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from prove.build.objective import CRITERION, CRITERION_PARTS
from prove.catalog.losses import resolve
from prove.errors import ProveError
from prove.losses.set_criterion import CriterionSettings, SetCriterion
from prove.spec import LossTerm, parse
from prove.training.fused_heads import weighted
from prove.training.guard import NotFinite
from prove.training.mixing import over_labels
from prove.training.objective import ProveTerm, semantic_logits


@MODELS.register_module()
class SemanticMask2FormerHead(Mask2FormerHead):  # type: ignore[misc]
    """`Mask2FormerHead` that minimises the set criterion of an objective, and per-pixel terms on its semantic map.

    MMSegmentation's own head swallows ``loss_decode``: such a term would never be trained. What it calls ``loss_cls``,
    ``loss_mask``, ``loss_dice`` and ``train_cfg`` is said by the term here, and refused beside it.

    Args:
        criterion: the term with its weight or schedule, as text: ``m2f(cls=focal)``.
        semantic_terms: configs of `ProveTerm`.
        options: of `Mask2FormerHead`.
    """

    def __init__(
        self, criterion: str = CRITERION, semantic_terms: Sequence[Mapping[str, Any]] = (), **options: Any
    ) -> None:
        said = [name for name in (*CRITERION_PARTS, "train_cfg", "loss_decode") if name in options]
        if said:
            raise ValueError(f"{', '.join(said)} would not be read: the criterion {criterion!r} says what is minimised")
        # MMDetection's head can't be built without losses of its own.
        unused = ConfigDict(type="mmdet.CrossEntropyLoss", class_weight=None)
        super().__init__(**options, **dict.fromkeys(CRITERION_PARTS, unused))
        for part in CRITERION_PARTS:
            delattr(self, part)
        self.spec = resolve(parse(criterion)).primary
        self.set_criterion = SetCriterion(self.num_classes, settings_of(self.spec), ignore_index=self.ignore_index)
        self.semantic_terms = nn.ModuleList([MODELS.build(dict(term)) for term in semantic_terms])
        self.loss_weight = self.spec.weight.at(0.0)

    def set_progress(self, progress: float) -> None:
        """Move the criterion's weight, if it has a schedule, to where it is at a progress in [0, 1]."""
        if not self.spec.weight.is_constant:
            self.loss_weight = self.spec.weight.at(progress)

    def loss(self, x: tuple[Tensor, ...], batch_data_samples: Sequence[Any], train_cfg: Any) -> dict[str, Tensor]:
        """The criterion's losses by layer and part, and one entry per semantic term."""
        cls_scores, mask_preds = self(x, batch_data_samples)
        return over_labels(batch_data_samples, lambda labels, _: self.losses_for(cls_scores, mask_preds, labels))

    def losses_for(
        self, cls_scores: Sequence[Tensor], mask_preds: Sequence[Tensor], labels: Tensor
    ) -> dict[str, Tensor]:
        """All losses of these outputs against these labels, each times its weight.

        Args:
            cls_scores: [N, Q, C + 1] of each decoder layer, the last one last.
            mask_preds: [N, Q, h, w] of each layer.
            labels: [N, H, W], int64.
        """
        losses = self.criterion(cls_scores, mask_preds, labels)
        losses.update(self.semantic_losses(cls_scores[-1], mask_preds[-1], labels))
        return losses

    def criterion(
        self, cls_scores: Sequence[Tensor], mask_preds: Sequence[Tensor], labels: Tensor
    ) -> dict[str, Tensor]:
        """The weighted set criterion by layer and part.

        Raises:
            NotFinite: the outputs hold NaN or infinities: nothing can be matched.
        """
        if self.ignore_index != self.set_criterion.ignore_index:
            raise ValueError(
                f"the head ignores label {self.ignore_index}, its criterion {self.set_criterion.ignore_index}"
            )
        try:
            terms = self.set_criterion(cls_scores, mask_preds, labels).terms
        except ProveError as error:
            if all(bool(each.isfinite().all()) for each in (*cls_scores, *mask_preds)):
                raise
            raise NotFinite(error.message, hint=error.hint) from error
        return {name: value * self.loss_weight for name, value in terms.items()}

    def semantic_losses(self, cls_score: Tensor, mask_pred: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The per-pixel terms on the semantic map; nothing is computed when there are none."""
        if not self.semantic_terms:
            return {}
        logits = semantic_logits(cls_score, mask_pred, (labels.shape[-2], labels.shape[-1]))
        terms = cast(list[ProveTerm], list(self.semantic_terms))
        return weighted(terms, logits, labels, self.ignore_index)


def settings_of(term: LossTerm) -> CriterionSettings:
    """The settings that a resolved ``m2f`` term stands for; what has no meaning in it keeps its default."""
    settings: dict[str, Any] = dict(term.params)
    return CriterionSettings(**settings)
